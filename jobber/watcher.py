"""Waits for jobs, or groups, to finish on behalf of many callers, with one query for all of them.

A process has one watcher for jobs and one for groups. Its thread asks the store only while somebody waits, at short
intervals first and longer ones later; a waiter costs an entry in a dictionary.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from jobber.errors import StateUnavailable

log = logging.getLogger(__name__)

#: Seconds between two looks: right after a waiter came, and at most. A look costs about 0.3 ms on PostgreSQL.
_SHORTEST, _LONGEST = 0.005, 0.1


class Watcher:
    """Watches for what finishes while callers wait.

    Parameters:
        live: returns those of a number of IDs that are not finished.
        seats: one for each caller that may wait at a time, perhaps of several watchers together; while none is free,
            ``wait`` answers at once.
    """

    def __init__(self, live: Callable[[Collection[str]], set[str]], seats: threading.Semaphore) -> None:
        self._live = live
        self._seats = seats
        self._changed = threading.Condition()
        self._waiters: dict[str, list[threading.Event]] = {}
        self._newest = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def wait(self, key: str, seconds: float) -> bool:
        """Return True as soon as no run of the ID ``key`` is live, False after ``seconds`` or where too many wait.

        Also True where somebody was ``told`` of it, which the caller is to look after.
        """
        if seconds <= 0 or not self._seats.acquire(blocking=False):
            return False
        try:
            return self._wait(key, seconds)
        finally:
            self._seats.release()

    def _wait(self, key: str, seconds: float) -> bool:
        event = threading.Event()
        with self._changed:
            if self._closed:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
                self._thread.start()
            self._waiters.setdefault(key, []).append(event)
            self._newest = time.monotonic()
            self._changed.notify()
        try:
            return event.wait(seconds) and not self._closed
        finally:
            with self._changed:
                events = self._waiters.get(key, [])
                if event in events:
                    events.remove(event)
                if not events:
                    self._waiters.pop(key, None)

    def told(self, key: str) -> None:
        """Let those go who wait for ``key``: it may have finished. Who finds that it has not may wait on."""
        with self._changed:
            for event in self._waiters.pop(key, []):
                event.set()

    def close(self) -> None:
        """Let every waiter go."""
        with self._changed:
            self._closed = True
            for events in self._waiters.values():
                for event in events:
                    event.set()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._waiters and not self._closed:
                    self._changed.wait()
                self._pause()
                if self._closed:
                    return
                watched = set(self._waiters)
            try:
                live = self._live(watched)
            except StateUnavailable:
                live = watched  # waiters time out by themselves if it stays away
            except Exception:
                log.exception("waiting for the end of jobs stumbled; it goes on")
                live = watched
            with self._changed:
                for key in watched - live:
                    for event in self._waiters.pop(key, []):
                        event.set()

    def _pause(self) -> None:
        """Wait until somebody should look: who waits has just done so.

        For a tenth of the time that the newest waiter has waited: quick jobs are seen at once, slow ones cost little.
        """
        began = time.monotonic()
        while self._waiters and not self._closed:
            now = time.monotonic()
            left = began + min(max(_SHORTEST, (now - self._newest) / 10), _LONGEST) - now
            if left <= 0:
                return
            self._changed.wait(left)
