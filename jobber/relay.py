"""How the threads of a worker process end their jobs and get their next ones: several at a time, in one transaction.

A thread that is done takes a seat. While one of them talks to the state database, those that come after it wait, and
then one of these does it for all that wait (``Combiner``). Who waits for room behind a limit is told beside that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from jobber.errors import Fenced, StateUnavailable
from jobber.jobs import Job
from jobber.store import Apart, Claim, Gate, Store, Success
from jobber.store.combining import Combiner
from jobber.tasks import Task, TaskSet

log = logging.getLogger(__name__)

#: Seconds after which a second thread goes ahead: longer than the state database is waited for, as two would but queue
#: at the dispatch row, and take the connections that others need.
_PATIENCE = 15.0


class Served(NamedTuple):
    """What a worker can run at the moment.

    Parameters:
        worker: its ID in the store.
    """

    worker: int
    queues: Sequence[str]
    tasks: TaskSet
    databases: Sequence[str]


@dataclass(slots=True, eq=False)
class Seat:
    """What one thread hands in, and what it gets.

    Parameters:
        success: how its last job ended; None if it has none to end.
        stands: whether that is written down; if not, the thread has to see to it, and gets no job.
        claimed: whether it has its job, or there is none; if not, it may ask again.
        patient: whether its thread is to claim by itself, as that may mean to wait for somebody.
        job, task, worker: its next job, and the worker ID that it was claimed under.
        more: queues in which there was more.
        error: why nothing was claimed.
    """

    success: Success | None
    stands: bool = False
    claimed: bool = False
    patient: bool = False
    job: Job | None = None
    task: Task | None = None
    worker: int = 0
    more: frozenset[str] = frozenset()
    error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether its thread has nothing to see to, and can take a job."""
        return self.success is None or self.stands


class Relay:
    """Where the threads of a process meet.

    Parameters:
        served: says what can be run; None if nothing is to be claimed any more. May raise errors of jobber.
        wake: tells workers of a queue.
    """

    def __init__(self, store: Store, *, served: Callable[[], Served | None], wake: Callable[[str], None]) -> None:
        self._store = store
        self._served = served
        self._wake = wake
        self._together = Combiner[Seat, Seat](self._serve_all, patience=_PATIENCE)
        self._room = Aftermath(self._tell)

    def take(self, success: Success | None) -> Seat:
        """End a job, if there is one to end, and claim the next one; returns once both are settled."""
        seat = self._together(Seat(success))
        if seat.patient:
            self._claim_alone(seat)
        return seat

    def _serve_all(self, seats: Sequence[Seat]) -> Sequence[Seat]:
        """Do what is to be done for all who wait."""
        try:
            self._room.note(self._serve(seats))
        except Exception as error:  # noqa: BLE001  # each thread is told, and does what it would do alone
            for seat in seats:
                seat.error = None if seat.claimed else error
        return seats

    def _serve(self, seats: Sequence[Seat]) -> Collection[Gate]:
        """Do it; return the gates with a limit behind which there may be room now."""
        ends = [seat.success for seat in seats if seat.success]
        try:
            served = self._served()
        except Exception:
            self._tell(self._finish(seats, ends))
            raise
        if served is None:
            self._tell(self._finish(seats, ends))
            return ()
        for seat in seats:
            seat.worker = served.worker
        try:
            return self._claim(seats, ends, served)
        except Fenced:
            self._room.note(self._finish(seats, ends))
            raise
        except Apart as apart:
            _note(seats, apart.ended)
            self._room.note(apart.freed)
            self._room.note(self._finish(seats, [end for end in ends if end.key not in apart.ended]))
        except StateUnavailable:
            raise
        except Exception:
            if not ends:
                raise
            # Of one of them, perhaps: each thread sees to its own.
            log.exception("jobs could not be ended together")
        if ends and (ready := [seat for seat in seats if seat.ready]):
            with suppress(Apart):
                return self._claim(ready, (), served)
        for seat in seats:
            seat.patient = seat.ready
        return ()

    def _finish(self, seats: Sequence[Seat], ends: Sequence[Success]) -> Collection[Gate]:
        """End jobs, and claim nothing; return the gates behind which there may be room now."""
        if not ends:
            return ()
        finished = self._store.finish(ends)
        _note(seats, finished.ended)
        for queue in finished.wake:
            self._wake(queue)
        return finished.freed

    def _claim(self, seats: Sequence[Seat], ends: Sequence[Success], served: Served) -> Collection[Gate]:
        """End jobs and claim others in one transaction."""
        worker, queues, tasks, databases = served
        claim = self._store.finish_and_claim(
            worker, ends, queues=queues, tasks=tasks.keys(), databases=databases, limit=len(seats)
        )
        _note(seats, claim.ended)
        _hand_out([seat for seat in seats if seat.ready], claim, tasks)
        return claim.freed

    def _claim_alone(self, seat: Seat) -> None:
        try:
            served = self._served()
            if served is not None:
                seat.worker, queues, tasks, databases = served
                claim = self._store.claim(seat.worker, queues=queues, tasks=tasks.keys(), databases=databases, limit=1)
                _hand_out([seat], claim, tasks)
        except Exception as error:  # noqa: BLE001  # as for all others
            seat.error = error

    def _tell(self, freed: Collection[Gate]) -> None:
        """Wake those who wait for room. If that cannot be found out, the sweep does."""
        try:
            for queue in self._store.open_behind(freed):
                self._wake(queue)
        except StateUnavailable as error:
            log.warning("who waits for room is not known: %s", error)
        except Exception:
            # The sweep finds those that wait.
            log.exception("who waits for room could not be found out")


class Aftermath:
    """Does something about what was noted in a thread of its own, which it starts when there is something.

    Parameters:
        act: does it for all that was noted since it was called last. Must not raise.
    """

    def __init__(self, act: Callable[[Collection[Gate]], None]) -> None:
        self._act = act
        self._changed = threading.Condition()
        self._noted: set[Gate] = set()
        self._thread: threading.Thread | None = None

    def note(self, gates: Collection[Gate]) -> None:
        """Have it done; returns at once."""
        if not gates:
            return
        with self._changed:
            self._noted.update(gates)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="room", daemon=True)
                thread.start()  # it may fail, and the next one tries again
                self._thread = thread
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._noted)
                noted, self._noted = self._noted, set()
            self._act(noted)


def _note(seats: Sequence[Seat], ended: Collection[tuple[int, int]]) -> None:
    for seat in seats:
        if seat.success is not None and seat.success.key in ended:
            seat.stands = True


def _hand_out(seats: Sequence[Seat], claim: Claim, tasks: TaskSet) -> None:
    for seat in seats:
        seat.claimed, seat.more = True, claim.more
    for seat, job in zip(seats, claim.jobs, strict=False):
        seat.job, seat.task = job, tasks[job.task]
