"""Settings: what TOML and environment become, and what is said when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import make_url

from jobber.config import Settings, embedded, load, seconds
from jobber.config.settings import DEFAULT_DATA_DIR
from jobber.errors import ConfigError

DB = '[db.my_db]\nurl = "postgresql://user:secret@host:5432/shop"\n'


class Loading:
    """Writes a file, then loads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.toml"

    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> Settings:
        self.file.write_text(text)
        return load(self.file, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self(text, environ)
        assert str(self.file) in caught.value.message
        found: list[str] = caught.value.details["problems"]
        assert all(problem in caught.value.message for problem in found)
        return found


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


# -- defaults ---------------------------------------------------------------------------------------------------------


def test_one_database_is_all_that_must_be_configured(loading: Loading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(loading.file.parent)
    settings = loading(DB)
    data = loading.file.parent / DEFAULT_DATA_DIR
    assert settings.app.data_dir == data
    assert settings.broker.url == "filesystem://"
    assert not settings.broker.networked
    assert make_url(settings.state.url).database == str(data / "state.db")
    assert settings.state.embedded
    assert list(settings.results) == ["results"]
    assert make_url(settings.results["results"].url).database == str(data / "results")
    assert settings.results["results"].engine == "sqlite"
    assert settings.databases["my_db"].url == "postgresql+psycopg://user:secret@host:5432/shop"
    assert settings.databases["my_db"].engine == "postgresql"
    assert settings.warnings == ()


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    settings = load(
        None, {"JOBBER_DB__MY_DB__URL": "sqlite:////tmp/shop.db", "JOBBER_APP__DATA_DIR": str(tmp_path), "HOME": "/x"}
    )
    assert settings.databases["my_db"].engine == "sqlite"
    assert settings.app.data_dir == tmp_path


def test_embedded_settings_keep_everything_in_one_folder(tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%41@"
    settings = embedded(odd, {"shop": "sqlite:////tmp/shop.db"})
    assert make_url(settings.state.url).database == str(odd / "state.db")
    assert make_url(settings.results["results"].url).database == str(odd / "results")
    with pytest.raises(ConfigError, match=r"db\.shop\.url: is not a database URL"):
        embedded(tmp_path, {"shop": "shop.db"})


def test_every_key_reaches_the_settings(loading: Loading) -> None:
    settings = loading(
        """
[app]
data_dir = "/tmp/data"
default_queue = "main"
ttl = "2h"
history = "30d"
lease = "1m"
heartbeat = 2.5
sweep = "500ms"
max_rescues = 1
drain_timeout = 5
max_wait = "10s"
max_body = 2048
log_level = "DEBUG"
[job_queue.broker]
url = "rediss://:pw@redis:6380/2"
key_prefix = "x:"
[job_queue.state]
url = "postgres://u@h/state"
pool_size = 3
[results.one]
url = "postgresql://u@h/results"
results_table = "r_%s_x"
unlogged = true
grant_select_to = ["reader", "Other Role"]
pool_size = 4
connect_timeout = "1s"
[db.a-b.c]
url = "sqlite:////tmp/x.db"
[db."d.e"]
url = "postgresql+psycopg://u@h/d"
max_concurrent = 7
pool_size = 6
connect_timeout = 3
timeout = 0
server_side_cursors = false
""".replace("[db.a-b.c]", "[db.a-b_c]")
    )
    app = settings.app
    assert (str(app.data_dir), app.default_queue, app.ttl, app.history) == ("/tmp/data", "main", 7200, 2_592_000)
    assert (app.lease, app.heartbeat, app.sweep, app.max_rescues, app.drain_timeout) == (60, 2.5, 0.5, 1, 5.0)
    assert (app.max_wait, app.max_body, app.log_level) == (10, 2048, "debug")
    assert isinstance(app.ttl, int)
    assert (settings.broker.url, settings.broker.key_prefix) == ("rediss://:pw@redis:6380/2", "x:")
    assert settings.broker.networked
    assert (settings.state.url, settings.state.pool_size) == ("postgresql+psycopg://u@h/state", 3)
    assert not settings.state.embedded
    one = settings.results["one"]
    assert (one.results_table, one.unlogged, one.grant_select_to) == ("r_%s_x", True, ("reader", "Other Role"))
    assert (one.pool_size, one.connect_timeout) == (4, 1.0)
    assert list(settings.databases) == ["a-b_c", "d.e"]
    source = settings.databases["d.e"]
    assert (source.max_concurrent, source.pool_size, source.connect_timeout) == (7, 6, 3.0)
    assert (source.timeout, source.server_side_cursors) == (0, False)


# -- environment ------------------------------------------------------------------------------------------------------


def test_the_environment_stands_over_the_file(loading: Loading) -> None:
    settings = loading(
        DB + "max_concurrent = 1\n[app]\nttl = 5\n[results.Main-1]\nurl = 'postgresql://h/r'\n",
        {
            "JOBBER_APP__TTL": "24h",
            "JOBBER_APP__MAX_RESCUES": "7",
            "JOBBER_DB__MY_DB__MAX_CONCURRENT": " 9 ",
            "JOBBER_DB__MY_DB__SERVER_SIDE_CURSORS": "off",
            "JOBBER_DB__OTHER__URL": "sqlite:////tmp/o.db",
            "JOBBER_DB__WITH__PARTS__URL": "sqlite:////tmp/p.db",
            "JOBBER_RESULTS__MAIN_1__GRANT_SELECT_TO": "a, b",
            "JOBBER_JOB_QUEUE__BROKER__URL": "redis://r",
            "JOBBER_JOB_QUEUE__STATE__URL": "sqlite:////tmp/s.db",
            "JOBBER_CONFIG": "not a key",
            "jobber_app__ttl": "not ours",
        },
    )
    assert (settings.app.ttl, settings.app.max_rescues) == (86_400, 7)
    assert (settings.databases["my_db"].max_concurrent, settings.databases["my_db"].server_side_cursors) == (9, False)
    assert list(settings.databases) == ["my_db", "other", "with__parts"]
    assert settings.results["Main-1"].grant_select_to == ("a", "b")
    assert settings.broker.url == "redis://r"


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"JOBBER_APP__TLT": "1"}, "JOBBER_APP__TLT (app.tlt): there is no such key; did you mean ttl?"),
        ({"JOBBER_APP__TTL": "x"}, "JOBBER_APP__TTL (app.ttl): must be seconds or a duration"),
        ({"JOBBER_APP__MAX_BODY": "1.5"}, "JOBBER_APP__MAX_BODY (app.max_body): must be a whole number"),
        ({"JOBBER_APPS__TTL": "1"}, "JOBBER_APPS__TTL: there is no section apps; did you mean app?"),
        ({"JOBBER_APP__X__TTL": "1"}, "JOBBER_APP__X__TTL: there is no section app.x"),
        ({"JOBBER_DB__URL": "x"}, "JOBBER_DB__URL: names no database; write JOBBER_DB__NAME__KEY"),
        ({"JOBBER_DB__MY_DB__URL": ""}, "JOBBER_DB__MY_DB__URL (db.my_db.url): is empty"),
        ({"JOBBER_DB__NEW__POOL_SIZE": "5"}, "db.new: needs a url"),
        ({"JOBBER_DB__MY_DB__SERVER_SIDE_CURSORS": "x"}, "JOBBER_DB__MY_DB__SERVER_SIDE_CURSORS (db.my_db.server_side"),
        ({"JOBBER_DB__MY_DB__URL": "a", "JOBBER_DB__my_db__URL": "b"}, "JOBBER_DB__my_db__URL: db.my_db.url is set by"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(loading: Loading, environ: dict[str, str], problem: str) -> None:
    assert any(found.startswith(problem) for found in loading.problems(DB, environ))


def test_a_variable_that_could_mean_two_databases_is_refused(loading: Loading) -> None:
    text = "[db.a-b]\nurl = 'sqlite:////x'\n[db.a_b]\nurl = 'sqlite:////x'\n"
    assert loading.problems(text, {"JOBBER_DB__A_B__URL": "x"}) == ["JOBBER_DB__A_B__URL: could mean each of a-b, a_b"]


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_come_from_files(loading: Loading, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("\n postgresql://u:p@h/x \n")
    (tmp_path / "dsn").write_text("host=h user=u password='p w' dbname=x\n")
    (tmp_path / "password").write_text("a@b/c\n")
    settings = loading(
        f"""
[job_queue.broker]
url = "redis://user@h:1/2"
password = "file:{tmp_path}/password"
[job_queue.state]
url = "file://{tmp_path}/url"
[db.a]
url = "file:{tmp_path}/url"
[db.b]
dsn = "file:{tmp_path}/dsn"
[db.c]
url = "postgresql://u@h/x"
password = "file:{tmp_path}/password"
"""
    )
    assert settings.databases["a"].url == settings.state.url == "postgresql+psycopg://u:p@h/x"
    assert make_url(settings.databases["b"].url).password == "p w"
    assert make_url(settings.databases["c"].url).password == "a@b/c"
    assert settings.broker.url == "redis://user:a%40b%2Fc@h:1/2"


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [(None, "cannot be read: No such file or directory"), (b" \n", "is empty"), (b"\xff", "is not UTF-8 text")],
)
def test_a_secret_that_is_not_there_is_one_clear_error(
    loading: Loading, tmp_path: Path, contents: bytes | None, complaint: str
) -> None:
    if contents is not None:
        (tmp_path / "s").write_bytes(contents)
    [problem] = loading.problems(f'[db.a]\nurl = "file:{tmp_path}/s"\n')
    assert problem == f"db.a.url: the file {tmp_path}/s {complaint}"


_SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f'[db.a]\nurl = "postgresql://u:{_SECRET}@h:port/x"\n',
        f'[db.a]\nurl = "{_SECRET}"\n',
        f'[db.a]\nurl = "nosuch://u:{_SECRET}@h/x"\n',
        f'[db.a]\nurl = "mysql://u:{_SECRET}@h/x"\n',
        f'[db.a]\nurl = "postgresql+asyncpg://u:{_SECRET}@h/x"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "host=h password {_SECRET}"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "host=h {_SECRET}=1"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:{_SECRET}@tcp(h:3306)/x"\n',
        f'[db.a]\ndsn = "u:{_SECRET}@tcp(h:3306)/x"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "sqlite:///{_SECRET}"\n',
        f'[db.a]\nurl = ["{_SECRET}"]\n',
        f'[db.a]\nurl = "x\n{_SECRET}"\n',
        f'[db.a]\nurl = {_SECRET}\n',
        f'[db.a]\nurl = "a"\nurl = "{_SECRET}"\n',
        f'[db.a]\npassword = 5\nurl = "sqlite:////{_SECRET}"\n',
        DB + f'[job_queue.broker]\nurl = "amqp://u:{_SECRET}@h"\n',
        DB + f'[job_queue.broker]\nurl = "{_SECRET}"\n',
        DB + f'[job_queue.broker]\nurl = "filesystem://{_SECRET}"\n',
        DB + f'[job_queue.broker]\ntype = "redis"\naddresses = ["u:{_SECRET}@h"]\n',
        DB + f'[job_queue.state]\nurl = "duckdb:///{_SECRET}"\n',
        DB + f'[results.r]\nurl = "duckdb:///{_SECRET}"\n',
        DB + f'[results.r]\nurl = "sqlite:////tmp/{_SECRET}.db"\n',
    ],
)  # fmt: skip
def test_no_error_repeats_a_secret(loading: Loading, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loading(text)
    assert _SECRET not in caught.value.message
    assert _SECRET not in repr(caught.value.details)
    assert _SECRET not in repr(caught.value.__cause__)


def test_no_repr_shows_a_url(loading: Loading) -> None:
    settings = loading(
        f'[db.a]\nurl = "postgresql://u:{_SECRET}@h/x"\n[results.r]\nurl = "postgresql://u:{_SECRET}@h/x"\n'
        f'[job_queue.broker]\nurl = "redis://:{_SECRET}@h"\n[job_queue.state]\nurl = "postgresql://u:{_SECRET}@h/x"\n'
    )
    assert _SECRET in settings.databases["a"].url
    for shown in (settings, settings.broker, settings.state, settings.databases["a"], settings.results["r"]):
        assert _SECRET not in repr(shown)
        assert _SECRET not in str(shown)


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (DB + "urll = 'x'", "db.my_db.urll: there is no such key; did you mean url?"),
        (DB + "[app]\nttls = 5", "app.ttls: there is no such key; did you mean ttl?"),
        (DB + "[apps]\nttl = 5", "apps: there is no such section; did you mean app?"),
        (DB + "[job_queue.brokers]\nurl = ''", "job_queue.brokers: there is no such section; did you mean broker?"),
        (DB + "[app]\nttl = -1", "app.ttl: must be between 0 and a century"),
        (DB + "[app]\nttl = 0.5", "app.ttl: must be whole seconds"),
        (DB + "[app]\nttl = true", "app.ttl: must be seconds"),
        (DB + "[app]\nsweep = nan", "app.sweep: must be between 0 and a century"),
        (DB + "[app]\nsweep = 0", "app.sweep: must be at least 0.1 s"),
        (DB + "[app]\nmax_rescues = '3'", "app.max_rescues: must be a whole number"),
        (DB + "[app]\nmax_rescues = true", "app.max_rescues: must be a whole number"),
        (DB + "[app]\ndefault_queue = 'a b'", "app.default_queue: must be 1 to 100 of"),
        (DB + "[app]\nlog_level = 'loud'", "app.log_level: must be one of debug, info"),
        (DB + "[app]\nlease = 10\nheartbeat = 5", "app.heartbeat: is 5 s, but must be less than half"),
        (DB + "[app]\ndata_dir = '/etc/passwd'", "app.data_dir: /etc/passwd is not a folder"),
        (DB + "server_side_cursors = 'yes'", "db.my_db.server_side_cursors: must be true or false"),
        (DB + "pool_size = 0", "db.my_db.pool_size: must be between 1 and 1000"),
        (DB + "dsn = 'host=x'", "db.my_db.dsn: stands beside url"),
        ("[db.a]\nurl = 'postgresql://h:70000/x'", "db.a.url: is not a database URL"),
        (DB + "type = 'oracle'", "db.my_db.type: must be postgres"),
        ("[db.a]\nurl = 'sqlite:////x'\ntype = 'postgres'", "db.a.type: says postgres, but url is of another kind"),
        ("[db.a]\npool_size = 5", "db.a: needs a url"),
        ("[db.'a b']\nurl = 'sqlite:////x'", "db.a b: a name may hold"),
        ("[db]\nurl = 'sqlite:////x'", "db.url: must stand in a section with a name: write [db.NAME]"),
        ("db = 5", "db: must be a section: write [db]"),
        ("[app]\nttl = 1", "db: there is no database to query; add one:\n    [db.my_db]"),
        ("[db.a]\nurl = 'sqlite://'", "db.a.url: must name a file: a database in memory"),
        ("[db.a]\nurl = 'sqlite:///:memory:'", "db.a.url: must name a file"),
        ("[db.a]\nurl = 'sqlite:////tmp'", "db.a.url: names a folder"),
        ("[db.a]\nurl = 'mysql://u:p@h/x'", "db.a.url: MySQL and MariaDB are not supported yet by this version"),
        ("[db.a]\nurl = 'mariadb+pymysql://u:p@h/x'", "db.a.url: MySQL and MariaDB are not supported yet"),
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h:3306)/x'", "db.a.dsn: MySQL and MariaDB are not supported yet"),
        ("[db.a]\nurl = 'nosuch://h/x'", "db.a.url: names a database that no installed SQLAlchemy dialect knows"),
        ("[db.a]\nurl = 'postgresql+pg8000://h/x'", "db.a.url: names another PostgreSQL driver"),
        (DB + "[results]", "results: is empty"),
        (DB + "[results.r]\nurl = 'duckdb:////x'", "results.r.url: duckdb cannot hold results"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/x.db'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite:////etc/passwd'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite://'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/r'\nunlogged = true", "results.r.unlogged: is a matter of"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/r'\ngrant_select_to = ['x']", "results.r.grant_select_to: is a"),
        (DB + "[results.r]\nurl = 'postgresql://h/r'\ngrant_select_to = 'x'", "results.r.grant_select_to: must be"),
        (DB + "[job_queue.state]\nurl = 'duckdb:////x'", "job_queue.state.url: duckdb cannot keep the state"),
        (DB + "[job_queue.state]\nurl = 'sqlite://'", "job_queue.state.url: must name a file"),
        (DB + "[job_queue.broker]\nurl = 'amqp://h'", "job_queue.broker.url: RabbitMQ is not supported yet"),
        (DB + "[job_queue.broker]\nurl = 'kafka://h'", "job_queue.broker.url: names a broker that is not supported"),
        (DB + "[job_queue.broker]\nurl = 'localhost'", "job_queue.broker.url: is not a broker URL"),
        (DB + "[job_queue.broker]\ntype = 'nats'", "job_queue.broker.type: must be redis"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(loading: Loading, text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in loading.problems(text)), loading.problems(text)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("results", "must hold %s"),
        ("%s_%s", "must hold %s"),
        ("%s", "must add something"),
        ("a.%s", "may hold"),
        ("../%s", "may hold"),
        ("r-%d-%s", "may hold"),
        ("jobber_%s", "must not begin with jobber_"),
        ("x" * 39 + "%s", "is longer than 40"),
    ],
)
def test_a_table_template_that_cannot_work_is_refused(loading: Loading, template: str, complaint: str) -> None:
    [problem] = loading.problems(DB + f"[results.r]\nurl = 'postgresql://h/r'\nresults_table = '{template}'")
    assert problem.startswith(f"results.r.results_table: {complaint}")


