"""A worker process: claim, execute, finish, until nothing is left; heartbeat; drain.

Celery brings wake-ups and owns the threads. A wake-up makes one thread claim and run jobs until the store has none for
it; the first claim of a wake-up passes it on while there is more, so that one message fills every idle slot.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import psutil

from jobber import execution, joblog
from jobber.cancellation import Cancellation
from jobber.config import Settings
from jobber.errors import (
    AttemptError,
    Cancelled,
    Draining,
    Fenced,
    Interrupted,
    ResultsUnavailable,
    SourceOverloaded,
    SourceUnavailable,
    StateUnavailable,
    TimedOut,
)
from jobber.expecting import Attempt, Expectations
from jobber.held import Done, Held, Strangers
from jobber.joblog import JobLog
from jobber.jobs import Job, running
from jobber.queueing import Queueing
from jobber.relay import Relay, Seat, Served
from jobber.replicas import Replicas
from jobber.results.base import Published, ResultsBackend
from jobber.sources.base import Source
from jobber.store import Store, Success
from jobber.tasks import Task, TaskSet

log = logging.getLogger(__name__)

#: Seconds between two beats while jobs run: progress, and cancels that the broadcast lost, travel with them.
_BEAT = 1.0
#: Errors of the program itself, in a row, after which the end of an attempt is not tried again.
_SURPRISES = 5
#: Seconds that cancelled queries get to go away when the worker stops.
_LAST_GASP = 5.0
#: The delay before a retry is doubled so often at most.
_DOUBLINGS = 60


class Worker:
    """Runs jobs of some queues in this process.

    Parameters:
        name: shown in job answers.
        tasks: gives the tasks loaded at the moment; only these are claimed.
        queues: gives the queues that are served at the moment, in no order: they take turns.
        slots: jobs at a time.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        name: str,
        tasks: Callable[[], TaskSet],
        queues: Callable[[], Sequence[str]],
        slots: int,
        store: Store,
        queueing: Queueing,
        sources: Mapping[str, Source],
        results: Mapping[str, ResultsBackend],
    ) -> None:
        self.settings = settings
        self.name = name
        self._tasks = tasks
        self._queues = queues
        self.slots = slots
        self._store = store
        self._queueing = queueing
        self._sources = sources
        self._replicas = Replicas(sources.keys())
        self._results = results
        self._expectations = Expectations(store, sources)
        self._relay = Relay(store, served=self._served, wake=queueing.wake)
        self._process = psutil.Process()
        joblog.install()
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Held] = {}  # by run and attempt
        self._busy = 0  # threads that claim or run
        self._missed = False  # a wake-up came while all slots were busy
        self._strangers = Strangers()
        #: Called when a slot has become free.
        self.freed: Callable[[], None] = lambda: None
        self._idle = threading.Event()
        self._idle.set()
        self._over = threading.Event()
        self._draining = False
        self._interrupted = False
        self._left = False
        self._registering = threading.Lock()
        self._id: int | None = None

    # -- the main path ------------------------------------------------------------------------------------------------

    def work(self, taken: Callable[[], None] = lambda: None) -> bool:
        """Claim and run jobs until there is none left for this worker; what a wake-up does.

        Does nothing, and returns False, while all slots are busy: whoever finishes claims again anyway. Calls
        ``taken`` once it has a slot.
        """
        with self._lock:
            if self._draining:
                return False
            if self._busy >= self.slots:
                # One of those who are busy may have seen just now that nothing is left; it looks again.
                self._missed = True
                return False
            self._busy += 1
            self._idle.clear()
        again, told = True, False
        while again:
            again = self._missed = False
            try:
                if not told:
                    taken()
                    told = True
                self._work()
                again = True
            finally:
                with self._lock:
                    # In one step: a wake-up either finds a free slot, or is seen here.
                    again = again and self._missed and not self._draining
                    if not again:
                        self._busy -= 1
                        if not self._busy:
                            self._idle.set()
                if not again:
                    self.freed()
        return True

    def _work(self) -> None:
        first, done = True, None
        while done is not None or not self._draining:
            try:
                seat = self._relay.take(done and done.success)
                if done is not None and not seat.stands:
                    self._settle(done.success.job, partial(self._store.succeed, **done.success._asdict()))
            finally:
                if done is not None:
                    self._let_go(done.held)
            if first and seat.claimed:
                # Two for one: idle slots are reached in as many steps as their number has bits.
                for queue in seat.more:
                    self._queueing.wake(queue, 2)
                first = False
            if seat.job is not None and seat.task is not None:
                done = self._run(seat.job, seat.task, seat.worker)
            elif seat.claimed or (done is None and self._is_refused(seat)):
                return
            else:
                done = None

    def _is_refused(self, seat: Seat) -> bool:
        """Whether it is of no use to ask for a job again at once."""
        if isinstance(seat.error, Fenced):
            self._forget(seat.worker)
        elif isinstance(seat.error, (StateUnavailable, Draining)):
            log.warning("cannot claim: %s", seat.error)
            return True
        elif seat.error is not None:
            raise seat.error
        return False

    def _served(self) -> Served | None:
        """Return what this worker can run now; None once it claims nothing more."""
        if self._draining:
            return None
        return Served(self._identity(), self._queues(), self._tasks(), list(self._sources))

    def _run(self, job: Job, task: Task, worker: int) -> Done | None:
        """Run an attempt; return its success, which is to be written down, unless it ended otherwise."""
        job = running(job, task.version)
        held = Held(worker, Cancellation(), Attempt(job, task, execution.Progress()), JobLog(job))
        with self._lock:
            self._held[job.run, job.attempt] = held
            if self._interrupted:
                held.token.pull(Interrupted("the worker is stopping"))
        if worker != self._id:  # since it claimed: whoever forgot the ID may not have seen this attempt yet
            held.token.pull(Interrupted("this worker was declared lost"))
        success = None
        try:
            success = self._attempt(job, task, held)
        finally:
            if success is None:
                self._let_go(held)
        return success and Done(held, success)

    def _let_go(self, held: Held) -> None:
        job = held.attempt.job
        with self._lock:
            del self._held[job.run, job.attempt]
        self._queueing.ended(job.job_id)

    def _attempt(self, job: Job, task: Task, held: Held) -> Success | None:
        if self._pass_over(job):
            return None
        try:
            published = self._unheard(job)
            if published is not None:
                self._settle(job, partial(self._heard, job, published))
                return None
            outcome = self._execute(job, task, held)
        except AttemptError as error:
            log.info("job %s attempt %d: %s: %s", job.job_id, job.attempt, error.code, error)
            if isinstance(error, SourceUnavailable):
                self._replicas.note_down(job.db, error.message)
            self._settle(job, partial(self._failed, job, task, held, error))
        except Exception as error:  # the last line of defence: a bug must not leave the job STARTED
            log.exception("job %s attempt %d", job.job_id, job.attempt)
            broken = AttemptError(f"internal error ({type(error).__name__}); the worker's log has the details")
            self._settle(job, partial(self._failed, job, task, held, broken))
        else:
            return Success(job, outcome.rows, outcome.columns, held.snapshot_at, held.progress.bytes)
        return None

    def _unheard(self, job: Job) -> Published | None:
        """Return what the attempt before has published, if its results database did not say so then."""
        if job.attempt < 2 or job.error_code != ResultsUnavailable.code or job.results not in self._results:
            return None
        return self._results[job.results].fence(job.table, job.run, job.attempt - 1)

    def _heard(self, job: Job, published: Published) -> frozenset[str]:
        """Write down what the attempt before has published: its rows are no older than that one's start."""
        began = next((past.started_at for past in self._store.attempts(job) if past.number == job.attempt - 1), None)
        return self._store.succeed(job, rows=published.rows, columns=published.columns, snapshot_at=began)

    def _execute(self, job: Job, task: Task, held: Held) -> execution.Outcome:
        """Run the query; what its thread logs meanwhile stays with the job."""
        try:
            with held.log.collecting():
                return execution.run(
                    job,
                    task,
                    sources=self._sources,
                    results=self._results,
                    timeout=self._time_limit(job, task),
                    cancellation=held.token,
                    progress=held.progress,
                )
        finally:
            joblog.keep(self._store, held.log.take(last=True))

    def _time_limit(self, job: Job, task: Task) -> int:
        """Return the seconds that an attempt may take, 0 for any: the job's, else the task's, else the database's."""
        if job.timeout or task.timeout == 0:
            return job.timeout
        return self.settings.databases[job.db].timeout

    def _pass_over(self, job: Job) -> bool:
        """Send a job on where another attempt has just found its database down, and another one may do.

        Nobody has asked the database anew: it stays marked as down for no longer than it was.
        """
        why, other = self._replicas.why_down(job.db), self._replicas.next_of(job)
        if why is None or other is None:
            return False
        log.info("job %s attempt %d: %s is passed over: %s", job.job_id, job.attempt, job.db, why)
        self._settle(job, partial(self._store.reroute, job, other, error=why, code=SourceUnavailable.code))
        return True

    def _failed(self, job: Job, task: Task, held: Held, error: AttemptError) -> frozenset[str]:
        """Write down how a failed attempt ended, by the class of its error."""
        if isinstance(error, Cancelled):
            return self._store.cancelled(job)
        # Stopped while it published, and nobody says whether it has: it ends as it would have without that.
        unheard = held.token.reason if isinstance(error, ResultsUnavailable) else None
        interrupted = isinstance(error, Interrupted) or isinstance(unheard, Interrupted)
        if interrupted or (isinstance(error, Fenced) and self._is_lost(held.worker)):
            return self._store.requeue(job)
        if isinstance(error, SourceOverloaded):
            self._store.slow_down(job.db, error.reason)
        if isinstance(error, SourceUnavailable):
            other = self._replicas.next_of(job)
            if other is not None:
                return self._store.reroute(job, other, error=error.message, code=error.code)
        # The store knows that it was cancelled, and by this error the janitor knows what to look for.
        if isinstance(unheard, Cancelled) or (job.failures < job.retries and self._may_help(task, error)):
            app = self.settings.app
            delay = min(app.retry_delay * 2 ** min(job.failures, _DOUBLINGS), app.retry_delay_max)
            delay *= random.uniform(0.5, 1.0)  # noqa: S311
            return self._store.retry(job, error=error.message, code=error.code, delay=delay)
        return self._store.fail(job, error=error.message, code=error.code)

    def _may_help(self, task: Task, error: AttemptError) -> bool:
        """Whether another attempt is to be made, if the job has any left."""
        every = (task.retry_on or self.settings.app.retry_on) == "any"
        return error.retryable or (every and not isinstance(error, TimedOut))

    def _is_lost(self, worker: int) -> bool:
        """Whether a worker ID of this process was declared dead: its attempts are fenced off before they are taken."""
        return worker != self._id or not self._pulse()

    def _settle(self, job: Job, transition: Callable[[], frozenset[str]]) -> None:
        """Make a transition, again and again while the state database is away, until it stands or is fenced off."""
        pause, surprises = 0.2, 0
        while True:
            try:
                for queue in transition():
                    self._queueing.wake(queue)
            except Fenced as error:
                log.warning("job %s attempt %d was taken over: %s", job.job_id, job.attempt, error)
                return
            except StateUnavailable as error:
                log.warning("job %s attempt %d: %s; trying again", job.job_id, job.attempt, error)
            except Exception:
                log.exception("job %s attempt %d could not be written down", job.job_id, job.attempt)
                surprises += 1
            else:
                return
            if self._interrupted or surprises == _SURPRISES:
                # The store still says that this worker holds it: it is given back by a heartbeat, or rescued.
                log.error("job %s attempt %d is left to be run again", job.job_id, job.attempt)
                return
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def cancel(self, run: int, attempt: int) -> bool:
        """Stop an attempt if this process runs it."""
        with self._lock:
            held = self._held.get((run, attempt))
        return held is not None and held.token.pull(Cancelled("the job was cancelled"))

    # -- identity and heartbeat ---------------------------------------------------------------------------------------

    def _identity(self) -> int:
        with self._registering:
            if self._left:
                raise Draining("this worker has signed off")
            if self._id is None:
                self._id = self._store.register(
                    self.name, list(self._queues()), self.slots, lease=self.settings.app.lease
                )
            return self._id

    def announce_queues(self) -> None:
        """Tell the store which queues this worker serves now; a reload may have changed them."""
        self._store.serves(self._identity(), list(self._queues()))

    def _forget(self, worker: int) -> None:
        """The worker of this ID was declared dead: end what it ran, for somebody else to run; register anew."""
        with self._registering:
            if self._id == worker:
                self._id = None
                log.warning("this worker was declared lost; it starts anew")
        for held in self._all_held():
            if held.worker == worker:
                # Not all of its jobs may have been taken from it yet: those go back to their queues.
                held.token.pull(Interrupted("this worker was declared lost"))

    def _all_held(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def beat(self) -> None:
        """Renew the lease, report progress, learn of cancels, until the worker is over; in a thread of its own."""
        renewed = polled = float("-inf")
        while True:
            now = time.monotonic()
            try:
                if (self._all_held() or now - renewed >= self.settings.app.heartbeat) and self._pulse():
                    renewed = now
                if now - polled >= self.settings.app.sweep:
                    polled = now
                    self._poll()
                joblog.keep(self._store, [line for held in self._all_held() for line in held.log.take()])
            except StateUnavailable as error:
                log.warning("no heartbeat: %s", error)
            except Draining:
                return
            except Exception:
                log.exception("the heartbeat stumbled; it goes on")
            self._expectations.look([held.attempt for held in self._all_held()])
            if self._over.wait(_BEAT):
                return

    def _pulse(self) -> bool:
        """Make one heartbeat; False if this worker was declared dead."""
        worker = self._identity()
        with self._lock:
            progress = {run: held.told() for (run, _), held in self._held.items()}
        memory = self._process.memory_info().rss
        try:
            pulse = self._store.heartbeat(worker, progress, lease=self.settings.app.lease, memory=memory)
        except Fenced:
            self._forget(worker)
            return False
        for run, attempt in pulse.cancelled:
            self.cancel(run, attempt)
        self._give_back(worker, pulse.held)
        return True

    def _give_back(self, worker: int, held: Collection[tuple[int, int]]) -> None:
        """Send jobs back that the store says this worker holds, and it does not know: claims whose answer was lost."""
        with self._lock:
            lost = self._strangers.lost(key for key in held if key not in self._held)
        if lost:
            log.warning(
                "%d jobs were claimed by this worker without its knowledge; they go back to their queues", len(lost)
            )
            for queue in self._store.give_back(worker, lost):
                self._queueing.wake(queue)

    def _poll(self) -> None:
        """Work without having been woken: a broker that is down, or deaf, costs time but stops nothing."""
        threading.Thread(target=self.work, name="poll", daemon=True).start()

    # -- stopping -----------------------------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Claim nothing more, let running jobs finish for ``seconds``, then send the rest back to their queues."""
        with self._lock:
            self._draining = True
        if not self._idle.wait(seconds):
            self.interrupt()
        self._over.set()

    def interrupt(self) -> None:
        """Interrupt every running job; each goes back to its queue without spending a retry."""
        with self._lock:
            self._draining = self._interrupted = True
        for held in self._all_held():
            held.token.pull(Interrupted("the worker is stopping"))
        self._idle.wait(_LAST_GASP)

    def leave(self) -> None:
        """Take this worker off the list; nothing of it runs any more."""
        with self._registering:
            worker, self._id, self._left = self._id, None, True
        if worker is not None:
            try:
                self._store.unregister(worker)
            except StateUnavailable as error:
                log.warning("could not sign off: %s", error)
