"""What must happen though nobody asks: due jobs, lost workers, old history, and the sweep that wakes queues.

Every worker process runs this thread; a lease in the store lets one of them act at a time, and all that it does is
harmless when two do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from jobber.config import Settings
from jobber.errors import Fenced, StateUnavailable
from jobber.janitor import Janitor
from jobber.queueing import Queueing, sweep_folder
from jobber.store import Store

log = logging.getLogger(__name__)

ROLE = "maintenance"
#: Seconds of the leader's lease, at most: a worker may lead, and when it dies its jobs are rescued one lease later.
_LEASE = 15.0
#: Seconds between two looks for due jobs.
_TICK = 0.25
#: Seconds between two prunings of the history.
_PRUNE = 60.0


class Maintenance:
    """The periodic work of an instance.

    Parameters:
        janitor: is told which attempts lost their worker.
        holder: a name of this process that no other has.
    """

    def __init__(self, *, settings: Settings, store: Store, queueing: Queueing, janitor: Janitor, holder: str) -> None:
        self._settings = settings
        self._store = store
        self._queueing = queueing
        self._janitor = janitor
        self._holder = holder
        self._over = threading.Event()
        #: When the state database last failed or this process began: nobody is declared dead for one lease after it.
        self._restored = time.monotonic()
        self._leading = False
        self._lease = min(_LEASE, settings.app.lease / 2)
        #: What is done how often, in seconds.
        self._work: list[tuple[float, Callable[[], None]]] = [
            (0, self._release_due),
            (settings.app.sweep, self._sweep),
            (settings.app.sweep, self._rescue),
            (settings.app.sweep, lambda: sweep_folder(settings)),
            (_PRUNE, self._prune),
        ]

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Do what is due, until stopped; in a thread of its own."""
        last = dict.fromkeys(range(len(self._work)), float("-inf"))
        sought = float("-inf")
        while not self._over.wait(_TICK):
            if time.monotonic() - sought >= self._lease / 3:
                sought = time.monotonic()
                self._step(self._seek)
            for number, (interval, step) in enumerate(self._work):
                if self._leading and time.monotonic() - last[number] >= interval:
                    last[number] = time.monotonic()
                    self._step(step)

    def _step(self, step: Callable[[], None]) -> None:
        """Do one thing; what goes wrong with it keeps none of the others from being done."""
        try:
            step()
        except StateUnavailable as error:
            log.warning("maintenance waits: %s", error)
            self._restored, self._leading = time.monotonic(), False
        except Exception:
            log.exception("maintenance stumbled; it goes on")

    def _seek(self) -> None:
        self._leading = False
        self._leading = self._store.lead(ROLE, self._holder, lease=self._lease)

    def _release_due(self) -> None:
        due = self._store.next_due()  # a plain read, four times a second; the rest is a write transaction
        if due is not None and due <= 0:
            for queue in self._store.release_due():
                self._queueing.wake(queue)

    def _sweep(self) -> None:
        """Wake every queue that has work: this is what makes a lost message harmless."""
        for queue in self._store.runnable_queues():
            self._queueing.wake(queue)

    def _rescue(self) -> None:
        if time.monotonic() - self._restored < self._settings.app.lease:
            return
        for job in self._store.lost():
            try:
                changed = self._store.rescue(job, max_rescues=self._settings.app.max_rescues)
            except Fenced:
                continue  # another instance was faster, or the worker came back in time
            log.warning(
                "job %s attempt %d: worker %s is lost; now %s", job.job_id, job.attempt, job.worker, changed.job.state
            )
            for queue in changed.wake:
                self._queueing.wake(queue)
            self._janitor.fence(job)

    def _prune(self) -> None:
        while self._store.prune(self._settings.app.history):
            pass
