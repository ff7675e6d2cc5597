"""What a query may not do, how it is ended, and how it fails on PostgreSQL."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psycopg
import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import AttemptError, Cancelled, QueryFailed, SourceUnavailable, TimedOut, ValueNotRepresentable
from jobber.sources import open_source
from jobber.sources.base import Query, RowStream, Shape, Source
from jobber.sqltext import Statement, parse
from tests.servers import Postgres, free_port, wait_until
from tests.sources.reading import BOTH, DECODED, query, read

GONE_WITHIN = 2.0


@pytest.fixture
def watch(postgres: Postgres, database: str) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Run SQL as an administrator."""
    with psycopg.connect(postgres.dsn(database), autocommit=True, application_name="watch") as connection:
        yield lambda sql: connection.execute(sql).fetchall()  # type: ignore[arg-type]


def running(watch: Callable[[str], list[tuple[object, ...]]], marker: str) -> bool:
    return bool(watch(f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '/* {marker}%' AND state = 'active'"))


def unparsed(sql: str) -> Statement:
    """A statement that no parser of jobber's has looked at: the session itself must be the wall."""
    return Statement(sql, (sql,), 0)


# -- read-only --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledger(postgres: Postgres, database: str) -> None:
    postgres.execute(
        """
        CREATE TABLE ledger (n int);
        INSERT INTO ledger VALUES (1);
        CREATE SEQUENCE numbers;
        CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO ledger VALUES (2); RETURN 1; END $$;
        CREATE FUNCTION unlocks() RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN SET transaction_read_only = off; INSERT INTO ledger VALUES (2); RETURN 1; END $$;
        CREATE PROCEDURE commits(INOUT a int) LANGUAGE plpgsql AS
            $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2); COMMIT; END $$;
        """,
        database,
    )


WRITES = [
    "INSERT INTO ledger VALUES (2) RETURNING n",
    "WITH w AS (INSERT INTO ledger VALUES (2) RETURNING n) SELECT * FROM w",
    "WITH w AS (DELETE FROM ledger RETURNING n) SELECT * FROM w",
    "UPDATE ledger SET n = 2 RETURNING n",
    "DELETE FROM ledger RETURNING n",
    "TRUNCATE ledger",
    "SELECT n INTO stolen FROM ledger",
    "CREATE TABLE stolen AS SELECT 1",
    "DROP TABLE ledger",
    "SELECT * FROM ledger FOR UPDATE",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 100)",
    "SELECT lo_create(4242)",
    "SELECT lo_from_bytea(4242, 'x')",
    "SELECT writes()",
    "SELECT unlocks()",
    "CALL commits(1)",
    "DO $$ BEGIN INSERT INTO ledger VALUES (2); END $$",
    "DO $$ BEGIN SET transaction_read_only = off; INSERT INTO ledger VALUES (2); END $$",
    "COMMIT",
    "ROLLBACK",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "PREPARE TRANSACTION 'x'",
    "COPY ledger FROM STDIN",
    "COPY ledger TO '/tmp/jobber-test-copy'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/jobber-test-copy'",
    "NOTIFY x",
    "VACUUM ledger",
    "SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2)",
    "SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2) RETURNING n",
    "COMMIT; INSERT INTO ledger VALUES (2) RETURNING n",
    "ROLLBACK; BEGIN READ WRITE; INSERT INTO ledger VALUES (2); COMMIT",
    "SELECT 1; COMMIT; INSERT INTO ledger VALUES (2)",
    "SELECT 1) TO STDOUT; COMMIT; INSERT INTO ledger VALUES (2); COPY (SELECT 1",
    "SELECT 1) TO STDOUT; COMMIT; INSERT INTO ledger VALUES (2); --",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('transaction_read_only', 'off', true), writes()",
    "EXPLAIN ANALYZE INSERT INTO ledger VALUES (2)",
]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]], sql: str
) -> None:
    def state() -> list[tuple[object, ...]]:
        return watch(
            "SELECT (SELECT array_agg(n) FROM ledger), (SELECT last_value FROM numbers), "
            "(SELECT is_called FROM numbers), (SELECT count(*) FROM pg_class WHERE relname = 'stolen'), "
            "(SELECT count(*) FROM pg_largeobject_metadata)"
        )

    before = state()
    reading = pg.read(Query(unparsed(sql), []), accepts, timeout=5, cancellation=Cancellation())
    if "SELECT lo_" in sql:
        # PostgreSQL refuses these from version 16 on; before, the rollback takes them back.
        with suppress(QueryFailed):
            drain(reading)
    else:
        with pytest.raises(QueryFailed) as failed:
            drain(reading)
        assert not failed.value.retryable
    assert state() == before


