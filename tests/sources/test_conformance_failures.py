"""How a query fails, and what follows its failure; the same on every engine with a server."""

from __future__ import annotations

import threading
import time

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import QueryFailed, SourceUnavailable
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sqltext import Statement, parse
from tests.servers import MariaDB, Postgres, free_port, wait_until
from tests.sources.engines import ALL, Engine, MysqlEngine, PostgresEngine, Served, opened
from tests.sources.reading import BOTH, DECODED, consume, parts_of, query, read


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_an_error_halfway_fails_the_stream(engine: Served, source: Source, accepts: frozenset[Shape]) -> None:
    sql = engine.rows(10_000, f"n, {engine.text(200)}, {engine.breaking}")
    came = 0
    with (
        pytest.raises(QueryFailed, match=engine.broken) as failed,
        source.read(query(source, sql), accepts, timeout=0, cancellation=Cancellation()) as stream,
    ):
        for rows in parts_of(stream):
            came += rows
    # ClickHouse makes tens of thousands of rows at a time.
    assert came < 5005 if engine.name == "clickhouse" else 0 < came < 5005
    assert not failed.value.retryable
    assert read(source, "SELECT 1", accepts=accepts).rows == [(1,)]


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_refused_statement_is_told_in_the_engines_words(engine: Served, source: Source) -> None:
    refused = {
        "SELECT\n  1,\n  nothing": engine.no_such_column,
        "SELEC 1": engine.syntax,
        "SELECT * FROM nowhere": "nowhere.*does(n't| not) exist|Unknown table.*nowhere",
        "COMMIT": "no columns",
        "SELECT 1; SELECT 2": "multiple commands|error in your SQL syntax|Syntax error",
    }
    for sql, words in refused.items():
        with pytest.raises(QueryFailed, match=words) as failed:
            source.describe(Statement(sql, (sql,), 0))
        assert not failed.value.retryable
        with pytest.raises(QueryFailed, match=words):
            read(source, sql) if ";" not in sql else source.describe(Statement(sql, (sql,), 0))


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_database_that_is_down_shows_at_first_use_without_its_address_and_password(engine: Served) -> None:
    scheme = engine.url().partition("://")[0]
    url = f"{scheme}://someone:sesame@127.0.0.1:{free_port()}/d"
    source = open_source(DatabaseSettings(name="reports", url=url, engine=engine.name, connect_timeout=2))
    for attempt in (lambda: read(source, "SELECT 1"), lambda: source.describe(parse("SELECT 1", engine.name))):
        with pytest.raises(SourceUnavailable, match=r"the database reports cannot be reached: .*refused") as failed:
            attempt()
        assert failed.value.retryable
        assert "sesame" not in failed.value.message
        assert "127.0.0.1" not in failed.value.message
    source.close()


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_database_that_does_not_exist_is_unavailable(engine: Served) -> None:
    source = opened(engine, url=engine.url("nope"))
    with pytest.raises(SourceUnavailable, match=engine.no_database):
        read(source, "SELECT 1")


def test_a_connection_killed_in_the_stream_fails_it(engine: Engine, source: Source, accepts: frozenset[Shape]) -> None:
    marker = f"marker-{time.monotonic_ns()}"

    def kill() -> None:
        wait_until(lambda: engine.running(marker))
        engine.kill(engine.running(marker)[0])

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SourceUnavailable) as failed:
        consume(source, engine.rows(10**11, "n, repeat('x', 100)"), accepts, Cancellation(), label=marker)
    thread.join()
    assert failed.value.retryable
    assert read(source, "SELECT 1", accepts=accepts).rows == [(1,)]


def test_an_idle_connection_that_the_server_closed_is_replaced(engine: Engine, source: Source) -> None:
    read(source, "SELECT 1", timeout=0.5)
    time.sleep(0.6)  # that limit is of no query any more
    for connection in engine.connections():
        engine.kill(connection)
    assert read(source, "SELECT 1").rows == [(1,)]


@pytest.mark.parametrize("make", [Postgres, MariaDB])
def test_a_server_that_dies_in_the_stream_and_comes_back(make: type[Postgres | MariaDB]) -> None:
    server = make()
    server.start()
    try:
        name = server.new_database()
        engine: Engine = PostgresEngine(server, name) if isinstance(server, Postgres) else MysqlEngine(server, name)
        source = opened(engine)
        for accepts in (DECODED, BOTH):
            sql = engine.rows(10**8, "n, repeat('x', 100)")
            with source.read(query(source, sql), accepts, timeout=0, cancellation=Cancellation()) as stream:
                parts = parts_of(stream)
                next(parts)
                for connection in engine.connections():
                    engine.kill(connection)
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


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_many_threads_share_few_connections(engine: Served) -> None:
    source = opened(engine, pool_size=3)
    wrong: list[object] = []
    sql = "SELECT $1::int, $2::int" if engine.name == "postgresql" else "SELECT ?, ?"

    def work(number: int) -> None:
        for i in range(20):
            rows = read(source, sql, [number, i], accepts=BOTH if i % 2 else DECODED).rows
            if rows != [(number, i)]:
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    assert not wrong
