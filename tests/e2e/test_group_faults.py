"""Groups while workers die: every callback runs once, and is told the truth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from tests.e2e.running import Running, jobber
from tests.e2e.short_leases import config
from tests.servers import Postgres, wait_until

QUERIES = {
    "groups.sql": """\
-- name: quick
SELECT $1::bigint AS n, pg_sleep(0.03)::text AS pause;

-- name: broken
SELECT 1 / $1::bigint AS n;

-- name: done
-- queue: callbacks
SELECT :group_id AS group_id, :succeeded::bigint AS succeeded, :failed::bigint AS failed,
       :cancelled::bigint AS cancelled, :tables AS tables;
"""
}
GROUPS, EACH = 100, 12


def failing(group: int) -> int:
    """Return how many jobs of a group fail."""
    return group % 4


def submit(running: Running) -> None:
    for group in range(GROUPS):
        jobs = [
            {"task": "broken" if n < failing(group) else "quick", "args": [0], "job_id": f"{group}-{n}"}
            for n in range(EACH)
        ]
        callback = {"task": "done", "job_id": f"{group}-done"}
        running.client.submit_group(jobs, group_id=f"g{group}", concurrency=group % 3 * 3, callback=callback)


def select(postgres: Postgres, database: str, query: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.dsn(database)) as connection:
        return connection.execute(query).fetchall()


def kill_while_it_runs_something(worker: psutil.Process, postgres: Postgres, database: str) -> None:
    held = "SELECT run, attempt FROM jobber_running"
    while True:
        worker.suspend()
        before = set(select(postgres, database, held))
        time.sleep(1)
        after = set(select(postgres, database, held))
        # A job takes 30 ms: what has not moved for a second is its, unless it holds a lock that all wait for.
        if before & after and after - before:
            worker.kill()
            return
        worker.resume()


def test_each_of_a_hundred_callbacks_has_one_result_with_the_right_counts_though_a_worker_dies(
    tmp_path: Path, postgres: Postgres, database: str, redis_url: str
) -> None:
    text = config(tmp_path, postgres, database, redis_url, more='log_level = "warning"')

    def count(what: str) -> int:
        query = f"SELECT count(*) FROM jobber_finished_jobs WHERE {what}"
        ((number,),) = select(postgres, database, query)  # type: ignore[arg-type]
        return int(number)

    with jobber(tmp_path, text, QUERIES, "--worker-processes", "3", "--worker-concurrency", "4") as running:
        submit(running)
        third = GROUPS * EACH // 3
        wait_until(lambda: count("group_run IS NOT NULL") > third, timeout=90, interval=0.05)
        kill_while_it_runs_something(running.workers()[0], postgres, database)

        for group in range(GROUPS):
            done = running.client.wait(f"{group}-done", timeout=180)
            assert done.state == "SUCCESS", done

        for group in range(GROUPS):
            status = running.client.group(f"g{group}")
            bad = failing(group)
            assert status.state == ("FAILURE" if bad else "SUCCESS")
            assert (status.counts["SUCCESS"], status.counts["FAILURE"]) == (EACH - bad, bad)
            (told,) = running.client.results(f"{group}-done")
            assert (told["group_id"], told["succeeded"], told["failed"]) == (f"g{group}", EACH - bad, bad)
            assert told["cancelled"] == 0
            # The tables that it names are there and hold what their jobs found.
            assert json.loads(told["tables"]) == [job.table for job in status.jobs if job.state == "SUCCESS"]
        # What the dead worker held ran again.
        assert count("rescues > 0") > 0
        # Nothing ran twice: one run of each job and each callback.
        assert count("true") == GROUPS * (EACH + 1)
