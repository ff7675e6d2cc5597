"""Jobs that wait for other jobs: when they run, and what the end of those does to them."""

from __future__ import annotations

import pytest

from jobber.errors import InvalidRequest, UnknownJob
from jobber.jobs import Job, JobState, NewGroup, NewJob, Policy
from jobber.store import Store
from tests.store.conftest import COLUMNS, Bench, new_group, new_job

each_policy = pytest.mark.parametrize("policy", [Policy.SUCCESS, Policy.FINISHED])


def after(job_id: str, *parents: str, policy: Policy = Policy.SUCCESS, **fields: object) -> NewJob:
    """Return a job that waits for others."""
    return new_job(job_id, depends_on=parents, depends_policy=policy, **fields)


def texts(store: Store, job_id: str) -> list[str]:
    return [hold.text for hold in store.waiting_for(store.get(job_id))]


def succeed(bench: Bench, job: Job) -> frozenset[str]:
    return bench.store.succeed(job, rows=1, columns=COLUMNS)


def fail(bench: Bench, job: Job) -> frozenset[str]:
    return bench.store.fail(job, error="no", code="query_failed")


def run_next(bench: Bench) -> str:
    """Run the next job to its success; return its ID."""
    (job,) = bench.claim().jobs
    succeed(bench, job)
    return job.job_id


@each_policy
def test_a_child_runs_when_its_last_parent_has_succeeded_and_wakes_its_queue(bench: Bench, policy: Policy) -> None:
    bench.store.submit([new_job("a"), new_job("b"), after("c", "a", "b", policy=policy, queue="p")])
    a, b = bench.claim(9).jobs
    assert texts(bench.store, "c") == ["job a is STARTED", "job b is STARTED"]
    assert not succeed(bench, a)
    assert texts(bench.store, "c") == ["job b is STARTED"]
    assert bench.ids() == []
    assert succeed(bench, b) == {"p"}
    assert texts(bench.store, "c") == []
    assert bench.ids(9) == ["c"]


def test_a_child_may_come_while_its_parent_waits_runs_or_is_finished(bench: Bench) -> None:
    bench.submit("done", "running", "waiting")
    assert run_next(bench) == "done"
    (running,) = bench.claim().jobs
    bench.store.submit([after("of-done", "done"), after("of-all", "done", "running", "waiting")])
    assert bench.ids(9) == ["waiting", "of-done"]
    assert [hold.name for hold in bench.store.waiting_for(bench.store.get("of-all"))] == ["running", "waiting"]
    succeed(bench, running)
    succeed(bench, bench.store.get("waiting"))
    assert bench.ids(9) == ["of-all"]
    assert bench.store.get("of-all").depends_on == ("done", "running", "waiting")


def test_the_newest_run_of_a_parent_counts(bench: Bench) -> None:
    fail(bench, bench.started("a"))
    succeed(bench, bench.started("a"))
    bench.store.submit([after("of-success", "a")])
    assert bench.ids(9) == ["of-success"]
    fail(bench, bench.started("a"))
    bench.store.submit([after("of-failure", "a")])
    assert bench.store.get("of-failure").state is JobState.FAILURE


def test_a_parent_that_fails_ends_its_children_and_theirs_with_the_reason(bench: Bench) -> None:
    bench.store.submit([new_job("a"), after("b", "a"), after("c", "b"), after("d", "b", "c")])
    fail(bench, bench.claim(9).jobs[0])
    for job_id in ("b", "c", "d"):
        job = bench.store.get(job_id)
        assert (job.state, job.error_code, job.attempt) == (JobState.FAILURE, "parent_failed", 0)
        assert job.error == "job a, which it depends on, failed"
        assert job.finished_at is not None
    assert bench.ids(9) == []


def test_a_parent_that_is_cancelled_cancels_its_children(bench: Bench) -> None:
    bench.store.submit([new_job("a"), after("b", "a"), after("c", "b"), after("d", "c", policy=Policy.FINISHED)])
    assert bench.store.cancel("a").wake == {"q"}
    for job_id in ("b", "c"):
        job = bench.store.get(job_id)
        assert (job.state, job.error_code) == (JobState.CANCELLED, "parent_cancelled")
        assert job.error == "job a, which it depends on, was cancelled"
        assert not job.cancel_requested
    assert bench.ids(9) == ["d"]


@pytest.mark.parametrize("how", ["fail", "cancel", "succeed"])
def test_who_waits_for_the_end_of_a_job_runs_whatever_has_become_of_it(bench: Bench, how: str) -> None:
    parent = bench.started("a")
    bench.store.submit([after("b", "a", policy=Policy.FINISHED)])
    if how == "cancel":
        bench.store.cancel("a")
        bench.store.cancelled(parent)
    else:
        {"fail": fail, "succeed": succeed}[how](bench, parent)
    assert bench.ids(9) == ["b"]


