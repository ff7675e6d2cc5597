"""What is special about how a query on MySQL and MariaDB is ended, and how it fails."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pymysql
import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import Cancelled, QueryFailed, SourceUnavailable, TimedOut
from jobber.jobs import Scalar
from jobber.mysql import Killer
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sources.mysql.session import Prepared, Session
from jobber.sqltext import parse
from tests.servers import MariaDB, wait_until
from tests.sources.engines import MysqlEngine, opened
from tests.sources.reading import DECODED, consume, parts_of, query, read

GONE_WITHIN = 2.0


@pytest.fixture(scope="module")
def engine(mariadb: MariaDB) -> Iterator[MysqlEngine]:
    name = mariadb.new_database()
    yield MysqlEngine(mariadb, name)
    mariadb.drop_database(name)


@pytest.fixture
def source(engine: MysqlEngine) -> Iterator[Source]:
    source = opened(engine, pool_size=2)
    yield source
    source.close()


def pulled_after(seconds: float) -> Cancellation:
    cancellation = Cancellation()
    threading.Timer(seconds, lambda: cancellation.pull(Cancelled("somebody cancelled the job"))).start()
    return cancellation


# -- cancelling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def frozen(engine: MysqlEngine) -> Iterator[Callable[[], None]]:
    """Stops the server as a machine that hangs would; it goes on after the test."""
    process = engine.server.process
    assert process is not None
    yield lambda: process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("when", ["connecting", "beginning", "running", "reading", "leaving"])
def test_a_server_that_hangs_holds_nobody(
    source: Source, engine: MysqlEngine, frozen: Callable[[], None], when: str
) -> None:
    if when != "connecting":
        read(source, "SELECT 1")
    cancellation = Cancellation()
    sql = engine.rows(10**11, "n, repeat('x', 100)") if when in {"reading", "leaving"} else f"SELECT {engine.sleep}"
    if when in {"connecting", "beginning"}:
        frozen()
    else:
        threading.Timer(0.2, frozen).start()
    threading.Timer(0.4, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with (
        pytest.raises(Cancelled),
        source.read(query(source, sql), DECODED, timeout=0, cancellation=cancellation) as stream,
    ):
        for _ in parts_of(stream):
            if when == "leaving":
                time.sleep(0.6)
                raise Cancelled("the other side has had enough")
    # Ending it takes the patience with a KILL QUERY once, and once more where rows are left.
    assert time.monotonic() - began < 0.4 + 2 * GONE_WITHIN


def test_a_query_that_waits_for_a_lock_is_cancelled(engine: MysqlEngine, source: Source) -> None:
    engine.watch("CREATE TABLE IF NOT EXISTS busy (n INT)")
    with engine.server.connect(engine.database) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES busy WRITE")
        began = time.monotonic()
        with pytest.raises(Cancelled):
            consume(source, "SELECT * FROM busy", DECODED, pulled_after(0.3), label="waits")
        assert time.monotonic() - began < 0.3 + GONE_WITHIN
        wait_until(lambda: not engine.running("waits"), timeout=GONE_WITHIN)
        with pytest.raises(TimedOut):
            consume(source, "SELECT * FROM busy", DECODED, Cancellation(), timeout=0.3)


def test_a_table_that_is_locked_is_no_fault_of_the_task(engine: MysqlEngine) -> None:
    source = opened(engine, connect_timeout=1)
    making = threading.Thread(target=engine.watch, args=("CREATE TABLE making AS SELECT SLEEP(3) AS n",))
    making.start()
    wait_until(lambda: engine.watch("SELECT 1 FROM information_schema.processlist WHERE info LIKE 'CREATE TABLE m%'"))
    with pytest.raises(SourceUnavailable, match="a table of the query is locked"):
        source.describe(parse("SELECT * FROM making", "mysql"))
    making.join()
    assert source.describe(parse("SELECT * FROM making", "mysql")) is not None
    source.close()


@pytest.fixture
def crowded(engine: MysqlEngine) -> Iterator[Callable[[], None]]:
    """Takes all connections that the server has left, each time that it is called."""
    [(before,)] = engine.watch("SELECT @@global.max_connections")
    administrator = engine.server.connect(engine.database)
    crowd = []

    def fill() -> None:
        with administrator.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = 12")
        refusals = 0
        # A connection that is about to end leaves a place a moment later.
        while refusals < 20:
            try:
                crowd.append(engine.server.connect(engine.database))
            except pymysql.err.OperationalError:
                refusals += 1
                time.sleep(0.05)

    yield fill
    with administrator.cursor() as cursor:
        cursor.execute(f"SET GLOBAL max_connections = {before}")
    for connection in (administrator, *crowd):
        connection.close()


def test_without_a_connection_for_the_kill_the_query_is_broken_off(
    engine: MysqlEngine, source: Source, crowded: Callable[[], None]
) -> None:
    sql = engine.rows(10**11, "n, repeat('x', 100)")
    with source.read(query(source, sql, label="alone"), DECODED, timeout=0, cancellation=Cancellation()) as stream:
        next(parts_of(stream))
        crowded()
        began = time.monotonic()
    assert time.monotonic() - began < 2 * GONE_WITHIN
    crowded()
    with pytest.raises(SourceUnavailable, match=r"too many connections \(error 1040\)"):
        read(source, "SELECT 1")


def test_no_query_of_another_server_is_ever_killed(engine: MysqlEngine, source: Source) -> None:
    """Behind one address there may be several servers, and the ID of a connection is another one's there."""
    first = source._connection()  # type: ignore[attr-defined]
    second = source._connection()  # type: ignore[attr-defined]
    killed: list[str] = []
    second._server = ("another", 3306, 2)
    second.run = killed.append
    killer = Killer(first, lambda: second)
    over = threading.Event()
    killer.strike(over)
    time.sleep(0.3)
    over.set()
    assert killer.used
    assert not killed
    first.close()


