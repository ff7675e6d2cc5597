"""Waiting for a PostgreSQL server that may never answer, so that a cancel is heard all the same."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobber.cancellation import Cancellation
from jobber.errors import AttemptError
from jobber.results.postgresql_pool import Connection

#: Seconds that the end of an attempt waits for the server once somebody asked the attempt to stop.
PATIENCE = 1.0
#: Seconds that it waits at most otherwise.
_LONGEST = 60.0


@contextmanager
def heard(cancellation: Cancellation, connection: Connection) -> Iterator[None]:
    """While the body waits for the server, a pulled token breaks the connection; the body ends with the reason.

    What was not committed by then never will be: a server that still works on it finds its client gone.

    Raises:
        psycopg.OperationalError: the connection is closed already.
    """
    # A descriptor of our own: libpq closes its own when it meets an error, and the number may serve somebody else then.
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:

        def cut() -> None:
            with suppress(OSError):  # closed by the server
                wire.shutdown(socket.SHUT_RDWR)

        with cancellation.interruptible(cut):
            yield


def aside(cancellation: Cancellation, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own and wait for it, but not for long once the token is pulled.

    It goes on unattended then, until the server answers or the connection breaks.

    Parameters:
        work: raises nothing.
    """
    done = threading.Event()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    thread = threading.Thread(target=run, name="jobber-results-end", daemon=True)
    thread.start()
    with suppress(AttemptError), cancellation.interruptible(done.set):
        done.wait(_LONGEST)
    if cancellation.reason is not None:
        thread.join(PATIENCE)
