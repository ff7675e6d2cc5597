"""Log lines: one format for all processes, colours on a terminal only."""

from __future__ import annotations

import logging
import sys
import time

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


def configure_logging(level: str) -> None:
    """Send log lines of ``level`` and above to standard error; of libraries, warnings and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(colours=sys.stderr.isatty()))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("jobber").setLevel(level.upper())
