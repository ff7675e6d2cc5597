"""What becomes of the jobs of a worker that died."""

from __future__ import annotations

import pytest

from jobber.errors import Fenced
from jobber.jobs import JobState
from jobber.store import Gate, GateKind
from tests.store.conftest import QUEUES, Bench, new_job, set_back


def test_a_job_of_a_dead_worker_goes_back_without_spending_a_retry(bench: Bench) -> None:
    job = bench.lost("a")
    assert [(lost.run, lost.attempt) for lost in bench.store.lost()] == [(job.run, 1)]
    rescued = bench.store.rescue(job, max_rescues=1).job
    assert (rescued.state, rescued.rescues, rescued.failures) == (JobState.PENDING, 1, 0)
    assert rescued.error_code == "worker_lost"
    assert bench.store.lost() == []
    (again,) = bench.claim().jobs
    assert (again.job_id, again.attempt) == ("a", 2)


def test_a_job_that_loses_one_worker_too_many_fails(bench: Bench) -> None:
    job = bench.lost("a")
    for rescues in (1, 2):
        assert bench.store.rescue(job, max_rescues=2).job.rescues == rescues
        dying = bench.store.register("dying", QUEUES, 1, lease=0)
        (job,) = bench.claim(worker=dying).jobs
    failed = bench.store.rescue(job, max_rescues=2).job
    assert (failed.state, failed.error_code, failed.rescues) == (JobState.FAILURE, "worker_lost", 3)
    assert "dying" in failed.error
    assert "the 3rd worker that it lost, and max_rescues allows 2" in failed.error
    assert bench.store.get("a") == failed


def test_a_lost_job_whose_cancel_was_asked_for_is_cancelled(bench: Bench) -> None:
    job = bench.lost("a")
    bench.store.cancel("a")
    assert bench.store.rescue(job, max_rescues=3).job.state is JobState.CANCELLED


def test_a_job_is_rescued_once(bench: Bench) -> None:
    job = bench.lost("a")
    bench.store.rescue(job, max_rescues=3)
    with pytest.raises(Fenced):
        bench.store.rescue(job, max_rescues=3)
    assert bench.store.get("a").rescues == 1


def test_a_job_whose_worker_is_alive_is_not_rescued(bench: Bench) -> None:
    job = bench.started("a")
    assert bench.store.lost() == []
    with pytest.raises(Fenced):
        bench.store.rescue(job, max_rescues=3)
    assert bench.store.get("a") == job


def test_a_worker_that_died_is_lost_in_time_though_the_clock_was_set_back(bench: Bench) -> None:
    job = bench.started("a")
    set_back(bench.store, "workers", "seen_at", "lease_until")
    assert [lost.run for lost in bench.store.lost()] == [job.run]
    assert bench.store.rescue(job, max_rescues=1).job.state is JobState.PENDING


def test_a_worker_that_lives_is_not_lost_when_the_clock_was_set_back(bench: Bench) -> None:
    bench.started("a")
    set_back(bench.store, "workers", "seen_at", "lease_until")
    bench.store.heartbeat(bench.worker, {}, lease=60)
    assert bench.store.lost() == []


def test_a_worker_that_renews_in_time_is_alive_again(bench: Bench) -> None:
    bench.submit("a")
    late = bench.store.register("late", QUEUES, 1, lease=0)
    (job,) = bench.claim(worker=late).jobs
    assert bench.store.lost() != []
    bench.store.heartbeat(late, {}, lease=60)
    assert bench.store.lost() == []
    with pytest.raises(Fenced):
        bench.store.rescue(job, max_rescues=3)


def test_a_worker_that_was_declared_dead_can_neither_renew_nor_claim(bench: Bench) -> None:
    bench.submit("a", "b")
    dying = bench.store.register("dying", QUEUES, 2, lease=0)
    first, second = bench.claim(2, worker=dying).jobs
    bench.store.rescue(first, max_rescues=3)
    with pytest.raises(Fenced):
        bench.store.heartbeat(dying, {}, lease=60)
    with pytest.raises(Fenced):
        bench.claim(worker=dying)
    # Its other attempts are lost too, whatever its lease says.
    assert [job.run for job in bench.store.lost()] == [second.run]
    # One that ends before it is rescued is not lost.
    bench.store.succeed(second, rows=1, columns=[])
    assert bench.store.lost() == []


def test_what_an_unregistered_worker_still_holds_is_lost_at_once(bench: Bench) -> None:
    leaving = bench.store.register("leaving", QUEUES, 1, lease=600)
    bench.submit("a")
    (job,) = bench.claim(worker=leaving).jobs
    bench.store.unregister(leaving)
    assert [lost.run for lost in bench.store.lost()] == [job.run]
    with pytest.raises(Fenced):
        bench.claim(worker=leaving)


def test_two_suspects_never_run_beside_each_other_on_one_worker(bench: Bench) -> None:
    bench.submit("a", "b", "c")
    dying = bench.store.register("dying", QUEUES, 3, lease=0)
    for job in bench.claim(3, worker=dying).jobs:
        bench.store.rescue(job, max_rescues=3)
    bench.submit("innocent")
    first = bench.claim(5).jobs
    assert [job.job_id for job in first] == ["a", "innocent"]
    assert bench.ids(5) == []
    other = bench.store.register("w2", QUEUES, 3, lease=60)
    assert bench.ids(5, worker=other) == ["b"]
    bench.store.succeed(first[0], rows=1, columns=[])
    assert bench.ids(5) == ["c"]


def test_a_suspect_counts_against_limits(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.DATABASE, "db0"): 1})
    bench.store.rescue(bench.lost("a"), max_rescues=3)
    bench.store.submit([new_job("b")])
    (a,) = bench.claim(5).jobs
    assert a.rescues + bench.store.get("b").attempt in (0, 1)
    assert bench.ids(5) == []
