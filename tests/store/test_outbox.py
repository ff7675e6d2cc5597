"""The outbox: a row for each change of state, in the transaction that makes it, and of one job in order."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from jobber.errors import JobIsLive
from jobber.jobs import JobState
from jobber.store import Store
from jobber.store.lanes import LaneBook
from jobber.store.outbox import Told
from tests.store.conftest import ENDS, QUEUES, Bench, end, new_group, new_job


@pytest.fixture
def told(state_url: str) -> Iterator[Bench]:
    """A store that tells of its changes, with a worker."""
    store = Store(state_url, events=True)
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=60))
    store.close()


def changes(bench: Bench, job_id: str = "") -> list[tuple[str, str]]:
    """Return event and state of all that is to be told of jobs, or of one."""
    return [
        (change.event, change.job.state.value)
        for change in bench.store.outbox.waiting(1000)
        if change.job is not None and (not job_id or change.job.job_id == job_id)
    ]


def test_each_change_of_a_job_is_written_down_with_the_job_as_it_was_then(told: Bench) -> None:
    called = {"requeue": "requeued", "reroute": "rerouted"}
    for number, (how, (_, state)) in enumerate(ENDS.items()):
        job_id = f"j{number}"
        job = told.started(job_id, args=["x"], retries=3, tags={"k": "v"}, priority=10 - number)
        end(told, how, job)

        last = called.get(how, state.value.lower())
        assert changes(told, job_id) == [("submitted", "PENDING"), ("started", "STARTED"), (last, state.value)], how
        first, started, after = (change.job for change in told.store.outbox.waiting(1000)[-3:])
        assert first is not None
        assert (first.attempt, first.worker, first.args, first.tags) == (0, "", ["x"], {"k": "v"})
        assert started is not None
        assert (started.attempt, started.worker, started.started_at) == (1, "w1", job.started_at)
        assert after == told.store.get(job_id)
        if after.live:
            told.store.cancel(job_id)


def test_what_nobody_runs_is_told_of_too(told: Bench) -> None:
    store = told.store
    store.rescue(told.lost("lost"), max_rescues=3)
    told.submit("waiting")
    store.cancel("waiting")
    told.submit("parent", priority=9)
    told.submit("child", depends_on=("parent",))
    (parent,) = told.claim().jobs
    store.fail(parent, error="no", code="c")

    assert changes(told, "lost")[2:] == [("rescued", "PENDING")]
    assert changes(told, "waiting") == [("submitted", "PENDING"), ("cancelled", "CANCELLED")]
    assert changes(told, "child") == [("submitted", "PENDING"), ("failure", "FAILURE")]


def test_what_is_given_back_and_a_group_that_is_cancelled_are_told_of(told: Bench) -> None:
    held = told.started("held")
    told.store.give_back(told.worker, [(held.run, held.attempt)])
    told.store.submit_group(new_group("g", "m1", "m2", callback=None))
    told.store.cancel_group("g")

    assert changes(told, "held")[2:] == [("requeued", "PENDING")]
    assert changes(told, "m2") == [("submitted", "PENDING"), ("cancelled", "CANCELLED")]


def test_the_end_of_a_group_is_told_after_that_of_its_jobs(told: Bench) -> None:
    told.store.submit_group(new_group("g", "m1", "m2"))
    for job in told.claim(2).jobs:
        end(told, "succeed" if job.job_id == "m1" else "fail", job)

    last = told.store.outbox.waiting()[-1]

    assert (last.job, last.event) == (None, "failure")
    assert last.group is not None
    assert (last.group.group_id, last.group.size, last.group.state) == ("g", 2, JobState.FAILURE)
    assert last.group.counts[JobState.SUCCESS] == last.group.counts[JobState.FAILURE] == 1
    assert last.group.finished_at == last.at
    assert last.group.callback is not None
    assert last.group.callback.job_id == "g-done"


def test_a_job_that_takes_an_earlier_result_is_told_of(told: Bench) -> None:
    same = {"version": "v", "fingerprint": 7}
    end(told, "succeed", told.started("first", **same))
    told.submit("again", **same, max_age=3600)

    assert changes(told, "again") == [("submitted", "PENDING"), ("success", "SUCCESS")]


class Undo(Exception):
    """Whatever fails in a transaction after a row was written."""


def test_a_change_that_is_rolled_back_is_not_told(told: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told.submit("live")
    with pytest.raises(JobIsLive):
        told.submit("new", "live")

    def fail(*_: object) -> None:
        raise Undo

    with monkeypatch.context() as patched, pytest.raises(Undo):
        patched.setattr(LaneBook, "wake", fail)
        told.store.cancel("live")

    assert changes(told) == [("submitted", "PENDING")]
    assert told.store.get("live").state is JobState.PENDING


def test_without_events_no_statement_is_made_about_them(bench: Bench) -> None:
    statements: list[str] = []

    def note(*told: Any) -> None:
        statements.append(told[2])

    event.listen(bench.store._database._pool, "before_cursor_execute", note)
    end(bench, "succeed", bench.started("a"))
    bench.store.submit_group(new_group("g", "m1"))
    bench.store.cancel_group("g")
    event.remove(bench.store._database._pool, "before_cursor_execute", note)

    assert statements
    assert not [text for text in statements if "jobber_outbox" in text]


def test_what_is_removed_is_told_no_more_and_the_size_says_what_waits(told: Bench) -> None:
    outbox = told.store.outbox
    assert outbox.size() == (0, 0.0)
    told.submit("a", "b", "c")
    first, *rest = outbox.waiting()

    outbox.remove([first.id])

    assert outbox.waiting() == rest
    assert [change.id for change in outbox.waiting(1)] == [rest[0].id]
    count, oldest = outbox.size()
    assert count == 2
    assert 0 <= oldest < 60


def test_while_many_write_a_reader_gets_every_change_once_and_in_order_per_job(told: Bench) -> None:
    """Rows turn up below others that were read before: of several jobs, never of one."""
    found: list[Told] = []
    over = threading.Event()

    def read() -> None:
        while True:
            last = over.is_set()
            batch = told.store.outbox.waiting(7)
            found.extend(batch)
            told.store.outbox.remove([change.id for change in batch])
            if last and not batch:
                return

    def work(worker: int) -> None:
        for number in range(6):
            told.store.submit([new_job(f"j{worker}-{number}")])
            for job in told.claim(2, worker=worker).jobs:
                told.store.requeue(job) if job.attempt == 1 else end(told, "succeed", job)

    reader = threading.Thread(target=read)
    workers = [told.store.register(f"w{number}", QUEUES, 10, lease=600) for number in range(4)]
    threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    while jobs := told.claim(10).jobs:
        for job in jobs:
            end(told, "succeed", job)
    over.set()
    reader.join(30)

    by_job = defaultdict(list)
    for change in found:
        assert change.job is not None
        by_job[change.job.job_id].append(change.event)
    assert len(by_job) == 24
    twice = ["submitted", "started", "requeued", "started", "success"]
    once = ["submitted", "started", "success"]
    assert all(events in (twice, once) for events in by_job.values()), by_job
