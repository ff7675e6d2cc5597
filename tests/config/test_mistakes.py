"""What is said when settings are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobber.config import load
from jobber.errors import ConfigError
from tests.config.conftest import DB, Loading

STATE = "[job_queue.state]\nurl = 'postgresql://h/s'\n"
RABBITMQ = DB + STATE + "[job_queue.broker]\nurl = 'amqp://{}'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (DB + "urll = 'x'", "db.my_db.urll: there is no such key; did you mean url?"),
        (DB + "maxactive = 5", "db.my_db.maxactive: there is no such key; did you mean max_active?"),
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
        (DB + "pool_size = -1", "db.my_db.pool_size: must be between 0 and 1000"),
        (DB + "dsn = 'host=x'", "db.my_db.dsn: stands beside url"),
        ("[db.a]\nurl = 'postgresql://h:70000/x'", "db.a.url: is not a database URL"),
        (DB + "type = 'oracle'", "db.my_db.type: must be postgres, mysql or clickhouse"),
        ("[db.a]\nurl = 'sqlite:////x'\ntype = 'postgres'", "db.a.type: says postgres, but url is of another kind"),
        ("[db.a]\npool_size = 5", "db.a: needs a url"),
        ("[db.'a b']\nurl = 'sqlite:////x'", "db.a b: a name may hold"),
        ("[db]\nurl = 'sqlite:////x'", "db.url: must stand in a section with a name: write [db.NAME]"),
        ("db = 5", "db: must be a section: write [db]"),
        ("[app]\nttl = 1", "db: there is no database to query; add one:\n    [db.my_db]"),
        ("[db.a]\nurl = 'sqlite://'", "db.a.url: must name a file: a database in memory"),
        ("[db.a]\nurl = 'sqlite:///:memory:'", "db.a.url: must name a file"),
        ("[db.a]\nurl = 'sqlite:////tmp'", "db.a.url: names a folder"),
        ("[db.a]\nurl = 'mysql://h/x'\ntype = 'postgres'", "db.a.type: says postgres, but url is of another kind"),
        ("[db.a]\nurl = 'postgresql://h/x'\ntype = 'mysql'", "db.a.type: says mysql, but url is of another kind"),
        ("[db.a]\nurl = 'mysql://u:p@h'", "db.a.url: names no database; write it like mysql://"),
        ("[db.a]\nurl = 'mysql://u:p@h/'", "db.a.url: names no database"),
        ("[db.a]\nurl = 'mysql+mysqldb://u:p@h/x'", "db.a.url: names another MySQL driver; jobber uses PyMySQL"),
        ("[db.a]\nurl = 'mariadb+mariadbconnector://h/x'", "db.a.url: names another MySQL driver"),
        ("[db.a]\nurl = 'mysql://h/x?sslmode=require'", "db.a.url: has the option sslmode, which jobber does not know"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_disabled=maybe'", "db.a.url: has a wrong option: ssl_disabled must be"),
        ("[db.a]\nurl = 'mysql://h/x?read_timeout=soon'", "db.a.url: has a wrong option: read_timeout must be seconds"),
        ("[db.a]\nurl = 'mysql://h:0/x'", "db.a.url: is not a database URL: its port"),
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h:3306)/'", "db.a.dsn: names no database; write it like user:"),
        ("[db.a]\ndsn = 'u:p@tcp(h:3306)/?parseTime=true'", "db.a.dsn: names no database"),
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h:3306)'", "db.a.dsn: is not a MySQL DSN; write it like user:"),
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@udp(h)/x'", "db.a.dsn: must name tcp(host:port) or unix("),
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h:33)x/d'", "db.a.dsn: must name tcp(host:port) or unix("),
        ("[db.a]\ndsn = 'u:p@/x'", "db.a.dsn: is neither a postgres:// URL nor of the form host="),
        ("[db.a]\ndsn = 'u:p@tcp(h:port)/x'", "db.a.dsn: has an address that is not host:port"),
        ("[db.a]\ndsn = 'u:p@tcp(h:70000)/x'", "db.a.dsn: has an address that is not host:port"),
        ("[db.a]\ndsn = 'u:p@tcp(h)/x?time-zone=UTC'", "db.a.dsn: has the parameter …, which jobber does not"),
        ("[db.a]\ndsn = 'u:p@tcp(h)/x?parsetime=1'", "db.a.dsn: has the parameter parsetime; did you mean parseTime?"),
        ("[db.a]\ndsn = 'u:p@tcp(h)/x?tls=my-own'", "db.a.dsn: has the parameter tls with a value other than true"),
        ("[db.a]\ndsn = 'u:p@tcp(h)/x?timeout=soon'", "db.a.dsn: has a wrong option: connect_timeout must be"),
        (DB + "zero_dates = 'null'", "db.my_db.zero_dates: is a matter of MySQL; this database is PostgreSQL"),
        ("[db.a]\nurl = 'mysql://h/x'\nzero_dates = 'zero'", "db.a.zero_dates: must be fail or null"),
        (DB + "[results.r]\nurl = 'mysql://h/r'\nunlogged = true", "results.r.unlogged: is a matter of PostgreSQL"),
        (DB + "[results.r]\nurl = 'mysql://h/r'\ngrant_select_to = ['x']", "results.r.grant_select_to: is a matter of "
         "PostgreSQL; this results database is MySQL; there, GRANT SELECT on the whole database"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_ca=/no/file'", "db.a.url: has an option that cannot be used: ssl_ca: No such"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_ca=/etc/passwd'", "db.a.url: has an option that cannot be used: ssl_ca: no"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_capath=/no/folder'", "db.a.url: has an option that cannot be used: ssl_cap"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_cert=/no/file'", "db.a.url: has an option that cannot be used: ssl_cert: No"),
        ("[db.a]\nurl = 'mysql://h/x?ssl_cipher=FOO'", "db.a.url: has an option that cannot be used: ssl_cipher: "),
        (DB + "[results.r]\nurl = 'mysql://h/x?ssl_ca=/no/file'", "results.r.url: has an option that cannot be used"),
        (DB + "[job_queue.state]\nurl = 'mysql://h/x?ssl_ca=/no/file'", "job_queue.state.url: has an option that cann"),
        ("[db.a]\nurl = 'nosuch://h/x'", "db.a.url: names a database that no installed SQLAlchemy dialect knows"),
        ("[db.a]\nurl = 'postgresql+pg8000://h/x'", "db.a.url: names another PostgreSQL driver"),
        (DB + "[results]", "results: is empty"),
        (DB + "[results.r]\nurl = 'duckdb:////x'", "results.r.url: duckdb cannot hold results in this version; use"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/x.db'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite:////etc/passwd'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite://'", "results.r.url: must name a folder"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/r'\nunlogged = true", "results.r.unlogged: is a matter of"),
        (DB + "[results.r]\nurl = 'sqlite:////tmp/r'\ngrant_select_to = ['x']", "results.r.grant_select_to: is a"),
        (DB + "[results.r]\nurl = 'postgresql://h/r'\ngrant_select_to = 'x'", "results.r.grant_select_to: must be"),
        (DB + "[job_queue.state]\nurl = 'duckdb:////x'", "job_queue.state.url: duckdb cannot keep the state"),
        (DB + "[job_queue.state]\nurl = 'sqlite://'", "job_queue.state.url: must name a file"),
        (RABBITMQ.format("h:port/x"), "job_queue.broker.url: is not a broker URL"),
        (RABBITMQ.format("[::1/x"), "job_queue.broker.url: is not a broker URL"),
        (RABBITMQ.format("h/x?heartbeat=5"), "job_queue.broker.url: may have only these options: ssl_ca_certs,"),
        (RABBITMQ.format("h/x?ssl_ca_certs=/ca"), "job_queue.broker.url: may have only these options"),
        (RABBITMQ.replace("amqp:", "amqps:").format("h?ssl_cert_reqs=no"), "job_queue.broker.url: has the option ssl_"),
        (RABBITMQ.format("h/x") + "key_prefix = 'amq.'", "job_queue.broker.key_prefix: must not begin with amq."),
        (RABBITMQ.format("h/x") + f"key_prefix = '{'x' * 51}'", "job_queue.broker.key_prefix: is longer than 50 bytes"),
        (DB + "[job_queue.broker]\nurl = 'kafka://h'", "job_queue.broker.url: names a broker that is not supported"),
        (DB + "[job_queue.broker]\nurl = 'localhost'", "job_queue.broker.url: is not a broker URL"),
        (DB + "[job_queue.broker]\ntype = 'nats'", "job_queue.broker.type: must be redis"),
        (DB + "[events]\nenabled = true", "events.url: there is no broker that others could listen to"),
        (DB + "[events]\nurl = 'kafka://h'", "events.url: names a broker that is not supported"),
        (DB + "[events]\nexchange = 'amq.topic'", "events.exchange: must be a name, and not begin with amq."),
        (DB + "[webhooks]\nsecret = 'whsec_!'", "webhooks.secret: must be base64 after whsec_"),
        (DB + "[webhooks]\nallow = ['https://e.com']", "webhooks.allow: 'https://e.com' must be a host alone"),
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


@pytest.mark.parametrize("broker", ["redis://h", "amqp://h", "amqps://h//"])
def test_two_truths_are_refused(loading: Loading, broker: str) -> None:
    [problem] = loading.problems(DB + f'[job_queue.broker]\nurl = "{broker}"\n')
    assert problem.startswith("job_queue.state: the broker is shared over the network")
    assert "set job_queue.state.url" in problem
    asked_for = f'[job_queue.broker]\nurl = "{broker}"\n[job_queue.state]\nurl = "sqlite:////tmp/state.db"\n'
    assert not loading(DB + asked_for).state.embedded
    assert loading(DB + '[job_queue.broker]\nurl = "filesystem://"\n').state.embedded


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"[db.a\n", "is not valid TOML"),
        (b'[db.a]\nurl = "secret\n', "is not valid TOML: a quoted text does not end (at line 2"),
        (b"[db.a]\nurl = 'secret\n", "is not valid TOML: a quoted text does not end (at end of document"),
        (b"[db.a]\nurl = secret\n", "is not valid TOML: this is no value (text stands in quotes) (at line 2"),
        (b"[db.a]\nurl = 'x'\n[db.a]\n", "is not valid TOML: this section stands above already (at line 3"),
        (b"[db.a]\nurl = 'x'\nurl = 'y'\n", "is not valid TOML: this key stands above already (at line 3"),
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
