"""What must happen though nobody asks: due jobs, lost workers, expired results, and the sweep that wakes queues.

Every worker process runs this thread; a lease in the store lets one of them act at a time, and all that it does is
harmless when two do.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping

from jobber.config import Settings
from jobber.errors import AttemptError, Fenced, JobberError, StateUnavailable
from jobber.queueing import Queueing, sweep_folder
from jobber.results.base import ResultsBackend
from jobber.store import Store

log = logging.getLogger(__name__)

ROLE = "maintenance"
#: Seconds: the leader's lease, and how often it is renewed or sought.
_LEASE, _RENEW = 15.0, 5.0
#: Seconds between two looks for due jobs.
_TICK = 0.25
#: Seconds between two rounds of the janitor: expired results, old history.
_JANITOR = 30.0


class Maintenance:
    """The periodic work of an instance."""

    def __init__(
        self, *, settings: Settings, store: Store, queueing: Queueing, results: Mapping[str, ResultsBackend]
    ) -> None:
        self._settings = settings
        self._store = store
        self._queueing = queueing
        self._results = results
        self._holder = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._over = threading.Event()
        #: When the state database last failed or this process began: nobody is declared dead for one lease after it.
        self._restored = time.monotonic()

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Do what is due, until stopped; in a thread of its own."""
        leading, sought, swept, cleaned = False, 0.0, 0.0, 0.0
        while not self._over.wait(_TICK):
            now = time.monotonic()
            try:
                if not sought or now - sought >= _RENEW:
                    leading, sought = self._store.lead(ROLE, self._holder, lease=_LEASE), now
                if not leading:
                    continue
                self._release_due()
                if now - swept >= self._settings.app.sweep:
                    swept = now
                    self._sweep()
                    self._rescue()
                if now - cleaned >= _JANITOR:
                    cleaned = now
                    self._clean()
            except StateUnavailable as error:
                log.warning("maintenance waits: %s", error)
                self._restored, leading, sought = time.monotonic(), False, 0.0
                self._over.wait(1.0)
            except Exception:  # this thread must outlive any surprise
                log.exception("maintenance failed; it goes on")
                self._over.wait(1.0)

    def _release_due(self) -> None:
        due = self._store.next_due()  # a plain read, four times a second; the rest is a write transaction
        if due is not None and due <= 0:
            for queue in self._store.release_due():
                self._queueing.wake(queue)

    def _sweep(self) -> None:
        """Wake every queue that has work: this is what makes a lost message harmless."""
        for queue in self._store.runnable_queues():
            self._queueing.wake(queue)
        sweep_folder(self._settings)

    def _rescue(self) -> None:
        if time.monotonic() - self._restored < self._settings.app.lease:
            return
        for job in self._store.lost():
            try:
                rescued = self._store.rescue(job, max_rescues=self._settings.app.max_rescues)
            except Fenced:
                continue  # another instance was faster, or the worker came back in time
            log.warning(
                "job %s attempt %d: worker %s is lost; now %s", job.job_id, job.attempt, job.worker, rescued.state
            )
            if rescued.live:
                self._queueing.wake(rescued.queue)
            self._fence(job.results, job.table, job.run, job.attempt)

    def _fence(self, results: str, table: str, run: int, attempt: int) -> None:
        """Keep a worker that was only cut off from publishing when it comes back."""
        backend = self._results.get(results)
        if backend is None:
            return
        try:
            backend.fence(table, run, attempt)
        except AttemptError as error:
            log.warning("could not fence %s in %s: %s", table, results, error)

    def _clean(self) -> None:
        for name, backend in self._results.items():
            try:
                while expired := backend.expire():
                    log.info("%s: dropped %d expired results", name, len(expired))
            except JobberError as error:
                log.warning("%s: expired results stay for now: %s", name, error)
        while self._store.prune(self._settings.app.history):
            pass
