"""Log lines: one format for all processes, colours on a terminal only, and no floods."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

#: Seconds in which the same warning is not written twice.
_PAUSE = 60.0
#: Different warnings that are remembered.
_REMEMBERED = 1000
#: Celery's only word that the broker is back.
_CONNECTED = "celery.worker.consumer.connection"

_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self, *, colours: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        # Messages quote databases and users: nothing in them may look like another line, or steer a terminal.
        head, *rest = super().format(record).split("\n")
        shown = rest if record.exc_info else [f"  {line}" for line in rest]
        line = "\n".join(
            "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in one) for one in [head, *shown]
        )
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"{colour}{line}\033[0m" if colour else line


class Repetitions(logging.Filter):
    """Holds back a warning that was written less than a minute ago, and says later how often that happened.

    What waits for a server warns each time that it tries. Jobber's own errors always pass: they answer somebody.

    Parameters:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        #: When each was written, and how often it was held back since.
        self._written: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write a record; one that stands for several says so."""
        own = record.name.partition(".")[0] == "jobber"
        if record.levelno < logging.WARNING or (own and record.levelno > logging.WARNING):
            return True
        text = record.getMessage().rstrip()
        # Celery counts its tries in the second line.
        said = text if own else text.partition("\n")[0]
        key = (record.name, said, repr(record.exc_info[1]) if record.exc_info else "")
        now = self._clock()
        with self._lock:
            written, held = self._written.get(key, (now - _PAUSE, 0))
            if now - written < _PAUSE:
                self._written[key] = (written, held + 1)
                return False
            if len(self._written) >= _REMEMBERED:
                self._written.clear()
            self._written[key] = (now, 0)
        record.msg, record.args = f"{text} (and {held} times more since the last time)" if held else text, ()
        return True


def configure_logging(level: str) -> None:
    """Send log lines of ``level`` and above to standard error; of libraries, warnings and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(colours=sys.stderr.isatty()))
    handler.addFilter(Repetitions())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("jobber").setLevel(level.upper())
    logging.getLogger(_CONNECTED).setLevel(max(logging.INFO, logging.getLogger("jobber").level))
