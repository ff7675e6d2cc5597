"""How a query is ended: by a cancel, and by its time limit; the same on every engine with a server."""

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
from tests.servers import wait_until
from tests.sources.engines import ALL, Engine, Served, opened
from tests.sources.reading import DECODED, consume, parts_of, query, read

GONE_WITHIN = 2.0
ENDLESS = 10**11


def marked() -> str:
    return f"marker-{time.monotonic_ns()}"


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


def sleeping(engine: Served) -> str:
    return engine.sleeping


def sleeping_in_the_middle(engine: Engine) -> str:
    return engine.rows(10_000, f"n, CASE WHEN n > 9000 THEN {engine.sleep} END")


def computing(engine: Served) -> str:
    return f"SELECT count(*) FROM ({engine.rows(ENDLESS, 'n % 7 AS n')}) r WHERE r.n > 7"


def sending(engine: Served) -> str:
    return engine.rows(ENDLESS, f"n, {engine.text(1000)}")


def analyzing(engine: Engine) -> str:
    return f"{engine.analyze} SELECT {engine.sleep}"


@pytest.mark.parametrize("engine", ALL, indirect=True)
@pytest.mark.parametrize("sql", [sleeping, computing, sending])
def test_a_cancelled_query_is_gone_at_once(
    engine: Served, source: Source, accepts: frozenset[Shape], sql: Callable[[Served], str]
) -> None:
    is_gone_at_once(engine, source, accepts, sql(engine))


@pytest.mark.parametrize("sql", [sleeping_in_the_middle, analyzing])
def test_a_query_that_sleeps_for_its_row_is_gone_at_once(
    engine: Engine, source: Source, accepts: frozenset[Shape], sql: Callable[[Engine], str]
) -> None:
    is_gone_at_once(engine, source, accepts, sql(engine))


def is_gone_at_once(engine: Served, source: Source, accepts: frozenset[Shape], sql: str) -> None:
    marker = marked()
    with pulled_when(lambda: engine.running(marker)) as (cancellation, at), pytest.raises(Cancelled):
        consume(source, sql, accepts, cancellation, label=marker)
    assert time.monotonic() - at[0] < GONE_WITHIN
    wait_until(lambda: not engine.running(marker), timeout=at[0] + GONE_WITHIN - time.monotonic())


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_query_whose_rows_nobody_takes_is_cancelled_all_the_same(
    engine: Served, source: Source, accepts: frozenset[Shape]
) -> None:
    marker = marked()
    cancellation = Cancellation()
    with source.read(
        query(source, sending(engine), label=marker), accepts, timeout=0, cancellation=cancellation
    ) as stream:
        parts = parts_of(stream)
        next(parts)
        wait_until(lambda: engine.running(marker))
        time.sleep(0.2)  # the server fills the socket and waits for room
        cancellation.pull(Cancelled("somebody cancelled the job"))
        began = time.monotonic()
        with pytest.raises(Cancelled):
            next(parts)
    assert time.monotonic() - began < GONE_WITHIN
    wait_until(lambda: not engine.running(marker), timeout=GONE_WITHIN)


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_leaving_early_ends_the_query(engine: Served, source: Source, accepts: frozenset[Shape]) -> None:
    marker = marked()
    sql = engine.rows(ENDLESS)
    with source.read(query(source, sql, label=marker), accepts, timeout=0, cancellation=Cancellation()) as stream:
        next(parts_of(stream))
    wait_until(lambda: not engine.running(marker), timeout=GONE_WITHIN)
    assert read(source, "SELECT 1", accepts=accepts).rows == [(1,)]


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_token_pulled_before_keeps_the_query_from_running(
    engine: Served, source: Source, accepts: frozenset[Shape]
) -> None:
    cancellation = Cancellation()
    cancellation.pull(Cancelled("too late"))
    with pytest.raises(Cancelled):
        consume(source, sleeping(engine), accepts, cancellation)


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_a_cancel_at_any_moment_holds_and_never_hits_the_next_query(
    engine: Served, source: Source, accepts: frozenset[Shape]
) -> None:
    # The delays sweep over connecting, the transaction's beginning, preparing and the start of the query: a cancel
    # request that overtakes the query is lost on the server, and one that lingers would hit the next user of a pooled
    # connection.
    for delay in range(25):
        cancellation = Cancellation()
        timer = threading.Timer(delay * 0.0003, lambda c=cancellation: c.pull(Cancelled("stop")))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            consume(source, sleeping(engine), accepts, cancellation)
        assert time.monotonic() - began < GONE_WITHIN
        timer.join()
        assert read(source, engine.rows(2000, "1"), accepts=accepts).rows == [(1,)] * 2000


