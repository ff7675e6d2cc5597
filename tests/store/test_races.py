"""Races held open at the moment that matters: on servers, where several write at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select

from jobber.errors import StateUnavailable
from jobber.jobs import JobState
from jobber.store import Store, database, failures
from jobber.store.engines import mysql, postgresql
from jobber.store.insertion import Inserter
from jobber.store.lanes import LaneBook
from jobber.store.schema import counters, dispatch, rates
from jobber.store.starting import Starter
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench

#: What makes a job go in by itself, one step after the other.
IN_STEPS: dict[str, Any] = {"max_age": 1}


@pytest.fixture
def several_writers(server_url: str) -> Iterator[Bench]:
    store = Store(server_url)
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=60))
    store.close()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have locks waited for, and idle transactions borne, for as short a time as can be said."""
    for settings, limits in (
        (postgresql.SETTINGS, {"idle_in_transaction_session_timeout": "300ms", "lock_timeout": "100ms"}),
        (mysql.SETTINGS, {"innodb_lock_wait_timeout": 1}),
        (mysql.MARIADB, {"idle_transaction_timeout": 1}),
        (mysql.MYSQL, {"wait_timeout": 1}),
    ):
        for name, value in limits.items():
            monkeypatch.setitem(settings, name, value)


@contextmanager
def held_open(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, after: bool) -> Iterator[Any]:
    """Make the first call of a method wait, before or after it did its work, until the body is left."""
    original = getattr(owner, name)
    inside, leave = threading.Event(), threading.Event()
    first = threading.Lock()

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        hold = first.acquire(blocking=False)
        result = original(*args, **kwargs) if after else None
        if hold:
            inside.set()
            leave.wait(20)
        return result if after else original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool, inside
        finally:
            leave.set()
    monkeypatch.setattr(owner, name, original)