def test_what_the_engine_does_not_limit_is_ended_from_here(source: Source, engine: MysqlEngine) -> None:
    # MySQL's limit is for SELECT alone, and MariaDB's can be lifted by the query itself.
    sql = f"{engine.analyze} SELECT {engine.sleep}"
    if not engine.server.is_mysql:
        sql = f"SET STATEMENT max_statement_time = 0 FOR SELECT {engine.sleep}"
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"longer than its time limit \(0\.3 s\)"):
        consume(source, sql, DECODED, Cancellation(), timeout=0.3, label="unlimited")
    assert time.monotonic() - began < 0.3 + GONE_WITHIN
    wait_until(lambda: not engine.running("unlimited"), timeout=GONE_WITHIN)


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raising(engine: MysqlEngine) -> None:
    """Views that raise an error of any number."""
    for name, state, number, text in (
        ("signalling", "45000", 1644, "alas"),
        ("deadlocked", "40001", 1213, "try again"),
        ("stopping", "08S01", 1053, "root@somewhere"),
        ("limited", "HY000", 3024, "enough"),
    ):
        engine.watch(
            f"CREATE FUNCTION {name}_f() RETURNS INT READS SQL DATA BEGIN "
            f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{text}'; RETURN 1; END"
        )
        engine.watch(f"CREATE VIEW {name} AS SELECT {name}_f() AS f")


@pytest.mark.usefixtures("raising")
@pytest.mark.parametrize(
    ("sql", "error", "words", "retryable"),
    [
        ("SELECT (SELECT n FROM numbers)", QueryFailed, r"Subquery returns more than 1 row \(error 1242\)", False),
        ("SELECT 9223372036854775807 + n FROM numbers", QueryFailed, r"out of range .*\(error 1690\)", False),
        ("SELECT lenth('x')", QueryFailed, r"FUNCTION .*lenth does not exist \(error 1305\)", False),
        ("SELECT * FROM nowhere", QueryFailed, r"nowhere' doesn't exist \(error 1146\)", False),
        ("SELECT 'a' COLLATE latin1_bin", QueryFailed, r"error 1253", False),
        ("SELECT * FROM signalling", QueryFailed, r"alas \(error 1644\)", False),
        ("SELECT * FROM deadlocked", QueryFailed, r"try again \(error 1213\)", True),
        ("SELECT * FROM stopping", SourceUnavailable, r"the server is stopping \(error 1053\)", True),
        ("SELECT * FROM limited", TimedOut, r"enough \(error 3024\)", False),
    ],
)
def test_the_number_of_an_error_decides_whether_it_may_pass(
    source: Source, sql: str, error: type[Exception], words: str, retryable: bool
) -> None:
    with pytest.raises(error, match=words) as failed:
        read(source, sql)
    assert type(failed.value) is error
    assert failed.value.retryable is retryable  # type: ignore[attr-defined]
    assert "somewhere" not in str(failed.value)


@pytest.mark.parametrize(
    ("account", "database", "words"),
    [
        ("nobody:sesame", "{database}", r"access denied \(error 1045\)"),
        ("limited:sesame", "mysql", r"the account has no right to this database \(error 1044\)"),
        ("root", "nope", r"there is no such database \(error 1049\)"),
    ],
)
def test_why_no_connection_came_about_is_told_without_account_and_password(
    engine: MysqlEngine, account: str, database: str, words: str
) -> None:
    engine.watch("CREATE USER IF NOT EXISTS limited@'%' IDENTIFIED BY 'sesame'")
    url = engine.url(database.format(database=engine.database)).replace("root@", f"{account}@")
    source = open_source(DatabaseSettings(name="reports", url=url, engine="mysql"))
    with pytest.raises(SourceUnavailable, match=f"the database reports is not available: {words}") as failed:
        read(source, "SELECT 1")
    for secret in ("sesame", "nobody", "limited", "127.0.0.1", "localhost"):
        assert secret not in failed.value.message
    source.close()


