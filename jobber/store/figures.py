"""Figures for operators: what waits and runs in each queue and on each database, and who works.

Pauses and limits are told as they are now. What waits is counted by lanes, over an index that holds every live job: of
a million of them that takes long enough to be done once for all who ask.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select, union_all

from jobber.jobs import PRIORITY_HIGHEST, PRIORITY_LOWEST, Micros
from jobber.store.database import Database
from jobber.store.gates import GateBook, Gates
from jobber.store.schema import jobs, lanes, order, rates, running, workers
from jobber.store.workers import is_out

#: Counts are kept for so many seconds at least, and for so many times as long as it took to count: whoever looks at
#: them all the time costs the state database a twentieth of one core at most.
_KEEP, _KEEP_TIMES = 1.0, 20


@dataclass(frozen=True, slots=True)
class Load:
    """What waits and runs, by the name of a queue or a database; only of those that have live jobs.

    Parameters:
        pending: jobs that wait, for whatever.
        running: jobs that hold a slot.
    """

    pending: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Whatever has live jobs."""
        return {*self.pending, *self.running}


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and runs everywhere.

    Parameters:
        oldest: by queue, when the oldest job became ready that has not started.
    """

    queues: Load
    databases: Load
    oldest: Mapping[str, Micros]


@dataclass(frozen=True, slots=True)
class Slowed:
    """That a database takes half as many starts as it is set to for a while."""

    until: Micros
    reason: str


@dataclass(frozen=True, slots=True)
class Now:
    """What holds now.

    Parameters:
        at: the state database's clock.
        served: by queue, the live workers that serve it.
        slowed: by database.
    """

    at: Micros
    gates: Gates
    served: Mapping[str, int]
    slowed: Mapping[str, Slowed]


@dataclass(frozen=True, slots=True)
class Running:
    """A job that a worker runs."""

    job_id: str
    run: int
    attempt: int
    task: str
    queue: str
    db: str
    phase: str
    rows: int
    started_at: Micros | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """A worker process.

    Parameters:
        id: never used again.
        slots: jobs that it runs at a time.
        memory: bytes that it has in use; None before its first heartbeat.
        seen_at: its last heartbeat.
        alive: whether its lease lasts.
        jobs: that it runs.
    """

    id: int
    name: str
    queues: Sequence[str]
    slots: int
    memory: int | None
    registered_at: Micros
    seen_at: Micros
    alive: bool
    jobs: Sequence[Running]


class FigureBook:
    """Reads the figures; remembers what is long to count for a moment."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates
        self._counting = threading.Lock()
        self._backlog = Backlog(Load(), Load(), {})
        self._good_until = float("-inf")

    def now(self) -> Now:
        """Return pauses, limits, who serves what, and which databases were slowed down."""

        def work(connection: Connection) -> Now:
            engine = self._database.engine
            at = connection.execute(select(engine.now)).scalar_one()
            slowed = select(rates.c.db, rates.c.slowed_until, rates.c.slowed_for).where(rates.c.slowed_until > at)
            alive = select(workers.c.queues).where(~is_out(engine))
            served = Counter(
                queue for queues in connection.execute(alive).scalars() for queue in set(json.loads(queues))
            )
            return Now(
                at,
                self._gates.current(connection),
                served,
                {db: Slowed(until, reason) for db, until, reason in connection.execute(slowed)},
            )

        return self._database.read(work)

    def backlog(self) -> Backlog:
        """Return what waits and runs, as it was a moment ago at the most (``_KEEP``)."""
        with self._counting:
            if time.monotonic() >= self._good_until:
                began = time.monotonic()
                self._backlog = self._database.read(_count)
                took = time.monotonic() - began
                self._good_until = began + took + max(_KEEP, took * _KEEP_TIMES)
            return self._backlog

    def workers(self) -> list[WorkerFigures]:
        """Return the workers, by name; those that are lost until their jobs are taken from them and some time after."""
        statement = select(workers, is_out(self._database.engine).label("is_out")).order_by(
            workers.c.name, workers.c.id
        )

        def work(connection: Connection) -> list[WorkerFigures]:
            held: defaultdict[int, list[Running]] = defaultdict(list)
            for worker, *job in connection.execute(_HELD):
                held[worker].append(Running(*job))
            return [
                WorkerFigures(
                    id=row.id,
                    name=row.name,
                    queues=json.loads(row.queues),
                    slots=row.slots,
                    memory=row.memory,
                    registered_at=row.registered_at,
                    seen_at=row.seen_at,
                    alive=not row.is_out,
                    jobs=held[row.id],
                )
                for row in connection.execute(statement)
            ]

        return self._database.read(work)


_HELD: Select[Any] = (
    select(
        *(running.c.worker, jobs.c.job_id, running.c.run, running.c.attempt, jobs.c.task, jobs.c.queue, jobs.c.db),
        *(running.c.phase, running.c.rows, jobs.c.started_at),
    )
    .join(jobs, jobs.c.run == running.c.run)
    .order_by(jobs.c.started_at, jobs.c.run)
)
#: All live jobs, over the index (lane, ord) alone.
LIVE: Select[Any] = select(jobs.c.lane, func.count()).group_by(jobs.c.lane)
_BUSY: Select[Any] = select(running.c.lane, func.count()).group_by(running.c.lane)


def _count(connection: Connection) -> Backlog:
    live = Counter[int](dict(connection.execute(LIVE).all()))
    busy = Counter[int](dict(connection.execute(_BUSY).all()))
    waiting: tuple[Counter[str], Counter[str]] = Counter(), Counter()  # by queue, by database
    working: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for lane, *names in connection.execute(select(lanes.c.id, lanes.c.queue, lanes.c.db)):
        runs = busy.get(lane, 0)
        waits = max(0, live.get(lane, 0) - runs)  # what started between the two looks runs
        for name, pending, started in zip(names, waiting, working, strict=True):
            pending[name] += waits
            started[name] += runs
    queues, databases = (Load(+pending, +started) for pending, started in zip(waiting, working, strict=True))
    return Backlog(queues, databases, {queue: at for queue in queues.pending if (at := _oldest(connection, queue))})


def _oldest(connection: Connection, queue: str) -> Micros | None:
    """Return when the oldest of a queue's ready jobs became so; None if none is ready.

    The first of each priority are looked at: among those, who came first is oldest, but for one that was to wait for
    its start time.
    """
    firsts = connection.execute(_FIRSTS, {"of_queue": queue}).all()
    return min((max(created_at, ready_at or 0) for created_at, ready_at in firsts), default=None)


def _first(priority: int) -> Select[Any]:
    # Where this place in the order begins, and the next one.
    from_, to = order(priority, 0), order(priority - 1, 0)
    of_priority = jobs.c.ord >= literal_column(str(from_)), jobs.c.ord < literal_column(str(to))
    ready = select(jobs.c.created_at, jobs.c.ready_at).where(jobs.c.queue == bindparam("of_queue"), *of_priority)
    return select(ready.order_by(jobs.c.ord).limit(literal_column("1")).subquery())


_FIRSTS = union_all(*(_first(priority) for priority in range(PRIORITY_LOWEST, PRIORITY_HIGHEST + 1)))
