"""Groups: accepted whole, counted exactly, and a callback that is ready with the last job, whatever ended it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobber.errors import (
    GroupIsFinished,
    GroupIsLive,
    InvalidRequest,
    JobIsLive,
    UnknownGroup,
    UnknownJob,
)
from jobber.jobs import FINISHED, Group, Job, JobState, NewGroup
from jobber.store import Gate, GateKind, Store
from tests.store.conftest import QUEUES, Bench, new_job

ASKS = {"group_id": None, "succeeded": None, "failed": None, "cancelled": None, "tables": None, "mine": "kept"}


def submit(bench: Bench, group_id: str, *job_ids: str, callback: str | None = "", **fields: Any) -> Group:
    """Submit a group; its callback is called after it, on the queue p, unless it is None."""
    concurrency = fields.pop("concurrency", 0)
    last = new_job(callback or f"{group_id}-done", queue="p", args=dict(ASKS)) if callback is not None else None
    jobs = [new_job(job_id, **fields) for job_id in job_ids]
    return bench.store.submit_group(NewGroup(group_id=group_id, jobs=jobs, concurrency=concurrency, callback=last))


def counts(group: Group) -> dict[str, int]:
    return {state.value: count for state, count in group.counts.items() if count}


def outcome(job: Job) -> Any:
    assert isinstance(job.args, dict)
    return job.args


def test_a_group_is_its_jobs_and_a_callback_that_waits(bench: Bench) -> None:
    group = submit(bench, "g", "a", "b")
    assert bench.store.group("g") == group
    assert (group.state, group.size, counts(group)) == (JobState.PENDING, 2, {"PENDING": 2})
    assert [job.job_id for job in group.jobs] == ["a", "b"]
    assert {job.group_id for job in group.jobs} == {"g"}
    assert group.callback is not None
    assert bench.store.get("g-done") == group.callback
    (hold, *_) = bench.store.waiting_for(group.callback)
    assert (hold.kind, hold.name, hold.text) == ("parent", "g", "group g: 0 of 2 jobs finished")
    assert [job.job_id for job in bench.store.pending("p")] == ["g-done"]
    assert bench.store.runnable_queues() == {"q"}
    assert bench.ids(9) == ["a", "b"]


def test_the_callback_is_ready_with_the_last_job_and_knows_the_outcome(bench: Bench) -> None:
    submit(bench, "g", "a", "b", "c", "d")
    a, b, c, d = bench.claim(9).jobs
    assert bench.store.group("g").state is JobState.STARTED
    assert bench.store.succeed(b, rows=1, columns=[]) == set()
    assert bench.store.fail(a, error="no", code="query_failed") == set()
    bench.store.cancel("d")
    assert bench.store.cancelled(d) == set()
    assert counts(bench.store.group("g")) == {"SUCCESS": 1, "FAILURE": 1, "CANCELLED": 1, "STARTED": 1}
    assert bench.ids(9) == []
    assert bench.store.succeed(c, rows=1, columns=[]) == {"p"}
    group = bench.store.group("g")
    assert (group.state, group.live) == (JobState.FAILURE, False)
    assert counts(group) == {"SUCCESS": 2, "FAILURE": 1, "CANCELLED": 1}
    (callback,) = bench.claim(9).jobs
    assert callback.job_id == "g-done"
    assert outcome(callback) == {
        "group_id": "g",
        "succeeded": 2,
        "failed": 1,
        "cancelled": 1,
        "tables": '["results_b","results_c"]',
        "mine": "kept",
    }


def test_a_callback_is_told_only_what_it_asks_for(bench: Bench) -> None:
    for group_id, args in {"none": {}, "one": {"failed": None}, "list": [1, 2]}.items():
        callback = new_job(group_id, queue="p", args=args)
        bench.store.submit_group(NewGroup(group_id=group_id, jobs=[new_job("a")], callback=callback))
        (job,) = bench.claim().jobs
        bench.store.succeed(job, rows=1, columns=[])
        (callback_job,) = bench.claim().jobs
        assert callback_job.args == ({"failed": 0} if group_id == "one" else args)
        bench.store.succeed(callback_job, rows=1, columns=[])


def _succeed(bench: Bench, job: Job) -> Any:
    return bench.store.succeed(job, rows=1, columns=[])


def _cancel_and_put_back(bench: Bench, job: Job) -> Any:
    bench.store.cancel(job.job_id)
    return bench.store.requeue(job)


def _cancel_and_give_back(bench: Bench, job: Job) -> Any:
    bench.store.cancel(job.job_id)
    return bench.store.give_back(bench.worker, [(job.run, job.attempt)])


def _lose(bench: Bench, _: Job) -> Any:
    bench.store.unregister(bench.worker)
    bench.worker = bench.store.register("w2", QUEUES, 10, lease=60)
    (lost,) = bench.store.lost()
    return bench.store.rescue(lost, max_rescues=0).wake


def _cancel_group(bench: Bench, job: Job) -> Any:
    asked = bench.store.cancel_group("g").asked
    assert [job.job_id for job in asked] == [job.job_id]
    return bench.store.cancelled(job)


LAST: dict[str, tuple[Any, JobState]] = {
    "succeed": (_succeed, JobState.SUCCESS),
    "fail": (lambda bench, job: bench.store.fail(job, error="no", code="c"), JobState.FAILURE),
    "cancelled while it runs": (_cancel_group, JobState.CANCELLED),
    "cancelled when put back": (_cancel_and_put_back, JobState.CANCELLED),
    "cancelled when given back": (_cancel_and_give_back, JobState.CANCELLED),
    "worker lost": (_lose, JobState.FAILURE),
}


@pytest.mark.parametrize("how", LAST)
def test_every_way_to_end_the_last_job_ends_the_group(bench: Bench, how: str) -> None:
    submit(bench, "g", "a")
    (job,) = bench.claim().jobs
    end, state = LAST[how]
    assert end(bench, job) == {"p"}
    group = bench.store.group("g")
    assert (group.state, group.live, counts(group)) == (state, False, {state.value: 1})
    assert bench.ids() == ["g-done"]


def test_the_last_waiting_job_can_be_cancelled(bench: Bench) -> None:
    submit(bench, "g", "a", "b")
    assert bench.store.cancel("a").wake == set()
    assert bench.store.group("g").state is JobState.PENDING
    assert bench.store.cancel("b").wake == {"p"}
    assert bench.store.group("g").state is JobState.CANCELLED
    assert outcome(bench.claim().jobs[0])["cancelled"] == 2


def test_cancelling_a_group_ends_what_waits_and_asks_what_runs(bench: Bench) -> None:
    submit(bench, "g", "a", "b", "c")
    bench.submit("other")
    (a,) = bench.claim().jobs
    cancelled = bench.store.cancel_group("g")
    assert [job.job_id for job in cancelled.asked] == ["a"]
    assert cancelled.asked[0].cancel_requested
    assert counts(cancelled.group) == {"STARTED": 1, "CANCELLED": 2}
    assert cancelled.wake == set()
    assert bench.store.cancelled(a) == {"p"}
    assert outcome(bench.store.get("g-done")) == {
        **ASKS,
        "group_id": "g",
        "succeeded": 0,
        "failed": 0,
        "cancelled": 3,
        "tables": "[]",
    }
    assert bench.store.get("other").state is JobState.PENDING
    with pytest.raises(GroupIsFinished) as refused:
        bench.store.cancel_group("g")
    assert refused.value.group.state is JobState.CANCELLED
    with pytest.raises(UnknownGroup):
        bench.store.cancel_group("none")


def test_cancelling_a_group_that_waits_makes_its_callback_ready(bench: Bench) -> None:
    submit(bench, "g", *(f"j{n}" for n in range(30)))
    assert bench.store.cancel_group("g").wake == {"p"}
    assert bench.ids(99) == ["g-done"]


def test_a_callback_can_be_cancelled_and_is_then_not_run(bench: Bench) -> None:
    submit(bench, "g", "a")
    assert bench.store.cancel("g-done").job.state is JobState.CANCELLED
    (job,) = bench.claim().jobs
    assert bench.store.succeed(job, rows=1, columns=[]) == set()
    assert bench.ids() == []
    callback = bench.store.group("g").callback
    assert callback is not None
    assert callback.state is JobState.CANCELLED


def test_a_callback_with_a_start_time_waits_for_both(bench: Bench) -> None:
    later = new_job("cb", eta=bench.store.now() + 3_600_000_000)
    bench.store.submit_group(NewGroup(group_id="g", jobs=[new_job("a")], callback=later))
    (job,) = bench.claim().jobs
    assert bench.store.succeed(job, rows=1, columns=[]) == set()
    assert [hold.kind for hold in bench.store.waiting_for(bench.store.get("cb"))] == ["start"]
    assert bench.ids() == []


def _nothing_of(store: Store, *job_ids: str) -> None:
    for job_id in job_ids:
        with pytest.raises(UnknownJob):
            store.get(job_id)


def test_a_group_is_accepted_whole_or_not_at_all(bench: Bench) -> None:
    bench.submit("b")
    for wrong in (["a", "b"], ["a", "c", "a"], ["a", "x" * 200]):
        with pytest.raises((JobIsLive, InvalidRequest)):
            submit(bench, "g", *wrong)
    with pytest.raises(JobIsLive) as refused:
        submit(bench, "g", "a", callback="b")
    assert refused.value.job.job_id == "b"
    with pytest.raises(InvalidRequest):
        submit(bench, "g", "a", callback="a")
    with pytest.raises(InvalidRequest):
        submit(bench, "g")
    with pytest.raises(UnknownGroup):
        bench.store.group("g")
    _nothing_of(bench.store, "a", "c", "g-done")
    submit(bench, "g", "a", callback=None)
    with pytest.raises(GroupIsLive) as live:
        submit(bench, "g", "c")
    assert (live.value.group.group_id, live.value.group.state) == ("g", JobState.PENDING)
    _nothing_of(bench.store, "c", "g-done")


def test_an_id_is_used_again_by_another_run_with_a_callback_of_its_own(bench: Bench) -> None:
    for n in range(3):
        submit(bench, "g", "a", "b", callback=f"cb{n}")
        assert bench.store.live_groups(["g", "none"]) == {"g"}
        for job in bench.claim(2, queues=["q"]).jobs:
            bench.store.succeed(job, rows=1, columns=[])
        assert bench.store.live_groups(["g"]) == set()
        # The callback of one run may be live when the next one is submitted.
    assert bench.ids(9) == ["cb0", "cb1", "cb2"]
    # A job of it that runs again later has nothing to do with it any more.
    bench.submit("a")
    group = bench.store.group("g")
    assert (group.live, counts(group)) == (False, {"SUCCESS": 2})
    bench.store.fail(bench.claim().jobs[0], error="no", code="c")
    assert counts(bench.store.group("g")) == {"SUCCESS": 2}
    assert [job.state for job in bench.store.group("g").jobs] == [JobState.SUCCESS] * 2


def test_an_end_that_is_told_twice_counts_once(bench: Bench) -> None:
    submit(bench, "g", "a", "b")
    a, b = bench.claim(2).jobs
    for _ in range(2):
        bench.store.succeed(a, rows=1, columns=[])
    assert counts(bench.store.group("g")) == {"SUCCESS": 1, "STARTED": 1}
    for _ in range(2):
        bench.store.succeed(b, rows=1, columns=[])
    assert counts(bench.store.group("g")) == {"SUCCESS": 2}
    assert bench.ids(9) == ["g-done"]


def test_retries_and_requeues_end_nothing(bench: Bench) -> None:
    submit(bench, "g", "a", retries=3)
    (job,) = bench.claim().jobs
    bench.store.retry(job, error="no", code="c", delay=0)
    (job,) = bench.claim().jobs
    bench.store.requeue(job)
    assert bench.store.group("g").live
    assert bench.ids(9) == ["a"]


def test_a_group_is_forgotten_as_a_whole(bench: Bench) -> None:
    submit(bench, "g", "a", "b")
    for look in (bench.store.finished_group, bench.store.purge_group):
        with pytest.raises(GroupIsLive):
            look("g")
        with pytest.raises(UnknownGroup):
            look("none")
    for job in bench.claim(2).jobs:
        bench.store.succeed(job, rows=1, columns=[])
    with pytest.raises(JobIsLive):
        bench.store.purge_group("g")
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    bench.submit("a")  # runs again: that run is not the group's
    listed = bench.store.finished_group("g")
    assert [job.job_id for job in listed] == ["a", "b", "g-done"]
    assert bench.store.purge_group("g") == listed
    assert bench.store.get("a").live
    with pytest.raises(UnknownGroup):
        bench.store.group("g")
    _nothing_of(bench.store, "b", "g-done")


def test_what_was_purged_is_counted_all_the_same(bench: Bench) -> None:
    submit(bench, "g", "a", "b")
    a, b = bench.claim(2).jobs
    bench.store.fail(a, error="no", code="c")
    bench.store.purge("a")
    bench.store.succeed(b, rows=1, columns=[])
    group = bench.store.group("g")
    assert (group.state, counts(group)) == (JobState.FAILURE, {"SUCCESS": 1, "FAILURE": 1})
    assert outcome(bench.claim().jobs[0])["failed"] == 1


def test_history_keeps_the_jobs_of_live_groups_and_forgets_groups_with_their_jobs(bench: Bench) -> None:
    submit(bench, "g", "a", "b", callback=None)
    a, b = bench.claim(2).jobs
    bench.store.succeed(a, rows=1, columns=[])
    assert bench.store.prune(0) == 0
    assert bench.store.get("a").state in FINISHED
    bench.store.succeed(b, rows=1, columns=[])
    bench.submit("c")
    assert bench.store.prune(0, limit=1) == 1
    assert bench.store.group("g").size == 2
    assert bench.store.prune(0) == 1
    with pytest.raises(UnknownGroup):
        bench.store.group("g")


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_no_more_jobs_of_a_group_run_than_its_concurrency_says(bench: Bench) -> None:
    submit(bench, "g", *(f"g{n}" for n in range(5)), concurrency=2)
    bench.submit("free")
    claimed = bench.claim(9).jobs
    assert [job.job_id for job in claimed] == ["g0", "g1", "free"]
    (hold,) = bench.store.waiting_for(bench.store.get("g2"))
    assert (hold.kind, hold.name, hold.text) == ("group", "g", "g: 2 of 2 running")
    assert bench.store.runnable_queues() == set()
    assert bench.store.succeed(claimed[0], rows=1, columns=[]) == {"q"}
    assert bench.ids(9) == ["g2"]


def test_the_limit_of_a_group_counts_over_queues_tasks_workers_and_rescues(bench: Bench) -> None:
    jobs = [new_job("a"), new_job("b", queue="p"), new_job("c", task="u"), new_job("d", db="db1")]
    bench.store.submit_group(NewGroup(group_id="g", jobs=jobs, concurrency=1))
    dying = bench.store.register("dying", QUEUES, 1, lease=0)
    (lost,) = bench.claim(9, worker=dying).jobs
    assert bench.ids(9) == []
    wake = bench.store.rescue(bench.store.lost()[0], max_rescues=3).wake
    assert lost.queue in wake
    for left in range(4, 0, -1):
        (job,) = bench.claim(9).jobs
        assert bench.ids(9) == []
        wake = bench.store.succeed(job, rows=1, columns=[])
        assert bool(wake) == (left > 1)
    assert bench.store.group("g").state is JobState.SUCCESS


def test_a_limit_is_of_one_run_of_the_group(bench: Bench) -> None:
    for concurrency, at_once in ((1, 1), (2, 2), (3, 3), (0, 3)):
        submit(bench, "g", "a", "b", "c", concurrency=concurrency, callback=None)
        claimed = list(bench.claim(9).jobs)
        assert len(claimed) == at_once
        while claimed:
            bench.store.succeed(claimed.pop(), rows=1, columns=[])
            claimed += bench.claim(9).jobs
    assert bench.store.group("g").concurrency == 0


def test_tables_of_many_jobs_reach_the_callback(bench: Bench) -> None:
    names = [f"job-{n:04}" for n in range(400)]
    submit(bench, "g", *names)
    while claimed := bench.claim(100, queues=["q"]).jobs:
        for job in claimed:
            bench.store.succeed(job, rows=1, columns=[])
    assert json.loads(outcome(bench.claim().jobs[0])["tables"]) == [f"results_{name}" for name in names]


def test_a_free_job_is_found_behind_hundreds_of_groups_that_wait(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.DATABASE, "db0"): 1})
    for n in range(70):
        jobs = [new_job(f"{n}-{i}") for i in range(2)]
        bench.store.submit_group(NewGroup(group_id=f"g{n}", jobs=jobs, concurrency=1))
    (first,) = bench.claim(9).jobs
    assert first.job_id == "0-0"
    assert bench.store.runnable_queues() == set()
    bench.submit("free", db="db1")
    assert bench.store.runnable_queues() == {"q"}
    claim = bench.claim(1)
    assert ([job.job_id for job in claim.jobs], claim.more) == (["free"], set())
    assert bench.store.succeed(first, rows=1, columns=[]) == {"q"}
    claim = bench.claim(9)
    assert ([job.job_id for job in claim.jobs], claim.more) == (["0-1"], set())
