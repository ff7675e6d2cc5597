"""A private jobber for small jobs, and the same work by hand."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import make_url

from benchmarks.load import post
from tests.e2e.running import Running, jobber, role_of

USERS, ENTRIES = 10_000, 30
#: What is asked: thirty rows by an index.
QUERY = "SELECT id, user_id, amount, entry_date, note FROM bench_entries WHERE user_id = {} ORDER BY id"
TASKS = f"""\
-- name: entries_of
-- db: source
-- queue: served
{QUERY.format(":user")};

-- name: waiting
-- db: source
-- queue: unserved
{QUERY.format(":user")};
"""
#: The columns of the result, as jobber makes them.
COLUMNS = "id bigint, user_id bigint, amount numeric(12,2), entry_date date, note text"


def config(folder: Path, url: str, broker: str, more: str = "") -> str:
    """Return a config of which state, source and results are one database."""
    sections = {"job_queue.broker": broker, "job_queue.state": url, "db.source": url, "results.results": url}
    head = f'[app]\ndata_dir = "{folder}/data"\nlog_level = "warning"\n'
    return head + "".join(f'[{name}]\nurl = "{value}"\n' for name, value in sections.items() if value) + more


def libpq(url: str) -> str:
    """Return the address as psycopg and psql take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def fill(url: str) -> None:
    """Make the table that small jobs ask."""
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_entries AS SELECT i::bigint AS id, i %% %s AS user_id, "
            "(i %% 100000 * 1.25)::numeric(12,2) AS amount, date '2024-01-01' + i %% 366 AS entry_date, "
            "'a note of usual length' AS note FROM generate_series(1, %s) AS i",
            [USERS, USERS * ENTRIES],
        )
        connection.execute("ALTER TABLE bench_entries ADD PRIMARY KEY (id)")
        connection.execute("CREATE INDEX ON bench_entries (user_id)")
        connection.execute("VACUUM ANALYZE bench_entries")


class Site:
    """A jobber that serves one of two queues, and its database.

    Parameters:
        url: SQLAlchemy URL of the database.
        running: the instance.
    """

    def __init__(self, url: str, running: Running) -> None:
        self.url = url
        self.port = running.port
        self._running = running
        self.database = psycopg.connect(libpq(url), autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    def processes(self) -> dict[str, psutil.Process]:
        """Return the process that answers HTTP and the one that works, each without those that it started."""
        return {
            {"api": "HTTP", "worker": "worker"}[role_of(process)]: process
            for process in self._running.family()[1:]
            if role_of(process) in ("api", "worker") and process.ppid() == self._running.process.pid
        }

    def one(self, sql: str, *values: Any) -> Any:
        """Return the only value that a statement gives."""
        row = self.database.execute(sql, values).fetchone()  # type: ignore[arg-type]  # our own text
        assert row is not None
        return row[0]

    def waiting(self) -> int:
        """Return how many jobs of the served queue can run."""
        # By lane: the same queue may hold many that cannot, and none of those is to be looked at.
        return int(
            self.one(
                "SELECT count(*) FROM jobber_jobs WHERE ord IS NOT NULL AND lane IN "
                "(SELECT id FROM jobber_lanes WHERE queue = 'served' AND task = 'entries_of')"
            )
        )

    def clear(self) -> None:
        """Wait until the served queue has no more to run."""
        deadline = time.monotonic() + 60
        while self.waiting() or self.one("SELECT count(*) FROM jobber_running"):
            if time.monotonic() > deadline:
                raise RuntimeError("jobs are left over after a minute")
            time.sleep(0.05)

    def forget(self) -> None:
        """Remove the jobs of the other queue that a round submitted, so that the next finds as many as this did."""
        self.database.execute("DELETE FROM jobber_jobs WHERE queue = 'unserved' AND task = 'waiting'")
        self.database.execute("VACUUM jobber_jobs")


@contextmanager
def site(folder: Path, url: str, broker: str, more: str = "", tasks: str = "", *flags: str) -> Iterator[Site]:
    """Run a jobber, one worker process of ten threads, on a database that has its table, while the body runs."""
    words = (*("--worker-processes", "1", "--worker-concurrency", "10", "--queue-name", "served"), *flags)
    with jobber(folder, config(folder, url, broker, more), {"bench.sql": TASKS + tasks}, *words) as running:
        at = Site(url, running)
        try:
            yield at
        finally:
            at.close()


def submissions(task: str) -> list[bytes]:
    """Return requests for jobs, each of another user."""
    return [post(f"/tasks/{task}/jobs", {"args": {"user": user}}) for user in range(0, USERS, 7)]


# -- by hand ----------------------------------------------------------------------------------------------------------

_numbers = itertools.count()


class Hand:
    """An open connection that does what a small job does: ask, make a table, fill it, commit."""

    def __init__(self, url: str, name: str) -> None:
        self._connection = psycopg.connect(libpq(url), autocommit=True)
        self._name = f"by_hand_{name}_{time.time_ns()}"

    def job(self, user: int) -> None:
        """Do one."""
        connection, table = self._connection, f"{self._name}_{next(_numbers)}"
        with connection.cursor() as cursor:
            # As text from the one into the other: nothing is decoded.
            with cursor.copy(f"COPY ({QUERY.format(user)}) TO STDOUT") as out:
                rows = b"".join(out)
            cursor.execute(f"BEGIN; CREATE TABLE {table} ({COLUMNS})")
            with cursor.copy(f"COPY {table} FROM STDIN") as into:
                into.write(rows)
            cursor.execute("COMMIT")

    def spin(self, seconds: float) -> int:
        """Do as many as fit in; return how many."""
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            self.job(done * 7 % USERS)
            done += 1
        return done

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def _alone(url: str, name: str, begin: Any, seconds: float, done: Any) -> None:
    hand = Hand(url, name)
    hand.job(0)
    begin.wait()
    done.put(hand.spin(seconds))
    hand.close()


def by_hand(url: str, seconds: float, *, processes: bool, workers: int = 4) -> float:
    """Return how many small jobs a second some connections do, each in a thread or in a process of its own."""
    context = multiprocessing.get_context("spawn")
    make: Any = context.Process if processes else threading.Thread
    begin = context.Barrier(workers) if processes else threading.Barrier(workers)
    done = context.Queue()
    crew = [make(target=_alone, args=(url, str(n), begin, seconds, done), daemon=True) for n in range(workers)]
    for one in crew:
        one.start()
    counts = [done.get(timeout=seconds + 60) for _ in crew]
    for one in crew:
        one.join()
    return sum(counts) / seconds
