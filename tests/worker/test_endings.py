"""How an attempt ends, by what went wrong: retries, limits of time, and a state database that is away then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.errors import AttemptError, Cancelled, Interrupted, ResultsUnavailable, StateUnavailable
from jobber.jobs import Job, JobState
from jobber.results.base import Target
from tests.servers import wait_until
from tests.worker.conftest import Bench, in_thread


def test_a_failed_attempt_is_retried_only_if_another_try_may_help(bench: Bench) -> None:
    bench.submit("wrong", "bad", retries=3)

    bench.worker.work()

    job = bench.store.get("bad")
    assert (job.state, job.attempt, job.error_code) == (JobState.FAILURE, 1, "query_failed")
    assert "no such table: nowhere" in job.error


def test_a_line_that_cannot_be_kept_turns_no_success_into_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(bench.store.events, "log", broken)
    bench.submit("quick", "a")

    bench.worker.work()

    job = bench.store.get("a")
    assert (job.state, job.rows, job.attempt) == (JobState.SUCCESS, 1, 1)


def test_with_retry_on_any_every_failure_is_retried_but_a_timeout(bench: Bench) -> None:
    bench.submit("wrong_but_tried_again", "bad", retries=2)
    bench.submit("endless", "slow", retries=2, timeout=1)
    bench.worker.settings = replace(
        bench.worker.settings, app=replace(bench.worker.settings.app, retry_on="any", retry_delay=0.01)
    )

    def finished() -> bool:
        bench.store.release_due()
        bench.worker.work()
        return not bench.store.live(["bad", "slow"])

    wait_until(finished, timeout=20)

    bad, slow = bench.store.get("bad"), bench.store.get("slow")
    assert (bad.attempt, bad.failures, bad.error_code) == (3, 3, "query_failed")
    assert [attempt.ending for attempt in bench.store.attempts(bad)] == ["retry", "retry", "failure"]
    assert (slow.attempt, slow.error_code) == (1, "timed_out")


def test_retries_wait_longer_each_time_up_to_the_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    app = replace(bench.worker.settings.app, retry_delay=1.0, retry_delay_max=5.0)
    bench.worker.settings = replace(bench.worker.settings, app=app)
    delays: list[float] = []
    retry = bench.store.retry

    def noted(job: Any, *, error: str, code: str, delay: float) -> Any:
        delays.append(delay)
        return retry(job, error=error, code=code, delay=0)

    monkeypatch.setattr(bench.store, "retry", noted)
    bench.submit("wrong_but_tried_again", "bad", retries=2000)
    working = in_thread(bench.worker.work)
    wait_until(lambda: len(delays) > 70, timeout=30)  # 2 to the power of 70 is not multiplied out
    bench.store.cancel("bad")
    working.join(10)

    for delay, most in zip(delays, [1, 2, 4, 5, 5], strict=False):
        assert most / 2 <= delay <= most
    assert max(delays) <= 5
    assert len({round(delay, 6) for delay in delays[3:]}) > 10  # not all at one time


def test_a_time_limit_of_0_in_the_task_is_none(bench: Bench) -> None:
    tasks = bench.worker._tasks()
    limits = []
    for task in ("quick", "unlimited"):
        bench.submit(task, task)
        bench.submit(task, f"{task}-5", timeout=5)
        jobs = (bench.store.get(job_id) for job_id in (task, f"{task}-5"))
        limits.append([bench.worker._time_limit(job, tasks[task]) for job in jobs])
    assert limits == [[3600, 5], [0, 5]]


def test_the_end_of_an_attempt_is_written_down_when_the_state_database_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first it is told together with a claim, then alone."""
    bench.submit("quick", "patient")
    together, alone = bench.store.finish_and_claim, bench.store.succeed
    calls: list[str] = []

    def away_once(*args: Any, **options: Any) -> Any:
        calls.append("together")
        if len(calls) == 2:
            raise StateUnavailable("away")
        return together(*args, **options)

    def away_twice(*args: Any, **options: Any) -> Any:
        calls.append("alone")
        if len(calls) < 5:
            raise StateUnavailable("away")
        return alone(*args, **options)

    monkeypatch.setattr(bench.store, "finish_and_claim", away_once)
    monkeypatch.setattr(bench.store, "succeed", away_twice)

    bench.worker.work()

    assert calls == [*["together"] * 2, *["alone"] * 3, "together"]
    assert bench.store.get("patient").state is JobState.SUCCESS


def test_an_error_of_the_program_fails_the_job_and_shows_no_details(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "unlucky")
    monkeypatch.setattr("jobber.execution.run", lambda *_args, **_options: 1 / 0)

    bench.worker.work()

    job = bench.store.get("unlucky")
    assert (job.state, job.error_code) == (JobState.FAILURE, "attempt_failed")
    assert job.error == "internal error (ZeroDivisionError); the worker's log has the details"


def test_an_end_that_cannot_be_written_down_is_given_up_and_the_job_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "cursed")
    monkeypatch.setattr("jobber.worker.time.sleep", lambda _seconds: None)
    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "succeed", lambda *_args, **_options: 1 / 0)
        broken.setattr("jobber.store.finishing.Finisher.requests", lambda _, held: held and 1 / 0)
        bench.worker.work()
    assert bench.store.get("cursed").state is JobState.STARTED

    monkeypatch.setattr("jobber.held._STRANGE", 0)
    bench.worker._pulse()

    assert bench.store.get("cursed").state is JobState.PENDING


@pytest.mark.parametrize(
    ("reason", "state"), [(Cancelled("cancelled"), "CANCELLED"), (Interrupted("the worker is stopping"), "PENDING")]
)
def test_an_attempt_that_is_stopped_while_nobody_says_whether_it_has_published_ends_as_if_it_were_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: AttemptError, state: str
) -> None:
    """The results database hangs over the COMMIT: the job must not fail for it. The janitor looks what it published."""
    bench.submit("quick", "unheard")

    def run(job: Job, *_: Any, cancellation: Cancellation, **__: Any) -> Any:
        if isinstance(reason, Cancelled):
            bench.store.cancel(job.job_id)
        else:
            bench.worker._draining = True
        cancellation.pull(reason)
        raise ResultsUnavailable("it does not say whether it was published")

    monkeypatch.setattr("jobber.worker.execution.run", run)
    before = bench.store.now()
    bench.worker.work()

    assert bench.store.get("unheard").state == state
    listed = ["unheard"] if state == "CANCELLED" else []
    assert [job.job_id for job in bench.store.doubtful(before)] == listed


def test_what_an_attempt_published_unheard_makes_the_next_one_succeed_without_a_query(bench: Bench) -> None:
    bench.submit("quick", "a", retries=1)
    other = bench.store.register("other", ["default"], 1, lease=60)
    (job,) = bench.store.claim(other, queues=["default"], tasks=["quick"], databases=["src"]).jobs
    target = Target(job.table, job.job_id, job.run, job.attempt, job.ttl, ())
    with bench.results.begin(target, [Column("one", Kind.INTEGER)], Cancellation()) as writer:
        writer.write_batch([(7,), (8,)])
        writer.publish()
    bench.store.retry(job, error="it does not say", code=ResultsUnavailable.code, delay=0)
    bench.worker.work()
    done = bench.store.get("a")
    assert (done.state, done.rows, done.attempt) == (JobState.SUCCESS, 2, 2)
    assert done.snapshot_at == job.started_at  # not when the second one began, which asked no source
