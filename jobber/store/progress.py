"""What is to be expected of jobs: how many rows, at which place in its queue one waits, and about when it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from jobber.jobs import Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.gates import GateBook, gates_of
from jobber.store.schema import finished_jobs, jobs, running, workers
from jobber.store.workers import is_served

#: Jobs ahead of one in its queue that are counted at most.
FARTHEST = 10_000
#: Ends of jobs, the newest of all queues, that tell how fast a queue goes, and seconds that they may be old.
SAMPLE, _RECENT = 1000, 900
#: Earlier runs of the same that are looked at, the newest: the last of them may have failed, or read elsewhere.
_EARLIER = 20


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of a job that is not finished.

    Parameters:
        position: its place among the ready jobs of its queue, 1 for the next; None beyond ``FARTHEST``, and while it
            is not ready.
        starts_at: about when it will start, by how fast its queue has gone of late; None if nobody knows.
        worker_memory: bytes that the worker has in use which runs it; None while none does.
    """

    position: int | None = None
    starts_at: Micros | None = None
    worker_memory: int | None = None


class End(NamedTuple):
    """A job that ended, and when."""

    started_at: Micros
    finished_at: Micros


class Prospects:
    """Looks ahead."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates

    def expected(self, job: Job) -> int | None:
        """Return the rows of the newest success of the same task, SQL and args on the same database; None without."""
        if not job.fingerprint:
            return None
        rows = self._database.read(lambda connection: connection.execute(earlier(job.fingerprint)).all())
        same = (row.rows for row in rows if row.state == JobState.SUCCESS.value and row.db == job.db)
        return next(same, None)

    def outlook(self, job: Job) -> Outlook:
        """Return what is to be expected of a live job."""

        def work(connection: Connection) -> Outlook:
            if job.state is JobState.STARTED:
                memory = select(workers.c.memory).join(running, running.c.worker == workers.c.id)
                found = connection.execute(memory.where(running.c.run == job.run)).scalar_one_or_none()
                return Outlook(worker_memory=found)
            ord_ = connection.execute(select(jobs.c.ord).where(jobs.c.run == job.run)).scalar_one_or_none()
            if ord_ is None:
                return Outlook()
            count: int = connection.execute(ahead(job.queue, ord_)).scalar_one()
            if count >= FARTHEST:
                return Outlook()
            return Outlook(count + 1, self._start(connection, job, count + 1))

        return self._database.read(work) if job.live else Outlook()

    def _start(self, connection: Connection, job: Job, position: int) -> Micros | None:
        """Return about when a ready job will start; None while something holds it that does not end by itself."""
        gates = self._gates.current(connection)
        if any(gates.state(gate).paused for gate in gates_of(job)):
            return None
        if not is_served(connection, self._database.engine, job.queue):
            return None
        now: Micros = connection.execute(select(self._database.engine.now)).scalar_one()
        seen = connection.execute(newest_ends()).all()
        ends = [
            End(started_at, finished_at)
            for queue, started_at, finished_at in seen
            if queue == job.queue and started_at is not None and finished_at >= now - _RECENT * 1_000_000
        ]
        if not ends:
            return None
        return now + int(position * pace(ends, now))


def earlier(fingerprint: int) -> Select[Any]:
    """Return the SELECT of the newest runs of a fingerprint; exposed for the test of its plan."""
    of = finished_jobs.c
    statement = select(of.state, of.db, of.rows).where(of.fingerprint == fingerprint)
    return statement.order_by(of.run.desc()).limit(_EARLIER)


def ahead(queue: str, ord_: int) -> Select[Any]:
    """Return the SELECT that counts the ready jobs of a queue before a place, ``FARTHEST`` at most."""
    # In their order: without one, PostgreSQL may look for them in the table, among the jobs of all queues.
    before = select(jobs.c.ord).where(jobs.c.queue == queue, jobs.c.ord < ord_).order_by(jobs.c.ord).limit(FARTHEST)
    return select(func.count()).select_from(before.subquery())


def newest_ends() -> Select[Any]:
    """Return the SELECT of the jobs, of all queues, that ended last."""
    of = finished_jobs.c
    newest = select(of.queue, of.started_at, of.finished_at).order_by(of.finished_at.desc()).limit(SAMPLE)
    for name in (
        "mysql",
        "mariadb",
    ):  # they would rather sort some ten thousand rows than follow an index to a thousand
        newest = newest.with_hint(finished_jobs, "FORCE INDEX (ix_jobber_finished_jobs_finished_at)", name)
    return newest


def pace(ends: Sequence[End], now: Micros) -> float:
    """Return the microseconds from one end of a queue's jobs to the next, on the average until now.

    The time that they took begins where the first of them began, if it took as long as most: one that took very long
    says nothing of the others.
    """
    usual = sorted(end.finished_at - end.started_at for end in ends)[len(ends) // 2]
    began = min(end.finished_at for end in ends) - usual
    return max(0, now - began) / len(ends)
