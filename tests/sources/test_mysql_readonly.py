"""What a query may not do on MySQL and MariaDB: write, and leave anything behind in its session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobber.cancellation import Cancellation
from jobber.errors import QueryFailed
from jobber.sources.base import Query, Shape, Source
from jobber.sqltext import Placeholder, Statement
from tests.servers import MariaDB
from tests.sources.engines import MysqlEngine, opened
from tests.sources.reading import drain, read


def unparsed(sql: str) -> Statement:
    """A statement that no parser of jobber's has looked at: the session itself must be the wall."""
    return Statement(sql, (sql,), 0)


@pytest.fixture(scope="module")
def engine(mariadb: MariaDB) -> Iterator[MysqlEngine]:
    name = mariadb.new_database()
    engine = MysqlEngine(mariadb, name)
    mariadb.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    for sql in (
        "CREATE TABLE ledger (n INT)",
        "INSERT INTO ledger VALUES (1)",
        "CREATE FUNCTION writes() RETURNS INT BEGIN INSERT INTO ledger VALUES (2); RETURN 1; END",
        "CREATE FUNCTION unlocks() RETURNS INT BEGIN SET SESSION TRANSACTION READ WRITE; "
        "INSERT INTO ledger VALUES (2); RETURN 1; END",
        "CREATE PROCEDURE commits() BEGIN COMMIT; SET SESSION TRANSACTION READ WRITE; "
        "INSERT INTO ledger VALUES (2); COMMIT; SELECT 1; END",
        *([] if mariadb.is_mysql else ["CREATE SEQUENCE numbers_to_take"]),
    ):
        engine.watch(sql)
    yield engine
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def source(engine: MysqlEngine) -> Iterator[Source]:
    source = opened(engine, pool_size=1)
    yield source
    source.close()


WRITES = [
    "INSERT INTO ledger VALUES (2)",
    "REPLACE INTO ledger VALUES (2)",
    "INSERT INTO ledger VALUES (2) RETURNING n",
    "UPDATE ledger SET n = 2",
    "DELETE FROM ledger",
    "DELETE FROM ledger RETURNING n",
    "TRUNCATE ledger",
    "CREATE TABLE stolen AS SELECT 1",
    "CREATE TEMPORARY TABLE stolen AS SELECT 1",
    "DROP TABLE ledger",
    "SELECT * FROM ledger FOR UPDATE",
    "SELECT n INTO @stolen FROM ledger",
    "SELECT n INTO OUTFILE '/tmp/jobber-test-outfile' FROM ledger",
    "SELECT n INTO DUMPFILE '/tmp/jobber-test-outfile' FROM ledger",
    "SELECT writes()",
    "SELECT unlocks()",
    "SELECT NEXTVAL(numbers_to_take)",
    "CALL commits()",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "START TRANSACTION READ WRITE",
    "SET TRANSACTION READ WRITE",
    "SET SESSION TRANSACTION READ WRITE",
    "SET GLOBAL read_only = 1",
    "SET @a = 1",
    "LOCK TABLES ledger WRITE",
    "FLUSH TABLES",
    "USE mysql",
    "KILL QUERY 1",
    "DO writes()",
    "HANDLER ledger OPEN",
    "PREPARE x FROM 'INSERT INTO ledger VALUES (2)'",
    "EXECUTE IMMEDIATE 'INSERT INTO ledger VALUES (2)'",
    "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE ledger",
    "LOAD DATA INFILE '/etc/hostname' INTO TABLE ledger",
    "ANALYZE TABLE ledger",
    "OPTIMIZE TABLE ledger",
    "REPAIR TABLE ledger",
    "CHECK TABLE ledger",
    "GRANT SELECT ON *.* TO root@localhost",
    "COMMIT; INSERT INTO ledger VALUES (2)",
    "SELECT 1; INSERT INTO ledger VALUES (2)",
    "SET STATEMENT tx_read_only = 0 FOR INSERT INTO ledger VALUES (2) RETURNING n",
    "ANALYZE INSERT INTO ledger VALUES (2)",
    "EXPLAIN ANALYZE INSERT INTO ledger VALUES (2)",
    "/*!INSERT*/ INTO ledger VALUES (2)",
    "BEGIN NOT ATOMIC COMMIT; INSERT INTO ledger VALUES (2); END",
]


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written(engine: MysqlEngine, source: Source, accepts: frozenset[Shape], sql: str) -> None:
    def state() -> list[tuple[object, ...]]:
        return engine.watch(
            "SELECT (SELECT GROUP_CONCAT(n) FROM ledger), (SELECT COUNT(*) FROM information_schema.tables "
            "WHERE table_name = 'stolen'), @@global.read_only"
        )

    before = state()
    with pytest.raises(QueryFailed) as failed:
        drain(source.read(Query(unparsed(sql), []), accepts, timeout=5, cancellation=Cancellation()))
    assert not failed.value.retryable
    assert state() == before
    # The next query on the connection is as well off as any.
    assert read(source, "SELECT n, DATABASE() FROM ledger").rows == [(1, engine.database)]


