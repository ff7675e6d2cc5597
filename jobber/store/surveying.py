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
    and_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.gates import Gate, GateKind, Gates, Usage
from jobber.store.rates import Rate, read_rates
from jobber.store.schema import EMPTY, ORD_STEP, jobs, lanes, running, tenants
from jobber.store.turns import Place, Turns

#: Lanes that one statement reads where each is a SELECT of its own.
CHUNK = 16
#: Open lanes of each queue that a survey shows at first.
FIRST = 64
ALL = 2**31


class Ready(NamedTuple):
    """A job that may run, at its place in its lane."""

    ord: int
    run: int


@dataclass(slots=True)
class Lane:
    """A lane as one claim sees it.

    Parameters:
        running: attempts of its jobs that hold a slot, anywhere.
        mine: those of them on the worker that asks.
        served: the turn in which a job of its tenant was last started.
    """

    id: int
    queue: str
    task: str
    db: str
    tenant: str
    job_group: str
    group_limit: int
    suspect: bool
    head: int
    version: int
    running: int
    mine: int
    served: int
    open: bool  # not paused, served by whoever asks, and not known to be empty


@dataclass(frozen=True, slots=True)
class Survey:
    """What a claim, or a question of what could run, looks at.

    Parameters:
        lanes: those in which something runs, and the first open ones of each queue.
        usage: how full the limits are.
        turns: whose turn it is among tenants.
        unseen: by queue, the place of the first open lane that is not listed.
    """

    lanes: Sequence[Lane]
    usage: Usage
    turns: Turns
    unseen: Mapping[str, Place]


def surveys(
    database: Database,
    connection: Connection,
    gates: Gates,
    *,
    worker: int = 0,
    served: Mapping[str, Collection[str]] | None = None,
    behind: Collection[Gate] = (),
) -> Iterator[Survey]:
    """Yield surveys of one statement each, for as long as the one before did not show enough.

    There may be thousands of lanes, of which the first few nearly always do. Where limits hold those back, the next
    survey leaves out what is behind full ones; the last one shows all. They come in the order in which they are served,
    so that the thousand lanes of one tenant hide no other's.

    Parameters:
        worker: whose own running jobs are counted apart.
        served: open are only lanes of these, by the name of the column; None is all.
        behind: open are only lanes that pass one of these gates.
    """
    shut = {kind: set(names) for kind in GateKind if (names := gates.paused(kind))}
    rates = read_rates(database.engine, connection) if gates.rated else {}
    _shut(shut, Usage(gates, rates).full())
    for most in (FIRST, FIRST, ALL):
        found = survey(
            database,
            connection,
            gates,
            most=most,
            worker=worker,
            served=served or {},
            behind=behind,
            shut=shut,
            rates=rates,
        )
        full = found.usage.full()  # before the caller counts in what it would start
        yield found
        _shut(shut, full)


def _shut(shut: dict[GateKind, set[str]], gates: Collection[Gate]) -> None:
    for gate in gates:
        shut.setdefault(gate.kind, set()).add(gate.name)


def survey(
    database: Database,
    connection: Connection,
    gates: Gates,
    *,
    most: int,
    worker: int = 0,
    served: Mapping[str, Collection[str]] | None = None,
    behind: Collection[Gate] = (),
    shut: Mapping[GateKind, Collection[str]] | None = None,
    rates: Mapping[str, Rate] | None = None,
) -> Survey:
    """Return one survey, with up to ``most`` open lanes of each queue, in the order in which they are served.

    Parameters:
        shut: names of gates behind which nothing is open.
        rates: by database; None reads them.
        worker, served, behind: as in ``surveys``.
    """
    engine, served, shut = database.engine, served or {}, shut or {}
    passed = {kind: [gate.name for gate in behind if gate.kind is kind] for kind in GateKind}
    passed = {kind: names for kind, names in passed.items() if names}
    statement = _survey(engine, tuple(served), tuple(passed), tuple(shut), gates.tenants)
    parameters = {
        "worker": worker,
        "most": most,
        **{name: engine.many(names) for name, names in served.items()},
        **{f"behind_{kind.value}": engine.many(names) for kind, names in passed.items()},
        **{f"shut_{kind.value}": engine.many(names) for kind, names in shut.items()},
    }
    if rates is None:
        rates = read_rates(engine, connection) if gates.rated else {}
    usage, turns, found, next_ = Usage(gates, rates), Turns(), [], []
    for *facts, place in connection.execute(statement, parameters):
        lane = Lane(*(*facts, place is not None and place <= most))
        if lane.running:
            usage.add(lane, lane.running)
            turns.add(lane.tenant, lane.running)
        turns.served[lane.tenant] = lane.served
        if lane.running or lane.open:
            found.append(lane)
        if place is not None and not lane.open:
            next_.append(lane)
    return Survey(found, usage, turns, {lane.queue: turns.place(lane.tenant, lane.head) for lane in next_})


