"""What jobber does for those who ask: submit, look, wait, cancel. The API and the command line call nothing else.

A request is checked against the loaded tasks, its blanks are filled from task and settings, and the job is stored; only
then is a wake-up sent, off the caller's path. What the store has accepted will run, whatever happens to the wake-up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter

from jobber.bulk import Bulk
from jobber.changing import Changes
from jobber.columns import Row
from jobber.completion import Completer, GroupRequest, JobRequest, again
from jobber.config import Settings
from jobber.errors import AttemptError, Draining, JobIsLive, ResultsGone, ResultsNotReady, StateUnavailable
from jobber.figures import Figures
from jobber.history import History
from jobber.jobs import Attempt, Group, Job, JobState
from jobber.queueing import Queueing
from jobber.readiness import Readiness, Report
from jobber.results.base import ResultsBackend
from jobber.scheduling import Schedules
from jobber.store import Hold, Receipt, Store
from jobber.tasks import Task, TaskSet
from jobber.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a result.

    Parameters:
        job: the run whose result it is.
        newest: whether that is the newest run of the job.
    """

    job: Job
    rows: Sequence[Row]
    newest: bool


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
        completer: Completer,
        queueing: Queueing,
        results: Mapping[str, ResultsBackend],
        readiness: Readiness,
        jobs_watcher: Watcher,
        groups_watcher: Watcher,
    ) -> None:
        self.settings = settings
        self._tasks = tasks
        self._store = store
        self._queueing = queueing
        self._results = results
        self._readiness = readiness
        self._jobs_watcher = jobs_watcher
        self._groups_watcher = groups_watcher
        self._completer = completer
        self._draining = False
        #: Answers to requests that may come again.
        self.receipts = store.receipts
        #: What operators ask and do.
        self.figures = Figures(settings=settings, tasks=tasks, store=store, queueing=queueing)
        #: What is done to many jobs at once.
        self.bulk = Bulk(store=store, completer=self._completer, accept=self._accept, wake_for=self._wake_for)
        self.changes = Changes(store=store, bulk=self.bulk, queueing=queueing, accept=self._accept, wake=self._wake)
        #: Pages of jobs, and figures of those that finished.
        self.lists = store.lists
        self.statistics = store.statistics
        #: The past of jobs.
        self.history = History(store)
        #: The operations on schedules.
        self.schedules = Schedules(
            store=store,
            completer=self._completer,
            tasks=tasks,
            accept=self._accept,
            wake=lambda job: self._wake_for([job]),
        )

    def drain(self) -> None:
        """Accept nothing new from now on."""
        self._draining = True

    def readiness(self) -> Report:
        """Return whether this instance can accept jobs now, and which of its dependencies do not answer."""
        return Report(self._draining, self._readiness.look())

    def release(self) -> None:
        """Answer everybody who waits for a job or a group, at once and from now on."""
        self._jobs_watcher.close()
        self._groups_watcher.close()

    # -- tasks --------------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """Return the loaded tasks, by name."""
        return list(self._tasks().values())

    def task(self, name: str) -> Task:
        """Return a loaded task. Raises UnknownTask."""
        return self._completer.task(name)

    def queue_of(self, task: Task) -> str:
        """Return the queue that jobs of ``task`` go to unless they name one."""
        return self._completer.queue_of(task)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest, *, receipt: Receipt | None = None) -> Job:
        """Accept a job, durably, and wake its queue.

        Parameters:
            receipt: renders the job; see ``store.receipts``.

        Raises:
            UnknownTask, InvalidRequest: nothing is stored.
            JobIsLive: a job of that ID is pending or running.
            BacklogFull: too many jobs of its queue or its tenant wait.
            Answered, IdempotencyConflict: the receipt's key has come before.
            Draining, StateUnavailable: try another instance, or later.
        """
        self._accept()
        (job,) = self._store.submit([self._completer.job(request)], receipt=receipt and receipt.of(itemgetter(0)))
        if job.state is JobState.PENDING and job.eta is None and not job.depends_on:
            self._queueing.wake(job.queue)
        else:
            self._wake_for([job])
        return job

    def _accept(self) -> None:
        if self._draining:
            raise Draining("this instance is stopping; send the job to another one or try again")

    def _wake_for(self, jobs: Iterable[Job], most: int = 0) -> None:
        """Wake the queues of new jobs that may run now, of which at most ``most`` will at a time (0: any number)."""
        pending = [job for job in jobs if job.state is JobState.PENDING]
        ready = [job for job in pending if job.eta is None or job.eta <= job.created_at]
        for queue, count in Counter(job.queue for job in ready if not job.depends_on).items():
            self._queueing.wake(queue, min(count, most or count))
        # Most of these wait for others; should all of those be finished, who finds one passes the wake-up on.
        self._wake({job.queue for job in ready if job.depends_on})

    def _wake(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._queueing.wake(queue)

    def job(self, job_id: str) -> Job:
        """Return the newest run of a job. Raises UnknownJob."""
        return self._store.get(job_id)

    def wait(self, job_id: str, seconds: float) -> Job:
        """Return the job as soon as it is finished, at the latest after ``seconds``.

        Answers at once where too many callers wait already. Raises UnknownJob.
        """
        until = time.monotonic() + min(seconds, self.settings.app.max_wait)
        # A job that lives is read once, when there is something to say of it.
        job = None if self._store.live([job_id]) else self._store.get(job_id)
        while job is None or job.live:
            over = not self._jobs_watcher.wait(job_id, until - time.monotonic())
            job = self._store.get(job_id)  # as it is now, also when the time is over: it may have begun, or got on
            if over:
                break
        return job

    def holds(self, job: Job) -> list[Hold]:
        """Return what keeps a pending job from running now; empty if nothing does."""
        if job.state not in (JobState.PENDING, JobState.RETRY):
            return []
        holds = self._store.waiting_for(job)
        if job.task not in self._tasks():
            holds.append(Hold("task", job.task, f"no task named {job.task} is loaded"))
        if job.db not in self.settings.databases:
            # It was taken out: workers that do not know it claim none of its jobs.
            holds.append(Hold("database", job.db, f"no database named {job.db} is in this instance's config"))
        return holds

    def attempts(self, job: Job) -> list[Attempt]:
        """Return the attempts of a job, oldest first; of very many the newest."""
        return self._store.attempts(job)

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
            self._purge(self._store.finished(job_id), lambda: self._store.purge(job_id))
            return job
        changed = self._store.cancel(job_id)
        self._wake(changed.wake)
        if changed.job.cancel_requested and changed.job.live:
            self._queueing.cancel(changed.job.run, changed.job.attempt)
        return changed.job

    def pause(self, job_id: str, reason: str) -> Job:
        """Hold a pending job back until it is resumed; pausing it again changes the reason.

        Raises:
            UnknownJob, JobIsStarted, JobIsFinished.
        """
        return self._store.pauses.pause(job_id, reason)

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on; one that is not paused stays as it is. Raises UnknownJob, JobIsFinished."""
        changed = self._store.pauses.resume(job_id)
        self._wake(changed.wake)
        return changed.job

    def retry(self, job_id: str, *, receipt: Receipt | None = None) -> Job:
        """Run a finished job again: a new run with the same task, args and options, outside its group.

        Raises:
            UnknownJob.
            JobIsLive: it is not finished.
            UnknownTask, InvalidRequest: its task is not loaded any more, or takes such a job no more.
            Draining, StateUnavailable: as ``submit``.
        """
        job = self._store.get(job_id)
        if job.live:
            raise JobIsLive(f"job {job_id} is {job.state.value}: it is not finished", job)
        return self.submit(again(job), receipt=receipt)

    def _purge(self, runs: Sequence[Job], forget: Callable[[], Sequence[Job]]) -> None:
        """Drop what finished runs published, then let the store forget them."""
        away: set[str] = set()
        # The table first: what is forgotten in the state cannot be dropped any more.
        dropped = {run.run for run in runs if self._drop(run, away)}
        for run in forget():
            if run.run not in dropped:  # it ended since
                self._drop(run, away)

    def _drop(self, run: Job, away: set[str]) -> bool:
        """Drop what a run published, which one that did not end well may have done unheard; True once that is done.

        Parameters:
            away: results databases that could not be reached; only one run waits for each to answer.
        """
        succeeded = run.state is JobState.SUCCESS
        if run.attempt == 0 or run.results not in self._results:
            return True
        if run.results in away and not succeeded:
            return False
        try:
            self._results[run.results].drop(run.table, run.run)
        except AttemptError:
            if succeeded:
                raise
            away.add(run.results)
            return False
        return True

    # -- groups -------------------------------------------------------------------------------------------------------

    def submit_group(self, request: GroupRequest, *, receipt: Receipt | None = None) -> Group:
        """Accept a group of jobs, durably and whole, and wake their queues.

        Raises:
            InvalidRequest: a job of it is wrong, or two have one ID; nothing is stored.
            JobIsLive, GroupIsLive: one of the IDs is in use; nothing is stored.
            BacklogFull, Answered and the rest: as ``submit``.
        """
        self._accept()
        group = self._store.submit_group(self._completer.group(request), receipt=receipt)
        self._wake_for(group.jobs, group.concurrency)
        if group.callback and not group.live:  # all of its jobs ended as they came, with jobs that they depend on
            self._wake_for([group.callback])
        return group

    def group(self, group_id: str, *, jobs: bool = True) -> Group:
        """Return the newest run of a group, with its jobs unless they are not wanted. Raises UnknownGroup."""
        return self._store.group(group_id, jobs=jobs)

    def wait_group(self, group_id: str, seconds: float, *, jobs: bool = True) -> Group:
        """Return the group as soon as all its jobs are finished, at the latest after ``seconds``.

        Answers at once where too many callers wait already. Raises UnknownGroup.
        """
        group = self._store.group(group_id, jobs=False)
        if group.live:
            self._groups_watcher.wait(group_id, min(seconds, self.settings.app.max_wait))
        return self._store.group(group_id, jobs=jobs) if group.live or jobs else group

    def cancel_group(self, group_id: str, *, purge: bool = False) -> Group:
        """Cancel the jobs of a group; with ``purge``, remove a finished one with its jobs, its callback, their tables.

        Running jobs are asked to stop. The callback runs then, as it does however the jobs ended.

        Raises:
            UnknownGroup, and GroupIsFinished unless ``purge`` is given.
            JobIsLive: the group cannot be removed before its callback is finished.
        """
        if purge:
            group = self._store.group(group_id)
            if not group.live:
                self._purge(self._store.finished_group(group_id), lambda: self._store.purge_group(group_id))
                return group
        cancelled = self._store.cancel_group(group_id)
        self._wake(cancelled.wake)
        for job in cancelled.asked:
            self._queueing.cancel(job.run, job.attempt)
        return cancelled.group

    # -- results ------------------------------------------------------------------------------------------------------

    def rows(self, job_id: str, *, offset: int, limit: int) -> Page:
        """Return a page of a job's rows, in the order of its query.

        The rows are those of its newest run that succeeded: a later one that runs, or did not succeed, takes nothing
        away.

        Raises:
            UnknownJob, ResultsNotReady, ResultsGone.
        """
        newest = self._store.get(job_id)
        while True:
            job = newest if newest.state is JobState.SUCCESS else self._store.last_success(job_id)
            if job is None:
                raise ResultsNotReady(f"job {job_id} is {newest.state}; it has no result to read", newest)
            try:
                return Page(job, self._rows(job, offset, limit), newest=job.run == newest.run)
            except ResultsGone:
                before, newest = newest, self._store.get(job_id)
                if (newest.run, newest.state) != (before.run, before.state):
                    continue  # a newer run has published and ended between the two looks
                if job.run == newest.run:
                    raise
                raise ResultsNotReady(f"job {job_id} is {newest.state}; it has no result to read", newest) from None

    def _rows(self, job: Job, offset: int, limit: int) -> Sequence[Row]:
        backend = self._results.get(job.results)
        if backend is None:
            raise ResultsGone(
                f"the results database {job.results!r} of job {job.job_id} is not in this instance's config"
            )
        run = job.reused.run if job.reused else job.run
        try:
            return backend.rows(job.table, run, job.columns, offset=offset, limit=limit)
        except ResultsGone:
            with suppress(StateUnavailable):
                self._store.result_is_gone(run)
            raise
