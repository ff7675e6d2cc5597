"""A worker's own races: draining while it claims, and being declared dead while it runs; on a real store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from jobber import config
from jobber import tasks as task_files
from jobber.cancellation import Cancellation
from jobber.errors import AttemptError, Cancelled, Interrupted, ResultsUnavailable, StateUnavailable
from jobber.jobs import Job, JobState, NewJob
from jobber.results import open_results
from jobber.sources import open_source
from jobber.store import Store
from jobber.worker import Worker
from tests.servers import wait_until

TASKS = """\
-- name: quick
SELECT 1 AS one;

-- name: endless
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n;

-- name: wrong
-- raw: 1
SELECT * FROM nowhere;

-- name: wrong_but_tried_again
-- raw: 1
-- retry_on: any
SELECT * FROM nowhere;

-- name: unlimited
-- timeout: 0
SELECT 1 AS one;
"""


class Wakes:
    """Where a worker sends wake-ups; nobody listens here."""

    def __init__(self) -> None:
        self.queues: list[str] = []

    def wake(self, queue: str, _slots: int = 1) -> None:
        self.queues.append(queue)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SimpleNamespace]:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS)
    sqlite3.connect(tmp_path / "source.db").close()
    (tmp_path / "data").mkdir()
    databases = {name: f"sqlite:///{tmp_path}/{file}.db" for name, file in (("src", "source"), ("gone", "gone"))}
    settings = config.embedded(tmp_path / "data", databases)
    store = Store(settings.state.url)
    store.migrate()
    sources = {name: open_source(database) for name, database in settings.databases.items()}
    results = {name: open_results(database) for name, database in settings.results.items()}
    for backend in results.values():
        backend.prepare()
    loaded = task_files.load([tmp_path / "sql"], settings)
    wakes = Wakes()
    worker = Worker(
        settings=settings,
        name="w",
        tasks=lambda: loaded,
        queues=lambda: ["default"],
        slots=2,
        store=store,
        queueing=wakes,  # type: ignore[arg-type]  # it has the one method that is called
        sources=sources,
        results=results,
    )
    # Tried again soon.
    worker.settings = replace(settings, app=replace(settings.app, retry_delay=0.01))

    def submit(task: str, job_id: str, **more: Any) -> None:
        table = results["results"].table_name(job_id)
        fields = {"db": "src", **more}
        store.submit([NewJob(job_id=job_id, task=task, queue="default", results="results", table=table, **fields)])

    yield SimpleNamespace(worker=worker, store=store, submit=submit, wakes=wakes)
    worker.interrupt()
    for closed in (*sources.values(), *results.values(), store):
        closed.close()


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_wake_up_runs_all_that_there_is(bench: SimpleNamespace) -> None:
    for number in range(3):
        bench.submit("quick", f"job{number}")

    bench.worker.work()

    assert {bench.store.get(f"job{number}").state for number in range(3)} == {JobState.SUCCESS}


def test_the_first_claim_passes_the_wake_up_on_twice_while_there_is_more(bench: SimpleNamespace) -> None:
    for number in range(5):
        bench.submit("quick", f"job{number}")

    bench.worker.work()

    assert bench.wakes.queues == ["default"]


def test_no_more_jobs_run_than_there_are_slots(bench: SimpleNamespace) -> None:
    for number in range(3):
        bench.submit("endless", f"job{number}")
    working = [in_thread(bench.worker.work) for _ in range(2)]
    wait_until(lambda: len(bench.worker._held) == 2)

    bench.worker.work()

    assert sorted(bench.store.get(f"job{number}").state for number in range(3)) == ["PENDING", "STARTED", "STARTED"]
    bench.worker.interrupt()
    for thread in working:
        thread.join(10)


def test_a_job_that_is_being_claimed_when_the_drain_begins_is_not_left_behind(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is on its way, so the process counts as busy though it holds no job yet."""
    bench.submit("quick", "late")
    claiming, go_on = threading.Event(), threading.Event()
    claim = bench.store.claim

    def slow_claim(*args: Any, **options: Any) -> Any:
        claiming.set()
        assert go_on.wait(10)
        return claim(*args, **options)

    monkeypatch.setattr(bench.store, "claim", slow_claim)
    working = in_thread(bench.worker.work)
    assert claiming.wait(10)
    draining = in_thread(lambda: bench.worker.drain(10))
    draining.join(0.2)
    assert draining.is_alive()

    go_on.set()
    draining.join(10)
    working.join(10)
    bench.worker.leave()

    assert bench.store.get("late").state is JobState.SUCCESS
    assert bench.store.lost() == []