def test_a_parent_that_is_retried_put_back_or_rescued_is_not_finished(bench: Bench) -> None:
    parent = bench.lost("a")
    bench.store.submit([after("b", "a", policy=Policy.FINISHED)])
    bench.store.rescue(parent, max_rescues=3)
    for _ in range(2):
        (again,) = bench.claim(9).jobs
        bench.store.retry(again, error="no", code="c", delay=0)
    (again,) = bench.claim(9).jobs
    bench.store.requeue(again)
    assert texts(bench.store, "b") == ["job a is PENDING"]
    assert run_next(bench) == "a"
    assert bench.ids(9) == ["b"]


def test_a_parent_that_dies_too_often_ends_its_children(bench: Bench) -> None:
    bench.lost("a")
    bench.store.submit([after("b", "a")])
    bench.store.rescue(bench.store.get("a"), max_rescues=0)
    assert bench.store.get("b").error_code == "parent_failed"


def test_a_parent_of_which_the_end_was_asked_for_while_it_ran_cancels_its_children_when_it_is_put_back(
    bench: Bench,
) -> None:
    parents = bench.started("a"), bench.started("b")
    bench.store.submit([after("of-a", "a"), after("of-b", "b")])
    for job in parents:
        bench.store.cancel(job.job_id)
    bench.store.requeue(parents[0])
    bench.store.give_back(bench.worker, [(parents[1].run, 1)])
    assert [bench.store.get(job_id).state for job_id in ("of-a", "of-b")] == [JobState.CANCELLED] * 2


def test_a_child_of_a_finished_parent_that_did_not_succeed_ends_as_it_is_submitted(bench: Bench) -> None:
    fail(bench, bench.started("failed"))
    bench.submit("gone")
    bench.store.cancel("gone")
    jobs = bench.store.submit(
        [
            after("a", "failed"),
            after("b", "gone"),
            after("c", "a", policy=Policy.FINISHED),
            after("d", "failed", "gone", policy=Policy.FINISHED),
            after("e", "b", "d"),
        ]
    )
    states = [JobState.FAILURE, JobState.CANCELLED, JobState.PENDING, JobState.PENDING, JobState.CANCELLED]
    assert [job.state for job in jobs] == states
    assert [bench.store.get(job.job_id) for job in jobs] == jobs
    assert [job.error for job in jobs[:2]] == [
        "job failed, which it depends on, failed",
        "job gone, which it depends on, was cancelled",
    ]
    assert bench.ids(9) == ["c", "d"]


def test_a_child_waits_for_its_start_time_too(bench: Bench) -> None:
    soon = bench.store.now() + 3_600_000_000
    bench.store.submit([new_job("a"), after("late", "a", eta=soon), after("past", "a", eta=1)])
    late = bench.store.waiting_for(bench.store.get("late"))
    assert [hold.kind for hold in late] == ["start", "parent"]
    assert bench.store.due().jobs is None
    assert run_next(bench) == "a"
    assert bench.ids(9) == ["past"]
    assert [hold.kind for hold in bench.store.waiting_for(bench.store.get("late"))] == ["start"]
    assert 3590 < (bench.store.due().jobs or 0) <= 3600


def test_a_child_that_is_cancelled_waits_for_nothing_any_more(bench: Bench) -> None:
    bench.store.submit([new_job("a"), after("b", "a"), after("c", "b", policy=Policy.FINISHED)])
    assert bench.store.cancel("b").job.state is JobState.CANCELLED
    assert bench.ids(9) == ["a", "c"]
    succeed(bench, bench.store.get("a"))
    assert bench.store.get("b").state is JobState.CANCELLED
    bench.store.purge("b")
    with pytest.raises(UnknownJob):
        bench.store.get("b")


def test_a_parent_may_be_purged_once_it_is_finished(bench: Bench) -> None:
    bench.store.submit([new_job("a"), after("b", "a")])
    run_next(bench)
    bench.store.purge("a")
    assert bench.ids(9) == ["b"]
    with pytest.raises(InvalidRequest, match="there is no job a"):
        bench.store.submit([after("c", "a")])


