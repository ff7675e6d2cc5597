"""What time brings: leaders' terms, delayed jobs that become due, history that grows old."""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, bindparam, delete, exists, or_, select, update

from jobber.store.engine import Database
from jobber.store.lanes import LaneBook
from jobber.store.schema import ORD_STEP, finished_jobs, jobs, leaders, order, running, workers


class Upkeep:
    """Any instance may call these; one at a time should (``lead``)."""

    def __init__(self, database: Database, lanes: LaneBook) -> None:
        self._database = database
        self._lanes = lanes

    def lead(self, role: str, holder: str, *, lease: float) -> bool:
        """Take or renew a role for ``lease`` seconds; False while another holder's term lasts.

        The database's clock decides. A holder that has not renewed in time must stop by itself.
        """
        now = self._database.now
        until = now + int(lease * 1_000_000)
        mine = {"holder": holder, "lease_until": until}
        take = (
            self._database.insert(leaders)
            .values(role=role, **mine)
            .on_conflict_do_update(
                index_elements=["role"],
                set_=mine,
                where=or_(leaders.c.holder == holder, leaders.c.lease_until <= now),
            )
            .returning(leaders.c.role)
        )
        return self._database.write(lambda connection: connection.execute(take).first()) is not None

    def release_due(self, limit: int) -> frozenset[str]:
        """Make delayed jobs and retries ready whose time has come, at most ``limit``; return their queues."""
        due = (
            select(jobs.c.run, jobs.c.priority, jobs.c.lane, jobs.c.queue)
            .where(jobs.c.due <= self._database.now)
            .order_by(jobs.c.due)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ready = (
            update(jobs)
            .where(jobs.c.run == bindparam("due_run"))
            .values(ord=(10 - jobs.c.priority) * bindparam("step", ORD_STEP, BigInteger) + jobs.c.run, due=None)
        )

        def work(connection: Connection) -> frozenset[str]:
            found = connection.execute(due).all()
            if not found:
                return frozenset()
            connection.execute(ready, [{"due_run": row.run} for row in found])
            heads: dict[int, int] = {}
            for row in found:
                ord_ = order(row.priority, row.run)
                heads[row.lane] = min(ord_, heads.get(row.lane, ord_))
            self._lanes.wake(connection, heads)
            return frozenset(row.queue for row in found)

        return self._database.write(work)

    def prune(self, older_than: int, limit: int) -> int:
        """Forget finished jobs older than ``older_than`` seconds, at most ``limit``; return how many.

        Also drops lanes without jobs and dead workers without attempts.
        """
        old = (
            select(finished_jobs.c.run)
            .where(finished_jobs.c.finished_at <= self._database.now - older_than * 1_000_000)
            .order_by(finished_jobs.c.finished_at)
            .limit(limit)
        )
        gone = or_(workers.c.dead, workers.c.lease_until <= self._database.now - DAY)
        holds = exists().where(running.c.worker == workers.c.id)

        def work(connection: Connection) -> int:
            self._lanes.drop_idle(connection)
            connection.execute(delete(workers).where(gone, ~holds))
            return connection.execute(delete(finished_jobs).where(finished_jobs.c.run.in_(old))).rowcount

        return self._database.write(work)


#: A worker whose lease ran out this long ago (microseconds) does not come back.
DAY = 86_400 * 1_000_000
