"""Lanes: finding the one of a job, and telling it that work came. What is in them is read in ``surveying``.

``head`` is a lower bound of the smallest ``ord`` in a lane. Whoever makes a job ready lowers it and bumps ``version``
in the transaction that makes it ready; a claim raises it only where ``version`` is the one that it saw, so it never
raises it past a job that it could not see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import (
    Connection,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    or_,
    select,
    update,
)

from jobber.store.database import Database, TryAgain
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.gates import Passing, bump_version
from jobber.store.schema import EMPTY, jobs, lanes, tenants

#: Lanes whose IDs are remembered, before all are forgotten: a process that lives for long may see very many tenants.
REMEMBERED = 10_000


class LaneKey(NamedTuple):
    """All that can hold the jobs of a lane back."""

    queue: str
    task: str
    db: str
    job_group: str = ""
    suspect: bool = False
    tenant: str = ""


def key_of(job: Passing, *, suspect: bool = False) -> LaneKey:
    """Return the key of the lane that a job belongs to."""
    return LaneKey(job.queue, job.task, job.db, job.job_group, suspect, job.tenant)


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


@lru_cache(maxsize=4)
def _stranded(engine: Engine) -> Update:
    """Return a statement that fails, as a column may not be NULL, where a run's lane is not there."""
    missing = ~exists().where(lanes.c.id == jobs.c.lane)
    return update(jobs).where(engine.among(jobs.c.run, "runs"), missing).values(lane=None)


_ANY_TENANTS = select(tenants.c.tenant).where(tenants.c.tenant == "")


class LaneBook:
    """Finds the lanes of jobs; remembers their IDs, which are never used twice."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[LaneKey, int] = {}

    def ids(self, connection: Connection, keys: Collection[LaneKey], group_limit: int = 0) -> Mapping[LaneKey, int]:
        """Return the ID of each lane; makes those that are not there.

        One that is remembered may have been deleted (``drop_idle``): ``wake`` then finds no row and starts over.

        Parameters:
            group_limit: of the one group that lanes among these are of.
        """
        known = self._ids  # which another thread may replace meanwhile, but never empties
        found = {key: known[key] for key in keys if key in known}
        missing = sorted(key for key in keys if key not in found)
        if missing:
            committed = self._find(connection, missing)
            # Lanes of groups are not remembered: they are asked for once, and never forgotten they would pile up.
            if len(self._ids) >= REMEMBERED:
                self._ids = {}
            self._ids.update({key: id_ for key, id_ in committed.items() if not key.job_group})
            found.update(committed)
        if missing := [key for key in missing if key not in found]:
            empty = {"head": EMPTY, "version": 0}
            rows = [{**key._asdict(), **empty, "group_limit": group_limit if key.job_group else 0} for key in missing]
            connection.execute(self._database.engine.insert_missing(lanes), rows)
            if any(key.tenant for key in missing):
                self._note_tenants(connection)
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
            for id_, *key in connection.execute(statement.where(or_(*wanted))):
                found[LaneKey(*key)] = id_
        return found

    def _note_tenants(self, connection: Connection) -> None:
        """Tell all claims, by a new version of the gates, that from now on there are tenants."""
        if not connection.execute(_ANY_TENANTS).first():
            connection.execute(self._database.engine.insert_missing(tenants), {"tenant": "", "served": 0})
            bump_version(connection)

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
            self._ids = {}
            raise TryAgain

    def waking(self, woken: Woken, runs: Collection[int]) -> list[Request]:
        """Return what ``wake`` would run; it ends in an IntegrityError where ``wake`` raises TryAgain: then ``forget``.

        Parameters:
            runs: new, of these lanes.
        """
        stranded = Request(_stranded(self._database.engine), {"runs": self._database.engine.many(runs)})
        return [*self.lowering(woken.heads), stranded]

    @staticmethod
    def lowering(heads: Mapping[int, int]) -> list[Request]:
        """Return what lowers the heads of some lanes, as ``wake`` does; of those that are there."""
        return [Request(_WAKE, {"lane": lane, "ready": ord_}) for lane, ord_ in sorted(heads.items())]

    def forget(self) -> None:
        """Forget the IDs of all lanes: one of them may have been deleted."""
        self._ids = {}

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

    def forget_tenants(self, connection: Connection) -> None:
        """Forget whose turn it was among tenants that have no jobs: if they come again, it is theirs.

        In a short transaction of its own: should one of them come now, a claim, which holds everybody up, waits for it.
        """
        # In two statements: MySQL would lock the lanes that a DELETE looks at.
        idle = select(tenants.c.tenant).where(
            tenants.c.tenant != "", ~exists().where(lanes.c.tenant == tenants.c.tenant)
        )
        if names := connection.execute(idle).scalars().all():
            among = self._database.engine.among(tenants.c.tenant, "names")
            connection.execute(delete(tenants).where(among), {"names": self._database.engine.many(names)})
