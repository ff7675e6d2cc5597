"""Databases that serve a task equally well: its jobs go on with another one while one is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from jobber.jobs import Job

#: Seconds for which a database that could not be reached is passed over where another one may do.
_DOWN = 10.0


class Replicas:
    """What one process knows of the databases that it reads.

    Parameters:
        databases: that it can read at all.
    """

    def __init__(self, databases: Collection[str]) -> None:
        self._databases = databases
        self._lock = threading.Lock()
        self._down: dict[str, tuple[float, str]] = {}  # until when, and why

    def note_down(self, db: str, why: str) -> None:
        """Note that a database could not be reached."""
        with self._lock:
            self._down[db] = time.monotonic() + _DOWN, why

    def why_down(self, db: str) -> str | None:
        """Return why a database could not be reached a moment ago; None if nobody tried in vain."""
        with self._lock:
            until, why = self._down.get(db, (0.0, ""))
            if until > time.monotonic():
                return why
            self._down.pop(db, None)
            return None

    def next_of(self, job: Job) -> str | None:
        """Return the database that a job should try next; None where it has tried all since it last failed.

        Twice: one that was passed over the first time may be back.
        """
        known = [name for name in job.replicas if name in self._databases]
        if job.db not in known or job.reroutes >= 2 * (len(known) - 1):
            return None
        return known[(known.index(job.db) + 1) % len(known)]
