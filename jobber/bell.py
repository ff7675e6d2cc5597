"""The bell between the processes of one instance: a shorter way than the broker, for what stays on this machine.

The process that answers HTTP rings, a worker process with a free slot answers and claims; it also tells of each attempt
that ended, for those who wait for the job. Both are hints, as wake-ups are: a ring that nobody with a free slot answers
at once goes to the broker instead, and who waits looks from time to time. All worker processes listen at one end of a
pair of sockets, so that the system hands a ring to one that has nothing else to do.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from itertools import count

log = logging.getLogger(__name__)

#: Seconds within which a free slot answers a ring; later it is busy, stopped, or gone.
_PATIENCE = 0.02
#: How often it is rung at most where the answer is that no slot is free: another process may hear the next one.
_TRIES = 4
#: Seconds for which nobody is rung for after an answer that no slot is free, and after no answer at all.
_BUSY, _SILENT = 0.01, 0.25
#: Seconds that a wake-up of the broker is held where no slot is free.
_HELD = 5.0
#: What a worker process says: a slot is at it, none is free, an attempt of this job ended.
_TAKEN, _FULL, _ENDED = b"+", b"-", b"="
#: Bytes that a datagram may hold: a job's ID.
_SIZE = 4096

Ends = tuple[socket.socket, socket.socket]


def pair() -> Ends:
    """Return the two ends: of the process that rings, and of all who answer. They outlive each of the processes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


class Bell:
    """Rings for the workers of this instance.

    Parameters:
        end: of ``pair``.
        served: gives the queues that they serve.
        ended: told the ID of a job of which an attempt has ended.
    """

    def __init__(
        self, end: socket.socket, *, served: Callable[[], Collection[str]], ended: Callable[[str], None]
    ) -> None:
        self._end = end
        self._served = served
        self._ended = ended
        self._lock = threading.Lock()
        self._numbers = count(
            random.SystemRandom().getrandbits(48)
        )  # answers to a process before this one are no one's
        #: By number: for which queue, until when an answer counts, and how often it was rung.
        self._rung: dict[int, tuple[str, float, int]] = {}
        self._silent_until = 0.0
        self._refused: Callable[[str], None] | None = None

    def start(self, refused: Callable[[str], None]) -> None:
        """Listen for answers; those that say no are passed on to ``refused``, with the queue."""
        self._refused = refused
        threading.Thread(target=self._listen, name="bell", daemon=True).start()

    def ring(self, queue: str) -> bool:
        """Ring for a queue; False if nobody here is to be expected to answer. Takes microseconds."""
        if self._refused is None or queue not in self._served():
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._silent_until:
                return False
            number = next(self._numbers)
            try:
                self._end.send(b"%d" % number, socket.MSG_DONTWAIT)
            except OSError:  # nobody reads
                self._silent_until = now + _SILENT
                return False
            self._rung[number] = (queue, now + _PATIENCE, 1)
        return True

    def overdue(self) -> tuple[list[str], float | None]:
        """Return the queues of rings that were not answered in time, and the seconds until the next may be; or None."""
        with self._lock:
            now = time.monotonic()
            late = [number for number, (_, until, _) in self._rung.items() if until <= now]
            queues = [self._rung.pop(number)[0] for number in late]
            if late:
                self._silent_until = now + _SILENT
            return queues, min((until - now for _, until, _ in self._rung.values()), default=None)

    def _listen(self) -> None:
        for said in _heard(self._end):
            try:
                self._hear(said[:1], said[1:].decode())
            except Exception:
                log.exception("the bell stumbled; it goes on")

    def _hear(self, what: bytes, about: str) -> None:
        if what == _ENDED:
            self._ended(about)
            return
        with self._lock:
            queue, until, tries = self._rung.pop(int(about), ("", 0.0, 0))
            if queue and what == _FULL and tries < _TRIES:
                with suppress(OSError):
                    self._end.send(about.encode(), socket.MSG_DONTWAIT)
                    self._rung[int(about)] = (queue, until, tries + 1)
                    return
            self._silent_until = time.monotonic() + _BUSY if what == _FULL else 0.0
        if queue and what == _FULL and self._refused is not None:
            self._refused(queue)


class Doorman:
    """Answers the bell in a worker process.

    Parameters:
        end: of ``pair``.
        work: claims and runs jobs until there is none; calls what it is given once it has a slot, and returns False if
            it gets none.
    """

    def __init__(self, end: socket.socket, work: Callable[[Callable[[], None]], bool]) -> None:
        self._end = end
        self._work = work
        self._changed = threading.Condition()
        self._listening = 0
        self._closed = False

    def start(self) -> None:
        """Listen, in as many threads as slots that rings took, and one more."""
        threading.Thread(target=self._begin, name="doorman", daemon=True).start()

    def tell(self, job_id: str) -> None:
        """Say that an attempt of a job has ended."""
        self._say(_ENDED, job_id.encode())

    def hold(self) -> None:
        """Keep a thread of the pool from taking more wake-ups than it can use: until a slot is free, about."""
        with self._changed:
            if not self._closed:
                self._changed.wait(_HELD)

    def freed(self) -> None:
        """Let one go that is held: a slot is free."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Let all go that are held."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _begin(self) -> None:
        with self._changed:
            self._listening += 1
        self._listen()

    def _listen(self) -> None:
        for number in _heard(self._end):
            try:
                if not self._work(partial(self._take, number)):
                    self._say(_FULL, number)
                    continue
            except Exception:
                log.exception("work stumbled; it goes on")
            with self._changed:
                if self._listening >= 2:  # one works soon, one listens then
                    return
                self._listening += 1

    def _take(self, number: bytes) -> None:
        """Answer, and see to it that somebody listens while this thread works."""
        self._say(_TAKEN, number)
        with self._changed:
            self._listening -= 1
            alone = not self._listening
        if alone:
            self.start()

    def _say(self, what: bytes, about: bytes) -> None:
        try:
            self._end.send(what + about, socket.MSG_DONTWAIT)
        except OSError as error:  # nobody reads, who then does without
            log.debug("not told: %s", error)


def _heard(end: socket.socket) -> Iterator[bytes]:
    """Yield what is said at the other end, until the bell is shut down."""
    while True:
        try:
            said = end.recv(_SIZE)
        except OSError as error:
            log.warning("the bell is not heard: %s", error)
            time.sleep(1)
            continue
        if not said:
            return
        yield said
