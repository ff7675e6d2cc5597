"""A cancel that is sent to another instance than the one that runs the job: the query is gone, the thread is free."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import psycopg
import pytest

from jobber import config
from jobber.client import JobStatus
from jobber.client.bodies import NewJob
from jobber.errors import JobIsFinished
from jobber.queueing import Queueing, build
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, Redis, free_port, wait_until

TASKS = {
    "tasks.sql": """\
-- name: nap_pg
-- db: pg
SELECT pg_sleep($1);

-- name: nap_my
-- db: my
SELECT SLEEP(?) AS slept;

-- name: nap_lite
-- db: lite
-- A million a second, or a few.
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ? * 1000000) SELECT max(i) AS last FROM n;

-- name: flood
-- db: pg
SELECT generate_series(1, 2000000000) AS i, repeat('x', 100) AS filler;

-- name: answer
-- db: pg
SELECT $1::bigint AS answer;

-- name: unreachable
-- db: down
SELECT 1;
"""
}
#: Seconds within which a running query is gone.
PROMISED = 2.0
#: Seconds, or their like, that a job would run; the large result.
LONG, FLOOD = 600, "flood"


@dataclass(frozen=True)
class Pair:
    """Two instances of one state and one broker: ``owner`` runs every job, one at a time; ``other`` runs none."""

    owner: Running
    other: Running
    broker: Redis
    postgres: Postgres
    mariadb: MariaDB
    on_postgres: str
    on_mariadb: str
    folder: Path

    def start(self, task: str, *args: object, phase: str = "querying", **options: object) -> str:
        """Submit a job and return its ID once it runs, and its heartbeat has told of ``phase``."""
        job = self.other.client.submit(task, list(args), **options)  # type: ignore[arg-type]

        def runs() -> bool:
            now = self.owner.client.job(job.job_id)
            assert not now.finished, now
            return now.state == "STARTED" and now.progress.phase == phase and (now.progress.rows > 0) >= (task == FLOOD)

        wait_until(runs, timeout=30)
        if phase == "querying" and not task.endswith("lite"):
            wait_until(lambda: self.queries(job.job_id) == 1)
        return job.job_id

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a running job at the other instance; it must keep all promises."""
        began = time.monotonic()
        self.other.client.cancel(job_id)
        wait_until(lambda: not self.queries(job_id), interval=0.01)
        gone = time.monotonic() - began
        done = self.other.client.wait(job_id, timeout=20)

        assert (done.state, done.error, done.count) == ("CANCELLED", "", 0)
        assert gone < PROMISED
        assert time.monotonic() - began < PROMISED
        return done

    def queries(self, job_id: str) -> int:
        """Return how many queries of a job the sources run, by their own lists."""
        like = f"%job={job_id} %"
        with psycopg.connect(self.postgres.dsn("postgres")) as connection:
            active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND datname = %s"
            ((postgres,),) = connection.execute(active, [like, self.on_postgres]).fetchall()
        ((mariadb,),) = self.mariadb.execute(
            "SELECT count(*) FROM information_schema.processlist WHERE id <> connection_id() AND command <> 'Sleep' "
            f"AND info LIKE '{like}'"
        )
        return int(postgres) + int(mariadb)

    def tables(self) -> set[str]:
        """Return what stands in the results databases but for their ledgers."""
        with psycopg.connect(self.postgres.dsn(self.on_postgres)) as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE tablename ~ 'results_|staging'"
            ).fetchall()
        on_mariadb = self.mariadb.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = database() "
            "AND table_name <> 'jobber_ledger'",
            self.on_mariadb,
        )
        files = [path.stem for path in (self.folder / "results").glob("*.db") if path.stem != "jobber_ledger"]
        return {name for (name,) in [*found, *on_mariadb]} | set(files)

    def check_free(self, db: str = "pg") -> None:
        """See that the owner's only thread, and its connection, serve the next job."""
        job = self.other.client.submit(f"nap_{db}", [0.001])
        done = self.other.client.wait(job.job_id, timeout=20)
        assert (done.state, done.attempt, done.error) == ("SUCCESS", 1, "")


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB, redis_server: Redis
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("cancelling")
    database, in_mariadb = postgres.new_database(), mariadb.new_database()
    (folder / "source.db").touch()
    redis_server.flush()
    text = f"""
[app]
data_dir = "{folder}/data"
start_timeout = "1s"
retry_delay = "30s"
[job_queue.state]
url = "{postgres.url(database)}"
[job_queue.broker]
url = "{redis_server.url}"
[db.pg]
url = "{postgres.url(database)}"
[db.my]
url = "{mariadb.url(in_mariadb)}"
[db.lite]
url = "sqlite:///{folder}/source.db"
[db.down]
url = "postgresql://nobody@127.0.0.1:{free_port()}/nothing"
[results.in_pg]
url = "{postgres.url(database)}"
[results.in_my]
url = "{mariadb.url(in_mariadb)}"
[results.in_lite]
url = "sqlite:///{folder}/results"
"""
    with (
        jobber(folder, text, TASKS, "--worker-concurrency", "1") as owner,
        jobber(folder, text, TASKS, "--queue-name", "idle", "--queue-name", "too") as other,
    ):
        yield Pair(owner, other, redis_server, postgres, mariadb, database, in_mariadb, folder)
    postgres.drop_database(database)
    mariadb.drop_database(in_mariadb)


