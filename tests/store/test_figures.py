"""What operators are told of queues, databases and workers."""

from __future__ import annotations

from jobber.store import Gate, GateKind, Hold, Progress, Store
from jobber.store.figures import Load, Slowed
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench

SECOND = 1_000_000


def test_what_waits_and_what_runs_is_counted_by_queue_and_by_database(bench: Bench) -> None:
    now = bench.store.now()
    bench.submit("a", "b", "c")
    bench.submit("d", queue="p", db="db1", priority=10)
    bench.submit("e", tenant="x")
    bench.submit("late", queue="p", eta=now + 3600 * SECOND)
    assert bench.ids(queues=["q"]) + bench.ids(queues=["p"]) == ["a", "d"]

    backlog = bench.store.figures.backlog()

    assert backlog.queues == Load({"q": 3, "p": 1}, {"q": 1, "p": 1})
    assert backlog.databases == Load({"db0": 4}, {"db0": 1, "db1": 1})


def test_the_age_of_a_queue_is_that_of_its_oldest_ready_job_whatever_its_priority(bench: Bench) -> None:
    now = bench.store.now()
    (oldest,) = bench.submit("oldest", priority=1)
    bench.submit("young", priority=10)
    bench.submit("late", queue="p", eta=now + 3600 * SECOND)
    assert bench.store.figures.backlog().oldest == {"q": oldest.created_at}  # of p nothing is ready


def test_counts_are_kept_for_a_second_and_pauses_are_told_at_once(bench: Bench) -> None:
    figures = bench.store.figures
    assert figures.backlog().queues == Load()
    bench.submit("a")
    bench.store.pause(Gate(GateKind.QUEUE, "q"), "migration")
    assert figures.backlog().queues == Load()
    state = figures.now().gates.state(Gate(GateKind.QUEUE, "q"))
    assert (state.paused, state.reason) == (True, "migration")
    wait_until(lambda: figures.backlog().queues == Load({"q": 1}), 10)


def test_workers_are_told_with_what_they_run_and_whether_they_live(bench: Bench) -> None:
    job = bench.started("a", db="db1")
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 10, 200)}, lease=60, memory=2**31 + 1)
    lost = bench.store.register("lost", ["p"], 2, lease=0)

    one, two = bench.store.figures.workers()

    assert (one.id, one.name, one.alive, one.memory, one.slots, list(one.jobs)) == (lost, "lost", False, None, 2, [])
    assert (two.id, two.name, two.alive, two.memory, two.queues) == (bench.worker, "w1", True, 2**31 + 1, list(QUEUES))
    (runs,) = two.jobs
    assert (runs.job_id, runs.attempt, runs.task, runs.queue, runs.db) == ("a", 1, "t", "q", "db1")
    assert (runs.phase, runs.rows, runs.started_at) == ("writing", 10, job.started_at)
    assert bench.store.figures.now().served == dict.fromkeys(QUEUES, 1)  # the lost one serves nobody


def test_what_waits_for_the_limit_of_all_jobs_says_so(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.TOTAL, ""): 1})
    bench.started("a")
    bench.submit("b", queue="p", db="db1", task="u")
    assert bench.store.waiting_for(bench.store.get("b")) == [Hold("total", "", "all jobs: 1 of 1 running")]


def test_a_database_that_was_slowed_down_is_told_until_it_is_not(store: Store) -> None:
    store.announce({}, {"db0": 10.0})
    assert store.figures.now().slowed == {}
    store.slow_down("db0", "too many connections")
    now = store.figures.now()
    assert now.slowed == {"db0": Slowed(now.slowed["db0"].until, "too many connections")}
    assert 0 < (now.slowed["db0"].until - now.at) / SECOND <= 60
