"""What is special about MySQL and MariaDB: hostile servers, killed connections, and what their errors mean."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pymysql
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from jobber.errors import ConfigError, InvalidRequest, JobIsLive, StateUnavailable
from jobber.jobs import JobState
from jobber.mysql import Connection
from jobber.store import Gate, GateKind, Store
from jobber.store.engines import mysql
from jobber.store.failures import Cause, cause, translated
from jobber.store.schema import counters, dispatch
from tests.servers import MariaDB, wait_until
from tests.states import steps
from tests.store.conftest import COLUMNS, QUEUES, Bench, new_job

NASTY = "🐘 é \\ ' \" ` % %s \x00 \x1a \n"


@pytest.fixture
def bench(mariadb_url: str) -> Iterator[Bench]:
    """A store on MariaDB, or MySQL, with a worker."""
    store = Store(mariadb_url)
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=60))
    store.close()


def live_a_life(url: str) -> None:
    """Migrate, and take jobs through all that touches a table; everything reads back as it was."""
    store = Store(url)
    store.migrate()
    assert abs(store.now() - time.time() * 1e6) < 60e6
    bench = Bench(store, store.register(NASTY, QUEUES, 10, lease=60))
    store.set_limits({Gate(GateKind.DATABASE, "db0"): 2})
    store.pause(Gate(GateKind.TASK, "u"), NASTY)
    store.resume(Gate(GateKind.TASK, "u"))
    assert store.lead("maintenance", NASTY, lease=60)
    assert store.lead("maintenance", NASTY, lease=60)
    assert not store.lead("maintenance", "other", lease=60)
    bench.submit("a", "b", "c", args=[NASTY], tags={"t": NASTY})
    bench.submit("late", eta=store.now() + 300_000)
    a, b = bench.claim(5).jobs
    assert (a.args, a.tags, a.worker) == ([NASTY], {"t": NASTY}, NASTY)
    assert store.fail(a, error=NASTY, code="c") == {"q"}
    assert store.get("a").error == NASTY.replace("\x00", "\ufffd")
    store.retry(b, error="again", code="c", delay=0)
    assert bench.store.cancel("b").job.state is JobState.CANCELLED
    store.succeed(bench.claim().jobs[0], rows=1, columns=COLUMNS)
    assert store.get("c").columns == tuple(COLUMNS)
    wait_until(store.release_due)
    lost = bench.claim(worker=store.register("dying", QUEUES, 1, lease=0)).jobs[0]
    assert store.rescue(lost, max_rescues=3).job.state is JobState.PENDING
    with pytest.raises(JobIsLive):
        bench.submit("late")
    assert bench.ids(5) == ["late"]
    assert [job.job_id for job in store.purge("a")] == ["a"]
    wait_until(lambda: store.prune(0) == 2)
    store.close()


@contextmanager
def global_settings(server: MariaDB, **settings: Any) -> Iterator[None]:
    """Change what new sessions begin with."""
    before = server.execute(f"SELECT {', '.join(f'@@GLOBAL.{name}' for name in settings)}")[0]
    with server.connect() as connection, connection.cursor() as cursor:
        try:
            for name, value in settings.items():
                cursor.execute(f"SET GLOBAL {name} = %s", (value,))
            yield
        finally:
            for name, value in zip(settings, before, strict=True):
                cursor.execute(f"SET GLOBAL {name} = %s", (value,))


@contextmanager
def own_database(server: MariaDB, options: str = "CHARACTER SET utf8mb4") -> Iterator[str]:
    name = server.new_database()
    server.execute(f"ALTER DATABASE {name} {options}")
    yield server.url(name)
    server.drop_database(name)


# -- whatever the server is like ---------------------------------------------------------------------------------------


def test_the_defaults_of_the_server_change_nothing(mariadb: MariaDB) -> None:
    prefix = "transaction" if mariadb.is_mysql else "tx"
    hostile = {
        "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,NO_UNSIGNED_SUBTRACTION,ONLY_FULL_GROUP_BY",
        "autocommit": 0,
        f"{prefix}_isolation": "SERIALIZABLE",
        f"{prefix}_read_only": 1,
        "time_zone": "+05:30",
        "completion_type": 2,
        "sql_select_limit": 1,
        "default_storage_engine": "MyISAM",
        "character_set_server": "latin1",
        "innodb_lock_wait_timeout": 1000,
    }
    with own_database(mariadb, "CHARACTER SET latin1") as url, global_settings(mariadb, **hostile):
        live_a_life(url)
        query = "SELECT engine, row_format FROM information_schema.tables WHERE table_schema = DATABASE()"
        direct = mariadb.connect(url.rpartition("/")[2], init_command="SET sql_select_limit = 99")
        with direct, direct.cursor() as cursor:
            cursor.execute(query)
            assert set(cursor.fetchall()) == {("InnoDB", "Dynamic")}


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3", "utf8mb4 COLLATE utf8mb4_unicode_ci"])
def test_a_database_of_any_character_set_holds_all_text_and_compares_bytes(mariadb: MariaDB, charset: str) -> None:
    with own_database(mariadb, f"CHARACTER SET {charset}") as url:
        live_a_life(url)
        query = (
            "SELECT DISTINCT collation_name FROM information_schema.columns WHERE collation_name IS NOT NULL "
            "AND table_schema = DATABASE() AND table_name <> 'jobber_state_version'"
        )
        exact = "utf8mb4_0900_bin" if mariadb.is_mysql else "utf8mb4_nopad_bin"
        assert {row[0] for row in mariadb.execute(query, url.rpartition("/")[2])} == {exact, "utf8mb4_bin"}


def test_a_user_needs_no_more_rights_than_the_manual_says(mariadb: MariaDB) -> None:
    with own_database(mariadb) as url:
        name = url.rpartition("/")[2]
        mariadb.execute("CREATE USER jobber IDENTIFIED BY 'hunter2'")
        try:
            mariadb.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON {name}.* TO jobber")
            live_a_life(f"mysql://jobber:hunter2@127.0.0.1:{mariadb.port}/{name}")
        finally:
            mariadb.execute("DROP USER jobber")


def test_a_server_that_is_too_old_is_refused_by_its_version(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "OLDEST", {"MariaDB": (99, 1), "MySQL": (99, 1, 2)})
    store = Store(mariadb_url)
    with pytest.raises(ConfigError, match=r"is (MariaDB|MySQL) \d+\.\d+\.\d+.* too old: it must be 99\.1"):
        store.migrate()
    store.close()


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        ("10.6.0-MariaDB", True),
        ("5.5.5-10.11.6-MariaDB-log", True),
        ("5.5.5-10.5.29-MariaDB-log", False),
        ("10.5.29-MariaDB", False),
        ("11.4.2-MariaDB-ubu2404", True),
        ("8.0.23", True),
        ("8.0.22-log", False),
        ("5.7.44", False),
        ("9.7.4-2", True),
        ("8.0.11-TiDB-v8.5.0", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, enough: bool) -> None:
    connection = Connection(defer_connect=True)
    connection.server_version = version
    with nullcontext() if enough else pytest.raises(ConfigError):
        mysql._refuse_old(connection)


# -- connections -------------------------------------------------------------------------------------------------------


def killing_at(mariadb: MariaDB, step: int) -> Callable[[Any], None]:
    count = itertools.count()

    def kill(driver: Any) -> None:
        if next(count) == step:
            mariadb.execute(f"KILL {driver.thread_id()}")

    return kill


def test_a_connection_that_is_killed_within_a_claim_costs_nothing(bench: Bench, mariadb: MariaDB) -> None:
    taken = itertools.count()
    bench.submit("a")
    with steps(bench.store, before=lambda _: next(taken)):
        assert bench.ids() == ["a"]
    for step in range((whole := next(taken)) - 1):
        bench.submit(f"a{step}")
        with steps(bench.store, before=killing_at(mariadb, step)):
            assert bench.ids() == [f"a{step}"]
    bench.submit("last")
    with steps(bench.store, before=killing_at(mariadb, whole - 1)), pytest.raises(StateUnavailable):
        bench.ids()  # nobody can tell whether its COMMIT came through
    assert bench.ids() == ["last"]
    assert whole > 3
    assert len(bench.store.heartbeat(bench.worker, {}, lease=60).held) == whole + 1


def test_a_connection_that_is_killed_before_a_commit_leaves_all_or_nothing(
    bench: Bench, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = bench.store._database._pool.dialect
    commit = dialect.do_commit

    def killed(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        mariadb.execute(f"KILL {connection.thread_id()}")
        commit(connection)

    job = bench.started("a")
    monkeypatch.setattr(dialect, "do_commit", killed)
    with pytest.raises(StateUnavailable):
        bench.store.succeed(job, rows=1, columns=[])
    bench.store.succeed(job, rows=1, columns=[])
    assert bench.store.get("a").rows == 1


def test_a_connection_that_is_killed_while_it_waits_for_a_lock_is_replaced(bench: Bench, mariadb: MariaDB) -> None:
    bench.submit("a")
    waiting = "SELECT id FROM information_schema.processlist WHERE info LIKE '%jobber_dispatch FOR UPDATE'"
    with ThreadPoolExecutor(1) as pool:

        def block(connection: Any) -> Any:
            connection.execute(select(dispatch).with_for_update())
            claimed = pool.submit(bench.ids)
            wait_until(lambda: mariadb.execute(waiting))
            mariadb.execute(f"KILL {mariadb.execute(waiting)[0][0]}")
            wait_until(lambda: mariadb.execute(waiting))
            assert not claimed.done()
            return claimed

        assert bench.store._database.write(block).result() == ["a"]


def test_a_connection_that_idled_for_long_is_replaced_before_anybody_uses_it(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_IDLE", 0.2)
    store = Store(mariadb_url, pool_size=1)

    def number() -> int:
        return int(store._database.read(lambda connection: connection.execute(select(func.connection_id())).scalar()))

    first = number()
    assert number() == first
    time.sleep(0.3)
    assert number() != first
    store.close()


def test_a_read_is_one_round_trip_and_leaves_no_transaction_open(
    bench: Bench, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    original = pymysql.connections.Connection._execute_command

    def execute(self: Any, command: int, sql: Any) -> Any:
        sent.append(sql.decode() if isinstance(sql, bytes) else sql)
        return original(self, command, sql)

    bench.store.ping()
    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", execute)
    bench.store.ping()
    assert sent == ["SELECT 1"]
    assert mariadb.execute("SELECT count(*) FROM information_schema.innodb_trx") == [(0,)]


def test_row_counts_are_of_rows_found_not_of_rows_that_changed(bench: Bench) -> None:
    same = text("UPDATE jobber_counters SET value = value")
    assert bench.store._database.write(lambda connection: connection.execute(same).rowcount) == 1


def test_a_bulk_that_is_under_way_keeps_nobody_from_numbering_runs(bench: Bench) -> None:
    # IDs that no other test uses: an insert of one whose row is deleted, but not yet purged, locks the gap beside it.
    bench.submit("warm", task="u")
    beside = (f"beside{n}" for n in itertools.count())  # a transaction may be run again

    def hold(connection: Any) -> None:
        bench.store._submitter.add(connection, [new_job("bulk0"), new_job("bulk1")])
        with ThreadPoolExecutor(1) as pool:
            pool.submit(bench.submit, next(beside), task="u").result(4)

    bench.store._database.write(hold)
    assert {"warm", "bulk0", "bulk1", "beside0"} <= {job.job_id for job in bench.store.pending("q")}
    assert bench.store._database.read(lambda c: c.execute(select(func.count()).select_from(counters)).scalar()) == 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_what_is_too_large_for_the_server_is_refused_and_does_no_harm(mariadb: MariaDB, mariadb_url: str) -> None:
    with global_settings(mariadb, max_allowed_packet=1_048_576):
        store = Store(mariadb_url)
        store.migrate()
        bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
        with pytest.raises(InvalidRequest, match="max_allowed_packet"):
            bench.submit("big", args=["x" * 1_100_000])
        bench.submit("small", args=["x" * 900_000])
        # Many that are small enough each go in several statements.
        bench.submit(*(f"b{n}" for n in range(30)), args=["x" * 100_000])
        assert bench.ids(99)[0] == "small"
        store.close()


def unavailable(url: str) -> str:
    """Return the message of what is raised, after a look for secrets in it."""
    store = Store(url)
    with pytest.raises(StateUnavailable) as refused:
        store.submit([new_job("a")])
    store.close()
    for secret in ("root", "jobber'", "hunter", "127.0.0.1", "localhost", "nowhere"):
        assert secret not in str(refused.value)
    return str(refused.value)


def test_each_reason_for_being_unavailable_is_said_without_secrets(mariadb: MariaDB) -> None:
    port = mariadb.port
    with own_database(mariadb) as url:
        name = url.rpartition("/")[2]
        assert "this version" in unavailable(url)
        assert "no such database" in unavailable(f"mysql://root@127.0.0.1:{port}/nowhere")
        assert "no database is named" in unavailable(f"mysql://root@127.0.0.1:{port}/")
        assert "access denied" in unavailable(f"mysql://root:hunter2@127.0.0.1:{port}/{name}")
        assert "Name or service" in unavailable(f"mysql://root@nowhere.invalid:{port}/{name}")
        mariadb.execute("CREATE USER jobber IDENTIFIED BY 'hunter2' WITH MAX_USER_CONNECTIONS 1")
        mine = f"mysql://jobber:hunter2@127.0.0.1:{port}/{name}"
        try:
            assert "no right to this database" in unavailable(mine)
            mariadb.execute(f"GRANT ALL ON {name}.* TO jobber")
            with pymysql.connect(host="127.0.0.1", port=port, user="jobber", password="hunter2"):
                assert "used up its share" in unavailable(mine)
            store = Store(mine)
            store.migrate()
            store.close()
            mariadb.execute(f"REVOKE UPDATE, DELETE ON {name}.* FROM jobber")
            assert unavailable(mine).endswith("cannot be used: its account may not UPDATE there")
            mariadb.execute(f"GRANT ALL ON {name}.* TO jobber")
            with global_settings(mariadb, read_only=1):
                assert "read-only" in unavailable(mine)
        finally:
            mariadb.execute("DROP USER jobber")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pymysql.OperationalError(1213, "Deadlock found"), Cause.CONFLICT),
        (pymysql.OperationalError(1205, "Lock wait timeout exceeded"), Cause.CONFLICT),
        (pymysql.OperationalError(1020, "Record has changed since last read"), Cause.CONFLICT),
        (pymysql.OperationalError(2013, "Lost connection"), Cause.CONNECTION),
        (pymysql.OperationalError(4031, "disconnected by the server because of inactivity"), Cause.CONNECTION),
        (pymysql.OperationalError(1927, "Connection was killed"), Cause.CONNECTION),
        (pymysql.OperationalError(1053, "Server shutdown in progress"), Cause.CONNECTION),
        (pymysql.InterfaceError(0, ""), Cause.CONNECTION),
        (pymysql.InternalError("Packet sequence number wrong - got 4 expected 1"), Cause.CONNECTION),
        (pymysql.OperationalError(1021, "Disk full"), Cause.UNAVAILABLE),
        (pymysql.OperationalError(1290, "running with the --read-only option"), Cause.UNAVAILABLE),
        (pymysql.OperationalError(1969, "max_statement_time exceeded"), Cause.UNAVAILABLE),
        (pymysql.OperationalError(2003, "Can't connect to MySQL server on 'db.example'"), Cause.UNAVAILABLE),
        (pymysql.ProgrammingError(1146, "Table 'x.jobber_jobs' doesn't exist"), Cause.UNAVAILABLE),
        (pymysql.ProgrammingError(1064, "You have an error in your SQL syntax"), Cause.MISTAKE),
        (pymysql.DataError(1406, "Data too long for column"), Cause.MISTAKE),
        (pymysql.ProgrammingError("not all arguments converted"), Cause.MISTAKE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_error_means_what_its_number_says(error: pymysql.Error, expected: Cause) -> None:
    wrapped = DBAPIError("SELECT 'hunter2'", {}, error)
    assert cause(wrapped) is expected
    message = str(translated(wrapped))
    assert "hunter2" not in message
    assert "db.example" not in message
    assert "x.jobber" not in message
