"""Single jobs that are paused: nothing happens to them, whatever they wait for, until they are resumed or cancelled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobber.errors import JobIsFinished, JobIsStarted, UnknownJob
from jobber.jobs import JobState
from jobber.store import Store
from tests.store.conftest import QUEUES, Bench, new_group, new_job


def holds(store: Store, job_id: str) -> list[tuple[str, str]]:
    return [(hold.kind, hold.text) for hold in store.waiting_for(store.get(job_id))]


def test_a_paused_job_waits_and_keeps_its_place(bench: Bench) -> None:
    bench.submit("a", "b")
    assert bench.store.pauses.pause("a", "month end").paused == "month end"
    assert holds(bench.store, "a") == [("paused", "the job is paused: month end")]
    assert bench.store.runnable_queues() == {"q"}
    assert [job.job_id for job in bench.store.pending("q")] == ["b", "a"]
    (b,) = bench.claim(9).jobs
    assert b.job_id == "b"
    assert bench.store.runnable_queues() == frozenset()
    bench.submit("c")
    resumed = bench.store.pauses.resume("a")
    assert (resumed.job.paused, resumed.wake) == (None, {"q"})
    assert holds(bench.store, "a") == []
    assert bench.ids(9) == ["a", "c"]


def test_pausing_twice_changes_the_reason_and_resuming_twice_nothing(bench: Bench) -> None:
    bench.submit("a")
    bench.store.pauses.pause("a", "first")
    assert bench.store.pauses.pause("a", "").paused == ""
    assert holds(bench.store, "a") == [("paused", "the job is paused")]
    bench.store.pauses.pause("a", "last")
    assert bench.store.pauses.resume("a").wake == {"q"}
    assert bench.store.pauses.resume("a").wake == frozenset()
    (job,) = bench.claim(9).jobs
    assert bench.store.pauses.resume("a").job == bench.store.get("a")
    bench.store.succeed(job, rows=1, columns=[])
    told = [(event.event, event.message) for event in bench.store.events.of(bench.store.get("a"))]
    assert [event for event in told if event[0] in ("paused", "resumed")] == [
        ("paused", "first"),
        ("paused", ""),
        ("paused", "last"),
        ("resumed", ""),
    ]


def test_only_a_job_that_waits_can_be_paused(bench: Bench) -> None:
    running = bench.started("a")
    with pytest.raises(JobIsStarted) as started:
        bench.store.pauses.pause("a", "")
    assert started.value.job == bench.store.get("a")
    bench.store.succeed(running, rows=1, columns=[])
    for change in (lambda: bench.store.pauses.pause("a", ""), lambda: bench.store.pauses.resume("a")):
        with pytest.raises(JobIsFinished):
            change()
    with pytest.raises(UnknownJob):
        bench.store.pauses.pause("nobody", "")


def test_a_delayed_job_that_is_paused_still_has_its_start_time(bench: Bench) -> None:
    bench.submit("late", eta=bench.store.now() + 3_600_000_000)
    bench.submit("soon", eta=bench.store.now() + 1000)
    for job_id in ("late", "soon"):
        bench.store.pauses.pause(job_id, "")
    assert bench.store.due().jobs is None
    bench.store.release_due()
    assert bench.ids(9) == []
    assert [kind for kind, _ in holds(bench.store, "late")] == ["paused", "start"]
    assert [bench.store.pauses.resume(job_id).wake for job_id in ("late", "soon")] == [frozenset(), {"q"}]
    assert 3590 < (bench.store.due().jobs or 0) <= 3600
    assert bench.ids(9) == ["soon"]


def test_a_job_between_two_attempts_can_be_paused(bench: Bench) -> None:
    bench.store.retry(bench.started("later"), error="no", code="c", delay=60)
    bench.store.retry(bench.started("now"), error="no", code="c", delay=0)
    for job_id in ("later", "now"):
        assert bench.store.pauses.pause(job_id, "").state is JobState.RETRY
    assert bench.ids(9) == []
    assert [bench.store.pauses.resume(job_id).wake for job_id in ("later", "now")] == [frozenset(), {"q"}]
    (job,) = bench.claim(9).jobs
    assert (job.job_id, job.attempt) == ("now", 2)
    assert [kind for kind, _ in holds(bench.store, "later")] == ["start"]


def test_a_paused_child_waits_for_its_parents_too_and_for_the_resume_in_any_order(bench: Bench) -> None:
    bench.submit("a", "b")
    bench.store.submit([new_job(f"of-{parent}", depends_on=(parent,)) for parent in ("a", "b")])
    a, b = bench.claim(9).jobs
    for parent in ("a", "b"):
        bench.store.pauses.pause(f"of-{parent}", "")
    assert [kind for kind, _ in holds(bench.store, "of-a")] == ["paused", "parent"]
    bench.store.succeed(a, rows=1, columns=[])
    assert bench.ids(9) == []
    assert bench.store.pauses.resume("of-a").wake == {"q"}
    assert bench.store.pauses.resume("of-b").wake == frozenset()
    assert bench.ids(9) == ["of-a"]
    bench.store.succeed(b, rows=1, columns=[])
    assert bench.ids(9) == ["of-b"]


def test_a_parent_that_is_paused_holds_its_children_back_and_one_that_fails_ends_paused_ones(bench: Bench) -> None:
    bench.submit("a")
    bench.store.submit([new_job("b", depends_on=("a",))])
    bench.store.pauses.pause("a", "")
    bench.store.pauses.pause("b", "")
    assert bench.ids(9) == []
    bench.store.pauses.resume("a")
    bench.store.fail(bench.claim(9).jobs[0], error="no", code="c")
    assert bench.store.get("b").error_code == "parent_failed"


def test_a_callback_that_is_paused_waits_for_its_group_and_for_the_resume(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", "a"))
    bench.store.submit_group(new_group("h", "b"))
    for group in ("g", "h"):
        bench.store.pauses.pause(f"{group}-done", "")
    assert bench.store.pauses.resume("h-done").wake == frozenset()
    for job in bench.claim(9).jobs:
        bench.store.succeed(job, rows=1, columns=[])
    (h,) = bench.claim(9).jobs
    assert h.job_id == "h-done"
    assert bench.store.pauses.resume("g-done").wake == {"p"}
    (g,) = bench.claim(9).jobs
    assert isinstance(g.args, dict)
    assert (g.args["group_id"], g.args["succeeded"]) == ("g", 1)


def test_a_paused_job_can_be_cancelled_alone_or_with_its_group(bench: Bench) -> None:
    bench.submit("a")
    bench.store.submit_group(new_group("g", "b"))
    for job_id in ("a", "b"):
        bench.store.pauses.pause(job_id, "")
    assert bench.store.cancel("a").job.state is JobState.CANCELLED
    bench.store.cancel_group("g")
    assert bench.store.get("b").state is JobState.CANCELLED
    bench.submit("a")
    assert bench.ids(9, queues=["q"]) == ["a"]


def test_a_pause_and_a_claim_at_once_leave_a_job_that_runs_or_one_that_is_paused(server_url: str) -> None:
    stores = Store(server_url), Store(server_url)
    bench = Bench(stores[0], stores[0].register("w1", QUEUES, 100, lease=60))
    bench.submit(*(f"j{n}" for n in range(20)))

    def pause(n: int) -> bool:
        try:
            return stores[1].pauses.pause(f"j{n}", "").paused == ""
        except JobIsStarted:
            return False

    with ThreadPoolExecutor(2) as pool:
        paused = pool.submit(lambda: {f"j{n}" for n in reversed(range(20)) if pause(n)})
        started = {job_id for _ in range(25) for job_id in bench.ids(1)}
    assert started.isdisjoint(paused.result())
    assert started | paused.result() == {f"j{n}" for n in range(20)}
    for store in stores:
        store.close()
