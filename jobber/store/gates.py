"""What can hold jobs back: limits and pauses of queues, databases, tasks, groups and tenants, and how full each is.

All gates are few; every process keeps them in memory as one immutable snapshot, and the version in the ``dispatch``
row says whether it is still true. Groups come and go by the thousand: their limits are not among them, but travel with
their lanes. A new kind of gate is a member of ``GateKind``, a line in ``gates_of``, and one in ``surveying._NAMES``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, delete, literal, select, union_all, update

from jobber.jobs import Job
from jobber.store.database import Database
from jobber.store.rates import Rate, set_rates
from jobber.store.schema import dispatch, rates, tenants
from jobber.store.schema import gates as table


class GateKind(StrEnum):
    """What a gate is a gate of."""

    QUEUE = "queue"
    DATABASE = "database"
    TASK = "task"
    GROUP = "group"  # its name is the number of the group's run
    TENANT = "tenant"  # the limits of the one named "" are those of every tenant that has none of its own
    TOTAL = "total"  # all jobs; its name is ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that jobs pass on their way to run, by kind and name."""

    kind: GateKind
    name: str


#: What all jobs pass.
TOTAL = Gate(GateKind.TOTAL, "")
#: Whose limits are those of every tenant without its own.
EACH_TENANT = Gate(GateKind.TENANT, "")
#: A limit of a tenant: none, whatever that of every tenant is.
UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job does not run now: an item of ``waiting_for``.

    Parameters:
        kind: a ``GateKind``'s value, ``rate``, ``start``, ``parent`` or ``paused``.
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
        pending: jobs that may wait; 0 is any number.
    """

    limit: int = 0
    paused: bool = False
    reason: str = ""
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one gate in the config.

    Parameters:
        running: jobs at a time; 0 is no limit.
        pending: jobs that may wait; 0 is any number.
    """

    running: int = 0
    pending: int = 0


_OPEN = GateState()
#: Kinds of gates whose limits are all in the config of every instance: one that it does not name has none.
CONFIGURED = frozenset({GateKind.QUEUE, GateKind.TENANT, GateKind.TOTAL})


