"""Lanes: finding the one of a job, telling it that work came, reading it from its head on, and what is open.

``head`` is a lower bound of the smallest ``ord`` in a lane. Whoever makes a job ready lowers it and bumps ``version``
in the transaction that makes it ready; a claim raises it only where ``version`` is the one that it saw, so it never
raises it past a job that it could not see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.store.database import Database, TryAgain
from jobber.store.engines import Engine
from jobber.store.gates import Gate, GateKind, Gates, Passing, Usage, touching
from jobber.store.schema import EMPTY, jobs, lanes, running

#: Lanes that one statement reads where each is a SELECT of its own.
CHUNK = 16


class LaneKey(NamedTuple):
    """All that can hold the jobs of a lane back."""

    queue: str
    task: str
    db: str
    job_group: str = ""
    suspect: bool = False


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
    """

    id: int
    queue: str
    task: str
    db: str
    job_group: str
    group_limit: int
    suspect: bool
    head: int
    version: int
    running: int
    mine: int
    open: bool  # not paused, served by whoever asks, and not known to be empty


def key_of(job: Passing, *, suspect: bool = False) -> LaneKey:
    """Return the key of the lane that a job belongs to."""
    return LaneKey(job.queue, job.task, job.db, job.job_group, suspect)


class Woken:
    """What a transaction makes ready: the lanes to tell of it in the end, and the queues to wake after the commit."""

    def __init__(self) -> None:
        self.heads: dict[int, int] = {}  # smallest ``ord`` by lane
        self.queues: set[str] = set()

    def ready(self, lane: int, queue: str, ord_: int) -> None:
        """Note a job that may run now."""
        self.heads[lane] = min(ord_, self.heads.get(lane, ord_))
        self.queues.add(queue)

    def later(self, lane: int) -> None:
        """Note a new job that may not run yet, so that its lane is not dropped as idle: the head stays where it is."""
        self.heads.setdefault(lane, EMPTY)


_WAKE = (
    update(lanes)
    .where(lanes.c.id == bindparam("lane"))
    .values(
        head=case((lanes.c.head > bindparam("ready"), bindparam("ready")), else_=lanes.c.head),
        version=lanes.c.version + 1,
    )
)


