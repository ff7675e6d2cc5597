"""Jobs of an instance with free slots need no broker; those of a full or a dead one find slots elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from tests.e2e.running import Running, answers, in_one_database, jobber
from tests.servers import Postgres, Redis, free_port, wait_until

TASKS = {
    "tasks.sql": """\
-- name: nap
SELECT pg_sleep($1);

-- name: one
SELECT 1 AS one;
"""
}
#: Far more than a wake-up takes, far less than the sweep.
PROMPT = 10.0


def config(folder: Path, url: str, broker: str) -> str:
    return f'{in_one_database(folder, url)}[job_queue.broker]\nurl = "{broker}"\n'


def promptly(running: Running, jobs: int) -> None:
    """Run small jobs one after the other, each of them at once."""
    for _ in range(jobs):
        began = time.monotonic()
        assert running.client.wait(running.client.submit("one").job_id, timeout=30).state == "SUCCESS"
        assert time.monotonic() - began < PROMPT


def test_without_its_broker_an_instance_runs_its_own_jobs_at_once(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    text = config(tmp_path, postgres.url(database), f"redis://127.0.0.1:{free_port()}/0")
    running = Running(tmp_path, text, TASKS)
    try:
        # It is never ready, as its workers are not at the broker.
        wait_until(lambda: answers(running), timeout=60)
        assert running.client.wait(running.client.submit("one").job_id, timeout=30).state == "SUCCESS"
        promptly(running, 10)
    finally:
        running.kill()


def test_jobs_of_a_full_or_a_dead_worker_run_at_once_where_a_slot_is_free(
    tmp_path: Path, postgres: Postgres, database: str, redis_server: Redis
) -> None:
    redis_server.flush()
    text = config(tmp_path, postgres.url(database), redis_server.url)
    other = tmp_path / "other"
    other.mkdir()
    with (
        jobber(tmp_path, text, TASKS, "--worker-concurrency", "2") as full,
        jobber(other, text, TASKS, "--worker-concurrency", "4", worker_only=True),
    ):
        # They fill the first instance, which is rung for, and may fill a slot of the other.
        naps = [full.client.submit("nap", [30]).job_id for _ in range(2)]
        time.sleep(1)
        promptly(full, 40)
        for nap in naps:
            full.client.cancel(nap)
            full.client.wait(nap, timeout=10)

        # Until there is another one nobody answers the bell.
        full.workers()[0].kill()
        promptly(full, 20)
        wait_until(lambda: len(full.workers()) == 1, 20)
        promptly(full, 20)