def test_all_mistakes_are_told_at_once(loading: Loading) -> None:
    problems = loading.problems("[app]\nttl = 'x'\nlese = 3\n[db.a]\nurl = 'mysql://h'\n[db.b]\nurrl = ''\n[foo]\n")
    assert [problem.partition(":")[0] for problem in problems] == [
        "foo",
        "app.ttl",
        "app.lese",
        "db.b.urrl",
        "db.a.url",
    ]


def test_two_truths_are_refused(loading: Loading) -> None:
    [problem] = loading.problems(DB + '[job_queue.broker]\nurl = "redis://h"\n')
    assert problem.startswith("job_queue.state: the broker is shared over the network")
    assert "set job_queue.state.url" in problem
    asked_for = '[job_queue.broker]\nurl = "redis://h"\n[job_queue.state]\nurl = "sqlite:////tmp/state.db"\n'
    assert not loading(DB + asked_for).state.embedded
    assert loading(DB + '[job_queue.broker]\nurl = "filesystem://"\n').state.embedded


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"[db.a\n", "is not valid TOML"),
        (b"a = '\xff'", "is not UTF-8 text"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, contents: bytes | None, complaint: str) -> None:
    file = tmp_path / "c.toml"
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert caught.value.message.startswith(f"{file}: {complaint}")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


