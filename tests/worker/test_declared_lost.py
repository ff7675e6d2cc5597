"""A worker that was declared lost, while it claims and while it runs: on a real store."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from jobber.jobs import JobState
from tests.servers import wait_until
from tests.worker.conftest import Bench, in_thread


def test_a_worker_that_was_declared_dead_drops_its_jobs_and_works_on_under_a_new_name(bench: Bench) -> None:
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
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claim and the run: it would run on beside the attempt of whoever rescues it."""
    bench.submit("endless", "claimed")
    claim = bench.store.finish_and_claim

    def declared_dead_meanwhile(worker: int, *ends: Any, **served: Any) -> Any:
        claimed = claim(worker, *ends, **served)
        bench.store.unregister(worker)
        assert not bench.worker._pulse()
        bench.worker._draining = True
        return claimed

    monkeypatch.setattr(bench.store, "finish_and_claim", declared_dead_meanwhile)
    working = in_thread(bench.worker.work)
    working.join(10)

    stuck = working.is_alive()
    bench.worker.interrupt()
    working.join(10)
    assert (stuck, bench.store.get("claimed").state) == (False, JobState.PENDING)


def test_a_job_that_nobody_took_yet_from_a_worker_declared_dead_is_run_again(bench: Bench) -> None:
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


def test_being_declared_dead_twice_over_does_not_end_what_was_claimed_since(bench: Bench) -> None:
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


def test_an_attempt_that_is_fenced_off_before_it_is_taken_is_not_failed(bench: Bench) -> None:
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