@pytest.mark.parametrize("db", ["pg", "my", "lite"])
def test_a_running_query_is_gone_its_thread_free_and_no_retry_follows(pair: Pair, db: str) -> None:
    done = pair.cancel(pair.start(f"nap_{db}", LONG, retries=3))

    assert done.attempt == 1
    assert done.table not in pair.tables()
    pair.check_free(db)
    assert pair.owner.client.job(done.job_id).state == "CANCELLED"


@pytest.mark.parametrize("results", ["in_pg", "in_my", "in_lite"])
def test_a_cancel_while_rows_are_written_leaves_none_of_them(pair: Pair, results: str) -> None:
    before = pair.tables()

    pair.cancel(pair.start(FLOOD, phase="writing", results=results, retries=3))

    wait_until(lambda: pair.tables() == before)
    pair.check_free()


@contextmanager
def reading(pair: Pair, results: str, table: str) -> Iterator[None]:
    """Keep a result open, as an application does that reads it in a transaction."""
    query = f"SELECT * FROM {table}"
    if results == "in_pg":
        with psycopg.connect(pair.postgres.dsn(pair.on_postgres)) as reader:
            reader.execute(query)
            yield
    else:
        with pair.mariadb.connect(pair.on_mariadb) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(query)
            yield


@pytest.mark.parametrize("results", ["in_pg", "in_my"])
def test_a_cancel_while_the_result_waits_to_be_published_leaves_the_old_one(pair: Pair, results: str) -> None:
    """On SQLite publishing waits for no reader."""
    job_id = f"read_{results}"
    old = pair.other.client.wait(
        pair.other.client.submit("answer", [41], results=results, job_id=job_id).job_id, timeout=20
    )
    with reading(pair, results, old.table):
        pair.cancel(pair.start("answer", 42, phase="publishing", results=results, job_id=job_id, retries=3))

    assert answers(pair, results, old.table) == [41]
    assert list(pair.other.client.results(job_id)) == [{"answer": 41}]
    assert not [name for name in pair.tables() if "staging" in name]
    pair.check_free()


def answers(pair: Pair, results: str, table: str) -> list[int]:
    query = f"SELECT answer FROM {table}"
    if results == "in_pg":
        with psycopg.connect(pair.postgres.dsn(pair.on_postgres)) as connection:
            return [row[0] for row in connection.execute(query).fetchall()]
    return [row[0] for row in pair.mariadb.execute(query, pair.on_mariadb)]


