"""Waiting for a PostgreSQL server that may never answer, so that a cancel is heard all the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from jobber.cancellation import Cancellation

if TYPE_CHECKING:
    from jobber.results.postgresql_pool import Connection


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