def test_unknown_parents_and_circles_are_refused_with_their_place_and_nothing_is_stored(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="depends_on: there is no job x, y") as one:
        bench.store.submit([after("a", "x", "y")])
    assert one.value.details["field"] == "depends_on"
    with pytest.raises(InvalidRequest, match=r"jobs\[2\].depends_on: .* for ever: c → b → c") as several:
        bench.store.submit([new_job("a"), after("d", "x"), after("c", "b"), after("b", "a", "c"), after("e", "c")])
    assert several.value.details["fields"].keys() == {"jobs[1].depends_on", "jobs[2].depends_on"}
    with pytest.raises(InvalidRequest, match="f is the job itself"):
        bench.store.submit([after("f", "f")])
    with pytest.raises(InvalidRequest) as long:
        bench.store.submit([after(f"n{n}", f"n{(n + 1) % 500}") for n in range(500)])
    assert len(str(long.value)) < 200
    assert bench.store.pending("q") == []
    bench.submit("a", "b", "c")
    run_next(bench)
    assert bench.ids(9) == ["b", "c"]


def test_a_job_that_waits_says_for_whom_but_not_for_hundreds(bench: Bench) -> None:
    bench.submit(*(f"p{n}" for n in range(50)))
    bench.store.submit([after("c", *(f"p{n}" for n in range(50)))])
    holds = bench.store.waiting_for(bench.store.get("c"))
    assert [hold.kind for hold in holds] == ["parent"] * 21
    assert (holds[0].name, holds[0].text) == ("p0", "job p0 is PENDING")
    assert (holds[-1].name, holds[-1].text) == ("", "and 30 more")


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_workflow_is_a_group_whose_jobs_name_each_other(bench: Bench) -> None:
    jobs = [after("join", "left", "right"), after("left", "root"), after("right", "root"), new_job("root")]
    group = bench.store.submit_group(new_group("g", jobs=jobs))
    assert [job.job_id for job in group.jobs] == ["join", "left", "right", "root"]
    assert [run_next(bench) for _ in range(5)] == ["root", "left", "right", "join", "g-done"]
    assert bench.store.group("g").state is JobState.SUCCESS


def test_jobs_of_a_group_that_end_with_their_parents_are_counted_and_the_callback_is_told(bench: Bench) -> None:
    outside = bench.started("outside")
    jobs = [new_job("a"), after("b", "a"), after("c", "b"), after("d", "outside")]
    bench.store.submit_group(new_group("g", jobs=jobs))
    (a,) = bench.claim(9).jobs
    bench.store.cancel("outside")
    assert "p" not in bench.store.cancelled(outside)
    assert "p" in fail(bench, a)
    group = bench.store.group("g")
    assert (group.state, group.counts[JobState.FAILURE], group.counts[JobState.CANCELLED]) == (JobState.FAILURE, 3, 1)
    (callback,) = bench.claim(9).jobs
    assert isinstance(callback.args, dict)
    assert [callback.args[name] for name in ("succeeded", "failed", "cancelled")] == [0, 3, 1]


def test_a_group_of_which_all_jobs_have_failed_parents_finishes_as_it_is_submitted(bench: Bench) -> None:
    fail(bench, bench.started("x"))
    group = bench.store.submit_group(new_group("g", jobs=[after("a", "x"), after("b", "a")]))
    assert (group.state, group.live, group.counts[JobState.FAILURE]) == (JobState.FAILURE, False, 2)
    assert group == bench.store.group("g")
    (callback,) = bench.claim(9).jobs
    assert (callback.job_id, isinstance(callback.args, dict) and callback.args["failed"]) == ("g-done", 2)


