"""Several instances on several queues, as the README of sql-jobber shows: who runs what, and how much of it at a time.

The sweep is rare here, so that what runs at once was woken through the broker.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from jobber.client import JobStatus
from tests.e2e.running import Running, jobber
from tests.e2e.seed import server_flags
from tests.servers import Postgres, Redis, wait_until

HIGH = server_flags("run the primary worker + HTTP control interface")
LOW = server_flags("run another worker on a different queue to handle low priority jobs")
TASKS = {
    "tasks.sql": """\
-- name: wait_for_lock
SELECT pg_advisory_xact_lock_shared($1);

-- name: one
SELECT 1 AS one;

-- name: report
-- queue: reports
SELECT 2 AS two;
"""
}
#: Seconds: far more than a wake-up takes, far less than the sweep.
PROMPT, SWEEP = 10.0, 60


@dataclass(frozen=True)
class Cluster:
    """The README's two instances, and how to start more beside them."""

    folder: Path
    config: str
    high: Running
    low: Running
    dsn: str

    @contextmanager
    def another(self, *flags: str) -> Iterator[None]:
        """Run one more instance, without HTTP."""
        with jobber(self.folder, self.config, TASKS, *flags, worker_only=True):
            yield

    def submit(self, queue: str, task: str = "one") -> str:
        """Submit a job, to the queue of its task if ``queue`` is empty, and return its ID."""
        return self.high.client.submit(task, queue=queue or None).job_id

    def ended(self, job_id: str) -> JobStatus:
        """Return a job, which must end well, and promptly."""
        job = self.high.client.wait(job_id, timeout=PROMPT)
        assert job.state == "SUCCESS", job
        return job

    def unserved(self, job_id: str, queue: str) -> bool:
        """Whether a job waits, listed in its queue, and says that nobody serves that."""
        job = self.high.client.job(job_id)
        holds = [(hold.gate, hold.name, hold.text) for hold in job.waiting_for or ()]
        listed = [item.job_id for item in self.high.client.pending(queue)]
        return (job.state, holds, listed) == (
            "PENDING",
            [("queue", queue, f"no worker serves the queue {queue}")],
            [job_id],
        )


@pytest.fixture(scope="module", params=["embedded", "redis"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[Cluster]:
    """The two servers on one broker, with as many connections at hand as jobs may run at a time."""
    folder = tmp_path_factory.mktemp("queues")
    database = postgres.new_database()
    text = f"""
[app]
data_dir = "{folder}/data"
sweep = {SWEEP}
[db.pg]
url = "{postgres.url(database)}"
[results.main]
url = "{postgres.url(database)}"
"""
    if request.param == "redis":
        redis: Redis = request.getfixturevalue("redis_server")
        redis.flush()
        text += f'[job_queue.state]\nurl = "{postgres.url(database)}"\n[job_queue.broker]\nurl = "{redis.url}"\n'
    with jobber(folder, text, TASKS, *HIGH) as high, jobber(folder, text, TASKS, *LOW) as low:
        yield Cluster(folder, text, high, low, postgres.dsn(database))
    postgres.drop_database(database)


def test_thirty_high_jobs_run_beside_five_low_ones_and_no_more(cluster: Cluster) -> None:
    locks = {"high_priority": 1, "low_priority": 2}
    submit = cluster.high.client.submit
    with psycopg.connect(cluster.dsn, autocommit=True) as source:
        for lock in locks.values():
            source.execute("SELECT pg_advisory_lock(%s)", [lock])
        jobs = [
            submit("wait_for_lock", [locks[queue]], queue=queue).job_id
            for queue in ["high_priority"] * 33 + ["low_priority"] * 12
        ]
        wait_until(lambda: queries_waiting(source) == {1: 30, 2: 5}, timeout=PROMPT)

        now = [cluster.high.client.job(job_id) for job_id in jobs]

        assert Counter((job.queue, job.state) for job in now) == {
            ("high_priority", "STARTED"): 30,
            ("high_priority", "PENDING"): 3,
            ("low_priority", "STARTED"): 5,
            ("low_priority", "PENDING"): 7,
        }
        source.execute("SELECT pg_advisory_unlock_all()")
    done = [cluster.ended(job_id) for job_id in jobs]
    assert {(job.queue, job.worker) for job in done} == {
        ("high_priority", "high_priority_worker"),
        ("low_priority", "low_priority_worker"),
    }
    assert most_at_a_time([job for job in done if job.queue == "high_priority"]) == 30
    assert most_at_a_time([job for job in done if job.queue == "low_priority"]) == 5


def queries_waiting(source: psycopg.Connection[tuple[int, int]]) -> dict[int, int]:
    """Return how many queries wait for each advisory lock of the database."""
    return dict(
        source.execute(
            "SELECT objid::int, count(*)::int FROM pg_locks JOIN pg_database AS d ON d.oid = pg_locks.database "
            "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database() GROUP BY objid"
        ).fetchall()
    )


def most_at_a_time(jobs: Sequence[JobStatus]) -> int:
    """Return how many of finished jobs ran beside each other, by the state database's clock."""
    changes = [(job.finished_at, -1) for job in jobs] + [(job.started_at, 1) for job in jobs]
    running, most = 0, 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def test_a_worker_only_instance_answers_no_http(cluster: Cluster) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.low.port), timeout=1)


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
def test_queues_beside_those_that_are_named_wait_for_somebody_who_serves_them(cluster: Cluster) -> None:
    """The default queue and the queue of a task are none of theirs, who were told which queues to serve."""
    jobs = {"default": cluster.submit("default"), "reports": cluster.submit("", "report")}
    jobs["nobody"] = cluster.submit("nobody")

    # Jobs of their own that came later are done: they have looked.
    for queue in ("high_priority", "low_priority"):
        cluster.ended(cluster.submit(queue))
    assert all(cluster.unserved(job_id, queue) for queue, job_id in jobs.items())
    with cluster.another("--worker-name", "rest"):
        for queue in ("default", "reports"):
            assert cluster.ended(jobs[queue]).worker == "rest"
            # That one was found at the start, perhaps; this one it is woken for.
            assert cluster.ended(cluster.submit(queue)).worker == "rest"
        assert cluster.unserved(jobs["nobody"], "nobody")
    cluster.high.client.cancel(jobs["nobody"])


@pytest.mark.parametrize("cluster", ["embedded"], indirect=True)
def test_an_instance_serves_all_queues_that_it_is_given_and_no_other(cluster: Cluster) -> None:
    with cluster.another("--queue-name", "team:a", "--queue", "aux", "--worker-name", "both"):
        jobs = {queue: cluster.submit(queue) for queue in ("default", "reports")}

        # One after the other: who is woken for one queue looks at all of its own.
        for queue in ("team:a", "aux", "team:a"):
            assert cluster.ended(cluster.submit(queue)).worker == "both"
        for queue, job_id in jobs.items():
            assert cluster.unserved(job_id, queue)
            cluster.high.client.cancel(job_id)
