"""What becomes of the jobs of a worker that died, hangs, or lost the state database: they are taken from it.

Publishing is what makes a job succeed. So whoever takes an attempt over first sees to it that it can publish nothing
any more, and looks whether it had already: then it has succeeded, though its worker could not say so. Else the job goes
back to its queue, or has lost one worker too many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from jobber.aside import call_aside
from jobber.config import Settings
from jobber.errors import Fenced, StateUnavailable
from jobber.jobs import Job, JobState
from jobber.leading import Role
from jobber.queueing import Queueing
from jobber.results.base import Published, ResultsBackend
from jobber.store import Store

log = logging.getLogger(__name__)

ROLE = "rescue"
#: Seconds that a results database gets to say what an attempt published, and for which it is asked again and again.
_PATIENCE, _PERSISTENCE = 5.0, 120.0
#: Seconds that it then gets to say that it is there at all.
_GLANCE = 3.0


class Rescuer:
    """Takes jobs from lost workers. Every worker process runs one; one of all acts at a time.

    Parameters:
        holder: a name of this process that no other has.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        queueing: Queueing,
        results: Mapping[str, ResultsBackend],
        holder: str,
    ) -> None:
        lease = settings.app.lease
        self._max_rescues = settings.app.max_rescues
        self._store = store
        self._queueing = queueing
        self._results = results
        self._interval = min(settings.app.sweep, lease / 6)
        self._role = Role(store, ROLE, holder, lease=lease / 2)
        self._outages = Outages(lease, self._interval)
        self._asked: dict[tuple[int, int], float] = {}  # attempts whose results database is silent, and since when
        self._over = threading.Event()

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Rescue what has to be, until stopped; in a thread of its own."""
        while not self._over.wait(self._interval):
            try:
                if self._outages.none_of_late(self._store.now) and self._role.held():
                    self.rescue()
            except StateUnavailable as error:
                log.warning("nobody is rescued for now: %s", error)
                self._outages.note()
            except Exception:
                log.exception("rescuing stumbled; it goes on")
        self._role.resign()

    def rescue(self) -> None:
        """Take every lost job from its worker; those whose results database does not answer some time later."""
        silent: set[str] = set()
        lost = self._store.lost()
        keys = {(job.run, job.attempt) for job in lost}
        self._asked = {key: since for key, since in self._asked.items() if key in keys}
        for job in lost:
            try:
                self._take(job, silent)
            except Fenced:
                continue  # another instance was faster, or the worker came back in time
            except StateUnavailable:
                raise
            except Exception:
                log.exception("job %s attempt %d could not be rescued; others are", *_named(job))

    def _take(self, job: Job, silent: set[str]) -> None:
        self._store.declare_lost(job)
        began = time.monotonic()
        try:
            published = self._fence(job, silent)
        except Exception as error:  # noqa: BLE001  # whatever it is, the job must not stay STARTED for ever
            # Nothing is lost by waiting: without its results database the job could not succeed anyway.
            since = self._asked.setdefault((job.run, job.attempt), time.monotonic())
            # It may be this one table that somebody holds up: a worker that was stopped while it published.
            if job.results not in silent and not self._answers(job.results):
                silent.add(job.results)
            if time.monotonic() - since < _PERSISTENCE:
                log.warning("job %s attempt %d: its worker is lost, and so is %s: %s", *_named(job), job.results, error)
                return
            published = None
        finally:
            self._outages.was_elsewhere(time.monotonic() - began)
        if published is not None:
            wake = self._store.succeed(job, rows=published.rows, columns=published.columns)
            state = JobState.SUCCESS
        else:
            changed = self._store.rescue(job, max_rescues=self._max_rescues)
            wake, state = changed.wake, changed.job.state
        log.warning("job %s attempt %d: worker %s is lost; now %s", *_named(job), job.worker, state)
        for queue in wake:
            self._queueing.wake(queue)

    def _fence(self, job: Job, silent: set[str]) -> Published | None:
        """See to it that an attempt publishes nothing any more; return what it has published.

        Parameters:
            silent: results databases that have not answered in this round.

        Raises:
            AttemptError, TimeoutError: the results database does not answer.
        """
        backend = self._results.get(job.results)
        if backend is None:
            return None
        if job.results in silent:
            raise TimeoutError("no answer")
        return call_aside(lambda: backend.fence(job.table, job.run, job.attempt), _PATIENCE)

    def _answers(self, results: str) -> bool:
        """Whether a results database answers at all."""
        try:
            call_aside(self._results[results].ping, _GLANCE)
        except Exception:  # noqa: BLE001  # the log has why it was asked
            return False
        return True


def _named(job: Job) -> tuple[str, int]:
    return job.job_id, job.attempt


class Outages:
    """Notices that workers could not renew their leases, or that the clock of their leases jumped.

    The state database may have been away, hung, or set its clock; this process may have slept. Nobody is to be declared
    dead for it before all had one lease's time to report.

    Parameters:
        lease: seconds.
        interval: seconds between two looks, about.
    """

    def __init__(self, lease: float, interval: float) -> None:
        self._lease = lease
        self._interval = interval
        self._noted = time.monotonic()  # those who run already may have been cut off until now
        self._last: tuple[float, float] | None = None
        self._elsewhere = 0.0  # seconds since the last look that say nothing of the state database

    def was_elsewhere(self, seconds: float) -> None:
        """Note that between two looks somebody else was waited for, so that the next one comes late by that much."""
        self._elsewhere += seconds

    def note(self) -> None:
        """Note an outage that ends now at the earliest."""
        self._noted = time.monotonic()
        self._last = None

    def none_of_late(self, clock: Callable[[], int]) -> bool:
        """Return whether leases can be relied on.

        Parameters:
            clock: reads the clock of the leases, in microseconds.
        """
        began = time.monotonic()
        there, here = clock() / 1_000_000, time.monotonic()
        if self._last is not None:
            passed_there, passed_here = there - self._last[0], here - self._last[1]
            late = passed_here - self._elsewhere > self._interval + self._lease / 3
            slow = late or here - began > self._lease / 3
            if slow or abs(passed_there - passed_here) > self._lease / 3:
                log.warning(
                    "the state database was away, or a clock jumped: no worker is declared lost for %g s", self._lease
                )
                self._noted = here
        self._last, self._elsewhere = (there, here), 0.0
        return here - self._noted >= self._lease