def test_cancelling_a_group_ends_those_that_wait_for_its_jobs_once(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", jobs=[new_job("a"), after("b", "a"), after("c", "b"), new_job("d")]))
    bench.store.submit([after("outside", "b"), after("anyhow", "c", policy=Policy.FINISHED)])
    (running,) = bench.claim().jobs
    cancelled = bench.store.cancel_group("g")
    assert [job.job_id for job in cancelled.asked] == ["a"]
    assert cancelled.group.counts[JobState.CANCELLED] == 3
    assert bench.store.get("outside").error_code == "parent_cancelled"
    assert bench.store.get("c").cancel_requested
    assert bench.ids() == ["anyhow"]
    bench.store.cancelled(running)
    assert bench.store.group("g").counts[JobState.CANCELLED] == 4
    assert bench.ids(9) == ["g-done"]


def test_the_concurrency_of_a_group_holds_for_jobs_that_waited_for_parents(bench: Bench) -> None:
    jobs = [new_job("a"), *(after(f"c{n}", "a") for n in range(4))]
    bench.store.submit_group(new_group("g", jobs=jobs, concurrency=2))
    run_next(bench)
    first, _ = bench.claim(9).jobs
    assert bench.ids(9) == []
    succeed(bench, first)
    assert bench.ids(9) == ["c2"]


def test_a_callback_may_depend_on_jobs_too_and_be_depended_on(bench: Bench) -> None:
    other = bench.started("other")
    callback = after("done", "other", queue="p")
    bench.store.submit_group(new_group("g", "a", callback=callback))
    bench.store.submit([after("last", "done")])
    assert run_next(bench) == "a"
    assert texts(bench.store, "done") == ["job other is STARTED"]
    assert "p" in succeed(bench, other)
    assert [run_next(bench), run_next(bench)] == ["done", "last"]


def test_a_callback_whose_parents_are_finished_still_waits_for_its_group(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", "a", "b", callback=after("done", "a", queue="p")))
    assert run_next(bench) == "a"
    assert texts(bench.store, "done") == ["group g: 1 of 2 jobs finished"]
    assert [run_next(bench), run_next(bench)] == ["b", "done"]


def test_a_callback_ends_with_a_job_that_it_depends_on_and_its_group_is_finished_without_it(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", "a", "b", callback=after("done", "a", queue="p")))
    fail(bench, bench.claim().jobs[0])
    assert bench.store.get("done").error_code == "parent_failed"
    assert run_next(bench) == "b"
    assert not bench.store.group("g").live
    assert bench.ids(9) == []


def test_a_job_that_would_wait_for_the_callback_of_its_own_group_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match=r"for ever: b → g-done → b") as refused:
        bench.store.submit_group(new_group("g", jobs=[new_job("a"), after("b", "g-done")]))
    assert refused.value.details["field"] == "jobs[1].depends_on"
    with pytest.raises(InvalidRequest) as unknown:
        bench.store.submit_group(new_group("g", "a", callback=after("done", "x")))
    assert unknown.value.details["field"] == "callback.depends_on"
    assert bench.store.pending("q") == []


# -- shared runs -------------------------------------------------------------------------------------------------------


def test_who_shares_a_run_ends_as_it_does_with_its_result(bench: Bench) -> None:
    leader = bench.started("a")
    bench.store.submit([after("b", "a", policy=Policy.SHARE, ttl=60), after("c", "b")])
    assert texts(bench.store, "b") == ["job a, whose run it shares, is STARTED"]
    succeed(bench, leader)
    a, b = bench.store.get("a"), bench.store.get("b")
    assert (b.state, b.attempt, b.rows, b.columns, b.table) == (JobState.SUCCESS, 0, a.rows, a.columns, a.table)
    assert b.expires_at == a.expires_at
    assert b.reused is not None
    assert (b.reused.job_id, b.reused.run, b.reused.at) == ("a", a.run, a.started_at)
    bench.store.submit([after("d", "b", policy=Policy.SHARE)])
    assert bench.store.get("d").reused == b.reused
    assert bench.ids(9) == ["c"]


def test_who_shares_a_run_that_fails_has_its_error(bench: Bench) -> None:
    leader = bench.started("a")
    bench.store.submit([after("b", "a", policy=Policy.SHARE), after("c", "b")])
    fail(bench, leader)
    b, c = bench.store.get("b"), bench.store.get("c")
    assert (b.state, b.error, b.error_code) == (JobState.FAILURE, "no", "query_failed")
    assert (c.error, c.error_code) == ("job b, which it depends on, failed", "parent_failed")


def test_the_first_of_those_that_shared_a_cancelled_run_runs_for_the_others(bench: Bench) -> None:
    leader = bench.started("a")
    bench.store.submit([after(job_id, "a", policy=Policy.SHARE) for job_id in ("b", "c", "d")])
    bench.store.pauses.pause("b", "not now")
    bench.store.cancel("a")
    assert bench.store.cancelled(leader) == {"q"}
    assert texts(bench.store, "d") == ["job c, whose run it shares, is PENDING"]
    (c,) = bench.claim(9).jobs
    assert c.job_id == "c"
    succeed(bench, c)
    shared = [bench.store.get(job_id) for job_id in ("b", "d")]
    assert [job.reused and job.reused.job_id for job in shared] == ["c", "c"]


# -- many --------------------------------------------------------------------------------------------------------------


def test_a_chain_of_a_thousand_ends_in_one_transaction(bench: Bench) -> None:
    chain = [new_job("0"), *(after(str(n), str(n - 1)) for n in range(1, 1001))]
    group = bench.store.submit_group(NewGroup(group_id="g", jobs=chain))
    assert group.counts[JobState.PENDING] == 1001
    fail(bench, bench.claim(9).jobs[0])
    group = bench.store.group("g")
    assert (group.live, group.counts[JobState.FAILURE]) == (False, 1001)
    assert group.jobs[-1].error == "job 0, which it depends on, failed"


def test_a_parent_of_five_thousand_makes_them_ready(bench: Bench) -> None:
    bench.submit("a")
    bench.store.submit([after(f"c{n}", "a") for n in range(5000)])
    assert run_next(bench) == "a"
    assert bench.ids(3) == ["c0", "c1", "c2"]
    assert all(bench.store.waiting_for(bench.store.get(f"c{n}")) == [] for n in (999, 1000, 4999))
