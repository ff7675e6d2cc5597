"""What runs next: priority, age, turns, limits, pauses, and whether a wake-up is worth passing on."""

from __future__ import annotations

import pytest

from jobber.errors import Fenced
from jobber.store import Claim, Gate, GateKind, Hold, Store
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench

DB0 = Gate(GateKind.DATABASE, "db0")
QUEUE = Gate(GateKind.QUEUE, "q")
TASK = Gate(GateKind.TASK, "t")
each_gate = pytest.mark.parametrize("gate", [DB0, QUEUE, TASK], ids=str)


def test_priority_goes_before_age_and_age_before_all_else(bench: Bench) -> None:
    bench.submit("low", priority=1)
    bench.submit("first")
    bench.submit("second", task="u", db="db1")
    bench.submit("third")
    bench.submit("high", priority=8, task="u")
    bench.submit("critical", priority=10)
    order = ["critical", "high", "first", "second", "third", "low"]
    assert bench.ids(2) + bench.ids() + bench.ids(9) == order


def test_a_job_that_comes_later_with_more_priority_runs_first(bench: Bench) -> None:
    bench.submit("a", "b")
    assert bench.ids() == ["a"]
    bench.submit("c", priority=6)
    assert bench.ids(3) == ["c", "b"]


def test_the_queues_of_a_worker_take_turns(bench: Bench) -> None:
    bench.submit("q1", "q2", "q3", priority=10)
    bench.submit("p1", "p2", "p3", queue="p", priority=1)
    assert bench.ids() + bench.ids() + bench.ids() == ["q1", "p1", "q2"]
    assert bench.ids(9) == ["p2", "q3", "p3"]


def test_a_worker_gets_only_queues_tasks_and_databases_that_it_names(bench: Bench) -> None:
    bench.submit("a")
    assert bench.ids(queues=["p"]) == []
    assert bench.ids(tasks=["u"]) == []
    assert bench.ids(databases=["db1"]) == []
    assert bench.ids(queues=[]) == []
    claim = bench.claim(databases=["db1"])
    assert claim.more == frozenset()
    assert bench.ids() == ["a"]


def test_a_worker_that_never_registered_gets_nothing(bench: Bench) -> None:
    bench.submit("a")
    with pytest.raises(Fenced):
        bench.claim(worker=987654)


def test_more_names_the_queues_in_which_another_could_run_and_no_other(bench: Bench) -> None:
    bench.submit("a", "b")
    bench.submit("c", queue="p")
    assert bench.claim().more == {"q", "p"}
    assert bench.claim().more == {"q"}
    assert bench.claim().more == frozenset()
    assert bench.claim().more == frozenset()


@each_gate
def test_more_leaves_out_what_a_limit_holds_back(bench: Bench, gate: Gate) -> None:
    bench.store.set_limits({gate: 2})
    bench.submit("a", "b", "c")
    assert bench.claim().more == {"q"}
    assert bench.claim().more == frozenset()


@each_gate
def test_no_more_than_the_limit_run_and_an_end_wakes_the_queue(bench: Bench, gate: Gate) -> None:
    bench.store.set_limits({gate: 2})
    bench.submit("a", "b", "c", "d")
    a, b = bench.claim(9).jobs
    assert bench.claim(9).jobs == ()
    (waiting,) = bench.store.waiting_for(bench.store.get("c"))
    assert waiting == Hold(gate.kind.value, gate.name, f"{gate.name}: 2 of 2 running")
    assert bench.store.runnable_queues() == frozenset()
    assert bench.store.succeed(a, rows=1, columns=[]) == {"q"}
    assert bench.store.waiting_for(bench.store.get("c")) == []
    assert bench.ids(9) == ["c"]
    assert bench.store.requeue(b) == {"q"}
    bench.store.set_limits({gate: 0})
    assert bench.ids(9) == ["b", "d"]


def test_an_end_wakes_every_queue_behind_the_limit_and_no_other(bench: Bench) -> None:
    bench.store.set_limits({DB0: 1})
    job = bench.started("a")
    bench.submit("b", queue="p")
    bench.submit("c", queue="x")
    bench.submit("d", queue="y", db="db1")
    bench.submit("e", queue="z")
    bench.store.pause(Gate(GateKind.QUEUE, "z"), "no")
    assert bench.store.fail(job, error="no", code="c") == {"p", "x"}


def test_an_end_wakes_nobody_where_no_limit_was_in_the_way(bench: Bench) -> None:
    job = bench.started("a")
    bench.submit("b")
    assert bench.store.succeed(job, rows=1, columns=[]) == frozenset()


def test_a_limit_that_another_process_set_counts_at_once(bench: Bench, state_url: str) -> None:
    bench.submit("a", "b", "c")
    assert bench.ids() == ["a"]
    other = Store(state_url)
    other.set_limits({DB0: 1})
    assert bench.ids() == []
    other.set_limits({DB0: 2})
    assert bench.ids(5) == ["b"]
    other.pause(QUEUE, "migration")
    assert bench.store.waiting_for(bench.store.get("c")) == [
        Hold("queue", "q", "queue q is paused: migration"),
        Hold("database", "db0", "db0: 2 of 2 running"),
    ]
    other.close()


def test_limits_of_several_gates_hold_together(bench: Bench) -> None:
    bench.store.set_limits({DB0: 2, TASK: 1})
    bench.submit("t1", "t2")
    bench.submit("u1", "u2", task="u")
    bench.submit("u3", task="u", db="db1")
    assert bench.ids(9) == ["t1", "u1", "u3"]