def test_a_claim_waits_for_no_submission_and_strands_none_of_its_jobs(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The submission has lowered the head and holds the lane; the claim empties the lane and would raise the head.
    bench = several_writers
    bench.submit("a")
    with held_open(monkeypatch, LaneBook, "wake", after=True) as (pool, inside):
        submitted = pool.submit(bench.submit, "b", **IN_STEPS)
        assert inside.wait(10)
        before = time.monotonic()
        assert bench.ids(5) == ["a"]
        assert bench.ids(5) == []
        assert time.monotonic() - before < 4, "it waited for the lane until lock_timeout"
    submitted.result()
    assert bench.store.runnable_queues() == {"q"}
    assert bench.ids(5) == ["b"]


def test_a_job_that_is_submitted_during_a_claim_is_not_passed_over(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The claim has read the lane and is about to raise its head past the job that comes now.
    bench = several_writers
    bench.submit("a", "later", priority=1)
    with held_open(monkeypatch, Starter, "start", after=False) as (pool, inside):
        claimed = pool.submit(bench.ids)
        assert inside.wait(10)
        bench.submit("urgent", priority=10)
    assert claimed.result() == ["a"]
    assert bench.ids(5) == ["urgent", "later"]


def test_a_job_that_is_cancelled_during_a_claim_does_not_start(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = several_writers
    bench.submit("a", "b")
    with held_open(monkeypatch, Starter, "start", after=False) as (pool, inside):
        claimed = pool.submit(bench.ids)
        assert inside.wait(10)
        assert bench.store.cancel("a").job.state is JobState.CANCELLED
    assert claimed.result() == ["b"]


#: A job, and one whose submission holds its row until it is committed.
HOLDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "follower": ({"fingerprint": 1, "version": "v", "single_flight": True},) * 2,
    "child": ({}, {"depends_on": ("held",)}),
}
each_holder = pytest.mark.parametrize("holder", HOLDERS)


@contextmanager
def held_by_a_submission(bench: Bench, monkeypatch: pytest.MonkeyPatch, holder: str) -> Iterator[None]:
    """Submit a job "held", and hold the submission of another one open that is about to wait for it."""
    first, second = HOLDERS[holder]
    bench.submit("held", **first)
    with held_open(monkeypatch, LaneBook, "wake", after=False) as (pool, inside):
        submitted = pool.submit(bench.submit, "waits", **second)
        assert inside.wait(10)
        yield
    submitted.result()


@each_holder
def test_a_claim_waits_for_no_job_that_a_submission_holds_and_takes_it_later(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    bench = several_writers
    bench.submit("other", task="u", priority=1)
    with held_by_a_submission(bench, monkeypatch, holder):
        before = time.monotonic()
        got = bench.ids()
        assert time.monotonic() - before < 4, "it waited for the row until lock_timeout"
    # A child holds no more than the key of its parent, where there is such a lock.
    assert got in (["held"], ["other"])
    assert got + bench.ids(9) in (["held", "other"], ["other", "held"])


@each_holder
def test_a_claim_of_many_leaves_the_one_that_is_held_at_the_head_of_its_lane(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    bench = several_writers
    with held_by_a_submission(bench, monkeypatch, holder):
        bench.submit("x")
        claim = bench.claim(2)
        got = [job.job_id for job in claim.jobs]
        assert got in (["held", "x"], ["x"])
        assert claim.more == (frozenset() if "held" in got else {"q"})
    assert bench.ids(9) == [name for name in ("held",) if name not in got]


def test_a_job_that_is_held_costs_no_start_of_its_database(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = several_writers
    bench.store.announce({}, {"db0": 0.01})
    with ThreadPoolExecutor(1) as other, held_by_a_submission(bench, monkeypatch, "follower"):
        claimed = other.submit(bench.ids)
        with pytest.raises(TimeoutError):
            claimed.result(0.5)
        rates_left = bench.store._database.read(lambda connection: connection.execute(select(rates.c.next_at)).scalar())
        assert rates_left == 0
    assert claimed.result() == ["held"]


def test_who_waits_for_the_only_job_that_could_run_holds_up_no_other_claim(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = several_writers
    with ThreadPoolExecutor(1) as other:
        with held_by_a_submission(bench, monkeypatch, "follower"):
            waiting = other.submit(bench.ids, queues=("q",))
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
            before = time.monotonic()
            bench.submit("elsewhere", queue="p")
            assert bench.ids(queues=("p",)) == ["elsewhere"]
            assert time.monotonic() - before < 4, "it waited for the row until lock_timeout"
        assert waiting.result() == ["held"]


@pytest.mark.parametrize(
    ("owner", "name", "how"),
    # What has tags needs its number before it is inserted.
    [(LaneBook, "wake", IN_STEPS), (Inserter, "insert_and_wake", {"tags": {"a": "b"}})],
    ids=["in steps", "at once"],
)
def test_a_lane_that_is_dropped_during_a_submission_is_made_again(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, how: dict[str, Any]
) -> None:
    bench = several_writers
    bench.submit("a")
    bench.store.cancel("a")
    with held_open(monkeypatch, owner, name, after=False) as (pool, inside):
        submitted = pool.submit(bench.submit, "b", **how)
        assert inside.wait(10)
        bench.store.prune(3600)
    submitted.result()
    assert bench.ids() == ["b"]


def test_a_claim_does_not_wait_for_a_pruning_that_forgets_its_tenant(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = several_writers
    bench.store.succeed(bench.started("a", tenant="t"), rows=1, columns=[])
    bench.store.prune(3600)  # the lane is gone, its tenant is next
    with ThreadPoolExecutor(1) as other, held_open(monkeypatch, LaneBook, "drop_idle", after=True) as (pool, inside):
        pruned = pool.submit(bench.store.prune, 3600)
        assert inside.wait(10)
        bench.submit("b", tenant="t")
        assert other.submit(bench.ids).result(4) == ["b"]  # less than locks are waited for
    pruned.result()


@pytest.mark.parametrize("delay", [None, 100_000], ids=["ready", "delayed"])
def test_a_lane_is_not_dropped_under_a_submission_that_is_about_to_commit(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch, delay: int | None
) -> None:
    bench = several_writers
    eta = None if delay is None else bench.store.now() + delay
    bench.submit("a")
    bench.store.cancel("a")
    with (
        ThreadPoolExecutor(1) as other,
        held_open(monkeypatch, LaneBook, "wake", after=True) as (pool, inside),
    ):
        submitted = pool.submit(bench.submit, "b", eta=eta, **IN_STEPS)
        assert inside.wait(10)
        # It sees no job in the lane, and waits for the row.
        pruned = other.submit(bench.store.prune, 3600)
        time.sleep(0.3)
        assert not pruned.done()
    submitted.result()
    pruned.result()
    # Its time may have come before it was submitted.
    wait_until(lambda: bench.store.release_due() or bench.store.due().jobs is None)
    assert bench.ids() == ["b"]


def test_of_ten_that_claim_at_once_none_is_told_that_there_is_nothing(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(database, "cause", lambda error: errors.append(error) or failures.cause(error))
    bench, barrier = several_writers, threading.Barrier(10)
    bench.submit(*(f"q{n}" for n in range(60)))
    bench.submit(*(f"p{n}" for n in range(60)), queue="p", db="db1")

    def claim(_: int) -> list[str]:
        barrier.wait(20)
        return [job_id for _ in range(6) for job_id in bench.ids(2)]

    with ThreadPoolExecutor(10) as pool:
        got = list(pool.map(claim, range(10)))
    assert [len(ids) for ids in got] == [12] * 10
    assert len({job_id for ids in got for job_id in ids}) == 120
    assert errors == [], "a claim waits for another, but loses nothing to it"


def test_transactions_that_wait_for_each_other_both_come_through(
    several_writers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: dict[int, Any] = {}  # each once, however often its cause is asked for
    monkeypatch.setattr(database, "cause", lambda error: failures.cause(errors.setdefault(id(error), error)))
    barrier = threading.Barrier(2)

    def take(tables: list[Table]) -> int:
        tried = 0

        def work(connection: Connection) -> int:
            nonlocal tried
            tried += 1
            for table in tables:
                connection.execute(select(table).with_for_update())
                if tried == 1 and table is tables[0]:
                    barrier.wait(10)
            return tried

        return several_writers.store._database.write(work)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, [[dispatch, counters], [counters, dispatch]])) == [1, 2]
    assert [failures.cause(error) for error in errors.values()] == [failures.Cause.CONFLICT]


def test_a_claimer_that_hangs_stops_the_others_for_a_moment_only(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    store = Store(server_url)
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    bench.submit("a")
    with held_open(monkeypatch, Starter, "start", after=False) as (pool, inside):
        hung = pool.submit(bench.ids)
        assert inside.wait(10)
        assert bench.ids() == ["a"]
    # The hung one was thrown out, and started nothing beside.
    if server_url.startswith("mysql"):
        assert hung.result() == []
    else:
        # What it would send next goes with the COMMIT: nobody tells it whether that came through.
        with pytest.raises(StateUnavailable):
            hung.result()
    assert store.heartbeat(bench.worker, {}, lease=60).held == {(store.get("a").run, 1)}
    store.close()


def test_a_lock_that_is_not_to_be_had_at_once_is_tried_again(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    errors: list[Any] = []
    monkeypatch.setattr(database, "cause", lambda error: errors.append(error) or failures.cause(error))
    blocking, store = Store(server_url), Store(server_url)
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    bench.submit("a")

    def block(connection: Connection) -> Future[list[str]]:
        connection.execute(select(dispatch).with_for_update())
        claimed = pool.submit(bench.ids)
        while not errors:
            # It is not idle, so it is not thrown out.
            connection.execute(select(1))
            time.sleep(0.05)
        assert not claimed.done()
        return claimed

    with ThreadPoolExecutor(1) as pool:
        assert blocking._database.write(block).result() == ["a"]
    assert {failures.cause(error) for error in errors} == {failures.Cause.CONFLICT}
    store.close()
    blocking.close()