def test_a_right_that_is_missing_is_told_in_the_engines_words(engine: MysqlEngine) -> None:
    engine.watch("CREATE USER IF NOT EXISTS reader@'%'")
    engine.watch(f"GRANT SELECT ON {engine.database}.digits TO reader@'%'")
    source = opened(engine, url=engine.url().replace("root@", "reader@"))
    assert len(read(source, "SELECT * FROM digits").rows) == 10
    with pytest.raises(QueryFailed, match=r"SELECT command denied .*\(error 1142\)") as failed:
        read(source, "SELECT * FROM numbers")
    assert not failed.value.retryable
    # An account may end its own queries: that takes no right.
    with pytest.raises(Cancelled):
        consume(source, f"SELECT d, {engine.sleep} FROM digits", DECODED, pulled_after(0.2), label="reader")
    wait_until(lambda: not engine.running("reader"), timeout=GONE_WITHIN)
    source.close()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "SELECT GROUP_CONCAT(REPEAT('x', @@max_allowed_packet / 100)) FROM numbers",
            r"cut by group_concat.*max_len is too small",
        ),
        ("SELECT LENGTH(REPEAT('x', 1100000000))", r"larger than max_allowed_packet .*max_allowed_packet is too small"),
    ],
)
def test_a_value_that_the_server_cuts_off_fails_the_query(
    engine: MysqlEngine, accepts: frozenset[Shape], sql: str, words: str
) -> None:
    source = opened(engine)
    # Among warnings about what the query itself asked for.
    rest = "SELECT d / 'a' FROM digits UNION ALL " * 20
    with pytest.raises(QueryFailed, match=f"(?i){words}") as failed:
        read(source, rest + sql, accepts=accepts)
    assert not failed.value.retryable
    assert len(read(source, "SELECT d / 'a' FROM digits").rows) == 10
    source.close()


def test_a_limit_of_group_concat_cuts_nothing_off_behind_more_warnings_than_the_server_keeps(
    engine: MysqlEngine, accepts: frozenset[Shape]
) -> None:
    source = opened(engine, url=f"{engine.url()}?init_command=SET%20group_concat_max_len%3D1000")
    warned = "SELECT SUM(a.n / 'x') AS s FROM numbers a, numbers b WHERE b.n < 100"
    sql = f"SELECT LENGTH(g), s FROM ({warned}) q, (SELECT GROUP_CONCAT(n) AS g FROM numbers) r"
    assert read(source, sql, accepts=accepts).rows == [(3889, None)]
    source.close()


def test_rows_that_a_limit_of_the_server_leaves_out_fail_the_query(
    engine: MysqlEngine, accepts: frozenset[Shape]
) -> None:
    source = opened(engine)
    counted = "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 2000) SELECT n FROM c"
    with pytest.raises(QueryFailed, match=r"max_recursive_iterations is too small|cte_max_recursion_depth"):
        read(source, counted, accepts=accepts)
    if not engine.server.is_mysql:
        assert len(read(source, "SELECT n FROM numbers LIMIT ROWS EXAMINED 5", accepts=accepts).rows) < 1000
    source.close()


@pytest.mark.parametrize("args", [[], [1]])
def test_a_table_altered_while_the_query_begins_gives_no_column_the_name_of_another(
    engine: MysqlEngine, monkeypatch: pytest.MonkeyPatch, accepts: frozenset[Shape], args: list[Scalar]
) -> None:
    engine.watch("DROP TABLE IF EXISTS altered")
    engine.watch("CREATE TABLE altered (one INT, two INT)")
    source, prepare = opened(engine), Session.prepare

    def then_altered(session: Session, text: str) -> Prepared:
        prepared = prepare(session, text)
        engine.watch("ALTER TABLE altered CHANGE one two INT, CHANGE two one INT")
        monkeypatch.undo()
        return prepared

    monkeypatch.setattr(Session, "prepare", then_altered)
    with pytest.raises(QueryFailed, match="a table of the query was altered while it began") as failed:
        read(source, "SELECT a.*" + ", ?" * len(args) + " FROM altered a", args, accepts=accepts)
    assert failed.value.retryable
    assert read(source, "SELECT * FROM altered", accepts=accepts).names == ["two", "one"]
    source.close()


def test_a_connection_serves_many_queries_and_is_as_new_each_time(source: Source, accepts: frozenset[Shape]) -> None:
    sessions = {read(source, "SELECT CONNECTION_ID()", accepts=accepts).rows[0] for _ in range(5)}
    assert len(sessions) == 1


def test_mariadb_is_another_name_of_the_engine(engine: MysqlEngine) -> None:
    url = engine.url().replace("mysql+", "mariadb+")
    source = open_source(DatabaseSettings(name="x", url=url, engine="mariadb"))
    assert read(source, "SELECT 'it\\'s', ?", [1]).rows == [("it's", 1)]
    assert source.engine == "mysql"
    source.close()


def test_a_url_may_bring_options_of_the_driver(engine: MysqlEngine) -> None:
    options = "?init_command=SET%20lc_time_names%3D'de_DE'&collation=utf8mb4_bin&sql_mode=ANSI_QUOTES"
    source = opened(engine, url=engine.url() + options)
    for _ in range(2):
        sql = "SELECT @@lc_time_names, @@collation_connection, @@sql_mode"
        assert read(source, sql).rows == [("de_DE", "utf8mb4_bin", "ANSI_QUOTES")]
    source.close()
