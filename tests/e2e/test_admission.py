"""What comes in, over real processes: equal jobs that share one run, results that are taken, keys that are repeated."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.running import Running, jobber
from tests.servers import Postgres, wait_until

TASK = """\
-- name: slow
SELECT n, pg_advisory_xact_lock_shared(6) IS NULL AS held FROM counted;
"""


def post(running: Running, body: Any, **headers: str) -> tuple[str, Any]:
    """Ask for a job; return the answer as text, and the job."""
    sent = urllib.request.Request(f"{running.url}/tasks/slow/jobs", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(sent, timeout=60) as answer:
        text = answer.read().decode()
    return text, json.loads(text)["data"]


def test_twenty_equal_requests_against_a_slow_task_are_one_run_in_the_source(
    tmp_path: Path, postgres: Postgres, migrated: str
) -> None:
    database = postgres.new_database(migrated)
    postgres.execute("CREATE TABLE counted AS SELECT 7 AS n", database)
    url = postgres.url(database)
    config = f"""
[app]
data_dir = "{tmp_path}/data"
[job_queue.state]
url = "{url}"
[db.pg]
url = "{url}"
[results.in_pg]
url = "{url}"
"""

    def runs() -> int:
        """Return how often the source was asked: each run reads the table once."""
        found = holder.execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'counted'").fetchone()
        assert found is not None
        return int(found[0])

    with (
        psycopg.connect(postgres.dsn(database), autocommit=True) as holder,
        jobber(tmp_path, config, {"slow.sql": TASK}, "--worker-processes", "2") as running,
    ):
        made = runs()
        holder.execute("SELECT pg_advisory_lock(6)")  # what the query waits for: it takes as long as we like
        with ThreadPoolExecutor(20) as pool:
            jobs = [job for _, job in pool.map(lambda _: post(running, {"single_flight": True}), range(20))]
        wait_until(lambda: any(running.client.job(job["job_id"]).state == "STARTED" for job in jobs), 60)
        holder.execute("SELECT pg_advisory_unlock(6)")
        ended = [running.client.wait(job["job_id"], timeout=60) for job in jobs]
        assert {(job.state, job.count) for job in ended} == {("SUCCESS", 1)}
        assert len({job.table for job in ended}) == 1
        assert {next(running.client.results(job.job_id))["n"] for job in ended[::7]} == {7}

        _, taken = post(running, {"max_age": 600})
        assert (taken["state"], taken["reused"], taken["table"]) == ("SUCCESS", True, ended[0].table)

        # Another run, of a request that is sent twice: the counter counts, and is at two.
        (first, job), (again, _) = (post(running, {}, **{"Idempotency-Key": "k"}) for _ in range(2))
        assert first == again
        assert running.client.wait(job["job_id"], timeout=60).state == "SUCCESS"
        wait_until(lambda: runs() - made >= 2, 60)
        assert runs() - made == 2
