"""Calls that are due at a moment unless what they watch ends before: one thread for all of a process."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Deadlines:
    """Makes each call at its time, in a thread that the first of them starts and that wakes for no others.

    Calls should be short: the next waits for them.
    """

    def __init__(self) -> None:
        self._begin()
        # A fork takes the calls along but not the thread, and perhaps a lock that nobody there gives back.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._calls: dict[int, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None
        self._wakes = math.inf  # when the thread looks next, unless it is told to

    @contextmanager
    def after(self, seconds: float, call: Callable[[], object]) -> Iterator[None]:
        """Make ``call`` in another thread if the body takes longer than ``seconds``; forget it afterwards."""
        due = time.monotonic() + seconds
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="jobber-deadlines", daemon=True)
                thread.start()  # waits for the lock; it may fail, and the next one tries again
                self._thread = thread
            number = next(self._numbers)
            self._calls[number] = due, call
            if due < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._calls.pop(number, None)

    def _run(self) -> None:
        while True:
            call = self._next()
            try:
                call()
            except Exception:
                log.exception("a call at a deadline failed")
            del call  # what it holds is not to outlive what it watched

    def _next(self) -> Callable[[], object]:
        """Wait for the next call that is due, and take it."""
        with self._changed:
            while True:
                number, (due, call) = min(
                    self._calls.items(), key=lambda item: item[1][0], default=(-1, (math.inf, _nothing))
                )
                if due <= time.monotonic():
                    del self._calls[number]
                    return call
                del call
                self._wakes = due
                self._changed.wait(None if due == math.inf else due - time.monotonic())


def _nothing() -> None:
    pass


#: Of this process.
deadlines = Deadlines()
