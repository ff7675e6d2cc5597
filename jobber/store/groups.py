"""Groups of jobs as a whole: look, cancel, purge. "The group" of an ID is its newest run.

How one comes in is told in ``submission``, how it ends in ``grouping``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from jobber.errors import GroupIsFinished, GroupIsLive, JobIsLive, UnknownGroup
from jobber.jobs import LIVE, Group, Job, JobState
from jobber.store.database import Database
from jobber.store.ending import CANCELLING, EndBook
from jobber.store.grouping import COUNTERS
from jobber.store.history import forget
from jobber.store.lanes import LaneBook, Woken
from jobber.store.reading import known, live_jobs, newest, select_live
from jobber.store.records import job_of
from jobber.store.schema import finished_jobs, groups, jobs


@dataclass(frozen=True, slots=True)
class CancelledGroup:
    """What cancelling a group did.

    Parameters:
        asked: its running jobs, which were asked to stop.
        wake: queues whose workers should be woken.
    """

    group: Group
    asked: tuple[Job, ...]
    wake: frozenset[str]


class Groups:
    """Reads, cancels and forgets groups."""

    def __init__(self, database: Database, *, lanes: LaneBook, ends: EndBook) -> None:
        self._database = database
        self._lanes = lanes
        self._ends = ends

    def get(self, group_id: str, *, jobs: bool = True) -> Group:
        """Return the group of an ID, on request without its jobs. Raises UnknownGroup."""
        return self._group(_newest(group_id), f"there is no group {group_id}", jobs=jobs)

    @staticmethod
    def look(connection: Connection, run: int) -> Group:
        """Return a run of a group with its jobs, as a transaction that made it sees them."""
        group = _look(connection, _with_counts().where(groups.c.run == run), jobs=True)
        assert group is not None  # noqa: S101
        return group

    def live(self, group_ids: Collection[str]) -> set[str]:
        """Return which of these IDs have a group that is not finished; one query for all."""
        return known(self._database, groups.c.live_id, group_ids)

    def _group(self, statement: Select[Any], missing: str, *, jobs: bool = True) -> Group:
        group = self._database.read(lambda connection: _look(connection, statement, jobs=jobs))
        if group is None:
            raise UnknownGroup(missing)
        return group

    def finished(self, group_id: str) -> list[Job]:
        """Return the jobs and callbacks of all runs of a group that has finished.

        Raises:
            GroupIsLive: one of its jobs is not finished.
            JobIsLive: its callback is not.
            UnknownGroup: there is none of that ID.
        """
        _, ended = self._database.read(lambda connection: self._finished(connection, group_id))
        return ended

    def purge(self, group_id: str) -> list[Job]:
        """Forget all runs of a group that has finished, with their jobs and callbacks, and return these.

        Raises:
            GroupIsLive, JobIsLive, UnknownGroup: as ``finished``.
        """

        def work(connection: Connection) -> list[Job]:
            engine = self._database.engine
            runs, ended = self._finished(connection, group_id, lock=True)
            # By their runs: another one may have come and gone since they were looked up.
            connection.execute(delete(groups).where(engine.among(groups.c.run, "runs")), {"runs": engine.many(runs)})
            forget(self._database, connection, [job.run for job in ended])
            return ended

        return self._database.write(work)

    def _finished(
        self, connection: Connection, group_id: str, *, lock: bool = False
    ) -> tuple[Collection[int], list[Job]]:
        """Return the runs of a group, and their jobs and callbacks, if all of them are finished."""
        wanted = select(groups.c.run, groups.c.live_id, groups.c.callback_run).where(groups.c.group_id == group_id)
        rows = connection.execute(wanted.with_for_update() if lock else wanted).all()
        if not rows:
            raise UnknownGroup(f"there is no group {group_id}")
        if any(row.live_id is not None for row in rows):
            group = _look(connection, _newest(group_id), jobs=False)
            raise GroupIsLive(f"group {group_id} is not finished; cancel it first", group)
        runs = [row.run for row in rows]
        ended = _runs(connection, runs)
        for callback in (_run(connection, row.callback_run) for row in rows if row.callback_run is not None):
            if callback is not None and callback.live:
                raise JobIsLive(
                    f"the callback {callback.job_id} of group {group_id} is {callback.state.value}", callback
                )
            ended += [callback] if callback else []
        return runs, ended

    def cancel(self, group_id: str) -> CancelledGroup:
        """Cancel all jobs of a group that are not finished; its callback then runs.

        Raises:
            GroupIsFinished: all are finished already.
            UnknownGroup: there is none of that ID.
        """

        def work(connection: Connection) -> tuple[int | None, list[int], Woken]:
            woken = Woken()
            found = connection.execute(select(groups.c.run).where(groups.c.live_id == group_id)).scalar_one_or_none()
            if found is None:
                return None, [], woken
            # All jobs first, then the group: in the order in which whoever ends a job takes them.
            members = select(*(jobs.c[name] for name in CANCELLING)).where(jobs.c.group_run == found)
            rows = connection.execute(members.order_by(jobs.c.run).with_for_update()).all()
            started = self._ends.cancel(connection, rows, woken)
            self._lanes.wake(connection, woken)
            return found, [row.run for row in started], woken

        run, started, woken = self._database.write(work)
        if run is None:
            group = self.get(group_id, jobs=False)
            if group.live:  # submitted again since
                return self.cancel(group_id)
            raise GroupIsFinished(f"group {group_id} is finished already ({group.state.value})", group)
        group = self._group(_with_counts().where(groups.c.run == run), f"group {group_id} was purged meanwhile")
        asked = {*started}
        return CancelledGroup(group, tuple(job for job in group.jobs if job.run in asked), frozenset(woken.queues))


def _with_counts() -> Select[Any]:
    """Return a SELECT of groups with their live jobs by state: one statement, so that the counts add up."""
    live = (
        select(func.count()).where(jobs.c.group_run == groups.c.run, jobs.c.state == state.value).scalar_subquery()
        for state in sorted(LIVE)
    )
    return select(groups, *(count.label(state.value) for count, state in zip(live, sorted(LIVE), strict=True)))


def _newest(group_id: str) -> Select[Any]:
    return _with_counts().where(groups.c.group_id == group_id).order_by(groups.c.run.desc()).limit(1)


def _runs(connection: Connection, group_runs: Collection[int]) -> list[Job]:
    """Return the jobs of some runs of groups, in the order of their submission."""
    found = {job.run: job for job in live_jobs(connection, select_live().where(jobs.c.group_run.in_(group_runs)))}
    # One that has finished between the two statements is in both.
    history = select(finished_jobs).where(finished_jobs.c.group_run.in_(group_runs))
    found |= {row["run"]: job_of(row) for row in connection.execute(history).mappings()}
    return [found[run] for run in sorted(found)]


def _run(connection: Connection, run: int) -> Job | None:
    """Return one run; None where it is forgotten."""
    return newest(connection, jobs.c.run == run, finished_jobs.c.run == run)


def _look(connection: Connection, statement: Select[Any], *, jobs: bool) -> Group | None:
    """Return the group that a ``_with_counts`` finds."""
    # Before the jobs are read: where the counts say that all have finished, no job looks as if it had not.
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return Group(
        run=row.run,
        group_id=row.group_id,
        size=row.size,
        concurrency=row.concurrency,
        counts={state: row._mapping[COUNTERS.get(state, state.value)] for state in JobState},
        jobs=tuple(_runs(connection, [row.run]) if jobs else ()),
        callback=None if row.callback_run is None else _run(connection, row.callback_run),
        callback_url=row.callback_url or "",
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
