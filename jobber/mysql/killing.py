"""Ending what a connection does, from another thread: ``KILL QUERY`` on a second connection, then the socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pymysql import err

from jobber.cancellation import Cancellation
from jobber.mysql.connection import Connection

#: Seconds between two ``KILL QUERY``: one that comes before the query does is lost on the server.
_AGAIN = 0.1
#: Seconds that the server has to end a query before the connection is broken off over it.
_PATIENCE = 1.5


class Killer:
    """Ends what one connection does once its attempt is cancelled.

    A connection that it was let loose on must not be used for anything else: a ``KILL QUERY`` may still be on its way.
    Where one address stands for several servers, the second connection may meet another one, on which the ID is
    somebody else's: there nothing is killed, and the next try may meet the right one.

    Parameters:
        connection: the one that works; nothing is under way on it now.
        another: opens a second connection to the same server, as the same account (no right is needed to kill one's
            own queries).
    """

    def __init__(self, connection: Connection, another: Callable[[], Connection]) -> None:
        self._connection = connection
        self._another = another
        self._server = connection.server
        #: Whether it was let loose: the connection has to be closed.
        self.used = False

    @contextmanager
    def armed(self, cancellation: Cancellation) -> Iterator[None]:
        """While the body waits for the server, a pulled ``cancellation`` ends it (``Cancellation.interruptible``)."""
        over = threading.Event()
        try:
            with cancellation.interruptible(lambda: self.strike(over)):
                yield
        finally:
            over.set()

    def strike(self, over: threading.Event) -> None:
        """Begin to end what the connection does, in a thread of its own.

        Parameters:
            over: to be set when it has ended.
        """
        self.used = True
        threading.Thread(target=self._kill, args=(over,), name="mysql-kill", daemon=True).start()

    def _kill(self, over: threading.Event) -> None:
        # The second connection may hang as the first does.
        backstop = threading.Timer(_PATIENCE, self._connection.abort)
        backstop.daemon = True
        backstop.start()
        while not over.is_set():
            with suppress(err.Error, OSError, RuntimeError), self._another() as second:
                second.wait_at_most(_PATIENCE)
                while second.server == self._server and not over.is_set():
                    second.run(f"KILL QUERY {self._connection.id}")
                    over.wait(_AGAIN)
            if not backstop.is_alive():
                return
            over.wait(_AGAIN)
        backstop.cancel()
