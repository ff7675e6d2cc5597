"""Jobs with a start time: they start then, however many are due with them, and whoever has just died."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from jobber.jobs import Micros, NewJob
from jobber.store import Store
from tests.e2e.running import Running, in_one_database, jobber
from tests.servers import Postgres, wait_until

TASKS = {"tasks.sql": "-- name: one\nSELECT 1 AS one;\n"}
SECOND = 1_000_000


@dataclass(frozen=True)
class Site:
    """A jobber, how to start another one beside it, and its state."""

    folder: Path
    config: str
    running: Running
    store: Store
    dsn: str

    def submit(self, name: str, count: int, due: Micros, queue: str = "default") -> None:
        """Submit jobs straight to the state, which takes thousands in a moment."""
        jobs = [
            NewJob(
                job_id=f"{name}-{n}",
                task="one",
                queue=queue,
                db="pg",
                results="main",
                table=f"results_{name}-{n}",
                eta=due,
            )
            for n in range(count)
        ]
        self.store.submit(jobs)

    def starts(self, name: str, count: int) -> list[Micros]:
        """Wait until so many jobs have ended well; return when they started, by the state database's clock."""
        done = "SELECT started_at FROM jobber_finished_jobs WHERE job_id LIKE %s AND state = 'SUCCESS' ORDER BY 1"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            wait_until(lambda: len(connection.execute(done, [f"{name}-%"]).fetchall()) == count, timeout=60)
            return [at for (at,) in connection.execute(done, [f"{name}-%"]).fetchall()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, migrated: str) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("delays")
    database = postgres.new_database(migrated)
    url = postgres.url(database)
    text = in_one_database(folder, url)
    store = Store(url)
    with jobber(folder, text, TASKS) as running:
        yield Site(folder, text, running, store, postgres.dsn(database))
    store.close()
    postgres.drop_database(database)


def test_of_jobs_that_are_due_at_once_the_first_starts_at_once_and_the_others_follow(site: Site) -> None:
    due = site.store.now() + 2 * SECOND
    site.submit("together", 200, due)

    starts = site.starts("together", 200)

    assert due <= starts[0] < due + SECOND
    assert max(later - sooner for sooner, later in pairwise(starts)) < SECOND


def test_thousands_that_are_due_at_the_same_time_delay_nobody_else(site: Site) -> None:
    """Nobody serves their queue, so that to make them ready is all that they cost."""
    due = site.store.now() + 3 * SECOND
    for number in range(4):
        site.submit(f"crowd{number}", 1000, due, "nobody_serves")
    site.submit("after-them", 1, due + 1)

    assert due < site.starts("after-them", 1)[0] < due + SECOND


def test_a_delayed_job_starts_in_time_though_the_process_that_leads_has_just_died(site: Site) -> None:
    with jobber(site.folder, site.config, TASKS, worker_only=True):
        (leader,) = site.running.workers()
        due = site.store.now() + SECOND
        site.submit("orphan", 1, due)

        leader.kill()

        assert due <= site.starts("orphan", 1)[0] < due + SECOND
