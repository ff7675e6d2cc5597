"""What could run now: the open lanes of each queue, how full the limits are, and the first ready jobs of a lane."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.jobs import Job
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Answer, Request
from jobber.store.gates import Gate, GateKind, Gates, Usage
from jobber.store.rates import Rate, asking, rates_of
from jobber.store.schema import EMPTY, ORD_STEP, jobs, lanes, running, tenants
from jobber.store.turns import Place, Turns

#: Lanes that are read at a time to see which queues have anything to run.
CHUNK = 16
#: Open lanes of each queue that the first survey shows, the second, and the last.
FIRST, MORE, ALL = 8, 256, 2**31
#: Of how many of them a survey shows the first ready jobs, too, where that spares a round trip.
AHEAD = 2


class Ready(NamedTuple):
    """A job that may run, at its place in its lane."""

    ord: int
    run: int


class Lane(NamedTuple):
    """A lane as one claim sees it.

    Parameters:
        served: the turn in which a job of its tenant was last started.
        ready: its first ready jobs; None if they were not read.
    """

    id: int
    queue: str
    task: str
    db: str
    tenant: str
    job_group: str
    group_limit: int
    suspect: bool
    head: int = EMPTY
    version: int = 0
    served: int = 0
    ready: Sequence[Ready] | None = None


class Busy(NamedTuple):
    """A lane in which something runs.

    Parameters:
        running: attempts of its jobs that hold a slot, anywhere.
        mine: those of them on the worker that asks.
    """

    lane: Lane
    running: int
    mine: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a claim, or a question of what could run, looks at.

    Parameters:
        lanes: the first open ones of each queue: not paused, not full, served by whoever asks, not known to be empty.
        usage: how full the limits are.
        turns: whose turn it is among tenants.
        unseen: by queue, the place of the first open lane that is not listed.
        suspect: whether the worker that asks runs a suspect.
        full: gates behind which nothing can start.
    """

    lanes: Sequence[Lane]
    usage: Usage
    turns: Turns
    unseen: Mapping[str, Place]
    suspect: bool
    full: frozenset[Gate]


class Look:
    """A look at what could run. There may be thousands of lanes, of which the first few nearly always do.

    Parameters:
        worker: whose own running jobs are counted apart.
        served: open are only lanes of these, by the name of the column; None is all.
        behind: open are only lanes that pass one of these gates.
        count: ready jobs that are shown of a lane.
    """

    def __init__(
        self,
        database: Database,
        *,
        worker: int = 0,
        served: Mapping[str, Collection[str]] | None = None,
        behind: Collection[Gate] = (),
        count: int = 1,
    ) -> None:
        self._exchange, self._engine = database.exchange, database.engine
        self._worker = worker
        self._served = served or {}
        self._behind = _by_kind(behind)
        self._count = count

    def requests(self, gates: Gates, full: Collection[Gate] = ()) -> list[Request]:
        """Return what is asked at first: what runs, the rates, and the first lanes.

        Parameters:
            full: gates behind which nothing can start, it is thought: lanes behind them are left out.
        """
        rates = [Request(asking(self._engine))] if gates.rated else []
        return [Request(_RUNS, {"worker": self._worker}), *rates, self._lanes(gates, full, FIRST)]

    def surveys(
        self, connection: Connection, gates: Gates, answers: Sequence[Answer], thought: Collection[Gate] = ()
    ) -> Iterator[Survey]:
        """Yield surveys, each of one request and of more lanes, while the one before did not show enough.

        Lanes come in the order in which they are served, so that the thousand lanes of one tenant hide no other's.

        Parameters:
            answers: to ``requests`` with these gates, and with the gates that were ``thought`` to be full.
        """
        busy = _busy(answers[0])
        rates = rates_of(answers[1].rows) if gates.rated else {}
        full = frozenset(_usage(gates, rates, busy).full())
        lanes_seen: Answer | None = answers[-1] if full.issuperset(thought) else None
        for most in (FIRST, MORE, ALL):
            if lanes_seen is None:
                (lanes_seen,) = self._exchange(connection, self._lanes(gates, full, most))
            yield _survey(lanes_seen.rows, most, busy, _usage(gates, rates, busy), full)
            lanes_seen = None

    def _lanes(self, gates: Gates, full: Collection[Gate], most: int) -> Request:
        paused = {kind: set(names) for kind in GateKind if (names := gates.paused(kind))}
        shut = _by_kind(full, paused)
        statement = _open_lanes(self._engine, tuple(self._served), tuple(self._behind), tuple(shut), gates.tenants)
        many = self._engine.many
        values = {
            **{name: many(names) for name, names in self._served.items()},
            **{f"behind_{kind.value}": many(names) for kind, names in self._behind.items()},
            **{f"shut_{kind.value}": many(names) for kind, names in shut.items()},
            **({"count": self._count} if self._engine.arrays else {}),
        }
        return Request(statement, {**values, "most": most})