class Passing(Protocol):
    """What passes gates: a job, or a lane of jobs."""

    @property
    def queue(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def db(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def job_group(self) -> str: ...
    @property
    def group_limit(self) -> int: ...


def gates_of(passing: Passing) -> tuple[Gate, ...]:
    """Return every gate that a job or a lane passes."""
    gates = [
        Gate(GateKind.QUEUE, passing.queue),
        Gate(GateKind.DATABASE, passing.db),
        Gate(GateKind.TASK, passing.task),
    ]
    if passing.job_group:
        gates.append(Gate(GateKind.GROUP, passing.job_group))
    if passing.tenant:
        gates.append(Gate(GateKind.TENANT, passing.tenant))
    return (*gates, TOTAL)


@dataclass(frozen=True, slots=True)
class Gates:
    """All gates that have a limit or are paused, as of one version.

    Parameters:
        rated: databases with a rate.
        tenants: whether any lane is, or ever was, one of a tenant.
    """

    version: int
    states: Mapping[Gate, GateState] = field(default_factory=dict)
    rated: frozenset[str] = frozenset()
    tenants: bool = False
    _limited: frozenset[GateKind] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kinds = frozenset(gate.kind for gate, state in self.states.items() if state.limit > 0)
        object.__setattr__(self, "_limited", kinds)

    def state(self, gate: Gate) -> GateState:
        """Return the setting of a gate, of a tenant without the limits that all have."""
        return self.states.get(gate, _OPEN)

    def limit(self, gate: Gate) -> int:
        """Return how many jobs may run behind a gate at a time; 0 is no limit."""
        limit = self.state(gate).limit
        if not limit and gate.kind is GateKind.TENANT:
            limit = self.state(EACH_TENANT).limit
        return max(limit, 0)

    def pending_limit(self, gate: Gate) -> int:
        """Return how many jobs may wait behind a gate; 0 is any number."""
        limit = self.state(gate).pending
        if not limit and gate.kind is GateKind.TENANT:
            limit = self.state(EACH_TENANT).pending
        return max(limit, 0)

    def limited(self, passing: Passing) -> Iterator[tuple[Gate, int]]:
        """Yield the gates with a limit on the way of ``passing``."""
        if passing.group_limit:
            yield Gate(GateKind.GROUP, passing.job_group), passing.group_limit
        if self._limited:
            for gate in gates_of(passing):
                if gate.kind in self._limited and (limit := self.limit(gate)):
                    yield gate, limit

    def paused(self, kind: GateKind) -> list[str]:
        """Return the names of the paused gates of a kind."""
        return sorted(gate.name for gate, state in self.states.items() if state.paused and gate.kind is kind)


class Usage:
    """How many jobs run behind each gate that has a limit, and how many may start now on each database with a rate.

    Parameters:
        rates: by database.
    """

    def __init__(self, gates: Gates, rates: Mapping[str, Rate] | None = None) -> None:
        self.gates = gates
        self.running: Counter[Gate] = Counter()
        self.rates = rates or {}
        self._limits: dict[Gate, int] = {}
        self.starts: Counter[str] = Counter()  # by database

    def add(self, passing: Passing, count: int = 1) -> None:
        """Count ``count`` more running jobs."""
        for gate, limit in self.gates.limited(passing):
            self.running[gate] += count
            self._limits[gate] = limit

    def start(self, passing: Passing) -> None:
        """Count one more that starts now."""
        self.add(passing)
        if passing.db in self.rates:
            self.starts[passing.db] += 1

    def free(self, passing: Passing) -> bool:
        """Whether one more may start as far as limits and rates go."""
        if self._is_short(passing.db):
            return False
        return all(self.running[gate] < limit for gate, limit in self.gates.limited(passing))

    def full(self) -> list[Gate]:
        """Return the gates behind which nothing may start now for a limit or a rate that is reached."""
        full = [gate for gate, count in self.running.items() if count >= self._limits[gate]]
        return [*full, *(Gate(GateKind.DATABASE, db) for db in self.rates if self._is_short(db))]

    def _is_short(self, db: str) -> bool:
        rate = self.rates.get(db)
        return rate is not None and self.starts[db] >= rate.allowed

    def holds(self, job: Job) -> list[Hold]:
        """Return what holds ``job`` back now: pauses, full limits and rates."""
        found = []
        limits = dict(self.gates.limited(job))
        for gate in gates_of(job):
            kind, name = gate.kind.value, job.group_id if gate.kind is GateKind.GROUP else gate.name
            state = self.gates.state(gate)
            if state.paused:
                why = f": {state.reason}" if state.reason else ""
                found.append(Hold(kind, name, f"{_paused(gate)} is paused{why}"))
            elif gate in limits and self.running[gate] >= limits[gate]:
                text = f"{_full(gate, name)}: {self.running[gate]} of {limits[gate]} running"
                found.append(Hold(kind, name, text))
        if self._is_short(job.db):
            found.append(Hold("rate", job.db, f"{job.db}: {self.rates[job.db].text()}"))
        return found


def _paused(gate: Gate) -> str:
    return "all" if gate.kind is GateKind.TOTAL else f"{gate.kind.value} {gate.name}"


def _full(gate: Gate, name: str) -> str:
    if gate.kind is GateKind.TENANT:
        return f"tenant {name}"
    return "all jobs" if gate.kind is GateKind.TOTAL else name


#: Asks for the version of the gates as they are now, for ``GateBook.at``.
VERSION = select(dispatch.c.gates_version)


class GateBook:
    """Reads and writes the gates; keeps the newest snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshot = Gates(version=-1)

    @property
    def newest(self) -> Gates:
        """The newest ones that this process knows; there may be newer ones."""
        return self._snapshot

    def at(self, connection: Connection, version: int) -> Gates:
        """Return the gates of ``version``, which the caller has just read from ``dispatch``.

        They may be newer where the caller does not hold the dispatch lock.
        """
        snapshot = self._snapshot
        if snapshot.version != version:
            rows = connection.execute(select(table)).all()
            states = {
                Gate(GateKind(row.kind), row.name): GateState(
                    row.running_limit, row.paused, row.reason, row.pending_limit
                )
                for row in rows
            }
            others = connection.execute(_OTHERS).all()
            rated = frozenset(name for is_rate, name in others if is_rate)
            # Threads may overwrite each other with an older snapshot: its version then says so.
            self._snapshot = snapshot = Gates(version, states, rated, any(not is_rate for is_rate, _ in others))
        return snapshot

    def current(self, connection: Connection) -> Gates:
        """Return the gates as they are now."""
        return self.at(connection, connection.execute(VERSION).scalar_one())

    def set_limits(self, limits: Mapping[Gate, int]) -> None:
        """Set how many jobs may run behind each gate, 0 for any number; changes nothing that is so already.

        The gates that are not named keep theirs.
        """

        def work(connection: Connection) -> None:
            gates = self._locked(connection)
            wanted = {gate: replace(gates.state(gate), limit=limit) for gate, limit in limits.items()}
            self._save(connection, gates, wanted)

        self._database.write(work)

    def announce(self, limits: Mapping[Gate, Limits], paces: Mapping[str, float]) -> None:
        """Set the limits and rates of a config; changes nothing that is so already.

        Of the kinds in ``CONFIGURED`` the gates that it does not name lose theirs.

        Parameters:
            paces: starts per second by database, 0 for any number; others keep theirs.
        """

        def work(connection: Connection) -> None:
            gates = self._locked(connection)
            gone = {gate: Limits() for gate in gates.states if gate.kind in CONFIGURED}
            wanted = {
                gate: replace(gates.state(gate), limit=limit.running, pending=limit.pending)
                for gate, limit in {**gone, **limits}.items()
            }
            changed = set_rates(self._database.engine, connection, paces)
            self._save(connection, gates, wanted, anyway=changed)

        self._database.write(work)

    def pause(self, gate: Gate, reason: str) -> None:
        """Let nothing start behind ``gate``. What runs goes on."""

        def work(connection: Connection) -> None:
            gates = self._locked(connection)
            self._save(connection, gates, {gate: replace(gates.state(gate), paused=True, reason=reason)})

        self._database.write(work)

    def resume(self, gate: Gate) -> None:
        """Let jobs start behind ``gate`` again."""

        def work(connection: Connection) -> None:
            gates = self._locked(connection)
            self._save(connection, gates, {gate: replace(gates.state(gate), paused=False, reason="")})

        self._database.write(work)

    def _locked(self, connection: Connection) -> Gates:
        """Lock the dispatch row, so that no claim is under way, then return the gates."""
        version = connection.execute(select(dispatch.c.gates_version).with_for_update()).scalar_one()
        return self.at(connection, version)

    def _save(
        self, connection: Connection, gates: Gates, wanted: Mapping[Gate, GateState], *, anyway: bool = False
    ) -> None:
        """Write the states that are others than they were.

        Parameters:
            anyway: something else has changed.
        """
        changed = {gate: state for gate, state in wanted.items() if state != gates.state(gate)}
        for gate, state in changed.items():
            key = {"kind": gate.kind.value, "name": gate.name}
            values = {
                "running_limit": state.limit,
                "paused": state.paused,
                "reason": state.reason,
                "pending_limit": state.pending,
            }
            if state == _OPEN:
                connection.execute(delete(table).filter_by(**key))
            else:
                connection.execute(self._database.engine.upsert(table, key, values))
        if changed or anyway:
            bump_version(connection)


def bump_version(connection: Connection) -> None:
    """Tell every process that the gates are others."""
    connection.execute(update(dispatch).values(gates_version=dispatch.c.gates_version + 1))


#: What else there is to know: databases with a rate, and whether there are tenants.
_OTHERS = union_all(
    select(literal(True), rates.c.db), select(literal(False), tenants.c.tenant).where(tenants.c.tenant == "")
)
