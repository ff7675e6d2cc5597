"""Connecting in a thread beside the one that waits: what does not answer there blocks beyond any cancel.

A name server, a firewall that drops packets, a server that takes connections and says nothing: a driver's own limit is
per address at best, and no driver hears a cancel meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jobber.cancellation import Cancellation

C = TypeVar("C")


def connect_aside(connect: Callable[[], C], close: Callable[[C], None], cancellation: Cancellation, limit: float) -> C:
    """Return what ``connect`` opens; what it opens after nobody waits any more is closed.

    Parameters:
        connect: opens a connection, or raises why it cannot.
        close: closes one.
        limit: seconds.

    Raises:
        TimeoutError: it took longer.
        Exception: what ``connect`` raises, or the reason of the cancellation.
    """
    attempt = _Attempt(connect, close)
    try:
        with cancellation.interruptible(attempt.done.set):
            attempt.done.wait(limit)
        return attempt.outcome()
    finally:
        attempt.abandon()


class _Attempt(Generic[C]):
    """A connection being opened; whoever waits for it may leave, and it is closed when it comes."""

    def __init__(self, connect: Callable[[], C], close: Callable[[C], None]) -> None:
        self.done = threading.Event()
        self._close = close
        self._lock = threading.Lock()
        self._abandoned = False
        self._connection: C | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, args=(connect,), name="jobber-connect", daemon=True).start()

    def _run(self, connect: Callable[[], C]) -> None:
        try:
            connection = connect()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        else:
            with self._lock:
                if self._abandoned:
                    self._close(connection)
                else:
                    self._connection = connection
        self.done.set()

    def outcome(self) -> C:
        """Return the connection; TimeoutError if there is none yet."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                raise TimeoutError
            connection, self._connection = self._connection, None
            return connection

    def abandon(self) -> None:
        """Close the connection unless ``outcome`` gave it away, now or when it comes."""
        with self._lock:
            self._abandoned = True
            if self._connection is not None:
                self._close(self._connection)
                self._connection = None