def test_a_setting_that_a_query_makes_does_not_reach_the_next(pg: Source, accepts: frozenset[Shape]) -> None:
    read(pg, "SELECT set_config('default_transaction_read_only', 'off', false), set_config('search_path', 'x', false)")
    rows = read(
        pg,
        "SELECT current_setting('default_transaction_read_only'), current_setting('search_path') <> 'x', "
        "current_setting('transaction_read_only')",
        accepts=accepts,
    ).rows
    assert rows == [("on", True, "on")]


def test_a_lock_that_a_query_takes_does_not_outlive_it(
    pg: Source, watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    read(pg, "SELECT pg_advisory_lock(7)")
    assert watch("SELECT pg_try_advisory_lock(7), pg_advisory_unlock(7)") == [(True, True)]


def test_behind_a_pooling_proxy_nothing_of_a_session_is_left(postgres: Postgres, database: str) -> None:
    source = open_source(
        DatabaseSettings(
            name="x", url=postgres.url(database), engine="postgresql", server_side_cursors=False, pool_size=1
        )
    )
    read(source, "SELECT $1::int", [1])
    with source._pool._lock:  # type: ignore[attr-defined]
        session = source._pool._idle[0]  # type: ignore[attr-defined]
    shown = {
        name: session.select(f"SHOW {name}")[0][0]
        for name in ("default_transaction_read_only", "statement_timeout", "client_connection_check_interval")
    }
    source.close()
    assert shown == {
        "default_transaction_read_only": "off",
        "statement_timeout": "0",
        "client_connection_check_interval": "0",
    }


def test_the_administrator_sees_the_label(pg: Source, accepts: frozenset[Shape]) -> None:
    shown = read(pg, "SELECT current_query()", accepts=accepts, label="task=sales job=7 */ DROP").rows[0][0]
    assert str(shown).startswith("/* task=sales job=7 __ DROP */ ")
    assert read(pg, "SELECT current_setting('application_name')").rows == [("jobber",)]


# -- cancelling -------------------------------------------------------------------------------------------------------


@contextmanager
def pulled_when(condition: Callable[[], object]) -> Iterator[tuple[Cancellation, list[float]]]:
    """A token that is pulled once ``condition`` holds; the list gets the time."""
    cancellation, at = Cancellation(), list[float]()

    def pull() -> None:
        wait_until(condition)
        at.append(time.monotonic())
        cancellation.pull(Cancelled("somebody cancelled the job"))

    thread = threading.Thread(target=pull)
    thread.start()
    try:
        yield cancellation, at
    finally:
        thread.join()


def consume(
    source: Source,
    sql: str,
    accepts: frozenset[Shape],
    cancellation: Cancellation,
    timeout: float = 0,
    *,
    label: str = "",
) -> int:
    return drain(source.read(query(source, sql, label=label), accepts, timeout=timeout, cancellation=cancellation))


def parts_of(stream: RowStream) -> Iterator[int]:
    """Count the rows of each chunk or batch."""
    if stream.shape is Shape.ENCODED:
        yield from (chunk.rows for chunk in stream.chunks())
    else:
        yield from (len(batch) for batch in stream.batches())


def drain(reading: AbstractContextManager[RowStream]) -> int:
    with reading as stream:
        return sum(parts_of(stream))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_sleep(60)",  # before the first row
        "SELECT g, CASE WHEN g > 9000 THEN pg_sleep(60) END FROM generate_series(1, 10000) g",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",  # computing
        "SELECT generate_series(1, 100000000000), repeat('x', 1000)",  # sending
        "EXPLAIN (ANALYZE) SELECT pg_sleep(60)",
    ],
)
def test_a_cancelled_query_is_gone_at_once(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]], sql: str
) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    with pulled_when(lambda: running(watch, marker)) as (cancellation, at), pytest.raises(Cancelled):
        consume(pg, sql, accepts, cancellation, label=marker)
    assert time.monotonic() - at[0] < GONE_WITHIN
    wait_until(lambda: not running(watch, marker), timeout=at[0] + GONE_WITHIN - time.monotonic())