def _by_kind(
    gates: Collection[Gate], more: Mapping[GateKind, Collection[str]] | None = None
) -> dict[GateKind, Collection[str]]:
    found: dict[GateKind, set[str]] = {kind: set(names) for kind, names in (more or {}).items()}
    for gate in gates:
        found.setdefault(gate.kind, set()).add(gate.name)
    # In one order: the statement is one per combination of kinds.
    return {kind: found[kind] for kind in GateKind if kind in found}


def _survey(
    rows: Sequence[tuple[Any, ...]], most: int, busy: Sequence[Busy], usage: Usage, full: frozenset[Gate]
) -> Survey:
    turns = Turns()
    found: list[Lane] = []
    next_: list[Lane] = []
    for lane, number, _ in busy:
        turns.add(lane.tenant, number)
    for *facts, place, ready in rows:
        lane = Lane._make((*facts, None if ready is None else [Ready._make(pair) for pair in ready]))
        turns.served[lane.tenant] = lane.served
        (found if place <= most else next_).append(lane)
    unseen = {lane.queue: turns.place(lane.tenant, lane.head) for lane in next_}
    return Survey(found, usage, turns, unseen, any(lane.suspect and mine for lane, _, mine in busy), full)


def usage_requests(engine: Engine, gates: Gates, job: Job) -> list[Request]:
    """Return what asks how full the limits are on the way of a job, if it has any; ``usage_of`` reads the answers."""
    runs = [Request(_RUNS, {"worker": 0})] if any(gates.limited(job)) else []
    return [*runs, *([Request(asking(engine))] if job.db in gates.rated else [])]


def usage_of(gates: Gates, job: Job, answers: Sequence[Answer]) -> Usage:
    """Return how full the limits are on the way of a job.

    Parameters:
        answers: to ``usage_requests`` with these gates.
    """
    rates = rates_of(answers[-1].rows) if job.db in gates.rated else {}
    return _usage(gates, rates, _busy(answers[0]) if any(gates.limited(job)) else [])


def _busy(answer: Answer) -> list[Busy]:
    return [Busy(Lane(*facts), count, mine) for *facts, count, mine in answer.rows]


def _usage(gates: Gates, rates: Mapping[str, Rate], busy: Sequence[Busy]) -> Usage:
    usage = Usage(gates, rates)
    for lane, count, _ in busy:
        usage.add(lane, count)
    return usage


_FACTS = (
    *(lanes.c.id, lanes.c.queue, lanes.c.task, lanes.c.db, lanes.c.tenant),
    *(lanes.c.job_group, lanes.c.group_limit, lanes.c.suspect),
)
_RUNS = (
    select(*_FACTS, func.count(), func.count(case((running.c.worker == bindparam("worker"), 1))))
    .select_from(running.join(lanes, lanes.c.id == running.c.lane))
    .group_by(lanes.c.id)  # all other facts depend on it
)


@lru_cache(maxsize=64)
def _open_lanes(
    engine: Engine, served: tuple[str, ...], behind: tuple[GateKind, ...], shut: tuple[GateKind, ...], in_turn: bool
) -> Select[Any]:
    """Return the statement of a survey; building it costs more than running it."""
    is_open = [lanes.c.head < EMPTY]
    if behind:
        is_open.append(or_(*(engine.among(_NAMES[kind], f"behind_{kind.value}") for kind in behind)))
    # Databases try these in turn: what is shut are few names, and may leave out most lanes; tasks may be hundreds.
    is_open += [~engine.among(_NAMES[kind], f"shut_{kind.value}") for kind in shut]
    is_open += [engine.among(lanes.c[name], name) for name in served]
    order: tuple[ColumnElement[Any], ...] = (lanes.c.head,)
    since: ColumnElement[int] = literal_column("0", BigInteger)
    those: FromClause = lanes
    if in_turn:
        # As ``Turns.place`` says.
        busy = (
            select(lanes.c.tenant, func.count().label("running"))
            .select_from(running.join(lanes, lanes.c.id == running.c.lane))
            .group_by(lanes.c.tenant)
            .subquery()
        )
        since = func.coalesce(tenants.c.served, 0)
        order = (lanes.c.head - lanes.c.head % ORD_STEP, func.coalesce(busy.c.running, 0), since, lanes.c.head)
        those = lanes.outerjoin(busy, busy.c.tenant == lanes.c.tenant).outerjoin(
            tenants, tenants.c.tenant == lanes.c.tenant
        )
    place = func.row_number(type_=BigInteger).over(partition_by=lanes.c.queue, order_by=order).label("place")
    ranked = (
        select(*_FACTS, lanes.c.head, lanes.c.version, since.label("served"), place)
        .select_from(those)
        # InnoDB reads all lanes in a third of the time that it takes to see that no index would help.
        .with_hint(lanes, "USE INDEX ()", "mysql")
        .where(*is_open)
        .subquery()
    )
    ready: ColumnElement[Any] = null()
    if engine.arrays:
        first = _first_of(ranked.c.id, ranked.c.head).correlate(ranked).subquery()
        pairs = select(func.array_agg(postgresql.array([first.c.ord, first.c.run]))).scalar_subquery()
        ready = case((ranked.c.place <= AHEAD, func.coalesce(pairs, _NONE)))
    # One more than is shown: its place says up to where what is shown is all.
    return select(ranked, ready).where(ranked.c.place <= bindparam("most", type_=BigInteger) + 1)


