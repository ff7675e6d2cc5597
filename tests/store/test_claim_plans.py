"""No step of a job's life reads a large table from end to end, with many jobs, tenants, limits and rates."""

from __future__ import annotations

import time

import psycopg
import pytest
from sqlalchemy import make_url

from benchmarks import lists
from jobber.store import Gate, GateKind, Store
from jobber.store.engines import postgresql
from tests.servers import Postgres
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


def test_a_plan_that_was_made_for_empty_tables_is_not_kept(
    postgres: Postgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself plans anew after the next ANALYZE, which may take minutes to come."""
    monkeypatch.setattr(postgresql, "PLANS_LAST", 0.3)
    dsn = postgres.dsn(make_url(postgres_url).database or "")
    rows_read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobber_jobs'"
    with psycopg.connect(dsn, autocommit=True) as look:
        look.execute("ALTER TABLE jobber_jobs SET (autovacuum_enabled = off)")
        store, filler = Store(postgres_url, pool_size=1), Store(postgres_url)
        bench = Bench(store, store.register("w", ["q"], 10, lease=60))
        for n in range(30):  # five times by hand and five times anew, before a plan is kept
            store.submit([new_job(f"early{n}")])
            store.succeed(bench.claim().jobs[0], rows=1, columns=[])
        for start in range(0, 10_000, 1_000):
            filler.submit([new_job(f"j{n}") for n in range(start, start + 1_000)])
        filler.close()
        time.sleep(0.5)
        ((before,),) = look.execute(rows_read).fetchall()
        for _ in range(5):
            store.succeed(bench.claim().jobs[0], rows=1, columns=[])
        store.close()  # with which its connection tells what it has read
        time.sleep(0.5)
        ((after,),) = look.execute(rows_read).fetchall()
        look.execute("ALTER TABLE jobber_jobs RESET (autovacuum_enabled)")
    assert after - before < 10_000
