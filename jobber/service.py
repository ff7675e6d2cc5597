"""What jobber does for those who ask: submit, look, wait, cancel. The API and the command line call nothing else.

A request is checked against the loaded tasks, its blanks are filled from task and settings, and the job is stored; only
then is a wake-up sent, off the caller's path. What the store has accepted will run, whatever happens to the wake-up.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobber.columns import Row
from jobber.config import Settings
from jobber.errors import AttemptError, Draining, InvalidRequest, ResultsGone, ResultsNotReady, UnknownTask
from jobber.jobs import PRIORITY_NORMAL, Args, Job, JobState, Micros, NewJob
from jobber.queueing import Queueing
from jobber.results.base import ResultsBackend
from jobber.store import Hold, Store
from jobber.tasks import Task, TaskSet
from jobber.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What a client says of a job; None means absent, and the task's tag or the default applies.

    Values have the right types and ranges already; names are not looked up yet.
    """

    job_id: str | None = None
    queue: str | None = None
    eta: Micros | None = None
    retries: int | None = None
    ttl: int | None = None
    args: Args = field(default_factory=list)
    db: str | None = None
    results: str | None = None
    priority: int | None = None
    timeout: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Service:
    """The operations of one instance.

    Parameters:
        tasks: gives the tasks that are loaded at the moment of the call (a reload replaces them as a whole).
    """

    def __init__(
        self,
        *,
        settings: Settings,
        tasks: Callable[[], TaskSet],
        store: Store,
        queueing: Queueing,
        results: Mapping[str, ResultsBackend],
        watcher: Watcher,
    ) -> None:
        self.settings = settings
        self._tasks = tasks
        self._store = store
        self._queueing = queueing
        self._results = results
        self._watcher = watcher
        self._draining = False

    def drain(self) -> None:
        """Accept nothing new from now on."""
        self._draining = True

    def release(self) -> None:
        """Answer everybody who waits for a job, at once and from now on."""
        self._watcher.close()

    # -- tasks --------------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """Return the loaded tasks, by name."""
        return list(self._tasks().values())

    def task(self, name: str) -> Task:
        """Return a loaded task. Raises UnknownTask."""
        tasks = self._tasks()
        if name not in tasks:
            raise UnknownTask(f"no task named {name!r} is loaded; GET /tasks lists those that are", task=name)
        return tasks[name]

    def queue_of(self, task: Task) -> str:
        """Return the queue that jobs of ``task`` go to unless they name one."""
        return task.queue or self.settings.app.default_queue

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, task_name: str, request: JobRequest) -> Job:
        """Accept a job, durably, and wake its queue.

        Raises:
            UnknownTask, InvalidRequest: nothing is stored.
            JobIsLive: a job of that ID is pending or running.
            Draining, StateUnavailable: try another instance, or later.
        """
        if self._draining:
            raise Draining("this instance is stopping; send the job to another one or try again")
        new = self._complete(self.task(task_name), request)
        (job,) = self._store.submit([new])
        if job.eta is None or job.eta <= job.created_at:
            self._queueing.wake(job.queue)
        return job

    def _complete(self, task: Task, request: JobRequest) -> NewJob:
        job_id = request.job_id or str(uuid.uuid4())
        results = _pick("results", request.results, task.results, task)
        return NewJob(
            job_id=job_id,
            task=task.name,
            queue=request.queue or self.queue_of(task),
            db=_pick("db", request.db, task.databases, task),
            results=results,
            table=self._results[results].table_name(job_id),
            args=task.check_args(request.args),
            priority=_first(request.priority, task.priority, PRIORITY_NORMAL),
            retries=_first(request.retries, task.retries, 0),
            ttl=_first(request.ttl, task.ttl, self.settings.app.ttl),
            timeout=_first(request.timeout, task.timeout, 0),
            eta=request.eta,
            tags=request.tags,
        )

    def job(self, job_id: str) -> Job:
        """Return the newest run of a job. Raises UnknownJob."""
        return self._store.get(job_id)

    def wait(self, job_id: str, seconds: float) -> Job:
        """Return the job as soon as it is finished, at the latest after ``seconds``.

        Answers at once where too many callers wait already. Raises UnknownJob.
        """
        job = self._store.get(job_id)
        if job.live and self._watcher.wait(job_id, min(seconds, self.settings.app.max_wait)):
            job = self._store.get(job_id)
        return job

    def holds(self, job: Job) -> list[Hold]:
        """Return what keeps a pending job from running now; empty if nothing does."""
        return self._store.waiting_for(job) if job.state in (JobState.PENDING, JobState.RETRY) else []

    def pending(self, queue: str, *, limit: int = 1000) -> list[Job]:
        """Return the pending jobs of a queue, in the order in which they will run."""
        return self._store.pending(queue, limit=limit)

    def cancel(self, job_id: str, *, purge: bool = False) -> Job:
        """Cancel a pending or running job; with ``purge``, remove a finished one with its history and its table.

        A running job is asked to stop; it is CANCELLED once its query is gone.

        Raises:
            UnknownJob, and JobIsFinished unless ``purge`` is given.
        """
        job = self._store.get(job_id)
        if purge and not job.live:
            # The table first: what is forgotten in the state cannot be dropped any more.
            dropped = {run.run for run in self._store.finished(job_id) if self._drop(run)}
            for run in self._store.purge(job_id):
                if run.run not in dropped:  # it ended since
                    self._drop(run)
            return job
        job = self._store.cancel(job_id)
        if job.cancel_requested and job.live:
            self._queueing.cancel(job.run, job.attempt)
        return job

    def _drop(self, run: Job) -> bool:
        """Drop what a run published, which one that did not end well may have done unheard; True once that is done."""
        if run.attempt == 0 or run.results not in self._results:
            return True
        try:
            self._results[run.results].drop(run.table, run.run)
        except AttemptError:
            if run.state is JobState.SUCCESS:
                raise
            return False
        return True

    # -- results ------------------------------------------------------------------------------------------------------

    def rows(self, job_id: str, *, offset: int, limit: int) -> tuple[Job, Sequence[Row]]:
        """Return a page of a finished job's rows, in the order of its query.

        Raises:
            UnknownJob, ResultsNotReady, ResultsGone.
        """
        job = self._store.get(job_id)
        if job.state is not JobState.SUCCESS:
            raise ResultsNotReady(f"job {job_id} is {job.state}; it has no result to read", job)
        backend = self._results.get(job.results)
        if backend is None:
            raise ResultsGone(f"the results database {job.results!r} of job {job_id} is not in this instance's config")
        return job, backend.rows(job.table, job.run, job.columns, offset=offset, limit=limit)


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _pick(field_name: str, wanted: str | None, allowed: Sequence[str], task: Task) -> str:
    """Return the database that the request names, or one of the task's at random."""
    if wanted is None:
        return random.choice(allowed)  # noqa: S311  # spreads load; nothing secret
    if wanted not in allowed:
        does_not = "does not run on" if field_name == "db" else "does not write to"
        raise InvalidRequest(
            f"{field_name}: task {task.name} {does_not} {wanted!r}; it may use {', '.join(allowed)}", field=field_name
        )
    return wanted
