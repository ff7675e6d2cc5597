"""Connections of one source: few, lent to one job at a time, opened when a job needs one.

Not a driver's pool: its connections are opened by threads of its own, so a job would learn that "no connection came
in time" instead of why, and its waits cannot be cancelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from jobber.aside import call_aside
from jobber.cancellation import Cancellation
from jobber.errors import SourceOverloaded, SourceUnavailable
from jobber.sources.base import SLOW_CONNECT

#: Seconds an unused connection is kept; proxies and firewalls forget idle ones.
_IDLE_MAX = 300.0
#: Seconds that what is only nice to know waits for a free session.
FREE_WITHIN = 0.2
_GLANCE = 0.1


class Session(Protocol):
    """A connection as the pool sees it."""

    #: ``time.monotonic()`` of when ``rest`` last succeeded.
    idle_since: float

    def rest(self) -> bool:
        """Undo what a job left behind; False if the connection cannot serve another one and must be closed."""
        ...

    def end(self) -> None:
        """Make sure that no query runs on, and close the connection."""
        ...


S = TypeVar("S", bound=Session)


class Pool(Generic[S]):
    """At most ``size`` sessions.

    Parameters:
        source: name of the database, for messages.
        connect: opens a session, or raises an error of jobber's; called in a thread of its own.
        size: sessions at most.
        connect_timeout: seconds.
    """

    def __init__(self, source: str, connect: Callable[[], S], size: int, connect_timeout: float) -> None:
        self._source = source
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[S] = []  # the newest last: it is the one to take
        self._closed = False

    def acquire(self, cancellation: Cancellation, begin: Callable[[S], None], patience: float = 0) -> S:
        """Lend a session on which ``begin`` has succeeded.

        Parameters:
            cancellation: ends the wait for a free session and the connecting.
            begin: opens the transaction; an idle connection that the server closed meanwhile shows here, and a fresh
                one replaces it.
            patience: seconds to wait for a free session; 0 waits until the cancellation ends it.

        Raises:
            SourceUnavailable: no connection can be opened, or none came free.
        """
        deadline = time.monotonic() + patience
        while not self._slots.acquire(timeout=_GLANCE):
            cancellation.check()
            if patience and time.monotonic() > deadline:
                raise SourceUnavailable(f"all connections to the database {self._source} are busy")
        try:
            while (session := self._take_idle()) is not None:
                try:
                    begin(session)
                except SourceUnavailable:
                    session.end()
                except BaseException:
                    session.end()
                    raise
                else:
                    return session
            session = self._open(cancellation)
            try:
                begin(session)
            except BaseException:
                session.end()
                raise
        except BaseException:
            self._slots.release()
            raise
        return session

    def release(self, session: S) -> None:
        """Take a session back: kept if it is clean, else its query is ended and it is closed."""
        try:
            if session.rest():
                with self._lock:
                    if not self._closed:
                        self._idle.append(session)
                        return
            session.end()
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close the idle sessions; lent ones are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.end()

    def _take_idle(self) -> S | None:
        stale = []
        with self._lock:
            oldest = time.monotonic() - _IDLE_MAX
            while self._idle and self._idle[0].idle_since < oldest:
                stale.append(self._idle.pop(0))
            session = self._idle.pop() if self._idle else None
        for unused in stale:
            unused.end()
        return session

    def _open(self, cancellation: Cancellation) -> S:
        try:
            # A driver's own limit is per address, and leaves out the name server.
            return call_aside(self._connect, self._connect_timeout + 5, cancellation=cancellation, discard=self._end)
        except TimeoutError:
            raise SourceOverloaded(
                f"the database {self._source} cannot be reached: no answer within {self._connect_timeout:g} s",
                reason=SLOW_CONNECT,
            ) from None

    @staticmethod
    def _end(session: S) -> None:
        session.end()
