"""What time brings: leaders' terms, delayed jobs that become due, history that grows old."""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, bindparam, delete, exists, or_, select, update

from jobber.store.database import Database
from jobber.store.history import forget
from jobber.store.lanes import LaneBook, Woken
from jobber.store.schema import ORD_STEP, finished_jobs, groups, jobs, leaders, order, running, workers


class Upkeep:
    """Any instance may call these; one at a time should (``lead``)."""

    def __init__(self, database: Database, lanes: LaneBook) -> None:
        self._database = database
        self._lanes = lanes

    def lead(self, role: str, holder: str, *, lease: float) -> bool:
        """Take or renew a role for ``lease`` seconds; False while another holder's term lasts.

        The database's clock decides. A holder that has not renewed in time must stop by itself.
        """
        now = self._database.engine.now
        free = [leaders.c.holder == holder, leaders.c.lease_until <= now]
        if lease > 0:
            # A term that ends so late began before the clock was set back.
            free.append(leaders.c.lease_until > now + int(2 * lease * 1_000_000))
        take = (
            update(leaders)
            .where(leaders.c.role == role, or_(*free))
            .values(holder=holder, lease_until=now + int(lease * 1_000_000))
        )
        vacant = self._database.engine.insert_missing(leaders).values(role=role, holder="", lease_until=0)

        def work(connection: Connection) -> bool:
            if connection.execute(take).rowcount:
                return True
            if connection.execute(select(leaders.c.role).where(leaders.c.role == role)).first():
                return False
            connection.execute(vacant)
            return connection.execute(take).rowcount == 1

        return self._database.write(work)

    def release_due(self, limit: int) -> frozenset[str]:
        """Make delayed jobs and retries ready whose time has come, at most ``limit``; return their queues."""
        engine = self._database.engine
        due = (
            select(jobs.c.run, jobs.c.priority, jobs.c.lane, jobs.c.queue)
            # By the index: to sort rows, InnoDB would lock them all, and others would skip those beyond the limit.
            .with_hint(jobs, "FORCE INDEX (ix_jobber_jobs_due)", "mysql")
            .where(jobs.c.due <= engine.now)
            .order_by(jobs.c.due)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ready = (
            update(jobs)
            .where(engine.among(jobs.c.run, "runs"))
            .values(ord=(10 - jobs.c.priority) * bindparam("step", ORD_STEP, BigInteger) + jobs.c.run, due=None)
        )

        def work(connection: Connection) -> frozenset[str]:
            found = connection.execute(due).all()
            if not found:
                return frozenset()
            connection.execute(ready, {"runs": engine.many([row.run for row in found])})
            woken = Woken()
            for row in found:
                woken.ready(row.lane, row.queue, order(row.priority, row.run))
            self._lanes.wake(connection, woken)
            return frozenset(woken.queues)

        return self._database.write(work)

    def prune(self, older_than: int, limit: int) -> int:
        """Forget finished jobs older than ``older_than`` seconds, at most ``limit``; return how many.

        Also drops groups whose jobs are forgotten, lanes without jobs and dead workers without attempts.
        """
        engine = self._database.engine
        then = engine.now - older_than * 1_000_000
        live = exists().where(groups.c.run == finished_jobs.c.group_run, groups.c.finished_at.is_(None))
        old = (
            select(finished_jobs.c.run)
            # What has become of a group's jobs is not forgotten before its callback was told.
            .where(finished_jobs.c.finished_at <= then, ~live)
            .order_by(finished_jobs.c.finished_at)
            .limit(limit)
        )
        listed = exists().where(finished_jobs.c.group_run == groups.c.run)
        empty = select(groups.c.run).where(groups.c.finished_at <= then, ~listed).limit(limit)
        disband = delete(groups).where(engine.among(groups.c.run, "runs"))
        holds = exists().where(running.c.worker == workers.c.id)
        gone = select(workers.c.id).where(or_(workers.c.dead, workers.c.lease_until <= engine.now - DAY), ~holds)
        dismiss = delete(workers).where(engine.among(workers.c.id, "ids"))

        def work(connection: Connection) -> int:
            # MySQL: a DELETE would lock the rows of other tables that its condition looks at.
            if ids := connection.execute(gone).scalars().all():
                connection.execute(dismiss, {"ids": engine.many(ids)})
            return forget(self._database, connection, connection.execute(old).scalars().all())

        def disband_empty(connection: Connection) -> None:
            if runs := connection.execute(empty).scalars().all():
                connection.execute(disband, {"runs": engine.many(runs)})

        # Each in a transaction of its own: submissions and claims may wait for these rows.
        self._database.write(self._lanes.forget_tenants)
        self._database.write(self._lanes.drop_idle)
        count = self._database.write(work)
        # In a transaction of its own: a purge takes a group first, then its jobs.
        self._database.write(disband_empty)
        return count


#: A worker whose lease ran out this long ago (microseconds) does not come back.
DAY = 86_400 * 1_000_000
