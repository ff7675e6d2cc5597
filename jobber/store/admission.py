"""How many jobs may wait: caps on the backlog of queues and tenants.

What a cap still allows stands in ``jobber_backlogs``. Jobs are counted to find it out, by one submission at a time, and
then taken off it without counting, so that a backlog of a hundred thousand is not counted for each of its jobs. It is
counted again when the row is used up, and after a second: until then jobs only leave, but for those that are not
refused (callbacks, fires of schedules, retries).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, bindparam, delete, func, select, update

from jobber.errors import BacklogFull, InvalidRequest
from jobber.jobs import JobState, Micros, NewJob
from jobber.store.database import Database
from jobber.store.gates import Gate, GateBook, GateKind
from jobber.store.runs import Begun
from jobber.store.schema import backlogs, finished_jobs, jobs, lanes

#: Microseconds for which a count is good.
_FRESH = 1_000_000
#: A full backlog of so many is not counted again for ten times as long as the count took, and so many seconds at most:
#: to find out again and again that it is still full would keep the database busy.
_MANY, _RESPITE = 10_000, 1.0
#: Finished jobs that tell how fast a queue moves, and seconds that they may be old.
_SAMPLE, _RECENT = 100, 60
#: Seconds to wait where nothing tells how fast it moves, and the bounds of what is told.
_UNKNOWN, _LEAST, _MOST = 5, 1, 300
#: Microseconds after which a row that nobody used is dropped.
_IDLE = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Full:
    """A cap that leaves no room.

    Parameters:
        queue: of one of the jobs that found none.
        over: jobs that have to leave before all that came would fit; 0 where they never will.
    """

    gate: Gate
    limit: int
    queue: str
    over: int


class NoRoom(Exception):
    """Raised inside a transaction by a cap that leaves no room, so that it is taken back."""

    def __init__(self, full: Full) -> None:
        super().__init__()
        self.full = full


class Backlog:
    """Holds submissions to the caps."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates
        self._full_until: dict[Gate, tuple[int, float]] = {}  # that many may wait, and as many did, just now

    def admit(self, connection: Connection, new: Sequence[NewJob], begun: Begun) -> None:
        """Take room for new jobs, for all of them. Raises NoRoom."""
        for full in self._take(connection, new, begun, whole=True).values():
            raise NoRoom(full)

    def admit_some(self, connection: Connection, new: Sequence[NewJob], begun: Begun) -> dict[str, Full]:
        """Take room for as many new jobs as there is, the first ones; return what the others lack, by their IDs."""
        return self._take(connection, new, begun, whole=False)

    def uncapped(self, new: Sequence[NewJob]) -> int | None:
        """Return the version of the gates by which any number of these jobs may wait; None if they are to be counted.

        It is the newest that this process knows: whoever relies on it makes sure that it still holds.
        """
        gates = self._gates.newest
        if gates.states and any(gates.pending_limit(gate) for job in new for gate in _gates_of(job)):
            return None
        return gates.version

    def _take(self, connection: Connection, new: Sequence[NewJob], begun: Begun, *, whole: bool) -> dict[str, Full]:
        gates = self._gates.at(connection, begun.gates)
        if not gates.states:
            return {}
        limits: dict[Gate, int] = {}
        wanted: Counter[Gate] = Counter()
        queues: dict[Gate, str] = {}
        for job in new:
            for gate in _gates_of(job):
                if limit := gates.pending_limit(gate):
                    limits[gate] = limit
                    wanted[gate] += 1
                    queues.setdefault(gate, job.queue)
        if not limits:
            return {}
        room: dict[Gate, int] = {}
        full: dict[Gate, Full] = {}
        # Always in one order, so that no two submissions wait for each other.
        for gate in sorted(limits, key=lambda gate: (gate.kind, gate.name)):
            room[gate] = self._room(connection, gate, limits[gate], wanted[gate], begun.now)
            if room[gate] < wanted[gate]:
                never = whole and wanted[gate] > limits[gate]
                full[gate] = Full(gate, limits[gate], queues[gate], 0 if never else wanted[gate] - room[gate])
                if whole:
                    return {new[0].job_id: full[gate]}
        refused: dict[str, Full] = {}
        for job in new:
            mine = [gate for gate in _gates_of(job) if gate in limits]
            if lacking := next((full[gate] for gate in mine if not room[gate]), None):
                refused[job.job_id] = lacking
            else:
                for gate in mine:
                    room[gate] -= 1
        return refused

    def _room(self, connection: Connection, gate: Gate, limit: int, wanted: int, now: Micros) -> int:
        """Take room for ``wanted`` jobs, or for as many as there is; return how much."""
        known, until = self._full_until.get(gate, (0, 0.0))
        if known == limit and time.monotonic() < until:
            return 0
        key = {"of_kind": gate.kind.value, "of_name": gate.name}
        if connection.execute(_SPEND, {**key, "of_cap": limit, "taken": wanted, "instant": now}).rowcount:
            return wanted
        row = {"kind": gate.kind.value, "name": gate.name, "cap": limit, "free": 0, "counted_at": 0}
        connection.execute(self._database.engine.insert_missing(backlogs), row)
        # Whoever else comes waits here; and what they have committed by then is seen by the count, not before.
        connection.execute(_LOCK, key).one()
        began = time.monotonic()
        waiting = connection.execute(_COUNT[gate.kind], {"of_name": gate.name}).scalar_one()
        free = max(0, limit - waiting)
        if not free and waiting >= _MANY:
            self._full_until[gate] = limit, began + min(_RESPITE, 10 * (time.monotonic() - began))
        taken = min(wanted, free)
        connection.execute(_NOTE, {**key, "of_cap": limit, "left": free - taken, "instant": now})
        return taken

    def refusal(self, connection: Connection, full: Full) -> BacklogFull | InvalidRequest:
        """Return the error for a cap that leaves no room, with the seconds after which there should be some."""
        kind, name = full.gate.kind.value, full.gate.name
        if not full.over:
            many = f"these are more jobs than may wait for {kind} {name} ({full.limit})"
            return InvalidRequest(f"{many}: there will never be room for all of them")
        retry_after = self._retry_after(connection, full)
        what = f"{kind} {name} has as many waiting jobs as it may have ({full.limit})"
        return BacklogFull(
            f"{what}; try again in {retry_after} s", retry_after=retry_after, **{kind: name, "limit": full.limit}
        )

    def _retry_after(self, connection: Connection, full: Full) -> int:
        tenant = full.gate.name if full.gate.kind is GateKind.TENANT else None
        sample = (
            select(finished_jobs.c.finished_at, finished_jobs.c.tenant, finished_jobs.c.attempt)
            .where(finished_jobs.c.queue == full.queue)
            .order_by(finished_jobs.c.run.desc())
            .limit(_SAMPLE)
            .subquery()
        )
        now = self._database.engine.now
        recent = select(func.count(), func.min(sample.c.finished_at), now).where(
            sample.c.finished_at > now - _RECENT * 1_000_000, sample.c.attempt > 0
        )
        if tenant is not None:
            recent = recent.where(sample.c.tenant == tenant)
        count, oldest, at = connection.execute(recent).one()
        if not count:
            return _UNKNOWN
        seconds_each: float = (at - oldest) / 1_000_000 / count
        return min(_MOST, max(_LEAST, math.ceil(seconds_each * full.over)))

    def prune(self, limit: int) -> None:
        """Drop rows that nobody used for a day, at most ``limit``; they come back where they are needed."""
        engine = self._database.engine
        idle = backlogs.c.counted_at <= engine.now - _IDLE
        gone = select(backlogs.c.kind, backlogs.c.name).where(idle).limit(limit)

        def work(connection: Connection) -> None:
            for kind, name in connection.execute(gone).all():
                connection.execute(delete(backlogs).where(backlogs.c.kind == kind, backlogs.c.name == name, idle))

        self._database.write(work)