def test_a_worker_that_was_declared_dead_drops_its_jobs_and_works_on_under_a_new_name(bench: SimpleNamespace) -> None:
    bench.submit("endless", "lost")
    working = in_thread(bench.worker.work)
    wait_until(lambda: bench.store.get("lost").phase == "querying" or bench.worker._held)
    (held,) = bench.worker._held.values()
    bench.store.unregister(held.worker)
    for job in bench.store.lost():
        bench.store.rescue(job, max_rescues=0)

    bench.submit("quick", "next")
    other = in_thread(bench.worker.work)
    other.join(10)
    working.join(10)

    assert bench.store.get("next").state is JobState.SUCCESS
    assert bench.store.get("lost").error_code == "worker_lost"


def test_a_job_that_was_claimed_when_its_worker_was_declared_dead_is_not_run_under_the_old_name(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claim and the run: it would run on beside the attempt of whoever rescues it."""
    bench.submit("endless", "claimed")
    claim = bench.store.claim

    def declared_dead_meanwhile(worker: int, **served: Any) -> Any:
        claimed = claim(worker, **served)
        bench.store.unregister(worker)
        assert not bench.worker._pulse()
        bench.worker._draining = True
        return claimed

    monkeypatch.setattr(bench.store, "claim", declared_dead_meanwhile)
    working = in_thread(bench.worker.work)
    working.join(10)

    stuck = working.is_alive()
    bench.worker.interrupt()
    working.join(10)
    assert (stuck, bench.store.get("claimed").state) == (False, JobState.PENDING)


def test_a_job_that_nobody_took_yet_from_a_worker_declared_dead_is_run_again(bench: SimpleNamespace) -> None:
    """Whoever rescues takes one job after the other, and the first brings the worker's death."""
    bench.submit("endless", "taken")
    bench.submit("endless", "left")
    working = [in_thread(bench.worker.work) for _ in range(2)]
    wait_until(lambda: len(bench.worker._held) == 2)
    bench.store.unregister(bench.worker._identity())
    bench.store.rescue(bench.store.get("taken"), max_rescues=0)

    assert not bench.worker._pulse()

    wait_until(lambda: bench.store.get("left").attempt == 2)
    bench.worker.interrupt()
    for thread in working:
        thread.join(10)
    left = bench.store.get("left")
    assert (left.state, left.failures, left.error_code) == (JobState.PENDING, 0, "")
    assert bench.store.get("taken").error_code == "worker_lost"


def test_being_declared_dead_twice_over_does_not_end_what_was_claimed_since(bench: SimpleNamespace) -> None:
    """Two threads learn of the same death; the second must not take the new identity for the old."""
    bench.submit("quick", "first")
    bench.worker.work()
    dead = bench.worker._identity()
    bench.store.unregister(dead)
    bench.worker._forget(dead)
    bench.submit("endless", "running")
    working = in_thread(bench.worker.work)
    wait_until(lambda: bench.worker._held)

    bench.worker._forget(dead)

    (held,) = bench.worker._held.values()
    assert held.token.reason is None
    bench.worker.interrupt()
    working.join(10)


def test_a_failed_attempt_is_retried_only_if_another_try_may_help(bench: SimpleNamespace) -> None:
    bench.submit("wrong", "bad", retries=3)

    bench.worker.work()

    job = bench.store.get("bad")
    assert (job.state, job.attempt, job.error_code) == (JobState.FAILURE, 1, "query_failed")
    assert "no such table: nowhere" in job.error


def test_with_retry_on_any_every_failure_is_retried_but_a_timeout(bench: SimpleNamespace) -> None:
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


def test_retries_wait_longer_each_time_up_to_the_limit(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_job_goes_on_with_another_replica_while_one_is_down(bench: SimpleNamespace) -> None:
    bench.submit("quick", "moved", db="gone", replicas=("gone", "src"))
    bench.submit("quick", "pinned", db="gone")

    bench.worker.work()

    moved, pinned = bench.store.get("moved"), bench.store.get("pinned")
    assert (moved.state, moved.db, moved.failures) == (JobState.SUCCESS, "src", 0)
    first, second = bench.store.attempts(moved)
    assert (first.ending, first.db, first.error_code) == ("rerouted", "gone", "source_unavailable")
    assert (second.ending, second.db) == ("success", "src")
    assert (pinned.state, pinned.error_code) == (JobState.FAILURE, "source_unavailable")


def test_a_replica_that_was_just_found_down_is_not_tried_again_by_each_job(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    gone = bench.worker._sources["gone"]
    read = gone.read

    def noted(*args: Any, **options: Any) -> Any:
        asked.append("gone")
        return read(*args, **options)

    monkeypatch.setattr(gone, "read", noted)
    for number in range(5):
        bench.submit("quick", f"job{number}", db="gone", replicas=("gone", "src"))

    bench.worker.work()

    assert {bench.store.get(f"job{number}").state for number in range(5)} == {JobState.SUCCESS}
    assert len(asked) == 1


def test_where_all_replicas_are_down_a_retry_is_spent_and_all_are_tried_again(bench: SimpleNamespace) -> None:
    bench.worker._sources["src"] = bench.worker._sources["gone"]
    bench.submit("quick", "nowhere", db="src", replicas=("gone", "src"), retries=1)

    def finished() -> bool:
        bench.store.release_due()
        bench.worker.work()
        return not bench.store.live(["nowhere"])

    wait_until(finished, timeout=20)

    told = [(attempt.ending, attempt.db) for attempt in bench.store.attempts(bench.store.get("nowhere"))]
    around = [("rerouted", "src"), ("rerouted", "gone")]
    assert told == [*around, ("retry", "src"), *around, ("failure", "src")]


def test_a_replica_that_is_back_is_tried_though_it_was_passed_over(bench: SimpleNamespace) -> None:
    bench.worker._replicas.note_down("src", "it was down a moment ago")
    bench.submit("quick", "back", db="src", replicas=("gone", "src"))

    bench.worker.work()

    job = bench.store.get("back")
    told = [(attempt.ending, attempt.db) for attempt in bench.store.attempts(job)]
    assert told == [("rerouted", "src"), ("rerouted", "gone"), ("success", "src")]


def test_an_attempt_that_is_fenced_off_before_it_is_taken_is_not_failed(bench: SimpleNamespace) -> None:
    """Whoever rescues declares the worker lost, fences its attempts, and then takes them; the worker wakes between."""
    bench.submit("quick", "fenced")
    claimed = bench.store.claim(
        bench.worker._identity(), queues=["default"], tasks={"quick"}, databases={"src"}, limit=1
    )
    (job,) = claimed.jobs
    worker = bench.worker._identity()
    bench.store._database.write(
        lambda connection: connection.execute(text("UPDATE jobber_workers SET lease_until = 0"))
    )
    bench.store.declare_lost(job)
    bench.worker._results["results"].fence(job.table, job.run, job.attempt)

    bench.worker._run(job, bench.worker._tasks()["quick"], worker)

    after = bench.store.get("fenced")
    assert (after.state, after.failures, after.error) == (JobState.PENDING, 0, "")
    bench.worker.work()
    assert bench.store.get("fenced").state is JobState.SUCCESS


def test_a_time_limit_of_0_in_the_task_is_none(bench: SimpleNamespace) -> None:
    tasks = bench.worker._tasks()
    limits = []
    for task in ("quick", "unlimited"):
        bench.submit(task, task)
        bench.submit(task, f"{task}-5", timeout=5)
        jobs = (bench.store.get(job_id) for job_id in (task, f"{task}-5"))
        limits.append([bench.worker._time_limit(job, tasks[task]) for job in jobs])
    assert limits == [[3600, 5], [0, 5]]


def test_the_end_of_an_attempt_is_written_down_when_the_state_database_is_back(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "patient")
    succeed = bench.store.succeed
    failures = [StateUnavailable("away"), StateUnavailable("away")]

    def away_twice(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return succeed(*args, **options)

    monkeypatch.setattr(bench.store, "succeed", away_twice)

    bench.worker.work()

    assert failures == []
    assert bench.store.get("patient").state is JobState.SUCCESS


def test_an_error_of_the_program_fails_the_job_and_shows_no_details(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "unlucky")
    monkeypatch.setattr("jobber.execution.run", lambda *_args, **_options: 1 / 0)

    bench.worker.work()

    job = bench.store.get("unlucky")
    assert (job.state, job.error_code) == (JobState.FAILURE, "attempt_failed")
    assert job.error == "internal error (ZeroDivisionError); the worker's log has the details"


def test_a_wake_up_that_comes_while_all_are_busy_is_not_dropped(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The busy thread has seen that nothing is left, and has not gone yet, when the job and its wake-up come."""
    bench.worker.slots = 1
    looked, go_on = threading.Event(), threading.Event()
    claim = bench.store.claim

    def claim_and_linger(*args: Any, **options: Any) -> Any:
        found = claim(*args, **options)
        if not looked.is_set():
            looked.set()
            assert go_on.wait(10)
        return found

    monkeypatch.setattr(bench.store, "claim", claim_and_linger)
    busy = in_thread(bench.worker.work)
    assert looked.wait(10)
    bench.submit("quick", "just-missed")

    bench.worker.work()
    go_on.set()
    busy.join(10)

    assert bench.store.get("just-missed").state is JobState.SUCCESS


def test_a_claim_whose_answer_was_lost_goes_back_to_its_queue(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "lost-answer")
    worker = bench.worker._identity()
    bench.store.claim(worker, queues=["default"], tasks={"quick"}, databases={"src"}, limit=1)
    bench.worker._pulse()
    assert bench.store.get("lost-answer").state is JobState.STARTED  # its claim may still be on its way

    monkeypatch.setattr("jobber.worker._STRANGE", 0)
    bench.worker._pulse()

    assert bench.store.get("lost-answer").state is JobState.PENDING
    bench.worker.work()
    assert bench.store.get("lost-answer").state is JobState.SUCCESS


def test_an_end_that_cannot_be_written_down_is_given_up_and_the_job_given_back(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("quick", "cursed")
    monkeypatch.setattr("jobber.worker.time.sleep", lambda _seconds: None)
    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "succeed", lambda *_args, **_options: 1 / 0)
        bench.worker.work()
    assert bench.store.get("cursed").state is JobState.STARTED

    monkeypatch.setattr("jobber.worker._STRANGE", 0)
    bench.worker._pulse()

    assert bench.store.get("cursed").state is JobState.PENDING


@pytest.mark.parametrize(
    ("reason", "state"), [(Cancelled("cancelled"), "CANCELLED"), (Interrupted("the worker is stopping"), "PENDING")]
)
def test_an_attempt_that_is_stopped_while_nobody_says_whether_it_has_published_ends_as_if_it_were_known(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, reason: AttemptError, state: str
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


def test_the_heartbeat_outlives_any_error(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobber.worker._BEAT", 0.01)
    beats: list[str] = []
    heartbeat = bench.store.heartbeat

    def first_fails(*args: Any, **options: Any) -> Any:
        beats.append("beat")
        if len(beats) == 1:
            raise RuntimeError("a bug")
        return heartbeat(*args, **options)

    monkeypatch.setattr(bench.store, "heartbeat", first_fails)
    beating = in_thread(bench.worker.beat)

    wait_until(lambda: len(beats) > 1)

    bench.worker.drain(1)
    beating.join(5)
    assert not beating.is_alive()
