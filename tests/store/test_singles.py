"""Jobs that several threads submit at the same time go in together, and each thread gets its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, select

from jobber.errors import BacklogFull, JobberError, JobIsLive, StateUnavailable
from jobber.jobs import Job, NewJob
from jobber.store import Gate, GateKind, Limits, Store, singles, submission
from jobber.store.combining import Combiner
from jobber.store.database import Database
from jobber.store.schema import jobs, lanes, order, running
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench, Pools, new_job


class Slow:
    """Doubles numbers; holds whoever does it until it is told to go on."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.go_on = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.done.append(list(numbers))
        assert self.go_on.wait(10)
        return [ValueError(str(number)) if number < 0 else number * 2 for number in numbers]


def test_who_comes_meanwhile_is_served_together_and_each_gets_his_own() -> None:
    slow = Slow()
    together = Combiner(slow, patience=60)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(together, 0)
        wait_until(lambda: slow.done == [[0]])
        others = [pool.submit(together, number) for number in (1, -2, 3)]
        wait_until(lambda: len(together._waiting) == 3)
        slow.go_on.set()
        assert first.result(10) == 0
        assert (others[0].result(10), others[2].result(10)) == (2, 6)
        with pytest.raises(ValueError, match="-2"):
            others[1].result(10)
    assert slow.done[0] == [0]
    assert sorted(slow.done[1]) == [-2, 1, 3]
    assert (len(slow.done), together._leaders) == (2, 0)


def test_what_hangs_does_not_keep_others_waiting() -> None:
    slow = Slow()
    together: Combiner[int, int] = Combiner(
        lambda some: slow(some) if some == [0] else [number * 2 for number in some], patience=0.01
    )
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(together, 0)
        wait_until(lambda: slow.done == [[0]])
        assert sorted(pool.map(together, (1, 2, 3))) == [2, 4, 6]
        assert not first.done()
        slow.go_on.set()
        assert first.result(10) == 0
    assert (together._leaders, together._waiting) == (0, [])
    assert together(5) == 10


def test_thousands_from_many_threads_all_get_theirs() -> None:
    together: Combiner[int, int] = Combiner(lambda some: [number * 2 for number in some], most=3, patience=0.0001)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(5000))) == [number * 2 for number in range(5000)]
    assert (together._leaders, together._waiting) == (0, [])


def at_once(store: Store, new: Sequence[NewJob], monkeypatch: pytest.MonkeyPatch) -> list[Job | JobberError]:
    """Submit jobs from a thread each, all while another submission is under way, so that they go in together."""
    original, inside, leave = Database.write, threading.Event(), threading.Event()

    def held(self: Database, work: Callable[..., Any], **options: Any) -> Any:
        if not inside.is_set():
            inside.set()
            assert leave.wait(20)
        return original(self, work, **options)

    def submit(job: NewJob) -> Job | JobberError:
        try:
            return store.submit([job])[0]
        except JobberError as error:
            return error

    singles = store._singles._together
    with monkeypatch.context() as patch, ThreadPoolExecutor(len(new) + 1) as pool:
        patch.setattr(Database, "write", held)
        patch.setattr(singles, "_patience", 60)
        pool.submit(submit, new_job("first"))
        assert inside.wait(10)
        waiting = []
        for number, job in enumerate(new, 1):
            waiting.append(pool.submit(submit, job))
            wait_until(lambda number=number: len(singles._waiting) == number)  # type: ignore[misc]
        leave.set()
        return [one.result(30) for one in waiting]


def test_jobs_that_come_together_are_accepted_or_refused_each_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (live,) = bench.submit("live")
    bench.store.announce({Gate(GateKind.QUEUE, "p"): Limits(pending=1)}, {})
    eta = bench.store.now() + 3_600_000_000
    new = [
        new_job("a", tags={"by": "me"}, priority=9),
        new_job("live"),
        new_job("b", eta=eta, args=["é\x00'"]),
        new_job("twice"),
        new_job("twice", args=[2]),
        new_job("c", queue="p"),
        new_job("d", queue="p"),
        new_job("broken", args=["\ud800"]),
    ]
    a, refused, b, once, twice, c, full, broken = at_once(bench.store, new, monkeypatch)
    for job, made in ((a, new[0]), (b, new[2]), (c, new[5])):
        assert isinstance(job, Job)
        assert bench.store.get(made.job_id) == job
        assert (job.args, job.tags, job.eta, job.priority) == (made.args, made.tags, made.eta, made.priority)
    assert isinstance(refused, JobIsLive)
    assert refused.job == live
    one, other = sorted((once, twice), key=lambda outcome: isinstance(outcome, JobberError))
    assert isinstance(one, Job)
    assert isinstance(other, JobIsLive)
    assert other.job == one
    assert isinstance(full, BacklogFull)
    assert isinstance(broken, JobberError)
    assert bench.store.live(["first", "a", "b", "c", "d", "broken"]) == {"first", "a", "b", "c"}
    assert sorted(bench.ids(10)) == ["a", "c", "first", "live", "twice"]


