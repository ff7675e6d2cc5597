"""A migrated store per engine, and short ways to make jobs and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from jobber.columns import Column, Kind
from jobber.jobs import OUTCOME_ARGS, Job, JobState, NewGroup, NewJob
from jobber.store import Claim, Store, Success
from tests import states
from tests.servers import MariaDB, Postgres
from tests.states import Pools

QUEUES = ("q", "p")
TASKS = ("t", "u")
DATABASES = ("db0", "db1")

COLUMNS = [Column("a", Kind.NUMERIC, 10, 2), Column('"b"', Kind.TEXT)]

#: The ways in which the worker that holds an attempt ends it, and the state that follows.
ENDS: dict[str, tuple[Callable[[Store, Job], Any], JobState]] = {
    "succeed": (lambda store, job: store.succeed(job, rows=7, columns=COLUMNS), JobState.SUCCESS),
    "fail": (lambda store, job: store.fail(job, error="no", code="query_failed"), JobState.FAILURE),
    "retry": (lambda store, job: store.retry(job, error="no", code="query_failed", delay=60), JobState.RETRY),
    "retry at once": (lambda store, job: store.retry(job, error="no", code="c", delay=0), JobState.RETRY),
    "cancelled": (lambda store, job: store.cancelled(job), JobState.CANCELLED),
    "requeue": (lambda store, job: store.requeue(job), JobState.PENDING),
    "reroute": (lambda store, job: store.reroute(job, "db1", error="no", code="c"), JobState.PENDING),
}
each_end = pytest.mark.parametrize("how", ENDS)

#: What a test leaves behind.
FILLED = states.FILLED


def new_job(job_id: str, **fields: Any) -> NewJob:
    """Return a job with everything set that a test does not care for."""
    plain: dict[str, Any] = {"task": "t", "queue": "q", "db": "db0", "results": "r", "table": f"results_{job_id}"}
    return NewJob(job_id=job_id, **{**plain, **fields})


def new_group(group_id: str, *job_ids: str, **fields: Any) -> NewGroup:
    """Return a group of plain jobs with a callback on the queue p that asks for its outcome."""
    callback = new_job(f"{group_id}-done", queue="p", args=dict.fromkeys(OUTCOME_ARGS))
    plain: dict[str, Any] = {"jobs": [new_job(job_id) for job_id in job_ids], "callback": callback}
    return NewGroup(group_id=group_id, **{**plain, **fields})


@dataclass
class Bench:
    """A store with one registered worker that serves everything."""

    store: Store
    worker: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)

    def submit(self, *job_ids: str, **fields: Any) -> list[Job]:
        return self.store.submit([new_job(job_id, **fields) for job_id in job_ids])

    def claim(self, limit: int = 1, *, worker: int | None = None, **served: Any) -> Claim:
        served = {"queues": QUEUES, "tasks": TASKS, "databases": DATABASES, **served}
        return self.store.claim(self.worker if worker is None else worker, limit=limit, **served)

    def turn(self, *ended: Job, limit: int = 1) -> Claim:
        """End jobs, and claim others along with that."""
        ends = [Success(job, 7, COLUMNS) for job in ended]
        return self.store.finish_and_claim(
            self.worker, ends, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=limit
        )

    def ids(self, limit: int = 1, **served: Any) -> list[str]:
        return [job.job_id for job in self.claim(limit, **served).jobs]

    def started(self, job_id: str, **fields: Any) -> Job:
        """Submit a job and claim it."""
        self.submit(job_id, **fields)
        (job,) = self.claim().jobs
        assert job.job_id == job_id
        return job

    def lost(self, job_id: str, **fields: Any) -> Job:
        """Submit a job and have it claimed by a worker that dies."""
        self.submit(job_id, **fields)
        dying = self.store.register("dying", QUEUES, 1, lease=0)
        (job,) = self.claim(worker=dying).jobs
        assert job.job_id == job_id
        return job


@pytest.fixture
def postgres_url(state_on_postgresql: str, pools: Pools) -> Iterator[str]:
    """URL of a database with empty tables. What needs one without tables takes ``bare_url``."""
    yield state_on_postgresql
    pools.empty(state_on_postgresql)


@pytest.fixture
def mariadb_url(state_on_mariadb: str, pools: Pools) -> Iterator[str]:
    """URL of a database with empty tables. What needs one without tables takes ``bare_url``."""
    yield state_on_mariadb
    pools.empty(state_on_mariadb)


@pytest.fixture(params=["postgresql", "mariadb"])
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of a database with empty tables, one per engine where several write at a time."""
    url: str = request.getfixturevalue({"postgresql": "postgres_url", "mariadb": "mariadb_url"}[request.param])
    return url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables, one per engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/bare.db"
        return
    server: Postgres | MariaDB = request.getfixturevalue("mariadb" if request.param == "mariadb" else "postgres")
    name = server.new_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def store(state_url: str, pools: Pools) -> Store:
    """A store of which nothing is known."""
    with pools.shared():
        return Store(state_url)


@pytest.fixture
def bench(store: Store) -> Bench:
    """A store with a worker."""
    return Bench(store, store.register("w1", QUEUES, 10, lease=60))


def set_back(store: Store, table: str, *columns: str) -> None:
    """Make times of a table as if the database's clock had been set back by an hour since."""
    later = ", ".join(f"{column} = {column} + 3600000000" for column in columns)
    statement = text(f"UPDATE jobber_{table} SET {later}")
    store._database.write(lambda connection: connection.execute(statement))


def end(bench: Bench, how: str, job: Job) -> Any:
    return ENDS[how][0](bench.store, job)