def test_a_query_whose_rows_nobody_takes_is_cancelled_all_the_same(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    sql = "SELECT generate_series(1, 100000000000), repeat('x', 1000)"
    cancellation = Cancellation()
    with pg.read(query(pg, sql, label=marker), accepts, timeout=0, cancellation=cancellation) as stream:
        parts = parts_of(stream)
        next(parts)
        wait_until(lambda: running(watch, marker))
        time.sleep(0.2)  # the server fills the socket and waits for room
        cancellation.pull(Cancelled("somebody cancelled the job"))
        began = time.monotonic()
        with pytest.raises(Cancelled):
            next(parts)
    assert time.monotonic() - began < GONE_WITHIN
    wait_until(lambda: not running(watch, marker), timeout=GONE_WITHIN)


def test_leaving_early_ends_the_query(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    sql = "SELECT generate_series(1, 100000000000)"
    with pg.read(query(pg, sql, label=marker), accepts, timeout=0, cancellation=Cancellation()) as stream:
        next(parts_of(stream))
    wait_until(lambda: not running(watch, marker), timeout=GONE_WITHIN)
    assert read(pg, "SELECT 1", accepts=accepts).rows == [(1,)]


def test_a_token_pulled_before_keeps_the_query_from_running(pg: Source, accepts: frozenset[Shape]) -> None:
    cancellation = Cancellation()
    cancellation.pull(Cancelled("too late"))
    with pytest.raises(Cancelled):
        consume(pg, "SELECT pg_sleep(60)", accepts, cancellation)


def test_a_cancel_at_any_moment_holds_and_never_hits_the_next_query(pg: Source, accepts: frozenset[Shape]) -> None:
    # The delays sweep over connecting, BEGIN, Describe and the start of the query: a cancel request that overtakes
    # the query is lost on the server, and one that lingers would hit the next user of a pooled connection.
    for delay in range(25):
        cancellation = Cancellation()
        timer = threading.Timer(delay * 0.0003, lambda c=cancellation: c.pull(Cancelled("stop")))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            consume(pg, "SELECT pg_sleep(60)", accepts, cancellation)
        assert time.monotonic() - began < GONE_WITHIN
        timer.join()
        assert read(pg, "SELECT 1, pg_sleep(0.002)", accepts=accepts).rows == [(1, "")]


def test_a_cancelled_connection_is_never_used_again(postgres: Postgres, database: str) -> None:
    source = open_source(DatabaseSettings(name="x", url=postgres.url(database), engine="postgresql", pool_size=1))
    first = read(source, "SELECT pg_backend_pid()").rows
    assert read(source, "SELECT pg_backend_pid()").rows == first
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
    with pytest.raises(Cancelled):
        consume(source, "SELECT pg_sleep(60)", DECODED, cancellation)
    assert read(source, "SELECT pg_backend_pid()").rows != first
    source.close()


def test_waiting_for_a_free_connection_is_cancellable(postgres: Postgres, database: str) -> None:
    source = open_source(DatabaseSettings(name="x", url=postgres.url(database), engine="postgresql", pool_size=1))
    with source.read(query(source, "SELECT 1"), DECODED, timeout=0, cancellation=Cancellation()):
        cancellation = Cancellation()
        threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            consume(source, "SELECT 1", DECODED, cancellation)
        assert time.monotonic() - began < GONE_WITHIN
    source.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where somebody accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_connecting_to_a_server_that_says_nothing_is_cancellable(silent_port: int) -> None:
    source = open_source(
        DatabaseSettings(
            name="x", url=f"postgresql://u@127.0.0.1:{silent_port}/d", engine="postgresql", connect_timeout=3
        )
    )
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        consume(source, "SELECT 1", DECODED, cancellation)
    assert time.monotonic() - began < GONE_WITHIN
    source.close()


# -- time limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    ["SELECT pg_sleep(60)", "SELECT g, CASE WHEN g > 9000 THEN pg_sleep(60) END FROM generate_series(1, 10000) g"],
)
def test_the_engine_ends_what_runs_too_long(pg: Source, accepts: frozenset[Shape], sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"longer than its time limit \(0\.3 s\)"):
        consume(pg, sql, accepts, Cancellation(), timeout=0.3)
    assert time.monotonic() - began < GONE_WITHIN


def test_the_time_limit_counts_for_the_whole_query_and_not_for_each_batch(
    pg: Source, accepts: frozenset[Shape]
) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut):
        consume(
            pg,
            "SELECT pg_sleep(0.0001), repeat('x', 100) FROM generate_series(1, 100000)",
            accepts,
            Cancellation(),
            0.5,
        )
    assert time.monotonic() - began < GONE_WITHIN


