"""What could run now: the open lanes of each queue, how full the limits are, and the first ready jobs of a lane."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
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
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.gates import Gate, GateKind, Gates, Usage
from jobber.store.rates import Rate, read_rates
from jobber.store.schema import EMPTY, ORD_STEP, jobs, lanes, running, tenants
from jobber.store.turns import Place, Turns

#: Lanes that one statement reads where each is a SELECT of its own.
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
    """

    lanes: Sequence[Lane]
    usage: Usage
    turns: Turns
    unseen: Mapping[str, Place]
    suspect: bool


def surveys(
    database: Database,
    connection: Connection,
    gates: Gates,
    *,
    worker: int = 0,
    served: Mapping[str, Collection[str]] | None = None,
    behind: Collection[Gate] = (),
    count: int = 1,
) -> Iterator[Survey]:
    """Yield surveys, of one statement each once it is known what runs, while the one before did not show enough.

    There may be thousands of lanes, of which the first few nearly always do: those behind a full limit are left out.
    They come in the order in which they are served, so that the thousand lanes of one tenant hide no other's.

    Parameters:
        worker: whose own running jobs are counted apart.
        served: open are only lanes of these, by the name of the column; None is all.
        behind: open are only lanes that pass one of these gates.
        count: ready jobs that are shown of a lane.
    """
    engine, served = database.engine, served or {}
    busy = _look_at_what_runs(connection, worker)
    rates = read_rates(engine, connection) if gates.rated else {}
    shut = {kind: set(names) for kind in GateKind if (names := gates.paused(kind))}
    for gate in _usage(gates, rates, busy).full():
        shut.setdefault(gate.kind, set()).add(gate.name)
    passed: dict[GateKind, list[str]] = {}
    for gate in behind:
        passed.setdefault(gate.kind, []).append(gate.name)
    statement = _open_lanes(engine, tuple(served), tuple(passed), tuple(shut), gates.tenants)
    parameters = {
        **{name: engine.many(names) for name, names in served.items()},
        **{f"behind_{kind.value}": engine.many(names) for kind, names in passed.items()},
        **{f"shut_{kind.value}": engine.many(names) for kind, names in shut.items()},
        **({"count": count} if engine.arrays else {}),
    }
    for most in (FIRST, MORE, ALL):
        usage, turns = _usage(gates, rates, busy), Turns()
        found: list[Lane] = []
        next_: list[Lane] = []
        for lane, number, _ in busy:
            turns.add(lane.tenant, number)
        rows: Sequence[Any] = connection.execute(statement, parameters | {"most": most}).all()
        for *facts, place, ready in rows:
            lane = Lane._make((*facts, None if ready is None else [Ready._make(pair) for pair in ready]))
            turns.served[lane.tenant] = lane.served
            (found if place <= most else next_).append(lane)
        unseen = {lane.queue: turns.place(lane.tenant, lane.head) for lane in next_}
        yield Survey(found, usage, turns, unseen, any(lane.suspect and mine for lane, _, mine in busy))


def usage_now(database: Database, connection: Connection, gates: Gates) -> Usage:
    """Return how full the limits are."""
    rates = read_rates(database.engine, connection) if gates.rated else {}
    return _usage(gates, rates, _look_at_what_runs(connection, worker=0))


def _look_at_what_runs(connection: Connection, worker: int) -> list[Busy]:
    return [Busy(Lane(*facts), count, mine) for *facts, count, mine in connection.execute(_RUNS, {"worker": worker})]


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
    is_open = [
        lanes.c.head < EMPTY,
        *(engine.among(lanes.c[name], name) for name in served),
        *(~engine.among(_NAMES[kind], f"shut_{kind.value}") for kind in shut),
    ]
    if behind:
        is_open.append(or_(*(engine.among(_NAMES[kind], f"behind_{kind.value}") for kind in behind)))
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
    place = func.row_number().over(partition_by=lanes.c.queue, order_by=order).label("place")
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
    for found in surveys(database, connection, gates, behind=behind):
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


@lru_cache(maxsize=64)
def _read_some(count: int) -> CompoundSelect[Any]:
    """Return ``_READ_ONE`` for ``count`` lanes in one statement, for engines without LATERAL."""
    each = (
        select(literal_column(str(n), BigInteger), jobs.c.ord, jobs.c.run)
        .where(jobs.c.lane == bindparam(f"lane{n}"), jobs.c.ord >= bindparam(f"head{n}"))
        .order_by(jobs.c.ord)
        .limit(bindparam("count", type_=BigInteger))
        for n in range(count)
    )
    return union_all(*each)


def read(database: Database, connection: Connection, wanted: Sequence[Lane], count: int) -> dict[int, list[Ready]]:
    """Return the first ``count`` ready jobs of each lane, in order."""
    found: dict[int, list[Ready]] = {lane.id: [] for lane in wanted}
    if database.engine.arrays:
        parameters = {"lanes": [lane.id for lane in wanted], "heads": [lane.head for lane in wanted], "count": count}
        for lane_id, ord_, run in connection.execute(_READ_MANY, parameters):
            found[lane_id].append(Ready(ord_, run))
    elif database.engine.row_locks and len(wanted) > 1:  # on a server: round trips cost
        for start in range(0, len(wanted), CHUNK):
            some = wanted[start : start + CHUNK]
            values: dict[str, int] = {"count": count}
            for n, lane in enumerate(some):
                values |= {f"lane{n}": lane.id, f"head{n}": lane.head}
            for n, ord_, run in connection.execute(_read_some(len(some)), values):
                found[some[n].id].append(Ready(ord_, run))
    else:
        for lane in wanted:
            rows = connection.execute(_READ_ONE, {"lane": lane.id, "head": lane.head, "count": count}).all()
            found[lane.id] = [Ready(*row) for row in rows]
    # The rows of several lanes come in any order.
    for ready in found.values():
        ready.sort()
    return found
