"""How attempts end, retry and are cancelled, how jobs are purged, and that there is no other transition."""

from __future__ import annotations

import pytest

from jobber.errors import Fenced, JobIsFinished, JobIsLive, UnknownJob
from jobber.jobs import TRANSITIONS, JobState
from jobber.store import Progress
from tests.servers import wait_until
from tests.store.conftest import COLUMNS, ENDS, QUEUES, Bench, each_end, end


@each_end
def test_the_holder_of_an_attempt_ends_it(bench: Bench, how: str) -> None:
    job = bench.started("a")
    assert (job.state, job.attempt, job.worker) == (JobState.STARTED, 1, "w1")
    assert job.started_at is not None
    end(bench, how, job)
    after = bench.store.get("a")
    assert after.state is ENDS[how][1]
    assert after.state in TRANSITIONS[JobState.STARTED]
    assert (after.finished_at is not None) == after.state.finished
    assert after.run == job.run


@each_end
def test_repeating_the_very_same_end_is_quiet_and_changes_nothing(bench: Bench, how: str) -> None:
    job = bench.started("a")
    end(bench, how, job)
    once = bench.store.get("a")
    end(bench, how, job)
    assert bench.store.get("a") == once


def test_an_attempt_ends_in_one_way_only(bench: Bench) -> None:
    pairs = [(first, how) for first in ENDS for how in ENDS if how.removesuffix(" at once") != first]
    for n, (first, how) in enumerate(pairs):
        if first == "retry at once":
            continue
        job = bench.started(f"a{n}", priority=10)
        end(bench, first, job)
        once = bench.store.get(job.job_id)
        with pytest.raises(Fenced):
            end(bench, how, job)
        assert bench.store.get(job.job_id) == once, f"{how} after {first}"
        if once.state is JobState.PENDING:
            bench.store.cancel(job.job_id)


@each_end
def test_an_attempt_that_was_rescued_can_end_nothing(bench: Bench, how: str) -> None:
    job = bench.lost("a")
    bench.store.rescue(job, max_rescues=3)
    with pytest.raises(Fenced):
        end(bench, how, job)
    (second,) = bench.claim().jobs
    with pytest.raises(Fenced):
        end(bench, how, job)
    assert bench.store.get("a").state is JobState.STARTED
    bench.store.succeed(second, rows=1, columns=[])


@each_end
def test_a_job_that_was_never_claimed_can_not_be_ended(bench: Bench, how: str) -> None:
    (job,) = bench.submit("a")
    with pytest.raises(Fenced):
        end(bench, how, job)
    assert bench.store.get("a") == job


def test_success_keeps_rows_and_columns_and_says_when_the_result_expires(bench: Bench) -> None:
    bench.store.succeed(bench.started("a", ttl=90), rows=5_000_000_000, columns=COLUMNS)
    job = bench.store.get("a")
    assert (job.rows, job.columns, job.error) == (5_000_000_000, tuple(COLUMNS), "")
    assert job.finished_at is not None
    assert job.expires_at == job.finished_at + 90_000_000
    bench.store.succeed(bench.started("b", ttl=0), rows=0, columns=[])
    assert bench.store.get("b").expires_at is None


def test_failure_keeps_the_error_whatever_it_holds(bench: Bench) -> None:
    bench.store.fail(bench.started("a"), error="no\x00 \ud800 such 'table'", code="query_failed")
    job = bench.store.get("a")
    assert (job.error, job.error_code, job.failures, job.rows) == ("no\ufffd ? such 'table'", "query_failed", 1, None)