def test_a_setting_that_a_query_makes_does_not_reach_the_next(source: Source, accepts: frozenset[Shape]) -> None:
    [(session,)] = read(source, "SELECT CONNECTION_ID()").rows
    read(source, "SELECT @kept := 5, GET_LOCK('kept', 0), LAST_INSERT_ID(7)", accepts=accepts)
    sql = "SELECT CONNECTION_ID(), @kept, IS_FREE_LOCK('kept'), LAST_INSERT_ID()"
    [row] = read(source, sql, accepts=accepts).rows
    assert (row[0], row[1], row[2], int(str(row[3]))) == (session, None, 1, 0)


def test_a_lock_that_a_query_takes_does_not_outlive_it(engine: MysqlEngine, source: Source) -> None:
    read(source, "SELECT GET_LOCK('taken', 0)")
    assert engine.watch("SELECT GET_LOCK('taken', 0)") == [(1,)]


def test_a_table_that_was_read_can_be_altered_afterwards(engine: MysqlEngine, source: Source) -> None:
    read(source, "SELECT * FROM ledger")
    with engine.server.connect(engine.database) as connection, connection.cursor() as cursor:
        cursor.execute("SET lock_wait_timeout = 2")
        cursor.execute("ALTER TABLE ledger COMMENT 'altered'")


def test_the_session_is_set_up_for_reading(source: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT @@time_zone, @@character_set_results, @@net_write_timeout, @@sql_select_limit"
    assert read(source, sql, accepts=accepts).rows == [("+00:00", "utf8mb4", "86400", "18446744073709551615")]


def test_the_administrator_sees_the_label(engine: MysqlEngine, source: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"
    [(shown,)] = read(source, sql, accepts=accepts, label="task=sales job=7 */ DROP").rows
    assert str(shown).startswith("/* task=sales job=7 __ DROP */ SELECT info")


# -- sql_mode ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT"])
def moded(request: pytest.FixtureRequest, engine: MysqlEngine) -> Iterator[tuple[Source, str]]:
    """A source on a server whose sql_mode reads quotes in another way."""
    mode: str = request.param
    engine.watch(f"SET GLOBAL sql_mode = '{mode}'")
    source = opened(engine)
    yield source, mode
    source.close()
    engine.watch("SET GLOBAL sql_mode = DEFAULT")


def test_the_sql_mode_of_the_server_holds(moded: tuple[Source, str]) -> None:
    source, mode = moded
    for _ in range(2):  # on a fresh connection, and on one that served before
        assert read(source, "SELECT @@sql_mode").rows == [(",".join(sorted(mode.split(","), key=MODES.index)),)]
    if "PIPES" in mode:
        assert read(source, "SELECT 'a' || ?", ["b"]).rows == [("ab",)]
    if "ANSI" in mode:
        assert read(source, 'SELECT "n" FROM ledger').rows == [(1,)]


MODES = ["PIPES_AS_CONCAT", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"]


@pytest.mark.parametrize("text", ["'", "\\", "\\'", "' OR 1 -- ", "\\' OR 1 -- ", '"', "a\0b", "\\N", "%s", ""])
def test_an_argument_is_a_value_under_any_sql_mode(
    moded: tuple[Source, str], accepts: frozenset[Shape], text: str
) -> None:
    source, _ = moded
    assert read(source, "SELECT ?, LENGTH(?) AS n", [text, text], accepts=accepts).rows == [(text, len(text))]


def test_a_query_whose_quotes_the_sql_mode_ends_elsewhere_is_refused(moded: tuple[Source, str]) -> None:
    source, mode = moded
    # To jobber that is one string, to the server a placeholder between two.
    tricky = r"SELECT 'a\', ?, \'b'" if "NO_BACKSLASH" in mode else r'SELECT "a\", ?, \"b"'
    with pytest.raises(QueryFailed, match=r"sql_mode .* quotes end elsewhere") as failed:
        read(source, tricky)
    assert not failed.value.retryable
    # Where nothing depends on it, a backslash is as good as any character.
    rows = read(source, r"SELECT 'C:\x', ?", [1]).rows
    assert rows == [("C:\\x" if "NO_BACKSLASH" in mode else "C:x", 1)]


def test_a_placeholder_that_the_server_does_not_see_is_refused(source: Source) -> None:
    odd = parse_wrong("SELECT '?'")
    with pytest.raises(QueryFailed, match="finds 0 placeholders in the query where jobber finds 1"):
        drain(source.read(Query(odd, ["x"]), frozenset(Shape), timeout=5, cancellation=Cancellation()))
    with pytest.raises(QueryFailed, match="finds 0 placeholders"):
        source.describe(odd)


def parse_wrong(sql: str) -> Statement:
    """A statement cut at a question mark that is no placeholder."""
    before, _, after = sql.partition("?")
    return Statement(sql, (before, Placeholder(0), after), 1)
