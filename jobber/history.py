"""What is told of a run's past: its events, and where its result comes from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobber.errors import StateUnavailable, UnknownJob
from jobber.jobs import Job
from jobber.store import Store
from jobber.store.events import Event, Level
from jobber.tasks import TaskSet

log = logging.getLogger(__name__)

#: Seconds between two looks whether other tasks are loaded, and between two notes of the same ones.
_TICK, _REMINDER = 1.0, 3600.0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the result of a run comes from.

    Parameters:
        job: the run.
        source: the run that read it: another one where it was reused, None if that is forgotten.
        sql: of the version of its task; None if it is not kept.
    """

    job: Job
    source: Job | None
    sql: str | None


class History:
    """The past of jobs: of the newest run of an ID, unless another one is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, job_id: str, run: int | None = None) -> Job:
        """Return a run of a job, the newest unless it is given. Raises UnknownJob."""
        if run is None:
            return self._store.get(job_id)
        job = self._store.run(run)
        if job.job_id != job_id:
            raise UnknownJob(f"run {run} is not one of job {job_id}")
        return job

    def runs(self, job_id: str) -> Sequence[int]:
        """Return the runs of a job that are not forgotten, newest first; of very many the newest."""
        return self._store.events.runs(job_id)

    def events(self, job: Job, least: Level = Level.DEBUG) -> list[Event]:
        """Return the events of a run, oldest first.

        Parameters:
            least: those that matter less are left out.
        """
        return [event for event in self._store.events.of(job) if event.level >= least]

    def provenance(self, job: Job) -> Provenance:
        """Return where the result of a run comes from."""
        source: Job | None = job
        if job.reused is not None:
            try:
                source = self._store.run(job.reused.run)
            except UnknownJob:
                source = None
        return Provenance(job, source, self._store.versions.sql(job.version) if job.version else None)


class Archivist:
    """Keeps the SQL of the tasks that are loaded. Every worker process runs one.

    Parameters:
        tasks: gives the tasks that are loaded at the moment.
        history: seconds that finished runs are remembered.
    """

    def __init__(self, *, store: Store, tasks: Callable[[], TaskSet], history: int) -> None:
        self._store = store
        self._tasks = tasks
        self._history = history
        self._over = threading.Event()

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Note what is loaded, when that changes and now and then, until stopped; in a thread of its own."""
        noted: TaskSet | None = None
        due = 0.0
        while not self._over.is_set():
            tasks = self._tasks()
            if tasks is not noted or time.monotonic() >= due:
                try:
                    self._store.versions.note(
                        {task.version: task.sql for task in tasks.values()}, history=self._history
                    )
                    noted, due = tasks, time.monotonic() + _REMINDER
                except StateUnavailable as error:
                    log.warning("the SQL of tasks is noted later: %s", error)
                except Exception:
                    log.exception("noting the SQL of tasks stumbled; it goes on")
            self._over.wait(_TICK)