def _gates_of(job: NewJob) -> tuple[Gate, ...]:
    """Return all that may have a cap on the way of a job."""
    queue = Gate(GateKind.QUEUE, job.queue)
    return (queue, Gate(GateKind.TENANT, job.tenant)) if job.tenant else (queue,)


_THIS = backlogs.c.kind == bindparam("of_kind"), backlogs.c.name == bindparam("of_name")
_INSTANT = bindparam("instant", type_=BigInteger())
_SPEND = (
    update(backlogs)
    .where(
        *_THIS,
        backlogs.c.cap == bindparam("of_cap"),
        backlogs.c.free >= bindparam("taken", type_=Integer()),
        # Not after now either, should the clock have been set back.
        backlogs.c.counted_at.between(_INSTANT - _FRESH, _INSTANT + _FRESH),
    )
    .values(free=backlogs.c.free - bindparam("taken", type_=Integer()))
)
_LOCK = select(backlogs.c.free).where(*_THIS).with_for_update()
_NOTE = update(backlogs).where(*_THIS).values(cap=bindparam("of_cap"), free=bindparam("left"), counted_at=_INSTANT)
_WAITS: ColumnElement[bool] = jobs.c.state.in_([JobState.PENDING.value, JobState.RETRY.value])
_OF_TENANT = select(lanes.c.id).where(lanes.c.tenant == bindparam("of_name"))
#: How many jobs wait, by what they are waiting for.
_COUNT = {
    GateKind.QUEUE: select(func.count()).select_from(jobs).where(jobs.c.queue == bindparam("of_name"), _WAITS),
    # By their lanes, which are few: jobs have no index of their tenants.
    GateKind.TENANT: select(func.count()).select_from(jobs).where(jobs.c.lane.in_(_OF_TENANT), _WAITS),
}