#: What a lane's gate of each kind is known by.
_NAMES: dict[GateKind, ColumnElement[str]] = {
    GateKind.QUEUE: lanes.c.queue,
    GateKind.TASK: lanes.c.task,
    GateKind.DATABASE: lanes.c.db,
    GateKind.GROUP: lanes.c.job_group,
    GateKind.TENANT: lanes.c.tenant,
    GateKind.TOTAL: literal_column("''", String),
}


def open_queues(
    database: Database, connection: Connection, gates: Gates, behind: Collection[Gate] = ()
) -> frozenset[str]:
    """Return the queues with a job that could run now, if any worker serves it.

    Parameters:
        behind: only jobs that pass one of these gates.
    """
    is_open: set[str] = set()
    look = Look(database, behind=behind)
    answers = database.exchange(connection, *look.requests(gates))
    for found in look.surveys(connection, gates, answers):
        candidates = [lane for lane in found.lanes if found.usage.free(lane)]
        is_open.update(lane.queue for lane in candidates if lane.ready)
        candidates = [lane for lane in candidates if lane.ready is None]
        # A head is a lower bound: a lane whose last job was cancelled looks full until somebody looks.
        while candidates := [lane for lane in candidates if lane.queue not in is_open]:
            some, candidates = candidates[:CHUNK], candidates[CHUNK:]
            ready = read(database, connection, some, 1)
            is_open.update(lane.queue for lane in some if ready[lane.id])
        if is_open.issuperset(found.unseen):
            break
    return frozenset(is_open)


def _first_of(lane: ColumnElement[int], head: ColumnElement[int]) -> Select[Any]:
    """Return the statement that reads the first ``:count`` ready jobs of a lane."""
    return (
        select(jobs.c.ord, jobs.c.run)
        .where(jobs.c.lane == lane, jobs.c.ord >= head)
        .order_by(jobs.c.ord)
        .limit(bindparam("count", type_=BigInteger))
    )


_NONE: ColumnElement[Any] = literal_column("'{}'::bigint[]", ARRAY(BigInteger))
_LANES, _HEADS = bindparam("lanes", type_=ARRAY(BigInteger)), bindparam("heads", type_=ARRAY(BigInteger))
_WANTED = func.unnest(_LANES, _HEADS).table_valued("lane", "head", name="wanted").render_derived()
_FIRST = _first_of(_WANTED.c.lane, _WANTED.c.head).lateral("first")
_READ_MANY = select(_WANTED.c.lane, _FIRST.c.ord, _FIRST.c.run).select_from(_WANTED.join(_FIRST, true()))
_READ_ONE = _first_of(bindparam("lane", type_=BigInteger), bindparam("head", type_=BigInteger))


def read(database: Database, connection: Connection, wanted: Sequence[Lane], count: int) -> dict[int, list[Ready]]:
    """Return the first ``count`` ready jobs of each lane, in order."""
    found: dict[int, list[Ready]] = {lane.id: [] for lane in wanted}
    if database.engine.arrays:
        values = {"lanes": [lane.id for lane in wanted], "heads": [lane.head for lane in wanted], "count": count}
        (answer,) = database.exchange(connection, Request(_READ_MANY, values))
        for lane_id, ord_, run in answer.rows:
            found[lane_id].append(Ready(ord_, run))
        # The rows of several lanes come in any order.
        for ready in found.values():
            ready.sort()
    else:
        each = [Request(_READ_ONE, {"lane": lane.id, "head": lane.head, "count": count}) for lane in wanted]
        for lane, answer in zip(wanted, database.exchange(connection, *each), strict=True):
            found[lane.id] = [Ready(*row) for row in answer.rows]
    return found
