"""What the thread of an attempt logs is kept for the history of its job, too. Silence costs nothing.

Whatever in ``jobber`` logs while the query runs, down to a notice that the source sends, need not know of which job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jobber.errors import StateUnavailable
from jobber.jobs import Job
from jobber.store import Store
from jobber.store.events import Level, LogLine

log = logging.getLogger(__name__)

#: Lines of an attempt that are kept, the first; and characters of a line.
MOST, _LONGEST = 100, 2_000

_current = threading.local()


class JobLog:
    """The lines of one attempt; its thread adds them, the heartbeat takes them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._lines: list[tuple[float, Level, str]] = []
        self._room = MOST
        self._too_many = 0

    def add(self, record: logging.LogRecord) -> None:
        """Keep a line, or only count it."""
        with self._lock:
            if self._room:
                self._room -= 1
                self._lines.append((time.monotonic(), _level(record.levelno), record.getMessage()[:_LONGEST]))
            else:
                self._too_many += 1

    def take(self, *, last: bool = False) -> list[LogLine]:
        """Return the lines that are new.

        Parameters:
            last: say how many more there were, too.
        """
        with self._lock:
            lines, self._lines = self._lines, []
            if last and self._too_many:
                lines.append((time.monotonic(), Level.INFO, f"{self._too_many} more lines are in the worker's log"))
        job, now = self._job, time.monotonic()
        return [LogLine(job.run, job.attempt, job.worker, level, text, now - at) for at, level, text in lines]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what this thread logs within the body."""
        _current.log = self
        try:
            yield
        finally:
            _current.log = None


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log: JobLog | None = getattr(_current, "log", None)
        if log is None:
            return
        try:
            log.add(record)
        except Exception:  # noqa: BLE001  # a message that does not fit its arguments must not end the attempt
            self.handleError(record)


_HANDLER = _Handler()


def keep(store: Store, lines: Sequence[LogLine]) -> None:
    """Write lines down; where that cannot be, they stand in the log all the same."""
    try:
        store.events.log(lines)
    except StateUnavailable as error:
        log.warning("%d lines about jobs are only in the log: %s", len(lines), error)
    except Exception:  # what becomes of a line must not change what becomes of the job
        log.exception("%d lines about jobs are only in the log", len(lines))


def install() -> None:
    """Listen to all of jobber's loggers; once is enough."""
    logging.getLogger("jobber").addHandler(_HANDLER)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return Level.ERROR
    if number >= logging.WARNING:
        return Level.WARNING
    return Level.INFO if number >= logging.INFO else Level.DEBUG