# -- files of the older programs --------------------------------------------------------------------------------------

_REDIS = """type = "redis"
addresses = ["localhost:6379"]
password = ""
db = 1
max_active = 50
max_idle = 20
dial_timeout = "1s"
read_timeout = "1s"
write_timeout = "1s"
"""
_LEGACY = f"""[app]
log_level = "INFO"
default_job_ttl = "60s"
[job_queue.broker]
{_REDIS}
[job_queue.state]
{_REDIS}
expiry = "30s"
meta_expiry = "3600s"
[results.my_results]
type = "postgres"
dsn = "postgres://user:password@host:5432/dbname?sslmode=disable"
max_idle = 10
max_active = 100
connect_timeout = "10s"
results_table = "results_%s"
[db.my_db]
type = "postgres"
dsn = "host=db.example port=5433 user=u password=p@ss dbname=shop sslmode=disable"
max_idle = 10
max_active = 0
connect_timeout = "10s"
"""


def test_a_file_of_the_older_programs_loads_unchanged(loading: Loading) -> None:
    settings = loading(_LEGACY)
    assert settings.broker.url == "redis://localhost:6379/1"
    assert settings.app.log_level == "info"
    results = "postgresql+psycopg://user:password@host:5432/dbname?sslmode=disable"
    assert settings.results["my_results"].url == settings.state.url == results
    assert not settings.state.embedded
    assert (settings.results["my_results"].pool_size, settings.databases["my_db"].pool_size) == (100, 10)
    source = make_url(settings.databases["my_db"].url)
    assert (source.host, source.port, source.username, source.password) == ("db.example", 5433, "u", "p@ss")
    assert (source.database, dict(source.query)) == ("shop", {"sslmode": "disable"})
    for ignored in (
        "app.default_job_ttl",
        "job_queue.broker.max_active",
        "job_queue.state.expiry",
        "db.my_db.max_idle",
    ):
        assert f"{ignored} is ignored" in settings.warnings
    assert "job_queue.state is Redis: the state of jobs goes to results.my_results instead" in settings.warnings