class LaneBook:
    """Finds the lanes of jobs; remembers their IDs, which are never used twice."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[LaneKey, int] = {}

    def ids(self, connection: Connection, keys: Collection[LaneKey], group_limit: int = 0) -> Mapping[LaneKey, int]:
        """Return the ID of each lane; makes those that are not there.

        One that is remembered may have been deleted (``drop_idle``): ``wake`` then finds no row and starts over.

        Parameters:
            group_limit: of the one group that these lanes are of.
        """
        found = {key: self._ids[key] for key in keys if key in self._ids}
        missing = sorted(key for key in keys if key not in found)
        if missing:
            committed = self._find(connection, missing)
            # Lanes of groups are not remembered: they are asked for once, and never forgotten they would pile up.
            self._ids.update({key: id_ for key, id_ in committed.items() if not key.job_group})
            found.update(committed)
        if missing := [key for key in missing if key not in found]:
            plain = {"tenant": "", "group_limit": group_limit, "head": EMPTY, "version": 0}
            rows = [{**key._asdict(), **plain} for key in missing]
            connection.execute(self._database.engine.insert_missing(lanes), rows)
            # Not remembered yet: a rollback would take them back, and SQLite then gives their IDs to others.
            found.update(self._find(connection, missing))
        return found

    @staticmethod
    def _find(connection: Connection, keys: Sequence[LaneKey]) -> dict[LaneKey, int]:
        found = {}
        # In chunks: SQLite bounds the depth of an expression.
        for start in range(0, len(keys), 100):
            wanted = (
                and_(*(lanes.c[name] == value for name, value in key._asdict().items()))
                for key in keys[start : start + 100]
            )
            statement = select(lanes.c.id, *(lanes.c[name] for name in LaneKey._fields))
            for id_, *key in connection.execute(statement.where(or_(*wanted), lanes.c.tenant == "")):
                found[LaneKey(*key)] = id_
        return found

    def wake(self, connection: Connection, woken: Woken) -> None:
        """Lower the head of each lane to the smallest ``ord`` that became ready in it; bump its version.

        Always in the order of their IDs, so that no two transactions wait for each other, and last of all in a
        transaction, so that the lock is short.

        Raises:
            TryAgain: a lane was deleted meanwhile.
        """
        if not woken.heads:
            return
        rows = [{"lane": lane, "ready": ord_} for lane, ord_ in sorted(woken.heads.items())]
        if connection.execute(_WAKE, rows if len(rows) > 1 else rows[0]).rowcount != len(rows):
            self._ids.clear()
            raise TryAgain

    def drop_idle(self, connection: Connection) -> int:
        """Delete the lanes that no live job belongs to; return how many."""
        engine = self._database.engine
        unused = ~exists().where(jobs.c.lane == lanes.c.id)
        seen = {row.id: row.version for row in connection.execute(select(lanes.c.id, lanes.c.version).where(unused))}
        if not seen:
            return 0
        # A submission that is under way has bumped the version, or will find no row to bump and start over. One that
        # has committed meanwhile is seen by the second look.
        some = {"ids": engine.many(seen)}
        among = engine.among(lanes.c.id, "ids")
        lock = select(lanes.c.id, lanes.c.version).where(among).order_by(lanes.c.id).with_for_update()
        same = {id_ for id_, version in connection.execute(lock, some) if seen[id_] == version}
        used = connection.execute(
            select(jobs.c.lane).where(engine.among(jobs.c.lane, "ids")).distinct(), some
        ).scalars()
        idle = same.difference(used)
        connection.execute(delete(lanes).where(among), {"ids": engine.many(idle)})
        return len(idle)


def survey(
    database: Database,
    connection: Connection,
    gates: Gates,
    *,
    worker: int = 0,
    queues: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    databases: Collection[str] | None = None,
) -> list[Lane]:
    """Return in one statement the lanes that are not empty, paused or unserved, and all in which something runs."""
    served = {"queue": queues, "task": tasks, "db": databases}
    shut = {kind: names for kind in GateKind if (names := gates.paused(kind))}
    engine = database.engine
    statement = _survey(engine, tuple(name for name in served if served[name] is not None), tuple(shut))
    parameters = {
        "worker": worker,
        **{name: engine.many(names) for name, names in served.items() if names is not None},
        **{f"shut_{kind.value}": engine.many(names) for kind, names in shut.items()},
    }
    return [Lane(*row) for row in connection.execute(statement, parameters).all()]


@lru_cache(maxsize=64)
def _survey(engine: Engine, served: tuple[str, ...], shut: tuple[GateKind, ...]) -> Select[Any]:
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
    is_open = and_(
        lanes.c.head < EMPTY,
        *(engine.among(lanes.c[name], name) for name in served),
        *(~engine.among(lanes.c[_COLUMNS[kind]], f"shut_{kind.value}") for kind in shut),
    )
    return (
        select(
            *(lanes.c.id, lanes.c.queue, lanes.c.task, lanes.c.db, lanes.c.job_group, lanes.c.group_limit),
            *(lanes.c.suspect, lanes.c.head, lanes.c.version),
            func.coalesce(counts.c.running, 0),
            func.coalesce(counts.c.mine, 0),
            is_open,
        )
        .select_from(lanes.outerjoin(counts, counts.c.lane == lanes.c.id))
        .where(or_(is_open, counts.c.running.is_not(None)))
    )


_COLUMNS = {GateKind.QUEUE: "queue", GateKind.TASK: "task", GateKind.DATABASE: "db", GateKind.GROUP: "job_group"}


def usage_of(gates: Gates, found: Iterable[Lane]) -> Usage:
    """Return how full the limits are, from the lanes of a survey."""
    usage = Usage(gates)
    for lane in found:
        if lane.running:
            usage.add(lane, lane.running)
    return usage


def open_queues(
    database: Database, connection: Connection, gates: Gates, behind: Collection[Gate] | None = None
) -> frozenset[str]:
    """Return the queues with a job that could run now, if any worker serves it.

    Parameters:
        behind: only jobs that pass one of these gates.
    """
    found = survey(database, connection, gates)
    usage = usage_of(gates, found)
    candidates = [lane for lane in found if lane.open and usage.free(lane) and (not behind or touching(behind, lane))]
    if not candidates:
        return frozenset()
    # A head is a lower bound: a lane whose last job was cancelled looks full until somebody looks.
    ready = read(database, connection, candidates, 1)
    return frozenset(lane.queue for lane in candidates if ready[lane.id])


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