def test_a_cancelled_connection_is_never_used_again(engine: Engine) -> None:
    source = opened(engine, pool_size=1)
    session = f"SELECT {engine.session_id}"
    first = read(source, session).rows
    assert read(source, session).rows == first
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
    with pytest.raises(Cancelled):
        consume(source, sleeping(engine), DECODED, cancellation)
    assert read(source, session).rows != first
    source.close()


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_waiting_for_a_free_connection_is_cancellable(engine: Served) -> None:
    source = opened(engine, pool_size=1)
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


@pytest.mark.parametrize("engine", ALL, indirect=True)
def test_connecting_to_a_server_that_says_nothing_is_cancellable(engine: Served, silent_port: int) -> None:
    scheme = engine.url().partition("://")[0]
    source = open_source(
        DatabaseSettings(name="x", url=f"{scheme}://u@127.0.0.1:{silent_port}/d", engine=engine.name, connect_timeout=3)
    )
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        consume(source, "SELECT 1", DECODED, cancellation)
    assert time.monotonic() - began < GONE_WITHIN
    source.close()


# -- time limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ALL, indirect=True)
@pytest.mark.parametrize("sql", [sleeping, computing])
def test_what_runs_too_long_is_ended(
    engine: Served, source: Source, accepts: frozenset[Shape], sql: Callable[[Served], str]
) -> None:
    is_ended_in_time(engine, source, accepts, sql(engine))


def test_what_takes_too_long_over_a_row_is_ended(engine: Engine, source: Source, accepts: frozenset[Shape]) -> None:
    is_ended_in_time(engine, source, accepts, sleeping_in_the_middle(engine))


def is_ended_in_time(engine: Served, source: Source, accepts: frozenset[Shape], sql: str) -> None:
    marker = marked()
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"longer than its time limit \(0\.3 s\)"):
        consume(source, sql, accepts, Cancellation(), timeout=0.3, label=marker)
    assert time.monotonic() - began < GONE_WITHIN
    wait_until(lambda: not engine.running(marker), timeout=GONE_WITHIN)


def test_the_time_limit_counts_for_the_whole_query_and_not_for_each_batch(
    engine: Engine, source: Source, accepts: frozenset[Shape]
) -> None:
    began = time.monotonic()
    slow = engine.sleep.replace("60", "0.0001")
    with pytest.raises(TimedOut):
        consume(source, engine.rows(100_000, f"{slow}, repeat('x', 100)"), accepts, Cancellation(), 0.5)
    assert time.monotonic() - began < GONE_WITHIN


def test_a_time_limit_does_not_reach_the_next_query(engine: Engine, source: Source, accepts: frozenset[Shape]) -> None:
    consume(source, "SELECT 1", accepts, Cancellation(), timeout=0.1)
    assert consume(source, f"SELECT {engine.sleep.replace('60', '0.3')}", accepts, Cancellation()) == 1


def test_an_administrators_cancel_is_no_timeout_and_not_retried(
    engine: Engine, source: Source, accepts: frozenset[Shape]
) -> None:
    marker = marked()

    def cancel() -> None:
        wait_until(lambda: engine.running(marker))
        engine.cancel(engine.running(marker)[0])

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(QueryFailed, match=r"due to user request|Query execution was interrupted") as failed:
        consume(source, engine.rows(10, f"n, {engine.sleep}"), accepts, Cancellation(), timeout=30, label=marker)
    thread.join()
    assert not failed.value.retryable
