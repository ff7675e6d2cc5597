"""How one thread stops what another is doing: a token that the attempt carries and any thread may pull.

The token knows nothing of databases. Whoever is about to block in one registers the engine's own way to interrupt it
(``cancel_safe``, ``KILL QUERY``, ``interrupt``) for just as long as the block lasts, with ``interruptible``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobber.errors import AttemptError


class Cancellation:
    """One per attempt. Pulled at most once: the first reason stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: AttemptError | None = None
        self._interrupt: Callable[[], None] | None = None

    @property
    def reason(self) -> AttemptError | None:
        """Why the attempt must stop, or None while it may go on."""
        return self._reason

    def pull(self, reason: AttemptError) -> bool:
        """Ask the attempt to stop, and interrupt what it blocks in; False if it was asked before.

        Parameters:
            reason: the error that the attempt ends with (Cancelled, TimedOut, Interrupted or Fenced).
        """
        # The interrupt runs under the lock: once ``interruptible`` has let go, none can be on its way to a
        # connection that already serves somebody else.
        with self._lock:
            if self._reason is not None:
                return False
            self._reason = reason
            if self._interrupt is not None:
                self._interrupt()
            return True

    def check(self) -> None:
        """Raise the reason if the attempt must stop; cheap enough for every batch."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While the body runs, ``pull`` calls ``interrupt`` (from another thread).

        Raises the reason at once if the token was pulled before, and on leaving if it was pulled meanwhile, whatever
        error the interrupted call itself raised. ``interrupt`` must not raise and must not block for long.
        """
        with self._lock:
            self.check()
            previous, self._interrupt = self._interrupt, interrupt
        try:
            yield
        except BaseException as error:
            self._release(previous)
            if self._reason is not None and isinstance(error, Exception) and error is not self._reason:
                raise self._reason from error
            raise
        else:
            self._release(previous)
            self.check()

    def _release(self, previous: Callable[[], None] | None) -> None:
        with self._lock:
            self._interrupt = previous
