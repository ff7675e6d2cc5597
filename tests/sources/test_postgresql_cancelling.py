"""How a query on PostgreSQL is ended: by a cancel, and by its time limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import Cancelled, QueryFailed, TimedOut
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from tests.servers import Postgres, wait_until
from tests.sources.reading import DECODED, consume, parts_of, query, read, running

GONE_WITHIN = 2.0


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
