"""Calls in a thread beside the one that waits for them: what does not answer may block for ever, and hears no cancel.

A name server, a firewall that drops packets, a server that takes connections and says nothing, a table that somebody
holds up: a driver's own limit is per address or per packet at best.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jobber.cancellation import Cancellation

T = TypeVar("T")


def call_aside(
    work: Callable[[], T],
    limit: float,
    *,
    cancellation: Cancellation | None = None,
    discard: Callable[[T], None] = lambda _late: None,
) -> T:
    """Return what ``work`` returns; where nobody waits any more, it goes on unattended.

    Parameters:
        limit: seconds.
        cancellation: ends the wait.
        discard: gets what ``work`` returns too late: a connection is to be closed.

    Raises:
        TimeoutError: it took longer.
        Exception: what ``work`` raises, or the reason of the cancellation.
    """
    call = _Call(work, discard)
    try:
        with (cancellation or Cancellation()).interruptible(call.done.set):
            call.done.wait(limit)
        return call.outcome(limit)
    finally:
        call.abandon()


class _Call(Generic[T]):
    """A call that is under way; whoever waits for it may leave, and its outcome is discarded when it comes."""

    def __init__(self, work: Callable[[], T], discard: Callable[[T], None]) -> None:
        self.done = threading.Event()
        self._discard = discard
        self._lock = threading.Lock()
        self._abandoned = False
        self._outcome: list[T] = []  # one at most, which may be None
        self._error: Exception | None = None
        threading.Thread(target=self._run, args=(work,), name="jobber-aside", daemon=True).start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        else:
            with self._lock:
                if self._abandoned:
                    self._discard(outcome)
                else:
                    self._outcome.append(outcome)
        self.done.set()

    def outcome(self, limit: float) -> T:
        """Return what the call returned; TimeoutError if it has not yet."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._outcome:
                raise TimeoutError(f"no answer within {limit:g} s")
            return self._outcome.pop()

    def abandon(self) -> None:
        """Discard what ``outcome`` did not give away, now or when it comes."""
        with self._lock:
            self._abandoned = True
            if self._outcome:
                self._discard(self._outcome.pop())
