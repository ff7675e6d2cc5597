"""What TOML, environment and files of secrets become."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobber.config import embedded, load
from jobber.config.settings import DEFAULT_DATA_DIR
from jobber.errors import ConfigError
from tests.config.conftest import DB, Loading

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
[db.my]
url = "mariadb://u@h/d"
zero_dates = "null"
[results.two]
url = "mysql://u@h/results"
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
    two = settings.results["two"]
    assert (two.url, two.engine) == ("mysql+pymysql://u@h/results", "mysql")
    assert list(settings.databases) == ["a-b_c", "d.e", "my"]
    assert (settings.databases["my"].engine, settings.databases["my"].zero_dates) == ("mysql", "null")
    assert settings.databases["d.e"].zero_dates == "fail"
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
        f'[db.a]\nurl = "mysql://u:{_SECRET}@h"\n',
        f'[db.a]\nurl = "mysql+aiomysql://u:{_SECRET}@h/x"\n',
        f'[db.a]\nurl = "mysql://u@h/x?password={_SECRET}"\n',
        f'[db.a]\nurl = "postgresql+asyncpg://u:{_SECRET}@h/x"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "host=h password {_SECRET}"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "host=h {_SECRET}"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:{_SECRET}@tcp(h:3306)/"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:{_SECRET}"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:p/{_SECRET}?x={_SECRET}"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:p@tcp(h)/d?x-{_SECRET}=1"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:p@tcp(h)/d?tls={_SECRET}"\n',
        f'[db.a]\ntype = "mysql"\ndsn = "u:p@tcp({_SECRET}:x)/d"\n',
        f'[db.a]\ndsn = "u:{_SECRET}@tcp(h:3306)/x?un-known={_SECRET}"\n',
        f'[db.a]\ntype = "postgres"\ndsn = "sqlite:///{_SECRET}"\n',
        f'[db.a]\nurl = ["{_SECRET}"]\n',
        f'[db.a]\nurl = "x\n{_SECRET}"\n',
        f'[db.a]\nurl = {_SECRET}\n',
        f'[db.a]\nurl = "a"\nurl = "{_SECRET}"\n',
        f'[db.a]\npassword = 5\nurl = "sqlite:////{_SECRET}"\n',
        DB + f'[job_queue.broker]\nurl = "amqp://u:{_SECRET}@h"\n',
        DB + f'[job_queue.broker]\nurl = "amqp://u:{_SECRET}@h:x"\n',
        DB + f'[job_queue.broker]\nurl = "amqp://u:p@h?{_SECRET}=1"\n',
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


def test_a_pool_that_nobody_sized_has_a_connection_for_each_job_and_one_for_estimates(loading: Loading) -> None:
    settings = loading(DB + "[db.sized]\nurl = 'sqlite:///b.db'\npool_size = 7\n[results.r]\nurl = 'sqlite:///folder'")
    assert settings.databases["my_db"].connections == 10
    worker = settings.for_jobs(30)
    assert {name: of.connections for name, of in worker.databases.items()} == {"my_db": 31, "sized": 7}
    assert worker.results["r"].connections == 30
    assert settings.for_jobs(2).results["r"].connections == 10
