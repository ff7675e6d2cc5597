"""Limits over all jobs and of queues, and what the config of an instance says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobber.config import load
from jobber.instance import limits_of, paces_of
from jobber.store import Gate, GateKind, Hold, Limits, Store
from jobber.store.gates import GateState
from jobber.store.schema import dispatch
from tests.store.conftest import Bench, new_job

TOTAL = Gate(GateKind.TOTAL, "")
QUEUE = Gate(GateKind.QUEUE, "q")
DB0 = Gate(GateKind.DATABASE, "db0")


def states(store: Store) -> dict[Gate, GateState]:
    return dict(store._database.read(store._gates.current).states)


def version(store: Store) -> int:
    return store._database.read(lambda one: one.execute(select(dispatch.c.gates_version)).scalar_one())


def test_no_more_jobs_run_in_all_than_the_total_allows(bench: Bench) -> None:
    bench.store.set_limits({TOTAL: 2})
    bench.submit("a")
    bench.submit("b", queue="p", db="db1", task="u")
    bench.submit("c", queue="p")
    claim = bench.claim(9)
    assert sorted(job.job_id for job in claim.jobs) == ["a", "b"]
    assert claim.more == frozenset()
    assert bench.store.waiting_for(bench.store.get("c")) == [Hold("total", "", "all jobs: 2 of 2 running")]
    assert bench.store.runnable_queues() == frozenset()
    assert bench.store.succeed(claim.jobs[0], rows=1, columns=[]) == {"p"}
    assert bench.ids(9) == ["c"]


def test_full_limits_in_front_of_thousands_of_lanes_hide_no_job_that_may_run(bench: Bench) -> None:
    # More lanes than two surveys show are behind a limit each; the one that is free comes last.
    tasks = [f"t{n}" for n in range(150)]
    bench.store.set_limits({Gate(GateKind.TASK, task): 1 for task in tasks})
    bench.store.submit([new_job(f"{task}-{n}", task=task, priority=6) for task in tasks for n in range(2)])
    served = {"tasks": [*tasks, "free"]}
    assert len(bench.ids(200, **served)) == 150
    bench.submit("last", task="free", priority=1)
    assert bench.ids(200, **served) == ["last"]


def test_what_a_config_says_no_more_is_no_limit_any_more_and_pauses_stay(bench: Bench) -> None:
    tenant, each = Gate(GateKind.TENANT, "acme"), Gate(GateKind.TENANT, "")
    first = {TOTAL: Limits(9), QUEUE: Limits(1, 5), tenant: Limits(2), each: Limits(3, 4), DB0: Limits(6)}
    bench.store.announce(first, {"db0": 10, "db1": 5})
    bench.store.pause(QUEUE, "migration")
    assert states(bench.store)[QUEUE] == GateState(1, True, "migration", 5)
    # Another instance, of another config, knows other databases.
    bench.store.announce({TOTAL: Limits(8), Gate(GateKind.DATABASE, "db1"): Limits(7)}, {"db1": 0})
    assert states(bench.store) == {
        TOTAL: GateState(8),
        QUEUE: GateState(0, True, "migration"),
        DB0: GateState(6),
        Gate(GateKind.DATABASE, "db1"): GateState(7),
    }
    assert bench.store._database.read(bench.store._gates.current).rated == {"db0"}


def test_the_same_limits_announced_again_change_nothing(bench: Bench) -> None:
    limits, paces = {TOTAL: Limits(9), DB0: Limits(2)}, {"db0": 10.0}
    bench.store.announce(limits, paces)
    before = version(bench.store)
    bench.store.announce(limits, paces)
    bench.store.set_limits({DB0: 2})
    assert version(bench.store) == before


TEXT = """
[app]
max_jobs = 10
tenant_tag = "customer"
tenant_max_concurrent = 3
tenant_max_pending = 100
[queue.q]
max_concurrent = 2
max_pending = 20
[tenant.acme]
max_concurrent = 5
[db.db0]
url = "sqlite:////tmp/db0.db"
max_concurrent = 4
max_starts = 2.5
[results.main]
url = "sqlite:////tmp/results"
"""


def test_a_config_is_announced_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TEXT)
    settings = load(config, {})
    no_tasks: Any = {}
    assert limits_of(settings, no_tasks) == {
        TOTAL: Limits(10),
        Gate(GateKind.TENANT, ""): Limits(3, 100),
        Gate(GateKind.TENANT, "acme"): Limits(5, -1),  # in the place of those of every tenant: any number may wait
        QUEUE: Limits(2, 20),
        DB0: Limits(4),
    }
    assert paces_of(settings) == {"db0": 2.5}


def test_a_tenant_with_a_section_of_its_own_has_the_limits_of_that_alone(bench: Bench) -> None:
    each, acme = Gate(GateKind.TENANT, ""), Gate(GateKind.TENANT, "acme")
    bench.store.announce({each: Limits(1, 2), acme: Limits(-1, 7)}, {})
    gates = bench.store._database.read(bench.store._gates.current)
    other = Gate(GateKind.TENANT, "other")
    assert [(gates.limit(gate), gates.pending_limit(gate)) for gate in (acme, other)] == [(0, 7), (1, 2)]
    bench.submit("a", "b", tenant="acme")
    bench.submit("c", "d", tenant="other")
    assert sorted(bench.ids(9)) == ["a", "b", "c"]
