"""Parents and children that come and go at the same moment, on several connections."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from jobber.errors import JobIsFinished
from jobber.jobs import Job, JobState, NewGroup, NewJob, Policy
from jobber.store import Store
from jobber.store.parents import ParentBook
from tests.store.conftest import DATABASES, QUEUES, TASKS, Bench, new_group, new_job


@pytest.fixture
def stores(server_url: str) -> Iterator[tuple[Bench, Store]]:
    """A bench, and the store of somebody else."""
    store, other = Store(server_url), Store(server_url)
    yield Bench(store, store.register("w1", QUEUES, 100, lease=600)), other
    store.close()
    other.close()


def once(
    monkeypatch: pytest.MonkeyPatch, step: str, meanwhile: Callable[[], Any], *, after: bool = False
) -> list[Future[Any]]:
    """Have something done by another thread before (or after) a step of the first who comes to it.

    Who comes to it goes on when that is done, or, where that waits for him, after a moment. Returns what came of it.
    """
    real = getattr(ParentBook, step)
    pool = ThreadPoolExecutor(1)
    begun: list[Future[Any]] = []

    def stepping(*args: Any, **kwargs: Any) -> Any:
        if begun:
            return real(*args, **kwargs)
        found = real(*args, **kwargs) if after else None
        begun.append(pool.submit(meanwhile))
        wait(begun, 0.3)
        pool.shutdown(wait=False)
        return found if after else real(*args, **kwargs)

    monkeypatch.setattr(ParentBook, step, stepping)
    return begun


def child(job_id: str, *parents: str, policy: Policy = Policy.SUCCESS) -> NewJob:
    return new_job(job_id, depends_on=parents, depends_policy=policy)


def left(store: Store) -> int:
    """Return how many rows say that somebody waits for somebody."""
    with store._database._pool.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM jobber_dependencies").scalar_one())


@pytest.mark.parametrize(("step", "done"), [("_hold", False), ("settle", True)], ids=["before", "after"])
def test_of_two_parents_that_end_at_once_the_later_one_makes_the_child_ready(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:
    bench, other = stores
    bench.store.submit([new_job("a"), new_job("b"), child("c", "a", "b"), child("d", "b", "a")])
    a, b = bench.claim(9).jobs
    # Before the first has locked the children, or when it has looked what they still wait for, and is about to commit.
    ending = once(monkeypatch, step, lambda: other.succeed(b, rows=1, columns=[]), after=done)
    woken = bench.store.succeed(a, rows=1, columns=[])
    assert woken | ending[0].result(20) == {"q"}
    assert bench.ids(9) == ["c", "d"]
    assert left(other) == 0


@pytest.mark.parametrize("step", ["_insert", "_hold"])
def test_a_parent_that_ends_while_its_child_is_submitted_makes_it_ready(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench, other = stores
    a = bench.started("a")
    bench.store.submit([child("b", "a")])

    def end() -> Any:
        return bench.store.succeed(a, rows=1, columns=[])

    def submit() -> Any:
        return other.submit([child("c", "a")])

    if step == "_insert":  # the submission has looked at the parent
        ending = once(monkeypatch, step, end)
        submit()
    else:  # the parent is in the history, which nobody sees yet
        ending = once(monkeypatch, step, submit)
        end()
    ending[0].result(20)
    assert sorted(bench.ids(9)) == ["b", "c"]
    assert left(other) == 0


@pytest.mark.parametrize("server_url", ["postgresql"], indirect=True)  # on the others the claim waits for the commit
def test_a_parent_can_start_while_a_child_is_submitted(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, other = stores
    bench.submit("a")
    claiming = once(monkeypatch, "_insert", lambda: bench.ids(9))
    real = ParentBook._insert

    def insert(*args: Any) -> None:
        real(*args)
        assert claiming[0].done()

    monkeypatch.setattr(ParentBook, "_insert", insert)
    other.submit([child("b", "a")])
    assert claiming[0].result(20) == ["a"]


@pytest.mark.parametrize("step", ["_hold", "_cut"])
def test_a_child_that_is_cancelled_while_its_parent_ends_is_counted_once(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench, other = stores
    bench.store.submit_group(new_group("g", jobs=[new_job("a"), child("b", "a")]))
    (a,) = bench.claim(9).jobs
    ending = once(monkeypatch, step, lambda: other.cancel("b"))
    bench.store.succeed(a, rows=1, columns=[])
    assert ending[0].result(20).job.state is JobState.CANCELLED
    group = bench.store.group("g")
    assert (group.counts[JobState.SUCCESS], group.counts[JobState.CANCELLED]) == (1, 1)
    assert bench.ids(9) == ["g-done"]
    assert left(other) == 0


def test_a_parent_that_ends_while_its_child_is_cancelled_leaves_it_alone(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, other = stores
    bench.store.submit_group(new_group("g", jobs=[new_job("a"), child("b", "a"), child("c", "b")]))
    (a,) = bench.claim(9).jobs
    ending = once(monkeypatch, "settle", lambda: other.fail(a, error="no", code="c"))
    bench.store.cancel("b")
    ending[0].result(20)
    assert [bench.store.get(job_id).state.value for job_id in "abc"] == ["FAILURE", "CANCELLED", "CANCELLED"]
    assert bench.ids(9) == ["g-done"]
    assert left(other) == 0


def test_a_grandchild_that_comes_while_its_parent_ends_ends_with_it(
    stores: tuple[Bench, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, other = stores
    a = bench.started("a")
    bench.store.submit([child("b", "a")])
    coming = once(monkeypatch, "_hold", lambda: other.submit([child("c", "b"), child("d", "c")]))
    bench.store.fail(a, error="no", code="c")
    coming[0].result(20)
    assert [bench.store.get(job_id).error_code for job_id in "bcd"] == ["parent_failed"] * 3
    assert left(other) == 0


def test_a_callback_whose_parent_ends_with_the_last_job_of_its_group_is_ready_once(
    stores: tuple[Bench, Store],
) -> None:
    bench, other = stores
    for n in range(6):
        parent = bench.started(f"p{n}")
        callback = new_job(f"done{n}", queue="p", depends_on=(f"p{n}",))
        bench.store.submit_group(new_group(f"g{n}", f"m{n}", callback=callback))
        (member,) = bench.claim(9).jobs
        barrier = threading.Barrier(2)

        def end(store: Store, job: Job, barrier: threading.Barrier = barrier) -> frozenset[str]:
            barrier.wait(20)
            return store.succeed(job, rows=1, columns=[])

        with ThreadPoolExecutor(2) as pool:
            ends = [pool.submit(end, bench.store, parent), pool.submit(end, other, member)]
        assert frozenset().union(*(done.result() for done in ends)) == {"p"}
        assert bench.ids(9) == [f"done{n}"]


def test_many_that_end_submit_and_cancel_jobs_of_one_web_leave_nobody_waiting(server_url: str) -> None:
    chance = random.Random(6)
    names = [f"n{n}" for n in range(90)]
    parents = {name: chance.sample(names[:n], min(n, chance.randint(0, 3))) for n, name in enumerate(names)}
    policy = {name: chance.choice([Policy.SUCCESS, Policy.SUCCESS, Policy.FINISHED]) for name in names}
    fate = {name: chance.choice(["succeed"] * 6 + ["fail", "cancel"]) for name in names}
    stores = [Store(server_url) for _ in range(4)]
    bench = Bench(stores[0], stores[0].register("w1", QUEUES, 100, lease=600))
    web = [child(name, *parents[name], policy=policy[name]) for name in names]
    bench.store.submit_group(NewGroup(group_id="g", jobs=web[:30], callback=new_job("done", queue="p")))

    def loop(store: Store) -> None:
        while store.live(names) or store.live_groups(["g"]):
            claim = store.claim(bench.worker, queues=["q"], tasks=TASKS, databases=DATABASES, limit=2)
            for job in claim.jobs:
                _end(store, job, fate[job.job_id])

    def come(store: Store) -> None:
        for n in range(30, 90, 6):
            store.submit(web[n : n + 6])

    with ThreadPoolExecutor(4) as pool:
        coming = pool.submit(come, stores[3])
        crew = [pool.submit(loop, store) for store in stores[:3]]
        wait([coming], 60)
        for done in [coming, *crew]:
            done.result(60)
    assert {name: bench.store.get(name).state for name in names} == _expected(names, parents, policy, fate)
    assert left(stores[0]) == 0
    assert bench.ids(9) == ["done"]
    for store in stores:
        store.close()


def _end(store: Store, job: Job, fate: str) -> None:
    if fate == "succeed":
        store.succeed(job, rows=1, columns=[])
    elif fate == "fail":
        store.fail(job, error="no", code="c")
    else:
        try:
            store.cancel(job.job_id)
        except JobIsFinished:
            raise AssertionError(f"{job.job_id} had ended before its worker said so") from None
        store.cancelled(job)


def _expected(
    names: list[str], parents: Mapping[str, list[str]], policy: Mapping[str, Policy], fate: Mapping[str, str]
) -> dict[str, Any]:
    """Return how each job ends; where a parent failed and another was cancelled, either will do."""
    own = {"succeed": JobState.SUCCESS, "fail": JobState.FAILURE, "cancel": JobState.CANCELLED}
    ends: dict[str, Any] = {}
    for name in names:
        bad = [ends[parent] for parent in parents[name] if ends[parent] != JobState.SUCCESS]
        if policy[name] is Policy.FINISHED or not bad:
            ends[name] = own[fate[name]]
        else:
            ends[name] = bad[0] if len({*bad}) == 1 and not isinstance(bad[0], _Bad) else _Bad()
    return ends


class _Bad:
    """Equal to both ways not to succeed."""

    def __eq__(self, other: object) -> bool:
        return other in (JobState.FAILURE, JobState.CANCELLED)

    def __hash__(self) -> int:
        return 0