def test_a_retry_waits_its_delay_and_then_runs_as_the_next_attempt(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.retry(job, error="no", code="query_failed", delay=0.2)
    waiting = bench.store.get("a")
    assert (waiting.failures, waiting.error, waiting.error_code) == (1, "no", "query_failed")
    assert bench.ids() == []
    wait_until(lambda: bench.store.release_due() == {"q"})
    (second,) = bench.claim().jobs
    assert (second.attempt, second.failures, second.run) == (2, 1, job.run)
    bench.store.succeed(second, rows=1, columns=[])
    assert bench.store.get("a").error == ""


def test_a_retry_without_delay_is_ready_at_once_and_wakes_its_queue(bench: Bench) -> None:
    assert bench.store.retry(bench.started("a"), error="no", code="c", delay=0) == {"q"}
    assert bench.ids() == ["a"]


def test_a_requeued_job_keeps_its_place_and_spends_no_retry(bench: Bench) -> None:
    first = bench.started("a")
    bench.submit("b")
    assert bench.store.requeue(first) == {"q"}
    again, b = bench.claim(2).jobs
    assert (again.job_id, again.attempt, again.failures, b.job_id) == ("a", 2, 0, "b")


@pytest.mark.parametrize("how", ["retry", "retry at once", "requeue", "reroute"])
def test_a_job_whose_cancel_was_asked_for_never_starts_again(bench: Bench, how: str) -> None:
    job = bench.started("a")
    bench.store.cancel("a")
    assert end(bench, how, job) == frozenset()
    cancelled = bench.store.get("a")
    assert (cancelled.state, cancelled.cancel_requested) == (JobState.CANCELLED, True)
    end(bench, how, job)
    assert bench.store.get("a") == cancelled


def test_cancelling_a_waiting_job_ends_it_at_once(bench: Bench) -> None:
    bench.submit("a")
    bench.submit("later", eta=bench.store.now() + 60_000_000)
    bench.store.retry(bench.started("b", priority=8), error="no", code="c", delay=60)
    for job_id in ("a", "later", "b"):
        job = bench.store.cancel(job_id).job
        assert (job.state, job.cancel_requested) == (JobState.CANCELLED, True)
        assert job.finished_at is not None
        assert bench.store.get(job_id) == job
    assert bench.ids(5) == []
    assert bench.store.due().jobs is None


def test_cancelling_a_running_job_asks_its_worker(bench: Bench) -> None:
    job = bench.started("a")
    other = bench.started("b")
    for _ in range(2):
        asked = bench.store.cancel("a").job
        assert (asked.state, asked.cancel_requested) == (JobState.STARTED, True)
    assert bench.store.heartbeat(bench.worker, {}, lease=60).cancelled == {(job.run, job.attempt)}
    stranger = bench.store.register("w2", QUEUES, 1, lease=60)
    assert bench.store.heartbeat(stranger, {}, lease=60).cancelled == frozenset()
    bench.store.cancelled(job)
    assert bench.store.heartbeat(bench.worker, {}, lease=60).cancelled == frozenset()
    assert bench.store.get("b") == other


def test_a_query_that_was_faster_than_its_cancel_succeeds(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.cancel("a")
    bench.store.succeed(job, rows=1, columns=[])
    assert bench.store.get("a").state is JobState.SUCCESS


def test_cancelling_what_is_finished_or_unknown_is_refused(bench: Bench) -> None:
    bench.store.succeed(bench.started("a"), rows=1, columns=[])
    with pytest.raises(JobIsFinished) as refused:
        bench.store.cancel("a")
    assert refused.value.job.state is JobState.SUCCESS
    with pytest.raises(UnknownJob):
        bench.store.cancel("none")


def test_purge_forgets_all_finished_runs_of_an_id_and_returns_them(bench: Bench) -> None:
    runs = []
    for rows in (1, 2):
        job = bench.started("a")
        bench.store.succeed(job, rows=rows, columns=COLUMNS)
        runs.append(job.run)
    purged = bench.store.purge("a")
    assert [(job.run, job.rows) for job in purged] == list(zip(runs, (1, 2), strict=True))
    for refused in (bench.store.get, bench.store.purge):
        with pytest.raises(UnknownJob):
            refused("a")


def test_purge_refuses_a_live_job_and_keeps_its_history(bench: Bench) -> None:
    bench.store.succeed(bench.started("a"), rows=1, columns=[])
    (live,) = bench.submit("a")
    with pytest.raises(JobIsLive) as refused:
        bench.store.purge("a")
    assert refused.value.job == live
    bench.store.cancel("a")
    assert len(bench.store.purge("a")) == 2


def test_finished_lists_all_runs_that_are_over_newest_first_and_keeps_them(bench: Bench) -> None:
    bench.store.succeed(bench.started("other"), rows=1, columns=[])
    bench.store.succeed(bench.started("a"), rows=1, columns=COLUMNS)
    bench.store.fail(bench.started("a"), error="no", code="c")
    bench.submit("a")
    bench.store.cancel("a")
    finished = bench.store.finished("a")
    assert [job.state for job in finished] == [JobState.CANCELLED, JobState.FAILURE, JobState.SUCCESS]
    assert finished[0] == bench.store.get("a")
    assert bench.store.finished("a") == finished == bench.store.purge("a")[::-1]
    with pytest.raises(UnknownJob):
        bench.store.finished("a")


def test_finished_refuses_a_live_job_even_without_history(bench: Bench) -> None:
    for live in (bench.submit("a")[0], bench.started("b", priority=10)):
        with pytest.raises(JobIsLive) as refused:
            bench.store.finished(live.job_id)
        assert refused.value.job == live
    bench.store.cancel("a")
    bench.submit("a")
    with pytest.raises(JobIsLive):
        bench.store.finished("a")


def test_running_tells_which_attempts_are_not_over(bench: Bench) -> None:
    first = bench.started("a")
    bench.store.requeue(first)
    (second,) = bench.claim().jobs
    over = bench.started("over")
    bench.store.succeed(over, rows=1, columns=[])
    dead = bench.lost("dead")
    (waiting,) = bench.submit("waiting")
    none = {(n, 1) for n in range(5000)}
    asked = {(first.run, 1), (second.run, 2), (over.run, 1), (dead.run, 1), (waiting.run, 0), (waiting.run, 1), *none}
    assert bench.store.running(asked) == {(second.run, 2), (dead.run, 1)}
    assert bench.store.running([(second.run, 2)]) == {(second.run, 2)}
    bench.store.rescue(dead, max_rescues=3)
    assert bench.store.running(asked) == {(second.run, 2)}
    assert bench.store.running([]) == set()


def test_progress_is_read_with_the_job_and_kept_when_it_ends(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 10, 2**40)}, lease=60)
    running = bench.store.get("a")
    assert (running.phase, running.rows_so_far, running.bytes_so_far) == ("writing", 10, 2**40)
    bench.store.fail(job, error="no", code="c")
    failed = bench.store.get("a")
    assert (failed.phase, failed.rows_so_far, failed.bytes_so_far) == ("", 10, 2**40)


def test_the_next_attempt_starts_counting_at_zero(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 10, 20)}, lease=60)
    bench.store.requeue(job)
    assert bench.store.get("a").rows_so_far == 10
    bench.claim()
    assert bench.store.get("a").rows_so_far == 0