def test_todays_pool_size_stands_over_the_older_key(loading: Loading) -> None:
    assert loading(DB + "max_active = 50\npool_size = 5\n").databases["my_db"].pool_size == 5


def test_redis_state_without_a_results_database_that_takes_it_is_refused(loading: Loading) -> None:
    [problem] = loading.problems(DB + f"[job_queue.broker]\n{_REDIS}[job_queue.state]\n{_REDIS}")
    assert problem.startswith("job_queue.state: the broker is shared over the network")


@pytest.mark.parametrize("addresses", ['["a:1", "b:2"]', "[]", '["localhost"]', '["a:1/x"]'])
def test_redis_needs_one_address(loading: Loading, addresses: str) -> None:
    text = DB + f"[job_queue.broker]\naddresses = {addresses}\n[job_queue.state]\nurl = 'postgresql://h/s'"
    [problem] = loading.problems(text)
    assert problem.startswith("job_queue.broker.addresses: must ")


def test_a_redis_password_may_hold_anything(loading: Loading) -> None:
    text = "[job_queue.broker]\naddresses = ['h:1']\npassword = 'a@:/#%'\n[job_queue.state]\nurl = 'postgresql://h/s'\n"
    assert loading(DB + text).broker.url == "redis://:a%40%3A%2F%23%25@h:1/0"


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "database"),
    [
        ("postgres://u:p@h/d", "u", "p", "h", "d"),
        ("postgresql://u:p@ss@h:5/d", "u", "p@ss", "h", "d"),
        ("postgresql://u:p%40ss@h/d", "u", "p@ss", "h", "d"),
        ("postgresql://u:a/b?c#d:e@h/d?sslmode=disable", "u", "a/b?c#d:e", "h", "d"),
        ("postgresql://u:100%@h/d", "u", "100%", "h", "d"),
        ("postgresql://u@h/d?options=a@b", "u", None, "h", "d"),
        ("postgresql://u%40corp:p@[::1]:5432/d", "u@corp", "p", "::1", "d"),
        ("postgresql://h", None, None, "h", None),
        ("postgresql:///d?host=/var/run", None, None, None, "d"),
    ],
)
def test_urls_of_databases_are_understood_with_any_password(
    loading: Loading, url: str, user: str | None, password: str | None, host: str | None, database: str | None
) -> None:
    read = make_url(loading(f"[db.a]\nurl = '{url}'").databases["a"].url)
    assert read.drivername == "postgresql+psycopg"
    assert (read.username, read.password, read.host, read.database or None) == (user, password, host, database)


