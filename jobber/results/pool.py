"""Connections to a results server, kept between uses: SQLAlchemy's pool with a look at each connection that it lends.

Whoever needs a connection waits for it to be opened, so a refusal arrives at once and in the server's own words;
psycopg's pool connects in the background and can only say that time ran out.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from jobber.aside import call_aside
from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.errors import ResultsUnavailable

#: Seconds between two looks for a free connection.
_GLANCE = 0.1

C = TypeVar("C")


class Pool(Generic[C]):
    """At most so many connections as the settings say. Nothing is connected before it is asked for.

    Parameters:
        settings: of the results database.
        connect: opens a connection of the driver's.
        is_idle: whether a connection is open, outside of a transaction, and has nothing to read.
    """

    def __init__(self, settings: ResultsSettings, connect: Callable[[], C], is_idle: Callable[[C], bool]) -> None:
        self._name = settings.name
        self._size = settings.connections
        self._timeout = settings.connect_timeout
        self._connect = connect
        self._is_idle = is_idle
        self._lending = threading.local()  # the cancellation of the attempt for which this thread connects
        # SQLAlchemy's own protocol of a DBAPI connection is narrower.
        self._pool = QueuePool(
            cast("Any", self._open),
            pool_size=settings.connections,
            max_overflow=0,
            timeout=_GLANCE,
            reset_on_return=None,
            use_lifo=True,
        )

    @contextmanager
    def lend(
        self, cancellation: Cancellation | None = None, harmless: tuple[type[BaseException], ...] = (BaseException,)
    ) -> Iterator[C]:
        """Lend a connection; one that comes back other than idle is closed.

        Parameters:
            cancellation: of an attempt that holds no connection yet: it waits for one until this ends the wait.
            harmless: errors of the body that say nothing against the connection; after any other it is closed too.

        Raises:
            ResultsUnavailable: without a cancellation: all connections are in use for ``connect_timeout``.
        """
        proxy = self._checked(cancellation)
        connection = cast("C", proxy.driver_connection)
        sound = False
        try:
            yield connection
            sound = True
        except harmless:
            sound = True
            raise
        finally:
            if not sound or not self._is_idle(connection):
                proxy.invalidate()
            proxy.close()

    def close(self) -> None:
        """Close all connections that are not lent."""
        self._pool.dispose()

    def _checked(self, cancellation: Cancellation | None) -> PoolProxiedConnection:
        deadline = time.monotonic() + self._timeout
        while True:
            self._lending.cancellation = cancellation
            try:
                proxy = self._pool.connect()
            except PoolTimeout as exc:
                if cancellation is not None:
                    cancellation.check()
                    continue
                if time.monotonic() < deadline:
                    continue
                raise ResultsUnavailable(
                    f'all {self._size} connections to results database "{self._name}" are in use '
                    f"(waited {self._timeout:g} s); raise its pool_size"
                ) from exc
            if self._is_idle(cast("C", proxy.driver_connection)):
                return proxy
            proxy.invalidate()
            proxy.close()

    def _open(self) -> C:
        cancellation: Cancellation | None = self._lending.cancellation
        if cancellation is None:
            return self._connect()
        try:
            connection: C = call_aside(self._connect, self._timeout + 5, cancellation=cancellation, discard=_close)
        except TimeoutError:
            raise ResultsUnavailable(
                f'results database "{self._name}" cannot be reached: no answer within {self._timeout:g} s'
            ) from None
        return connection


def _close(connection: Any) -> None:
    connection.close()


def is_silent(descriptor: int) -> bool:
    """Whether a socket has nothing to read: an idle connection has not, unless the server has said goodbye."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return not poll.poll(0)
