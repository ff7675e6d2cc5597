"""Time limits as users set them: of a database, over that the one of a task, over that the one of a job."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import psycopg
import pytest

from jobber.client import JobStatus
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, wait_until

#: Seconds of each level, and within which a query that has passed its limit is gone.
OF_DATABASE, OF_TASK, OF_JOB, GONE = 3, 2, 1, 3.0
ENDLESS = {
    "pg": "SELECT pg_sleep(600)",
    "my": "SELECT SLEEP(600) AS slept",
    "lite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS last FROM n",
}
TASKS = "".join(
    f"-- name: plain_{db}\n-- db: {db}\n{sql};\n\n-- name: tagged_{db}\n-- db: {db}\n-- timeout: {OF_TASK}\n{sql};\n\n"
    for db, sql in ENDLESS.items()
) + (
    f"-- name: nap\n-- db: pg\n-- timeout: {OF_TASK}\nSELECT pg_sleep($1);\n\n"
    "-- name: free\n-- db: pg\n-- timeout: 0\nSELECT pg_sleep($1);\n\n"
    "-- name: unlimited\n-- db: my\n-- raw: 1\n{unlimited} SELECT SLEEP(600) AS slept;\n"
)


@dataclass(frozen=True)
class Started:
    """A jobber, and jobs that were submitted at once: together they take the time of the slowest."""

    running: Running
    postgres: Postgres
    on_postgres: str
    jobs: dict[str, str]

    def done(self, name: str) -> JobStatus:
        return self.running.client.wait(self.jobs[name], timeout=30)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("limits")
    database, in_mariadb = postgres.new_database(), mariadb.new_database()
    (folder / "source.db").touch()
    text = f"""
[app]
data_dir = "{folder}/data"
retry_on = "any"
[db.pg]
url = "{postgres.url(database)}"
timeout = {OF_DATABASE}
[db.my]
url = "{mariadb.url(in_mariadb)}"
timeout = {OF_DATABASE}
[db.lite]
url = "sqlite:///{folder}/source.db"
timeout = {OF_DATABASE}
[results.in_pg]
url = "{postgres.url(database)}"
[results.in_my]
url = "{mariadb.url(in_mariadb)}"
"""
    # MySQL's limit is for SELECT alone, and MariaDB's can be lifted by the query itself.
    unlimited = "EXPLAIN ANALYZE" if mariadb.is_mysql else "SET STATEMENT max_statement_time = 0 FOR"
    tasks = {"tasks.sql": TASKS.replace("{unlimited}", unlimited)}
    with jobber(folder, text, tasks, "--worker-concurrency", "16") as running:

        def submit(task: str, *args: object, **options: object) -> str:
            return running.client.submit(task, list(args), retries=3, **options).job_id  # type: ignore[arg-type]

        jobs = {f"database-{db}": submit(f"plain_{db}") for db in ENDLESS}
        jobs |= {f"task-{db}": submit(f"tagged_{db}") for db in ENDLESS}
        jobs |= {f"job-{db}": submit(f"tagged_{db}", timeout=OF_JOB) for db in ENDLESS}
        jobs["a job's own"] = submit("nap", OF_DATABASE + 0.5, timeout=60)
        jobs["a task without one"] = submit("free", OF_DATABASE + 0.5)
        jobs["unlimited"] = submit("unlimited", timeout=OF_JOB)
        yield Started(running, postgres, database, jobs)
    postgres.drop_database(database)
    mariadb.drop_database(in_mariadb)


def check_ended(job: JobStatus, limit: float) -> None:
    """See that a job was ended by its limit, soon, and is not tried again, even with ``retry_on = "any"``."""
    assert (job.state, job.error_code, job.attempt, job.count) == ("FAILURE", "timed_out", 1, 0), job
    # By the engine, or by the watchdog where the machine is slow; both name the limit.
    assert re.search(rf"longer than its (time limit \({limit} s\) on|limit of {limit} s)", job.error)
    assert job.run_ms is not None
    assert limit * 1000 - 50 <= job.run_ms < (limit + GONE) * 1000


def test_a_query_whose_server_hangs_is_given_up(started: Started) -> None:
    """Its process is stopped: neither its own limit nor a cancel reaches it."""
    job = started.running.client.submit("nap", [600], timeout=OF_JOB, retries=3)
    find = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s"
    like = [f"%job={job.job_id} % COPY (%"]
    with psycopg.connect(started.postgres.dsn("postgres"), autocommit=True) as connection:
        wait_until(lambda: connection.execute(find, like).fetchone(), interval=0.01)
        row = connection.execute(find, like).fetchone()
        assert row
        backend = psutil.Process(row[0])
        backend.suspend()
        try:
            done = started.running.client.wait(job.job_id, timeout=30)
        finally:
            backend.resume()
        assert (done.state, done.error_code, done.attempt) == ("FAILURE", "timed_out", 1), done
        # The limit and its grace, and the patience with a query that does not go.
        assert done.run_ms is not None
        assert done.run_ms < 6000
        wait_until(lambda: not connection.execute(find, like).fetchone())


def test_a_job_that_waits_for_readers_beyond_its_limit_is_ended_and_the_old_result_stays(started: Started) -> None:
    client = started.running.client
    old = client.wait(client.submit("nap", [0], results="in_pg", job_id="read").job_id, timeout=20)
    with psycopg.connect(started.postgres.dsn(started.on_postgres)) as reader:
        reader.execute(f"SELECT * FROM {old.table}")
        began = time.monotonic()
        client.submit("nap", [0], results="in_pg", job_id="read", timeout=OF_JOB, retries=3)
        done = client.wait("read", timeout=20)
        assert time.monotonic() - began < 5

        assert (done.state, done.error_code, done.attempt) == ("FAILURE", "timed_out", 1), done
        assert len(reader.execute(f"SELECT * FROM {old.table}").fetchall()) == 1


@pytest.mark.parametrize("db", list(ENDLESS))
@pytest.mark.parametrize(("level", "limit"), [("job", OF_JOB), ("task", OF_TASK), ("database", OF_DATABASE)])
def test_the_limit_of_the_job_goes_before_that_of_the_task_and_that_before_the_databases(
    started: Started, db: str, level: str, limit: int
) -> None:
    check_ended(started.done(f"{level}-{db}"), limit)


@pytest.mark.parametrize("limit", ["a job's own", "a task without one"])
def test_a_job_may_have_more_time_than_its_database_gives(started: Started, limit: str) -> None:
    job = started.done(limit)

    assert (job.state, job.error) == ("SUCCESS", "")


def test_a_query_that_the_engine_does_not_limit_is_ended_by_the_watchdog(started: Started) -> None:
    check_ended(started.done("unlimited"), OF_JOB)