@pytest.mark.parametrize(
    ("dsn", "host", "query"),
    [
        ("host=h dbname=d", "h", {}),
        ("host=/var/run/postgresql dbname=d", None, {"host": "/var/run/postgresql"}),
        ("host=a,b port=1,2 dbname=d", None, {"host": "a,b", "port": "1,2"}),
        ("dbname=d application_name='a b'", None, {"application_name": "a b"}),
    ],
)
def test_key_value_dsns_are_understood(loading: Loading, dsn: str, host: str | None, query: dict[str, str]) -> None:
    read = make_url(loading(f'[db.a]\ntype = "postgres"\ndsn = "{dsn}"').databases["a"].url)
    assert (read.host, dict(read.query), read.database) == (host, query, "d")


@examples(deadline=None)  # other tests run beside these
@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: "%" not in text)
)
def test_any_password_without_percent_survives_unquoted(password: str) -> None:
    if not password.strip() or password[-1].isspace():
        return
    settings = embedded(Path("/tmp/x"), {"a": f"postgresql://u:{password}@h:1/d"})
    read = make_url(settings.databases["a"].url)
    if "=" not in password:  # "?x=" in a password looks like the options
        assert (read.password, read.host, read.port, read.database) == (password, "h", 1, "d")


# -- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (5, 5), (2.5, 2.5), ("30", 30), ("30s", 30), ("5m", 300), ("24h", 86_400), ("7d", 604_800),
     ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), (" 5s ", 5), (100 * 366 * 86_400, 100 * 366 * 86_400)],
)  # fmt: skip
def test_durations_are_seconds(value: object, expected: float) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "s", "5 m", "5x", "-5s", "5s5", "1e3", "٥", -1, float("nan"), float("inf"), True, None, [], "9" * 30, 10**400,
     "36601d", "9" * 10_000],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        seconds(value)


@examples(deadline=None)  # other tests run beside these
@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m"]))
def test_units_agree_with_each_other(amount: int, unit: str) -> None:
    size = {"ms": 0.001, "s": 1, "m": 60}[unit]
    assert seconds(f"{amount}{unit}") == pytest.approx(amount * size)
