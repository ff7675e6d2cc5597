"""What is to be expected of jobs: how many rows, at which place in its queue one waits, and about when it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, select

from jobber.jobs import Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Answer, Request
from jobber.store.gates import VERSION, GateBook, gates_of
from jobber.store.schema import finished_jobs, jobs, running, workers
from jobber.store.workers import is_served, serving

#: Jobs ahead of one in its queue that are counted at most.
FARTHEST = 10_000
#: Ends of jobs, the newest of all queues, that tell how fast a queue goes, and seconds that they may be old.
SAMPLE, _RECENT = 1000, 900
#: Seconds for which they are not looked at again, whoever asks: what follows from them is a guess.
_KEPT = 0.5
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


class _Paces(NamedTuple):
    """The pace of each queue.

    Parameters:
        until: when somebody should look again, by the monotonic clock.
    """

    until: float
    of: Mapping[str, float]


class Prospects:
    """Looks ahead."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates
        self._paces: _Paces | None = None

    def expected(self, job: Job) -> int | None:
        """Return the rows of the newest success of the same task, SQL and args on the same database; None without."""
        if not job.fingerprint:
            return None
        rows = self._database.read(lambda connection: connection.execute(earlier(job.fingerprint)).all())
        same = (row.rows for row in rows if row.state == JobState.SUCCESS.value and row.db == job.db)
        return next(same, None)

    def outlook(self, job: Job) -> Outlook:
        """Return what is to be expected of a live job."""

        if not job.live:
            return Outlook()
        return self._database.read(self._attempt(job) if job.state is JobState.STARTED else self._turn(job))

    def _attempt(self, job: Job) -> Callable[[Connection], Outlook]:
        def work(connection: Connection) -> Outlook:
            (found,) = self._database.exchange(connection, Request(_MEMORY, {"of_run": job.run}))
            return Outlook(worker_memory=found.rows[0][0] if found.rows else None)

        return work

    def _turn(self, job: Job) -> Callable[[Connection], Outlook]:
        engine, exchange = self._database.engine, self._database.exchange
        of_queue = {"of_queue": job.queue, "of_run": job.run}

        def work(connection: Connection) -> Outlook:
            known = self._paces
            asked = [] if known is not None and time.monotonic() < known.until else [Request(newest_ends())]
            own, before, version, served, *ends = exchange(
                connection,
                Request(_place(engine), {"of_run": job.run}),
                Request(ahead(), of_queue),
                Request(VERSION),
                Request(serving(engine)),
                *asked,
            )
            if not own.rows or own.rows[0][0] is None:
                return Outlook()
            ((_, now),), ((count,),) = own.rows, before.rows
            if ends:
                self._paces = known = _Paces(time.monotonic() + _KEPT, _paces(ends[0], now))
            if count >= FARTHEST:
                return Outlook()
            gates = self._gates.at(connection, version.rows[0][0])
            held = any(gates.state(gate).paused for gate in gates_of(job)) or not is_served(served, job.queue)
            one = known.of.get(job.queue) if known else None
            # None while something holds it that does not end by itself.
            return Outlook(count + 1, None if held or one is None else now + int((count + 1) * one))

        return work


def earlier(fingerprint: int) -> Select[Any]:
    """Return the SELECT of the newest runs of a fingerprint; exposed for the test of its plan."""
    of = finished_jobs.c
    statement = select(of.state, of.db, of.rows).where(of.fingerprint == fingerprint)
    return statement.order_by(of.run.desc()).limit(_EARLIER)


_MEMORY = (
    select(workers.c.memory).join(running, running.c.worker == workers.c.id).where(running.c.run == bindparam("of_run"))
)


@lru_cache(maxsize=4)
def _place(engine: Engine) -> Select[Any]:
    return select(jobs.c.ord, engine.now).where(jobs.c.run == bindparam("of_run"))


@lru_cache(maxsize=1)
def ahead() -> Select[Any]:
    """Return the SELECT that counts the ready jobs of a queue before one of them, ``FARTHEST`` at most.

    Its parameters are ``of_queue`` and ``of_run``.
    """
    one = jobs.alias("one")
    place = select(one.c.ord).where(one.c.run == bindparam("of_run")).scalar_subquery()
    those = jobs.c.queue == bindparam("of_queue"), jobs.c.ord < place
    # In their order: without one, PostgreSQL may look for them in the table, among the jobs of all queues.
    before = select(jobs.c.ord).where(*those).order_by(jobs.c.ord).limit(FARTHEST)
    return select(func.count()).select_from(before.subquery())


@lru_cache(maxsize=1)
def newest_ends() -> Select[Any]:
    """Return the SELECT of the jobs, of all queues, that ended last."""
    of = finished_jobs.c
    newest = select(of.queue, of.started_at, of.finished_at).order_by(of.finished_at.desc()).limit(SAMPLE)
    # It would rather sort some ten thousand rows than follow an index to a thousand.
    return newest.with_hint(finished_jobs, "FORCE INDEX (ix_jobber_finished_jobs_finished_at)", "mysql")


def _paces(seen: Answer, now: Micros) -> dict[str, float]:
    """Return the pace of each queue of which ``newest_ends`` told anything recent."""
    ends: dict[str, list[End]] = {}
    for queue, started_at, finished_at in seen.rows:
        if started_at is not None and finished_at >= now - _RECENT * 1_000_000:
            ends.setdefault(queue, []).append(End(started_at, finished_at))
    return {queue: pace(some, now) for queue, some in ends.items()}


def pace(ends: Sequence[End], now: Micros) -> float:
    """Return the microseconds from one end of a queue's jobs to the next, on the average until now.

    The time that they took begins where the first of them began, if it took as long as most: one that took very long
    says nothing of the others.
    """
    usual = sorted(end.finished_at - end.started_at for end in ends)[len(ends) // 2]
    began = min(end.finished_at for end in ends) - usual
    return max(0, now - began) / len(ends)
