"""What must happen though nobody asks: due jobs, old history, and the sweep that wakes queues.

Every worker process runs this thread and looks for due jobs; of all the rest, which is harmless when two do it, one of
all does it at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from jobber.config import Settings
from jobber.errors import StateUnavailable
from jobber.leading import Role
from jobber.queueing import Queueing, sweep_folder
from jobber.scheduling import Scheduler
from jobber.store import Due, Store

log = logging.getLogger(__name__)

ROLE = "maintenance"
#: Seconds of the leader's lease, at most: when it dies, nobody sweeps for so long.
_LEASE = 6.0
#: Seconds between two looks for due jobs: while this process has work to do, and at most. What is due sooner is looked
#: for when its time comes, if it was known at the last look.
_TICK, _CALM = 0.25, 1.0
#: Seconds that a process counts as at work after the last sign of it.
_WORKING = 5.0
#: … and between two while a database takes no more starts, at least.
_GLANCE = 0.05
#: Seconds after its time that what is due is looked for: clocks of databases do not tick together with ours.
_SLACK = 0.002
#: Seconds that due jobs are made ready in one go: other chores wait for this thread.
_SPELL = 1.0
#: Seconds between two prunings of the history, once all that is old is forgotten.
_PRUNE = 60.0


class Maintenance:
    """The periodic work of an instance.

    Parameters:
        holder: a name of this process that no other has.
        scheduler: fires schedules, where this process does.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        queueing: Queueing,
        holder: str,
        scheduler: Scheduler | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queueing = queueing
        self._scheduler = scheduler
        self._schedules: float | None = None  # seconds until one fires, at the last look
        self._over = threading.Event()
        self._stirred = threading.Event()  # ends a long pause
        self._worked = time.monotonic()  # the last sign of work
        self._leading = False
        self._pause = _TICK  # seconds until the next look
        self._role = Role(store, ROLE, holder, lease=min(_LEASE, settings.app.lease / 2))
        sweep = settings.app.sweep
        self._chores = [
            _Chore(sweep, self._sweep),
            _Chore(sweep, lambda: sweep_folder(settings)),
            _Chore(_PRUNE, self._prune),
        ]

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()
        self._stirred.set()

    def stir(self) -> None:
        """Look more often for a while: this process has work to do, which may make jobs that are due soon.

        Whoever delays a job says so to nobody. Those of other processes are found within a second.
        """
        self._worked = time.monotonic()
        if self._pause > _TICK:
            self._stirred.set()

    def run(self) -> None:
        """Do what is due, until stopped; in a thread of its own."""
        while not self._rest():
            # Everywhere: a job whose time has come waits for no role to find another process.
            self._step(self._release_due)
            self._step(self._fire)
            self._step(self._seek)
            for chore in self._chores:
                if self._leading and chore.is_due():
                    self._step(chore.do)
            if self._leading:
                soonest = min(chore.due for chore in self._chores) - time.monotonic()
                self._pause = min(self._pause, max(_TICK, soonest))
        self._role.resign()

    def _rest(self) -> bool:
        """Wait until it is time for the next look; return whether it is all over."""
        until = time.monotonic() + self._pause
        if self._stirred.wait(self._pause):
            self._stirred.clear()
            # Not at once: who has just got a job needs the processor more.
            self._over.wait(max(0.0, min(_TICK, until - time.monotonic())))
        return self._over.is_set()

    def _step(self, do: Callable[[], None]) -> None:
        """Do one thing; what goes wrong with it keeps none of the others from being done."""
        try:
            do()
        except StateUnavailable as error:
            log.warning("maintenance waits: %s", error)
            self._leading = False
        except Exception:
            log.exception("maintenance stumbled; it goes on")

    def _seek(self) -> None:
        self._leading = False
        self._leading = self._role.held()

    def _release_due(self) -> None:
        """Make jobs ready whose time has come, a piece at a time; of several processes each takes other pieces."""
        until = time.monotonic() + _SPELL
        # A plain read, as it is done often; the rest is a write transaction.
        while (due := self._look().jobs) is not None and due <= 0 and time.monotonic() < until:
            queues = self._store.release_due()
            if not queues:
                return  # another process is at it
            for queue in queues:
                self._queueing.wake(queue)

    def _look(self) -> Due:
        """Return what time has brought; wake those who wait for a database that takes another start again."""
        self._pause, self._schedules = _TICK, None  # should it fail
        # Schedules of tasks that are not loaded here are nothing to look for: one that is due stays so for ever.
        due = self._store.due(self._scheduler.tasks() if self._scheduler is not None else ())
        self._schedules = due.schedules
        if due.starts is not None and due.starts <= 0:
            for queue in self._store.refill():
                self._queueing.wake(queue)
        self._pause = self._until(due)
        return due

    def _until(self, due: Due) -> float:
        """Return the seconds until the next look."""
        # Who takes the last start of a database says until when there is none, whether it is known here or not.
        working = due.starts is not None or time.monotonic() - self._worked < _WORKING
        longest = _TICK if working else _CALM
        # What is overdue already is seen to now, by this process or by another one.
        times = [at + _SLACK if at > 0 else _TICK for at in (due.jobs, due.schedules) if at is not None]
        if due.starts is not None and due.starts > 0:
            # Rates below some two a second would not be reached if it were looked after later.
            times.append(max(_GLANCE, due.starts))
        return min(longest, *times) if times else longest

    def _fire(self) -> None:
        """Fire schedules; of several processes one does."""
        if self._scheduler is not None:
            self._scheduler.step(self._schedules)

    def _sweep(self) -> None:
        """Wake every queue that has work: this is what makes a lost message harmless."""
        for queue in self._store.runnable_queues():
            self._queueing.wake(queue)

    def _prune(self) -> bool:
        # A piece at a time: due jobs wait for this thread.
        return self._store.prune(self._settings.app.history) > 0


class _Chore:
    """Something to do from time to time.

    Parameters:
        interval: seconds.
        work: does it, or a piece of it; may say that there is more to do at once.
    """

    def __init__(self, interval: float, work: Callable[[], bool | None]) -> None:
        self._interval = interval
        self._work = work
        #: When its time comes.
        self.due = 0.0

    def is_due(self) -> bool:
        """Whether its time has come."""
        return time.monotonic() >= self.due

    def do(self) -> None:
        """Do it, or a piece of it."""
        self.due = time.monotonic() + self._interval
        if self._work():
            self.due = 0.0
