"""Changes of many jobs at once, some hundred in a transaction, so that nobody waits long for their locks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from jobber.jobs import Job
from jobber.store.database import Database
from jobber.store.ending import CANCELLING, EndBook
from jobber.store.lanes import LaneBook, Woken
from jobber.store.reading import live_jobs, select_live
from jobber.store.records import job_of
from jobber.store.schema import finished_jobs, jobs


@dataclass(frozen=True, slots=True)
class CancelledMany:
    """What a cancel of some runs did.

    Parameters:
        done: those that it ended or asked to stop; the others were finished already.
        asked: (run, attempt) of those that it asked.
        wake: queues whose workers should be woken.
    """

    done: frozenset[int]
    asked: tuple[tuple[int, int], ...]
    wake: frozenset[str]


class ChangeBook:
    """Changes many jobs."""

    def __init__(self, database: Database, *, lanes: LaneBook, ends: EndBook) -> None:
        self._database = database
        self._lanes = lanes
        self._ends = ends

    def cancel(self, runs: Collection[int]) -> CancelledMany:
        """Cancel live runs, a thousand at most, in one transaction: waiting ones at once, running ones are asked."""
        engine = self._database.engine
        # In one order, as all who lock several jobs: never in a circle. To find few of few, MySQL would walk through
        # all, and lock them.
        wanted = (
            select(*(jobs.c[name] for name in CANCELLING))
            .with_hint(jobs, "FORCE INDEX (PRIMARY)", "mysql")
            .where(engine.among(jobs.c.run, "runs"))
            .order_by(jobs.c.run)
            .with_for_update()
        )

        def work(connection: Connection) -> CancelledMany:
            woken = Woken()
            rows = connection.execute(wanted, {"runs": engine.many(runs)}).all()
            started = self._ends.cancel(connection, rows, woken)
            self._lanes.wake(connection, woken)
            asked = tuple((row.run, row.attempt) for row in started)
            return CancelledMany(frozenset(row.run for row in rows), asked, frozenset(woken.queues))

        return self._database.write(work) if runs else CancelledMany(frozenset(), (), frozenset())

    def newest_runs(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the newest run of each ID that has one."""
        engine = self._database.engine
        ids = {"ids": engine.many(job_ids)}
        live = select(jobs.c.job_id, jobs.c.run).where(engine.among(jobs.c.job_id, "ids"))
        past = select(finished_jobs.c.job_id, func.max(finished_jobs.c.run))
        past = past.where(engine.among(finished_jobs.c.job_id, "ids")).group_by(finished_jobs.c.job_id)

        def work(connection: Connection) -> dict[str, int]:
            # Live ones first: what moves meanwhile is found in both.
            found: dict[str, int] = {}
            for statement in (live, past):
                for job_id, run in connection.execute(statement, ids):
                    found[job_id] = max(run, found.get(job_id, 0))
            return found

        return self._database.read(work) if job_ids else {}

    def newest(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return "the job" of each ID that has one: the live run, else the newest finished one."""
        engine = self._database.engine
        ids = {"ids": engine.many(job_ids)}
        last = select(func.max(finished_jobs.c.run)).where(engine.among(finished_jobs.c.job_id, "ids"))
        last = last.group_by(finished_jobs.c.job_id)
        history = select(finished_jobs).where(engine.among(finished_jobs.c.run, "runs"))

        def work(connection: Connection) -> dict[str, Job]:
            # Live ones first: what moves meanwhile is found in both, and neither is wrong.
            live = live_jobs(connection, select_live().where(engine.among(jobs.c.job_id, "ids")), ids)
            runs = {"runs": engine.many(connection.execute(last, ids).scalars().all())}
            finished = [job_of(row) for row in connection.execute(history, runs).mappings()]
            found = {job.job_id: job for job in sorted([*finished, *live], key=lambda job: job.run)}
            # The row of the history tells more of the same run.
            return found | {job.job_id: job for job in finished if job.run == found[job.job_id].run}

        return self._database.read(work) if job_ids else {}
