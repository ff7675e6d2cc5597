"""How a query fails on PostgreSQL, and what follows its failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import AttemptError, QueryFailed, SourceUnavailable, ValueNotRepresentable
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sqltext import Statement, parse
from tests.servers import Postgres, free_port, wait_until
from tests.sources.reading import BOTH, DECODED, consume, parts_of, query, read, running


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
