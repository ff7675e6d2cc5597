"""Making waiting runs ready: the one place that says what has to be over before one is.

A run is ready when it is not paused, all its parents are finished, its group is if it is a callback, and its start time
has come. Whoever takes one of these away holds the run's row, and asks here.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import BigInteger, Connection, Row, and_, bindparam, exists, func, select, update

from jobber.store.database import Database
from jobber.store.lanes import Woken
from jobber.store.parts import parts
from jobber.store.schema import ORD_STEP, dependencies, groups, jobs, order

_WAITS_FOR_PARENT = exists().where(dependencies.c.child == jobs.c.run)
# A group is found by its ID, which is indexed while it is live.
_WAITS_FOR_GROUP = and_(
    jobs.c.group_id != "",
    jobs.c.group_run.is_(None),
    exists().where(groups.c.live_id == jobs.c.group_id, groups.c.callback_run == jobs.c.run),
)


def make_ready(database: Database, connection: Connection, runs: Collection[int], woken: Woken) -> None:
    """Make those of some runs ready, now or at their start time, that nothing else holds back.

    Parameters:
        runs: live and waiting; this transaction holds their rows, and what held them back is gone from the tables.
        woken: takes note of those that may run now.
    """
    engine = database.engine
    among = engine.among(jobs.c.run, "runs")
    free = select(
        jobs.c.run,
        jobs.c.priority,
        jobs.c.lane,
        jobs.c.queue,
        (func.coalesce(jobs.c.ready_at, 0) > engine.now).label("later"),
    ).where(among, jobs.c.ord.is_(None), jobs.c.paused.is_(None), ~_WAITS_FOR_GROUP)
    waiting = select(dependencies.c.child).where(engine.among(dependencies.c.child, "runs"))
    begin = update(jobs).where(among)
    now = begin.values(ord=(10 - jobs.c.priority) * bindparam("step", ORD_STEP, BigInteger) + jobs.c.run, due=None)
    for some in parts(sorted(runs)):
        which = {"runs": engine.many(some)}
        if len(some) == 1:
            found = connection.execute(free.where(~_WAITS_FOR_PARENT), which).all()
        else:
            # Asked apart: PostgreSQL, which takes the dependencies for few when they have just come, would go through
            # all of them for each run.
            held = {*connection.execute(waiting, which).scalars()}
            found = [row for row in connection.execute(free, which) if row.run not in held]
        ready = [row.run for row in found if not row.later]
        later = [row.run for row in found if row.later]
        if ready:
            connection.execute(now, {"runs": engine.many(ready)})
        if later:
            connection.execute(begin.values(due=jobs.c.ready_at), {"runs": engine.many(later)})
        for row in found:
            _note(row, woken)


def _note(row: Row[tuple[int, int, int, str, bool]], woken: Woken) -> None:
    if not row.later:
        woken.ready(row.lane, row.queue, order(row.priority, row.run))
