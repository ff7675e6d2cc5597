"""Turns among tenants: the one of whom the fewest jobs run is next, of several the one that was served longest ago."""

from __future__ import annotations

import pytest

from jobber.store import Gate, GateKind, Hold, Store, lanes, surveying
from tests.store.conftest import Bench, new_job

ACME = Gate(GateKind.TENANT, "acme")
EACH = Gate(GateKind.TENANT, "")


@pytest.fixture(params=[surveying.FIRST, 1], ids=["many lanes", "one lane at a time"], autouse=True)
def first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many lanes of a queue a survey shows: what is true of many is true of one at a time."""
    monkeypatch.setattr(surveying, "FIRST", request.param)
    count: int = request.param
    return count


def test_the_tenant_with_the_fewest_running_jobs_is_next(bench: Bench) -> None:
    bench.submit("a1", "a2", "a3", tenant="a")
    bench.submit("b1", "b2", tenant="b")
    assert bench.ids(2) == ["a1", "b1"]
    assert bench.ids() == ["a2"]
    assert bench.ids() == ["b2"]
    bench.submit("c1", "c2", tenant="c")
    assert bench.ids(9) == ["c1", "c2", "a3"]


def test_one_claim_of_many_jobs_takes_turns_as_many_claims_of_one_do(bench: Bench) -> None:
    bench.submit("a1", "a2", "a3", tenant="a")
    bench.submit("a4", tenant="a", task="u")
    bench.submit("b1", tenant="b", db="db1")
    bench.submit("c1", "c2", tenant="c")
    assert bench.ids(9) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_in_one_slot_the_thousand_jobs_of_a_tenant_hold_up_the_one_of_another_once(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.TOTAL, ""): 1})
    bench.submit(*(f"a{n}" for n in range(20)), tenant="a")
    (first,) = bench.claim(9).jobs
    bench.submit("b", tenant="b")
    bench.store.succeed(first, rows=1, columns=[])
    (second,) = bench.claim(9).jobs
    assert second.job_id == "b"
    bench.store.succeed(second, rows=1, columns=[])
    bench.submit("b again", tenant="b")
    assert bench.ids(9) == ["a1"]  # b was served last


def test_priority_goes_before_turns(bench: Bench) -> None:
    bench.submit("a1", "a2", tenant="a", priority=6)
    bench.submit("b1", tenant="b")
    assert bench.ids(9) == ["a1", "a2", "b1"]


def test_running_jobs_of_a_tenant_count_in_all_queues(bench: Bench) -> None:
    bench.submit("other", queue="p", tenant="a")
    bench.submit("a1", tenant="a")
    bench.submit("b1", tenant="b")
    assert bench.ids(queues=["p"]) == ["other"]
    assert bench.ids(9, queues=["q"]) == ["b1", "a1"]


def test_jobs_without_a_tenant_take_turns_with_tenants(bench: Bench) -> None:
    bench.submit("n1", "n2", "n3")
    bench.submit("a1", tenant="a")
    assert bench.ids(9) == ["n1", "a1", "n2", "n3"]


def test_a_thousand_lanes_of_one_tenant_hide_no_other(bench: Bench, first: int) -> None:
    tasks = [f"t{n}" for n in range(2 * first + 2)]
    bench.store.submit([new_job(f"a-{task}", tenant="a", task=task) for task in tasks])
    bench.submit("b1", "b2", tenant="b")
    assert bench.ids(4, tasks=[*tasks, "t"]) == ["a-t0", "b1", "a-t1", "b2"]


def test_another_process_learns_at_once_that_there_are_tenants(bench: Bench, state_url: str) -> None:
    bench.submit("n1", "n2")
    assert bench.ids() == ["n1"]  # it knows of none
    other = Bench(Store(state_url), bench.worker)
    other.submit("a1", tenant="a")
    assert bench.ids() == ["a1"]
    other.store.close()


def test_no_more_jobs_of_a_tenant_run_than_its_limit_and_an_end_wakes_the_queue(bench: Bench) -> None:
    bench.store.set_limits({ACME: 2})
    bench.submit("a", "b", "c", tenant="acme")
    bench.submit("d", queue="p", tenant="acme")
    bench.submit("free", tenant="other")
    assert sorted(bench.ids(9)) == ["a", "d", "free"]
    held = bench.store.waiting_for(bench.store.get("b"))
    assert held == [Hold("tenant", "acme", "tenant acme: 2 of 2 running")]
    assert bench.store.runnable_queues() == frozenset()
    assert bench.store.succeed(bench.store.get("a"), rows=1, columns=[]) == {"q"}
    assert bench.ids(9) == ["b"]


def test_the_limit_of_every_tenant_counts_for_each_by_itself(bench: Bench) -> None:
    bench.store.set_limits({EACH: 1, ACME: 2})
    for tenant in ("acme", "small", ""):
        bench.submit(*(f"{tenant}{n}" for n in range(3)), tenant=tenant)
    assert sorted(bench.ids(9)) == ["0", "1", "2", "acme0", "acme1", "small0"]
    (hold,) = bench.store.waiting_for(bench.store.get("small1"))
    assert hold.text == "tenant small: 1 of 1 running"


def test_no_more_lanes_are_remembered_than_is_said_however_many_tenants_there_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "REMEMBERED", 5)
    for n in range(20):
        for again in "ab":
            bench.submit(f"{n}{again}", tenant=f"t{n}")
        assert len(bench.store._submitter._lanes._ids) <= 5
    assert len(bench.ids(50)) == 40


def test_lanes_without_jobs_take_the_memory_of_their_tenant_with_them(bench: Bench) -> None:
    bench.submit("a1", tenant="a")
    bench.submit("b1", tenant="b")
    bench.submit("b2", tenant="b")
    for job in bench.claim(2).jobs:
        bench.store.succeed(job, rows=1, columns=[])
    bench.store.prune(3600)
    bench.store.prune(3600)  # first its lanes, then itself
    bench.submit("a2", tenant="a")
    assert bench.ids() == ["a2"]  # as if it had never been served