@lru_cache(maxsize=64)
def _survey(
    engine: Engine, served: tuple[str, ...], behind: tuple[GateKind, ...], shut: tuple[GateKind, ...], in_turn: bool
) -> Select[Any]:
    """Return the statement of ``survey``; building it costs more than running it."""
    counts = (
        select(
            running.c.lane,
            func.count().label("running"),
            func.count(case((running.c.worker == bindparam("worker"), 1))).label("mine"),
        )
        .group_by(running.c.lane)
        .subquery()
    )
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
    ranked = select(lanes.c.id, place).select_from(those).where(*is_open).subquery()
    # One more than is shown: its head says up to where what is shown is all.
    first = and_(ranked.c.id == lanes.c.id, ranked.c.place <= bindparam("most", type_=BigInteger) + 1)
    shown = lanes.outerjoin(ranked, first).outerjoin(counts, counts.c.lane == lanes.c.id)
    if in_turn:
        shown = shown.outerjoin(tenants, tenants.c.tenant == lanes.c.tenant)
    return (
        select(
            *(lanes.c.id, lanes.c.queue, lanes.c.task, lanes.c.db, lanes.c.tenant),
            *(lanes.c.job_group, lanes.c.group_limit, lanes.c.suspect, lanes.c.head, lanes.c.version),
            func.coalesce(counts.c.running, 0),
            func.coalesce(counts.c.mine, 0),
            since,
            ranked.c.place,
        )
        .select_from(shown)
        .where(or_(ranked.c.id.is_not(None), counts.c.running.is_not(None)))
        .order_by(ranked.c.place)
    )


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
        candidates = [lane for lane in found.lanes if lane.open and found.usage.free(lane)]
        # A head is a lower bound: a lane whose last job was cancelled looks full until somebody looks.
        while candidates := [lane for lane in candidates if lane.queue not in is_open]:
            some, candidates = candidates[:CHUNK], candidates[CHUNK:]
            ready = read(database, connection, some, 1)
            is_open.update(lane.queue for lane in some if ready[lane.id])
        if is_open.issuperset(found.unseen):
            break
    return frozenset(is_open)


_LANES, _HEADS = bindparam("lanes", type_=ARRAY(BigInteger)), bindparam("heads", type_=ARRAY(BigInteger))
_WANTED = func.unnest(_LANES, _HEADS).table_valued("lane", "head", name="wanted").render_derived()
_FIRST = (
    select(jobs.c.run, jobs.c.ord)
    .where(jobs.c.lane == _WANTED.c.lane, jobs.c.ord >= _WANTED.c.head)
    .order_by(jobs.c.ord)
    .limit(bindparam("count", type_=BigInteger))
    .lateral("first")
)
_READ_MANY = select(_WANTED.c.lane, _FIRST.c.ord, _FIRST.c.run).select_from(_WANTED.join(_FIRST, true()))
_READ_ONE = (
    select(jobs.c.ord, jobs.c.run)
    .where(jobs.c.lane == bindparam("lane"), jobs.c.ord >= bindparam("head"))
    .order_by(jobs.c.ord)
    .limit(bindparam("count", type_=BigInteger))
)


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
