"""Pausing and resuming single jobs: nothing happens to one that is paused, until it is resumed or cancelled."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from jobber.errors import JobIsFinished, JobIsStarted
from jobber.jobs import Job, JobState
from jobber.store.database import Database
from jobber.store.events import EventBook
from jobber.store.lanes import LaneBook, Woken
from jobber.store.reading import Reader, live_jobs, select_live
from jobber.store.readying import make_ready
from jobber.store.records import storable
from jobber.store.schema import jobs
from jobber.store.transitions import Changed

#: Of a job that is paused, ``ready_at`` remembers the time.
_HELD = {"ord": None, "due": None}


class Pauses:
    """Pauses and resumes jobs."""

    def __init__(self, database: Database, *, lanes: LaneBook, reader: Reader, events: EventBook) -> None:
        self._database = database
        self._lanes = lanes
        self._reader = reader
        self._events = events

    def pause(self, job_id: str, reason: str) -> Job:
        """Hold a waiting job back until it is resumed; of one that is paused already, change the reason.

        Raises:
            JobIsStarted: it runs; cancel it instead.
            JobIsFinished: it is finished already.
            UnknownJob: there is none of that ID.
        """
        reason = storable(reason)
        return self._change(job_id, reason).job

    def resume(self, job_id: str) -> Changed:
        """Let a job that is paused go on, and leave one alone that is not: it may run by now.

        Raises:
            JobIsFinished, UnknownJob: as ``pause``.
        """
        return self._change(job_id, None)

    def _change(self, job_id: str, reason: str | None) -> Changed:
        wanted = select(jobs.c.run, jobs.c.state, jobs.c.paused).where(jobs.c.job_id == job_id).with_for_update()

        def work(connection: Connection) -> tuple[int | None, Woken]:
            woken = Woken()
            found = connection.execute(wanted).one_or_none()
            if found is None:
                return None, woken
            if found.state == JobState.STARTED.value and reason is not None:
                (job,) = live_jobs(connection, select_live().where(jobs.c.run == found.run))
                raise JobIsStarted(f"job {job_id} runs already: it can be cancelled, but not paused", job)
            if found.paused != reason:
                self._set(connection, found.run, reason, woken)
            return found.run, woken

        run, woken = self._database.write(work)
        if run is not None:
            return Changed(self._reader.run(run), frozenset(woken.queues))
        job = self._reader.get(job_id)
        if job.live:  # submitted again since
            return self._change(job_id, reason)
        raise JobIsFinished(f"job {job_id} is finished already ({job.state.value})", job)

    def _set(self, connection: Connection, run: int, reason: str | None, woken: Woken) -> None:
        change = update(jobs).where(jobs.c.run == run)
        if reason is None:
            connection.execute(change.values(paused=None))
            make_ready(self._database, connection, [run], woken)
        else:
            connection.execute(change.values(paused=reason, **_HELD))
        self._events.note(connection, [run], "resumed" if reason is None else "paused", reason or "")
        self._lanes.wake(connection, woken)
