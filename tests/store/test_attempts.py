"""Attempts and why they ended; jobs that go on elsewhere; the newest success of an ID."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from jobber.errors import Fenced
from jobber.jobs import Ending, Job, JobState
from jobber.store import Gate, GateKind
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench


def _endings(bench: Bench, job_id: str) -> list[tuple[int, Ending, str, str]]:
    return [(a.number, a.ending, a.error, a.error_code) for a in bench.store.attempts(bench.store.get(job_id))]


def _next(bench: Bench, worker: int | None = None) -> Job:
    (job,) = bench.claim(worker=worker).jobs
    return job


def test_every_attempt_is_kept_with_its_error_its_worker_and_its_times(bench: Bench) -> None:
    bench.submit("a", db="db0", replicas=("db0", "db1"))
    assert bench.store.attempts(bench.store.get("a")) == []
    bench.store.retry(_next(bench), error="no \x00 luck", code="query_failed", delay=0)
    bench.store.reroute(_next(bench), "db1", error="db0 is down", code="source_unavailable")
    bench.store.requeue(_next(bench))
    dying = bench.store.register("dying", QUEUES, 1, lease=0)
    bench.store.rescue(_next(bench, dying), max_rescues=3)
    bench.store.give_back(bench.worker, [((given := _next(bench)).run, given.attempt)])
    running = _next(bench)
    assert _endings(bench, "a")[-1] == (6, Ending.RUNNING, "", "")
    bench.store.fail(running, error="no more", code="query_failed")

    lost = "worker dying died, or lost the state database, while it ran this job"
    assert _endings(bench, "a") == [
        (1, Ending.RETRY, "no \ufffd luck", "query_failed"),
        (2, Ending.REROUTED, "db0 is down", "source_unavailable"),
        (3, Ending.REQUEUED, "", ""),
        (4, Ending.RESCUED, lost, "worker_lost"),
        (5, Ending.REQUEUED, "", ""),
        (6, Ending.FAILURE, "no more", "query_failed"),
    ]
    told = bench.store.attempts(bench.store.get("a"))
    assert [attempt.db for attempt in told] == ["db0", "db0", "db1", "db1", "db1", "db1"]
    assert [attempt.worker for attempt in told] == ["w1", "w1", "w1", "dying", "w1", "w1"]
    times = [time for attempt in told for time in (attempt.started_at, attempt.ended_at)]
    assert times == sorted(times, key=lambda at: at or 0)


def test_between_two_attempts_none_runs(bench: Bench) -> None:
    bench.store.retry(bench.started("a"), error="no", code="c", delay=60)
    assert _endings(bench, "a") == [(1, Ending.RETRY, "no", "c")]
    bench.store.cancel("a")
    assert _endings(bench, "a") == [(1, Ending.RETRY, "no", "c")]


def test_of_very_many_attempts_the_newest_are_kept(bench: Bench) -> None:
    bench.submit("a")
    for _ in range(103):
        bench.store.requeue(_next(bench))
    bench.store.succeed(_next(bench), rows=0, columns=[])
    numbers = [number for number, *_ in _endings(bench, "a")]
    assert numbers == list(range(4, 105))
    # With retries without end, the others would fill the disk, and take for ever to be forgotten.
    kept = text("SELECT count(*) FROM jobber_attempts")
    assert bench.store._database.read(lambda connection: connection.execute(kept).scalar_one()) == 100


@pytest.mark.parametrize("how", ["purge", "prune", "purge of its group"])
def test_attempts_are_forgotten_with_their_run(bench: Bench, how: str) -> None:
    job = bench.started("a")
    bench.store.requeue(job)
    bench.store.succeed(_next(bench), rows=0, columns=[])
    ended = bench.store.get("a")
    assert len(bench.store.attempts(ended)) == 2
    if how == "purge":
        bench.store.purge("a")
    else:
        wait_until(lambda: bench.store.prune(0) == 1)
    assert [attempt.number for attempt in bench.store.attempts(ended)] == [2]  # what the run itself says


def test_a_rerouted_job_reads_the_other_database_and_counts_against_its_limit(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.DATABASE, "db1"): 1})
    bench.started("holder", db="db1")
    job = bench.started("a", db="db0", replicas=("db0", "db1"), retries=1)
    assert bench.store.reroute(job, "db1", error="down", code="source_unavailable") == frozenset({"q"})
    waiting = bench.store.get("a")
    assert (waiting.state, waiting.db, waiting.failures, waiting.reroutes) == (JobState.PENDING, "db1", 0, 1)
    assert bench.ids() == []  # one runs on db1
    assert [hold.kind for hold in bench.store.waiting_for(waiting)] == ["database"]
    bench.store.succeed(bench.store.get("holder"), rows=0, columns=[])
    again = _next(bench)
    assert (again.job_id, again.db, again.replicas) == ("a", "db1", ("db0", "db1"))
    bench.store.retry(again, error="down, too", code="source_unavailable", delay=0)
    assert bench.store.get("a").reroutes == 0  # all of them may be tried again


def test_a_job_that_is_cancelled_instead_of_rerouted_has_read_the_database_that_it_read(bench: Bench) -> None:
    job = bench.started("a", db="db0", replicas=("db0", "db1"))
    bench.store.cancel("a")
    for _ in range(2):  # the second time quietly
        bench.store.reroute(job, "db1", error="down", code="source_unavailable")
    ended = bench.store.get("a")
    assert (ended.state, ended.db, ended.reroutes) == (JobState.CANCELLED, "db0", 0)


def test_a_suspect_stays_one_wherever_it_goes(bench: Bench) -> None:
    for job in [bench.lost("a"), bench.lost("b")]:
        bench.store.rescue(job, max_rescues=3)
    first = _next(bench)
    assert bench.ids() == []  # a worker runs one suspect at a time
    bench.store.reroute(first, "db1", error="down", code="c")
    second = _next(bench)
    assert (first.job_id, second.job_id, second.db) == ("a", "a", "db1")
    assert bench.ids() == []


def test_a_worker_that_was_declared_lost_renews_and_claims_nothing_and_its_job_can_still_be_ended(
    bench: Bench,
) -> None:
    job = bench.lost("a")
    held = bench.store.attempts(job)[0].worker
    bench.store.declare_lost(job)
    (lost,) = bench.store.lost()
    assert (lost.run, held) == (job.run, "dying")
    bench.store.succeed(job, rows=3, columns=[])
    assert (bench.store.get("a").state, bench.store.get("a").rows) == (JobState.SUCCESS, 3)
    with pytest.raises(Fenced):
        bench.store.declare_lost(job)


def test_a_worker_that_is_alive_is_not_declared_lost(bench: Bench) -> None:
    job = bench.started("a")
    with pytest.raises(Fenced):
        bench.store.declare_lost(job)
    bench.store.heartbeat(bench.worker, {}, lease=60)


def test_the_newest_success_of_an_id_is_found_whatever_came_after_it(bench: Bench) -> None:
    assert bench.store.last_success("a") is None
    first = bench.started("a")
    bench.store.succeed(first, rows=1, columns=[])
    second = bench.started("a")
    bench.store.succeed(second, rows=2, columns=[])
    bench.store.fail(bench.started("a"), error="no", code="c")
    bench.store.cancelled(bench.started("a"))
    bench.started("a")
    found = bench.store.last_success("a")
    assert found is not None
    assert (found.run, found.rows) == (second.run, 2)