@pytest.mark.parametrize("db", ["pg", "my", "lite"])
def test_a_cancel_at_any_moment_never_hits_the_next_job(pair: Pair, db: str) -> None:
    """From before the query began until after it ended; both jobs use the one connection of the one thread."""
    outcomes: set[str] = set()
    for nap, tenth in product((0.06, 0.3, 1.5), range(0, 20, 3)):
        if tenth == 0 and len(outcomes) > 1:
            break  # only on a slow machine all cancels come too late for a short query
        victim, after = (pair.owner.client.submit(f"nap_{db}", [nap]).job_id for _ in range(2))
        time.sleep(nap * tenth / 10)
        with suppress(JobIsFinished):
            pair.other.client.cancel(victim)
        next_one = pair.other.client.wait(after, timeout=20)
        assert (next_one.state, next_one.attempt, next_one.error) == ("SUCCESS", 1, "")
        ended = pair.other.client.wait(victim, timeout=20)
        outcomes.add(ended.state)
        assert (ended.table in pair.tables()) == (ended.state == "SUCCESS")
    assert outcomes == {"CANCELLED", "SUCCESS"}


def test_a_cancel_that_comes_late_does_not_hit_the_next_run_of_the_job(pair: Pair) -> None:
    pair.cancel(pair.start("nap_pg", LONG, job_id="twice"))
    with psycopg.connect(pair.postgres.dsn(pair.on_postgres)) as connection:
        ((run,),) = connection.execute("SELECT run FROM jobber_finished_jobs WHERE job_id = 'twice'").fetchall()
    queueing = Queueing(build(config.load(pair.folder / "config.toml", {})))
    pair.start("nap_pg", 0.5, job_id="twice")

    queueing.cancel(run, 1)
    queueing.close()

    assert pair.other.client.wait("twice", timeout=20).state == "SUCCESS"


def test_what_does_not_run_is_cancelled_at_once(pair: Pair) -> None:
    running = pair.start("nap_pg", LONG)
    submit = pair.owner.client.submit
    waiting = [
        submit("nap_pg", [0], retries=3).job_id,
        submit("nap_pg", [0], queue="nobody_serves").job_id,
        submit("nap_pg", [0], eta=datetime.now(UTC) + timedelta(hours=1)).job_id,
    ]
    for job_id in waiting:
        assert pair.other.client.cancel(job_id).state == "CANCELLED"
    pair.cancel(running)

    retrying = submit("unreachable", retries=3).job_id
    wait_until(lambda: pair.owner.client.job(retrying).state == "RETRY", timeout=20)
    assert pair.other.client.cancel(retrying).state == "CANCELLED"

    pair.check_free()
    for job_id in (*waiting, retrying):
        job = pair.owner.client.job(job_id)
        assert (job.state, job.attempt) == ("CANCELLED", int(job_id == retrying))


def test_a_group_ends_with_all_its_jobs_whatever_they_do(pair: Pair) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ids = ["first", "second", "delayed"]
    jobs: list[NewJob] = [{"task": "nap_pg", "args": [LONG], "job_id": job_id, "retries": 3} for job_id in ids]
    jobs[2]["eta"] = later
    pair.owner.client.submit_group(jobs, group_id="all", callback={"task": "answer", "args": [1], "job_id": "told"})
    wait_until(lambda: pair.queries("first") == 1)
    began = time.monotonic()

    pair.other.client.cancel_group("all")

    wait_until(lambda: not pair.queries("first"), interval=0.01)
    assert time.monotonic() - began < PROMISED
    group = pair.other.client.wait_group("all", timeout=20)
    assert (group.state, group.counts["CANCELLED"]) == ("CANCELLED", 3)
    assert pair.other.client.wait("told", timeout=20).state == "SUCCESS"
    assert [pair.owner.client.job(job_id).attempt for job_id in ids] == [1, 0, 0]


def test_a_cancel_that_the_broker_lost_comes_in_time_all_the_same(pair: Pair) -> None:
    """Wiped, it knows no worker to tell; down, it tells nobody."""
    job_id = pair.start("nap_pg", LONG)
    pair.broker.flush()
    pair.cancel(job_id)

    job_id = pair.start("nap_my", LONG)
    pair.broker.stop()
    try:
        pair.cancel(job_id)
        pair.check_free("my")
    finally:
        pair.broker.start()