def test_who_comes_together_is_told_together_that_the_database_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def away(new: dict[int, NewJob], _: Any) -> Any:
        tries.append(len(new))
        if len(tries) == 1:
            time.sleep(0.3)
        raise StateUnavailable("gone")

    monkeypatch.setattr(bench.store._singles, "_try", away)
    monkeypatch.setattr(bench.store._singles._together, "_patience", 60)
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(bench.submit, name) for name in "abcde"]
        for one in waiting:
            with pytest.raises(StateUnavailable, match="gone"):
                one.result(10)
    assert (tries[0], sum(tries)) == (1, 5)
    assert len(tries) == 2


def test_one_that_no_driver_takes_spoils_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_rows = submission.ready_rows

    def raising(new: Sequence[tuple[NewJob, int]], *arguments: Any, **options: Any) -> Any:
        if any(job.job_id == "odd" for job, _ in new):
            raise OverflowError("too large to convert")
        return ready_rows(new, *arguments, **options)

    monkeypatch.setattr(submission, "ready_rows", raising)
    outcomes = bench.store._singles._submit([new_job("a"), new_job("odd"), new_job("b")])
    assert [isinstance(outcome, Job) for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], OverflowError)


def test_what_is_large_goes_in_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.store._singles, "_together", lambda _: pytest.fail("together with others"))
    (job,) = bench.submit("a", args=["é" * 64_000])
    assert bench.store.get("a") == job
    with pytest.raises(JobIsLive):
        bench.submit("a", args=["é" * 64_000])


# -- in one step ------------------------------------------------------------------------------------------------------


@pytest.fixture
def numbering(postgres_url: str, pools: Pools) -> Bench:
    """A store with a worker on the engine that numbers runs as it inserts them."""
    with pools.shared():
        store = Store(postgres_url)
    return Bench(store, store.register("w1", QUEUES, 10, lease=60))


def test_a_plain_job_is_numbered_as_it_is_inserted(numbering: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = numbering
    (first,) = bench.submit("a")
    with monkeypatch.context() as patch:
        patch.setattr(singles, "begin", lambda *_: pytest.fail("asked for numbers first"))
        outcomes = bench.store._singles._submit([new_job(name, priority=9) for name in ("d", "c", "b")])
    made = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    assert [job.job_id for job in made] == ["d", "c", "b"]
    assert [bench.store.get(job.job_id) for job in made] == made
    assert len({first.run, *(job.run for job in made)}) == 4
    assert min(job.run for job in made) > first.run
    assert len({job.created_at for job in made}) == 1
    with bench.store._database._pool.connect() as connection:
        for run, ord_ in connection.execute(select(jobs.c.run, jobs.c.ord).where(jobs.c.priority == 9)):
            assert ord_ == order(9, run)
    assert set(bench.ids(10)) == {"a", "b", "c", "d"}


def test_a_cap_that_came_meanwhile_holds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit("a")
    known = bench.store._singles._submitter.backlog._gates
    before = known._snapshot
    bench.store.announce({Gate(GateKind.QUEUE, "q"): Limits(pending=2)}, {})
    known._snapshot = before  # as in another process
    bench.submit("b", queue="q")
    known._snapshot = before
    with pytest.raises(BacklogFull):
        bench.submit("c", queue="q")


@pytest.mark.parametrize("others", [0, 1])
def test_a_lane_that_is_gone_is_made_anew(bench: Bench, others: int) -> None:
    bench.submit("a")
    assert bench.ids(1) == ["a"]
    for table in (running, jobs, lanes):
        bench.store._database.write(lambda connection, table=table: connection.execute(delete(table)))  # type: ignore[misc]
    new = [new_job("b"), *(new_job(f"other-{n}", task="other") for n in range(others))]
    assert all(isinstance(outcome, Job) for outcome in bench.store._singles._submit(new))
    assert bench.store.get("b").live
    with bench.store._database._pool.connect() as connection:
        there = set(connection.execute(select(lanes.c.id)).scalars())
        assert set(connection.execute(select(jobs.c.lane)).scalars()) <= there


def test_numbers_that_went_back_hide_no_job(numbering: Bench) -> None:
    bench = numbering
    bench.submit("a")
    bench.store._singles._newest += 1_000_000  # as if the state had been restored from a backup
    bench.submit("b")
    bench.submit("c")
    assert set(bench.ids(10)) == {"a", "b", "c"}