def test_a_time_limit_does_not_reach_the_next_query(pg: Source, accepts: frozenset[Shape]) -> None:
    consume(pg, "SELECT 1", accepts, Cancellation(), timeout=0.1)
    assert consume(pg, "SELECT pg_sleep(0.3)", accepts, Cancellation()) == 1


def test_an_administrators_cancel_is_no_timeout_and_not_retried(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    marker = f"marker-{time.monotonic_ns()}"

    def kill() -> None:
        wait_until(lambda: running(watch, marker))
        watch(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '/* {marker}%'")

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(QueryFailed, match="due to user request") as failed:
        consume(pg, "SELECT pg_sleep(60)", accepts, Cancellation(), timeout=30, label=marker)
    thread.join()
    assert not failed.value.retryable


# -- failures ---------------------------------------------------------------------------------------------------------


def test_an_error_halfway_fails_the_stream(pg: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT g, repeat('x', 200), 1 / (5000 - g) FROM generate_series(1, 10000) g"
    with pytest.raises(QueryFailed, match="division by zero") as failed:
        consume(pg, sql, accepts, Cancellation())
    assert not failed.value.retryable
    assert read(pg, "SELECT 1", accepts=accepts).rows == [(1,)]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT\n  1,\n  nothing", r'column "nothing" does not exist \(line 3 of the query\)'),
        ("SELEC 1", r'syntax error at or near "SELEC" \(line 1 of the query\)'),
        ("SELECT * FROM nowhere", r'relation "nowhere" does not exist'),
        ("SELECT lenth('x')", r"No function matches .*You might need to add explicit type casts"),
        ("SELECT", "no columns"),
        ("SELECT $1", None),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
    ],
)
def test_a_refused_statement_is_told_in_the_engines_words(
    pg: Source, accepts: frozenset[Shape], sql: str, words: str | None
) -> None:
    statement = Statement(sql, (sql,), 0)
    if words is None:
        assert pg.describe(parse(sql, "postgresql")) is not None
        return
    with pytest.raises(QueryFailed, match=words) as failed:
        pg.describe(statement)
    assert not failed.value.retryable


@pytest.mark.parametrize(
    ("raised", "error", "retryable"),
    [
        ("40001", QueryFailed, True),
        ("40P01", QueryFailed, True),
        ("55P03", QueryFailed, True),
        ("53200", QueryFailed, True),
        ("22012", QueryFailed, False),
        ("42501", QueryFailed, False),
        ("0A000", QueryFailed, False),
        ("25006", QueryFailed, False),
        ("08006", SourceUnavailable, True),
        ("57P01", SourceUnavailable, True),
        ("57P03", SourceUnavailable, True),
        ("53300", SourceUnavailable, True),
    ],
)
def test_the_state_of_an_error_decides_whether_it_may_pass(
    pg: Source, postgres: Postgres, database: str, raised: str, error: type[AttemptError], retryable: bool
) -> None:
    postgres.execute(
        "CREATE OR REPLACE FUNCTION fail(state text) RETURNS int LANGUAGE plpgsql STABLE AS "
        "$$ BEGIN RAISE EXCEPTION 'alas' USING ERRCODE = state, DETAIL = 'the detail', HINT = 'the hint'; END $$",
        database,
    )
    with pytest.raises(error, match=r"alas\. the detail\. the hint") as failed:
        read(pg, "SELECT fail($1)", [raised])
    assert failed.value.retryable is retryable
    assert type(failed.value) is error


def test_bytes_that_are_no_text_fail_the_query(postgres: Postgres, accepts: frozenset[Shape]) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    source = open_source(DatabaseSettings(name="x", url=postgres.url("ascii"), engine="postgresql"))
    try:
        with pytest.raises(QueryFailed, match='invalid byte sequence for encoding "UTF8": 0xe9') as failed:
            read(source, r"SELECT 1 AS good, convert_from('\x636166e9', 'SQL_ASCII') AS bad", accepts=accepts)
        assert not failed.value.retryable
    finally:
        source.close()
        postgres.drop_database("ascii")


def test_a_query_that_moves_its_own_time_zone_fails_instead_of_shifting_times(pg: Source) -> None:
    with pytest.raises(ValueNotRepresentable, match="column later"):
        read(pg, "SELECT set_config('TimeZone', 'Asia/Kolkata', true), 1 AS a, now() AS later")


def test_a_database_that_is_down_shows_at_first_use_without_its_address_and_password() -> None:
    url = f"postgresql+psycopg://someone:sesame@127.0.0.1:{free_port()}/d"
    source = open_source(DatabaseSettings(name="reports", url=url, engine="postgresql", connect_timeout=2))
    for attempt in (lambda: read(source, "SELECT 1"), lambda: source.describe(parse("SELECT 1", "postgresql"))):
        with pytest.raises(SourceUnavailable, match=r"the database reports cannot be reached: .*refused") as failed:
            attempt()
        assert failed.value.retryable
        assert "sesame" not in failed.value.message
        assert "127.0.0.1" not in failed.value.message
    source.close()


def test_a_database_that_does_not_exist_is_unavailable(postgres: Postgres) -> None:
    source = open_source(DatabaseSettings(name="x", url=postgres.url("nope"), engine="postgresql"))
    with pytest.raises(SourceUnavailable, match='database "nope" does not exist'):
        read(source, "SELECT 1")


def test_a_connection_killed_in_the_stream_fails_it(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    marker = f"marker-{time.monotonic_ns()}"

    def kill() -> None:
        wait_until(lambda: running(watch, marker))
        watch(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '/* {marker}%'")

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SourceUnavailable) as failed:
        consume(pg, "SELECT generate_series(1, 100000000000), repeat('x', 100)", accepts, Cancellation(), label=marker)
    thread.join()
    assert failed.value.retryable
    assert read(pg, "SELECT 1", accepts=accepts).rows == [(1,)]


def test_an_idle_connection_that_the_server_closed_is_replaced(
    pg: Source, watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    read(pg, "SELECT 1")
    watch("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = 'jobber'")
    assert read(pg, "SELECT 1").rows == [(1,)]


def test_a_server_that_dies_in_the_stream_and_comes_back(accepts: frozenset[Shape]) -> None:
    server = Postgres()
    server.start()
    try:
        source = open_source(DatabaseSettings(name="x", url=server.url("postgres"), engine="postgresql"))
        sql = "SELECT generate_series(1, 100000000), repeat('x', 100)"
        with source.read(query(source, sql), accepts, timeout=0, cancellation=Cancellation()) as stream:
            parts = parts_of(stream)
            next(parts)
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='jobber'")
            server.stop()
            with pytest.raises(SourceUnavailable):
                sum(parts)
        with pytest.raises(SourceUnavailable):
            read(source, "SELECT 1", accepts=accepts)
        server.start()
        assert read(source, "SELECT 1", accepts=accepts).rows == [(1,)]
        source.close()
    finally:
        server.remove()


def test_many_threads_share_few_connections(postgres: Postgres, database: str) -> None:
    source = open_source(DatabaseSettings(name="x", url=postgres.url(database), engine="postgresql", pool_size=3))
    wrong: list[object] = []

    def work(number: int) -> None:
        for i in range(20):
            rows = read(source, "SELECT $1::int, $2::int", [number, i], accepts=BOTH if i % 2 else DECODED).rows
            if rows != [(number, i)]:
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    assert not wrong
