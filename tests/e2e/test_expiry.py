"""Results and history go when their time is over; whatever else stands in a results database stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from jobber.client import JobStatus
from jobber.errors import ResultsGone, UnknownJob
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, wait_until

TASKS = {
    "tasks.sql": """\
-- name: one
SELECT 1 AS one;

-- name: tagged
-- ttl: 2m
SELECT 1 AS one;

-- name: kept
-- ttl: 0
SELECT 1 AS one;

-- name: flood
SELECT generate_series(1, 2000000000) AS i, repeat('x', 100) AS filler;
"""
}
RESULTS = ["in_pg", "in_my", "in_lite"]
STRANGERS = {"results_stranger", "jobber_staging_stranger"}
HOUR, DAY = 3600, 86_400


@dataclass(frozen=True)
class Site:
    """A jobber with a results database of each kind."""

    folder: Path
    running: Running
    postgres: Postgres
    on_postgres: str
    mariadb: MariaDB
    on_mariadb: str

    def done(self, task: str, results: str = "in_lite", ttl: int | None = None, job_id: str | None = None) -> JobStatus:
        """Run a job to its end."""
        client = self.running.client
        job = client.wait(client.submit(task, results=results, ttl=ttl, job_id=job_id).job_id, timeout=20)
        assert (job.state, job.count) == ("SUCCESS", 1), job
        return job

    def tables(self, results: str) -> set[str]:
        """Return what stands in a results database but for the ledger."""
        if results == "in_pg":
            with psycopg.connect(self.postgres.dsn(self.on_postgres)) as connection:
                found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
                return {name for (name,) in found if name.startswith(("results_", "jobber_staging_"))}
        if results == "in_my":
            return {name for (name,) in self.mariadb.execute("SHOW TABLES", self.on_mariadb)} - {"jobber_ledger"}
        return {path.stem for path in (self.folder / "results").glob("*.db")} - {"jobber_ledger"}

    def change_state(self, sql: str) -> None:
        """Do something to the state that jobber does not do."""
        self.postgres.execute(sql, self.on_postgres)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("expiry")
    database, in_mariadb = postgres.new_database(), mariadb.new_database()
    text = f"""
[app]
data_dir = "{folder}/data"
ttl = "1h"
lease = 3
heartbeat = 1
sweep = 1
[job_queue.state]
url = "{postgres.url(database)}"
[db.pg]
url = "{postgres.url(database)}"
[results.in_pg]
url = "{postgres.url(database)}"
[results.in_my]
url = "{mariadb.url(in_mariadb)}"
[results.in_lite]
url = "sqlite:///{folder}/results"
"""
    with jobber(folder, text, TASKS) as running:
        yield Site(folder, running, postgres, database, mariadb, in_mariadb)
    postgres.drop_database(database)
    mariadb.drop_database(in_mariadb)


def test_the_lifetime_of_the_job_goes_before_that_of_the_task_and_that_before_the_default(site: Site) -> None:
    jobs = [site.done("one"), site.done("tagged"), site.done("tagged", ttl=60)]

    assert [lifetime(job) for job in jobs] == [HOUR, 120, 60]
    assert site.done("kept").expires_at is None


def lifetime(job: JobStatus) -> float:
    assert job.expires_at
    assert job.finished_at
    return (job.expires_at - job.finished_at).total_seconds()


def test_a_result_is_gone_for_readers_when_its_time_is_over_and_not_when_the_janitor_comes(site: Site) -> None:
    """That is every half minute; each time is over by the clock of its own results database."""
    jobs = {results: site.done("one", results, ttl=2) for results in RESULTS}
    began = time.monotonic()
    for job in jobs.values():
        assert list(site.running.client.results(job.job_id)) == [{"one": 1}]

    for job in jobs.values():
        wait_until(lambda job=job: is_gone(site.running, job), timeout=10)  # type: ignore[misc]

    assert time.monotonic() - began < 2 + 2
    assert {site.running.client.job(job.job_id).state for job in jobs.values()} == {"SUCCESS"}


def is_gone(running: Running, job: JobStatus) -> bool:
    """Return whether the rows of a job are answered with 410."""
    try:
        list(running.client.results(job.job_id))
    except ResultsGone:
        return True
    return False


def test_the_janitor_drops_what_the_ledger_lists_as_expired_and_nothing_else(site: Site) -> None:
    """Also where the job is forgotten; a janitor begins when its process does."""
    for results in RESULTS:
        site.done("one", results, ttl=1, job_id=f"over-{results}")
        site.done("one", results, ttl=1, job_id=f"forgotten-{results}")
        site.done("one", results, job_id=f"old-{results}")
        site.done("kept", results, job_id=f"kept-{results}")
    for stranger in STRANGERS:
        for server, database in ((site.postgres, site.on_postgres), (site.mariadb, site.on_mariadb)):
            server.execute(f"CREATE TABLE {stranger} (i INT)", database)
        (site.folder / "results" / f"{stranger}.db").touch()
    running = site.running
    assert running.stop() == 0
    site.change_state("DELETE FROM jobber_finished_jobs WHERE job_id LIKE 'forgotten-%'")
    site.change_state(
        f"UPDATE jobber_finished_jobs SET finished_at = finished_at - {7 * DAY}::bigint * 1000000 "
        "WHERE job_id LIKE 'old-%'"
    )

    running.start()

    wait_until(lambda: running.text().count("\nready") == 2, timeout=60)
    for results in RESULTS:
        # Those of other tests with a long life stay, too.
        expired = {f"results_over-{results}", f"results_forgotten-{results}"}
        wait_until(lambda names=expired, of=results: not names & site.tables(of), timeout=20)  # type: ignore[misc]
        assert site.tables(results) >= STRANGERS | {f"results_kept-{results}", f"results_old-{results}"}
        assert is_gone(running, running.client.job(f"over-{results}"))
        assert list(running.client.results(f"kept-{results}")) == [{"one": 1}]
        for unknown in (f"forgotten-{results}", f"old-{results}"):
            wait_until(lambda job_id=unknown: is_unknown(running, job_id))  # type: ignore[misc]


def is_unknown(running: Running, job_id: str) -> bool:
    try:
        running.client.job(job_id)
    except UnknownJob:
        return True
    return False


def test_what_a_dead_attempt_had_written_is_removed(site: Site) -> None:
    before = {results: site.tables(results) for results in RESULTS}
    client = site.running.client
    jobs = [client.submit("flood", results=results).job_id for results in RESULTS]
    wait_until(lambda: all(client.job(job).progress.rows for job in jobs))
    (worker,) = site.running.workers()

    worker.kill()
    # So that they do not run again, and nothing but the dead attempt is to be tidied up.
    for job in jobs:
        client.cancel(job)

    assert {client.wait(job, timeout=40).state for job in jobs} == {"CANCELLED"}
    for results in RESULTS:
        wait_until(lambda results=results: site.tables(results) == before[results], timeout=20)  # type: ignore[misc]
