"""Worker processes: their leases, and what they say of the jobs that they run.

One lease covers all attempts of a process: one update renews it. It runs on the database's clock, so that no two
machines have to agree on the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, exists, insert, or_, select, update

from jobber.errors import Fenced
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Answer
from jobber.store.schema import jobs, running, workers


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt has come.

    Parameters:
        phase: ``querying``, ``writing`` or ``publishing``.
        rows, bytes: moved so far.
        total: rows that are expected in all; None if nobody knows.
        total_basis: who says so: ``history``, ``planner`` or "" for nobody.
    """

    phase: str
    rows: int = 0
    bytes: int = 0
    total: int | None = None
    total_basis: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The answer to a heartbeat.

    Parameters:
        cancelled: (run, attempt) of this worker's attempts that somebody asked to cancel.
        held: (run, attempt) of all that this worker holds, those included. One that it does not know of was claimed
            by a call whose answer was lost: ``give_back``.
    """

    cancelled: frozenset[tuple[int, int]]
    held: frozenset[tuple[int, int]]


def is_out(engine: Engine) -> ColumnElement[bool]:
    """Return the condition that a worker was declared dead, or its lease is over.

    One that was seen later than now got its lease before the clock was set back, which would last so much longer. Who
    lives has another one by the time that anybody looks: jumps of the clock are waited out (``rescue.Outages``).
    """
    lease = workers.c.lease_until - workers.c.seen_at
    return or_(workers.c.dead, workers.c.lease_until <= engine.now, workers.c.seen_at > engine.now + lease)


@lru_cache(maxsize=4)
def serving(engine: Engine) -> Select[Any]:
    """Return what asks for the queues of live workers; ``is_served`` reads the answer."""
    return select(workers.c.queues).where(~is_out(engine))


def is_served(answer: Answer, queue: str) -> bool:
    """Return whether a live worker serves a queue."""
    return any(queue in json.loads(queues) for (queues,) in answer.rows)


class Roster:
    """Registers workers and renews their leases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, name: str, queues: Sequence[str], slots: int, *, lease: int) -> int:
        """Add a worker process and return its ID, which is never used again.

        Parameters:
            name: for people; need not be unique.
            slots: jobs that it runs at a time.
            lease: seconds that it counts as alive without a heartbeat.
        """
        now = self._database.engine.now
        statement = insert(workers).values(
            name=name,
            queues=json.dumps(list(queues)),
            slots=slots,
            registered_at=now,
            seen_at=now,
            lease_until=now + lease * 1_000_000,
            dead=False,
        )

        def work(connection: Connection) -> int:
            key = connection.execute(statement).inserted_primary_key
            return int(key[0])  # type: ignore[index]  # None is for tables without one

        return self._database.write(work)

    def serves(self, worker: int, queues: Sequence[str]) -> None:
        """Note which queues a worker serves from now on."""
        statement = update(workers).where(workers.c.id == worker).values(queues=json.dumps(list(queues)))
        self._database.write(lambda connection: connection.execute(statement))

    def heartbeat(
        self, worker: int, progress: Mapping[int, Progress], *, lease: int, memory: int | None = None
    ) -> Pulse:
        """Renew a worker's lease for ``lease`` seconds and note the progress of its attempts by run.

        Parameters:
            memory: bytes that its process has in use.

        Raises:
            Fenced: the worker was declared dead; its attempts belong to others.
        """
        now = self._database.engine.now
        renew = (
            update(workers)
            .where(workers.c.id == worker, ~workers.c.dead)
            .values(seen_at=now, lease_until=now + lease * 1_000_000, memory=memory)
        )
        note = update(running).where(running.c.run == bindparam("of_run"), running.c.worker == worker)
        holds = (
            select(running.c.run, running.c.attempt, jobs.c.cancel_requested)
            .join(jobs, jobs.c.run == running.c.run)
            .where(running.c.worker == worker)
        )
        rows = [{"of_run": run, **asdict(step)} for run, step in sorted(progress.items())]

        def work(connection: Connection) -> Pulse:
            if connection.execute(renew).rowcount != 1:
                raise Fenced("this worker was declared dead; it must register again")
            if rows:
                connection.execute(note, rows)
            held = {(run, attempt): asked for run, attempt, asked in connection.execute(holds)}
            return Pulse(frozenset(key for key, asked in held.items() if asked), frozenset(held))

        return self._database.write(work)

    def unregister(self, worker: int) -> None:
        """Take a worker off. Attempts that it still holds count as lost at once."""

        def work(connection: Connection) -> None:
            holds = exists().where(running.c.worker == workers.c.id)
            connection.execute(delete(workers).where(workers.c.id == worker, ~holds))
            connection.execute(update(workers).where(workers.c.id == worker).values(dead=True))

        self._database.write(work)
