"""What can hold jobs back: limits and pauses of queues, databases, tasks and groups, and how full each is.

All gates are few; every process keeps them in memory as one immutable snapshot, and the version in the ``dispatch``
row says whether it is still true. Groups come and go by the thousand: their limits are not among them, but travel with
their lanes. A new kind of gate is a member of ``GateKind`` and a line in ``gates_of``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, delete, select, update

from jobber.jobs import Job
from jobber.store.database import Database
from jobber.store.schema import dispatch
from jobber.store.schema import gates as table


class GateKind(StrEnum):
    """What a gate is a gate of."""

    QUEUE = "queue"
    DATABASE = "database"
    TASK = "task"
    GROUP = "group"  # its name is the number of the group's run


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that jobs pass on their way to run, by kind and name."""

    kind: GateKind
    name: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job does not run now: an item of ``waiting_for``.

    Parameters:
        kind: a ``GateKind``'s value, ``start`` or ``parent``.
        name: of the gate.
        text: for people.
    """

    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class GateState:
    """The setting of one gate.

    Parameters:
        limit: jobs running at a time; 0 is no limit.
        paused: whether none may start.
        reason: why it is paused, for people.
    """

    limit: int = 0
    paused: bool = False
    reason: str = ""


_OPEN = GateState()


class Passing(Protocol):
    """What passes gates: a job, or a lane of jobs."""

    @property
    def queue(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def db(self) -> str: ...
    @property
    def job_group(self) -> str: ...
    @property
    def group_limit(self) -> int: ...


def gates_of(passing: Passing) -> tuple[Gate, ...]:
    """Return every gate that a job or a lane passes."""
    gates = (
        Gate(GateKind.QUEUE, passing.queue),
        Gate(GateKind.DATABASE, passing.db),
        Gate(GateKind.TASK, passing.task),
    )
    return (*gates, Gate(GateKind.GROUP, passing.job_group)) if passing.job_group else gates


@dataclass(frozen=True, slots=True)
class Gates:
    """All gates that have a limit or are paused, as of one version."""

    version: int
    states: Mapping[Gate, GateState] = field(default_factory=dict)

    def limited(self, passing: Passing) -> Iterator[tuple[Gate, int]]:
        """Yield the gates with a limit on the way of ``passing``."""
        for gate in gates_of(passing):
            state = self.states.get(gate, _OPEN)
            if limit := passing.group_limit if gate.kind is GateKind.GROUP else state.limit:
                yield gate, limit

    def paused(self, kind: GateKind) -> list[str]:
        """Return the names of the paused gates of a kind."""
        return sorted(gate.name for gate, state in self.states.items() if state.paused and gate.kind is kind)


class Usage:
    """How many jobs run behind each gate that has a limit."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.running: Counter[Gate] = Counter()
        self._limits: dict[Gate, int] = {}

    def add(self, passing: Passing, count: int = 1) -> None:
        """Count ``count`` more running jobs."""
        for gate, limit in self.gates.limited(passing):
            self.running[gate] += count
            self._limits[gate] = limit

    def free(self, passing: Passing) -> bool:
        """Whether one more may start as far as limits go."""
        return all(self.running[gate] < limit for gate, limit in self.gates.limited(passing))

    def full(self) -> list[Gate]:
        """Return the gates whose limit is reached."""
        return [gate for gate, count in self.running.items() if count >= self._limits[gate]]

    def holds(self, job: Job) -> list[Hold]:
        """Return what holds ``job`` back now: pauses and full limits."""
        found = []
        limits = dict(self.gates.limited(job))
        for gate in gates_of(job):
            kind, name = gate.kind.value, job.group_id if gate.kind is GateKind.GROUP else gate.name
            state = self.gates.states.get(gate, _OPEN)
            if state.paused:
                why = f": {state.reason}" if state.reason else ""
                found.append(Hold(kind, name, f"{kind} {name} is paused{why}"))
            elif gate in limits and self.running[gate] >= limits[gate]:
                found.append(Hold(kind, name, f"{name}: {self.running[gate]} of {limits[gate]} running"))
        return found


class GateBook:
    """Reads and writes the gates; keeps the newest snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshot = Gates(version=-1)

    def at(self, connection: Connection, version: int) -> Gates:
        """Return the gates of ``version``, which the caller has just read from ``dispatch``.

        They may be newer where the caller does not hold the dispatch lock.
        """
        snapshot = self._snapshot
        if snapshot.version != version:
            rows = connection.execute(select(table)).all()
            states = {
                Gate(GateKind(row.kind), row.name): GateState(row.running_limit, row.paused, row.reason) for row in rows
            }
            # Threads may overwrite each other with an older snapshot: its version then says so.
            self._snapshot = snapshot = Gates(version, states)
        return snapshot

    def current(self, connection: Connection) -> Gates:
        """Return the gates as they are now."""
        return self.at(connection, connection.execute(select(dispatch.c.gates_version)).scalar_one())

    def set_limits(self, limits: Mapping[Gate, int]) -> None:
        """Set the limit of each gate, 0 for none; changes nothing where all are so already."""

        def work(connection: Connection) -> None:
            gates = self._locked(connection)
            changed = {
                gate: GateState(limit, old.paused, old.reason)
                for gate, limit in limits.items()
                if (old := gates.states.get(gate, _OPEN)).limit != limit
            }
            self._save(connection, changed)

        self._database.write(work)

    def pause(self, gate: Gate, reason: str) -> None:
        """Let nothing start behind ``gate``. What runs goes on."""

        def work(connection: Connection) -> None:
            old = self._locked(connection).states.get(gate, _OPEN)
            self._save(connection, {gate: GateState(old.limit, True, reason)})

        self._database.write(work)

    def resume(self, gate: Gate) -> None:
        """Let jobs start behind ``gate`` again."""

        def work(connection: Connection) -> None:
            old = self._locked(connection).states.get(gate, _OPEN)
            if old.paused:
                self._save(connection, {gate: GateState(old.limit)})

        self._database.write(work)

    def _locked(self, connection: Connection) -> Gates:
        """Lock the dispatch row, so that no claim is under way, then return the gates."""
        version = connection.execute(select(dispatch.c.gates_version).with_for_update()).scalar_one()
        return self.at(connection, version)

    def _save(self, connection: Connection, changed: Mapping[Gate, GateState]) -> None:
        if not changed:
            return
        for gate, state in changed.items():
            key = {"kind": gate.kind.value, "name": gate.name}
            values = {"running_limit": state.limit, "paused": state.paused, "reason": state.reason}
            if state == _OPEN:
                connection.execute(delete(table).filter_by(**key))
            else:
                connection.execute(self._database.engine.upsert(table, key, values))
        connection.execute(update(dispatch).values(gates_version=dispatch.c.gates_version + 1))
