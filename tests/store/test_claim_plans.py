"""No step of a job's life reads a large table from end to end, with many jobs, tenants, limits and rates."""

from __future__ import annotations

from benchmarks import lists
from jobber.store import Gate, GateKind, Store
from tests.store.conftest import Bench, new_job

TASKS = tuple(f"t{n}" for n in range(10))
DATABASES = ("db0", "db1")
COUNT, BULK = 20_000, 2_000
PLANNED = ("SELECT", "UPDATE", "DELETE", "WITH s", "WITH n")


def fill(store: Store) -> None:
    """Submit jobs of ten tasks, two databases and three tenants, a part of them for later."""
    for start in range(0, COUNT, BULK):
        store.submit(
            [
                new_job(
                    f"j{n}",
                    task=TASKS[n % 10],
                    db=DATABASES[n // 10 % 2],
                    tenant=("", "a", "b")[n // 20 % 3],
                    eta=store.now() + 3_600_000_000 if n % 100 == 0 else None,
                )
                for n in range(start, start + BULK)
            ]
        )
    lists.analyze(store._database)


def test_claims_and_ends_go_by_indexes(server_url: str) -> None:
    store = Store(server_url)
    store.migrate()
    fill(store)
    store.announce({}, {"db0": 1000})
    store.set_limits({Gate(GateKind.TENANT, "a"): 1, Gate(GateKind.DATABASE, "db1"): 50})
    bench = Bench(store, store.register("w", ["q"], 10, lease=60))
    scans = {}
    with lists.noted(store._database) as seen:

        def claim(limit: int) -> None:
            bench.jobs = {job.job_id: job for job in bench.claim(limit, tasks=TASKS, databases=DATABASES).jobs}
            assert bench.jobs

        steps = {
            "claim of one": lambda: claim(1),
            "claim of ten": lambda: claim(10),
            "end": lambda: [store.succeed(job, rows=1, columns=[]) for job in bench.jobs.values()],
            "submission": lambda: store.submit([new_job("one", tenant="a"), new_job("two", tenant="c")]),
            "release of due jobs": store.release_due,
            "looks at the clock": store.due,
            "refill": store.refill,
            "queues that could run": store.runnable_queues,
        }
        for name, step in steps.items():
            seen.clear()
            step()
            # Of many rows at once the first stands for all; BEGIN has no plan, and INSERT has none on MariaDB.
            plain = [(one, many[0] if isinstance(many, list) else many) for one, many in seen if one[:6] in PLANNED]
            scans[name] = lists.full_scans(store._database, plain)
    store.close()
    assert {name: found for name, found in scans.items() if found} == {}