@each_gate
def test_a_paused_gate_lets_nothing_start_and_what_runs_goes_on(bench: Bench, gate: Gate) -> None:
    running = bench.started("a")
    bench.submit("b")
    bench.submit("free", queue="p", db="db1", task="u")
    bench.store.pause(gate, "migration")
    assert bench.store.runnable_queues() == {"p"}
    assert bench.ids(9) == ["free"]
    (hold,) = bench.store.waiting_for(bench.store.get("b"))
    assert hold == Hold(gate.kind.value, gate.name, f"{gate.kind.value} {gate.name} is paused: migration")
    assert bench.store.succeed(running, rows=1, columns=[]) == frozenset()
    assert bench.store.resume(gate) == {"q"}
    assert bench.store.resume(gate) == {"q"}
    assert bench.ids(9) == ["b"]
    assert bench.store.resume(gate) == frozenset()


def test_a_pause_keeps_the_limit_and_a_limit_keeps_the_pause(bench: Bench) -> None:
    bench.store.set_limits({DB0: 1})
    bench.store.pause(DB0, "")
    bench.store.set_limits({DB0: 1, TASK: 5})
    bench.submit("a", "b")
    assert bench.ids(9) == []
    assert [hold.text for hold in bench.store.waiting_for(bench.store.get("a"))] == ["database db0 is paused"]
    bench.store.resume(DB0)
    assert bench.ids(9) == ["a"]


def test_a_delayed_job_starts_at_its_time_and_says_so_before(bench: Bench) -> None:
    (far,) = bench.submit("far", eta=bench.store.now() + 3_600_000_000)
    assert bench.claim() == Claim((), frozenset())
    assert bench.store.release_due() == frozenset()
    assert [hold.kind for hold in bench.store.waiting_for(far)] == ["start"]
    due = bench.store.due().jobs
    assert due is not None
    assert 3000 < due <= 3600

    eta = bench.store.now() + 300_000
    (job,) = bench.submit("a", eta=eta)
    due = bench.store.due().jobs
    assert due is not None
    assert due <= 0.3
    wait_until(lambda: bench.store.due().jobs == 0)
    assert bench.store.now() >= eta
    assert bench.store.release_due() == {"q"}
    assert bench.store.waiting_for(job) == []
    assert bench.ids(9) == ["a"]
    due = bench.store.due().jobs
    assert due is not None
    assert due > 3000


def test_a_start_time_in_the_past_is_now(bench: Bench) -> None:
    bench.submit("a", eta=bench.store.now() - 1)
    assert bench.ids() == ["a"]


def test_delayed_jobs_become_ready_in_chunks_and_keep_priority_and_age(bench: Bench) -> None:
    soon = bench.store.now() + 700_000
    bench.submit("a", "b", eta=soon)
    bench.submit("c", eta=soon, priority=9)
    wait_until(lambda: bench.store.due().jobs == 0)
    for _ in range(3):
        assert bench.store.release_due(limit=1) == {"q"}
    assert bench.store.release_due(limit=1) == frozenset()
    assert bench.store.due().jobs is None
    assert bench.ids(9) == ["c", "a", "b"]


def test_nothing_waits_for_a_job_that_runs_or_is_finished(bench: Bench) -> None:
    bench.store.pause(DB0, "x")
    bench.submit("a")
    assert bench.store.waiting_for(bench.store.cancel("a").job) == []


def test_a_cancelled_head_hides_no_job_behind_it_and_leaves_no_false_work(bench: Bench) -> None:
    bench.submit("a", "b")
    bench.store.cancel("a")
    assert bench.store.runnable_queues() == {"q"}
    assert bench.claim().more == frozenset()
    bench.submit("c")
    bench.store.cancel("c")
    assert bench.store.runnable_queues() == frozenset()
    assert bench.ids() == []


def test_many_lanes_merge_into_one_order(bench: Bench) -> None:
    for n in range(60):
        bench.submit(f"j{n:02}", task=f"task{n * 37 % 60}", priority=n % 10 + 1)
    served = {"tasks": [f"task{n}" for n in range(60)]}
    expected = sorted((f"j{n:02}" for n in range(60)), key=lambda job_id: (-(int(job_id[1:]) % 10), job_id))
    got = [job_id for k in (1, 7, 30, 1, 40) for job_id in bench.ids(k, **served)]
    assert got == expected


def test_a_lane_that_was_dropped_is_made_again_by_whoever_needs_it(bench: Bench, state_url: str) -> None:
    # The second store remembers the lane's number; the first deletes the lane.
    other = Bench(Store(state_url), bench.worker)
    other.submit("a")
    other.store.cancel("a")
    bench.store.prune(3600)
    other.submit("b")
    other.submit("c", eta=bench.store.now() + 300_000)
    bench.store.prune(3600)
    wait_until(bench.store.release_due)
    assert bench.ids(5) == ["b", "c"]
    other.store.close()


def test_a_delayed_job_in_a_lane_that_was_dropped_is_released_all_the_same(bench: Bench, state_url: str) -> None:
    other = Bench(Store(state_url), bench.worker)
    for job_id in ("a", "b"):  # the second time it remembers the lane's number
        other.submit(job_id)
        other.store.cancel(job_id)
    bench.store.prune(3600)
    other.submit("c", eta=bench.store.now() + 200_000)
    bench.store.prune(3600)
    wait_until(bench.store.release_due)
    assert bench.ids(5) == ["c"]
    other.store.close()


def test_a_lane_is_kept_while_any_live_job_belongs_to_it(bench: Bench) -> None:
    running = bench.started("a")
    bench.store.prune(3600)
    bench.store.requeue(running)
    assert bench.ids() == ["a"]
    later = bench.store.register("w2", QUEUES, 1, lease=60)
    bench.submit("b", eta=bench.store.now() + 300_000)
    bench.store.prune(3600)
    wait_until(bench.store.release_due)
    assert bench.ids(worker=later) == ["b"]
