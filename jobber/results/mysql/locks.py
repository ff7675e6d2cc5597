"""Advisory locks of the server: who may change a result's table, and which connection fills a staging table.

A lock of ``GET_LOCK`` belongs to a connection, outlives the commits that DDL brings with it, and is gone no sooner than
whatever its connection does on the server. That is what a ``RENAME`` needs, which no transaction can hold.
https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pymysql import err

from jobber.errors import ResultsUnavailable
from jobber.mysql import Connection

#: Seconds that a connection takes to be gone once it was ended.
_KILLED = 5


class Locks:
    """The locks of one database; their names are the whole server's.

    Parameters:
        database: its name as the server compares it.
        name: of the results database, as the config calls it.
    """

    def __init__(self, database: str, name: str) -> None:
        #: Seconds that a step under a lock may take; who holds one for longer hangs.
        self.patience = 10
        self._database = database
        self._name = name

    @contextmanager
    def held(self, connection: Connection, table: str) -> Iterator[None]:
        """Hold the lock of a table. Who holds it for more than ``patience`` seconds is disconnected.

        Raises:
            ResultsUnavailable: somebody holds it, and cannot be disconnected.
        """
        lock = self._lock(table)
        if not _get(connection, lock, self.patience):
            self._disconnect_holder(connection, lock)
            if not _get(connection, lock, _KILLED):
                raise ResultsUnavailable(
                    f'"{table}" in results database "{self._name}" is kept locked by another worker that does not '
                    "answer, and whose connection jobber's account may not end"
                )
        try:
            yield
        finally:
            try:
                connection.run("DO RELEASE_LOCK(%s)", [lock])
            except err.Error:
                # With the connection its locks are gone.
                connection.abort()

    def mark(self, connection: Connection, staging: str) -> None:
        """Mark the connection as the one that fills a staging table."""
        _get(connection, self._lock(staging), 0)

    def unmark(self, connection: Connection, staging: str) -> None:
        """Take the mark off, before the connection serves somebody else."""
        connection.run("DO RELEASE_LOCK(%s)", [self._lock(staging)])

    def disconnect(self, connection: Connection, staging: str) -> bool:
        """End the connection that fills a staging table; False if there is none any more.

        Only for attempts that may not publish any more: their connections serve nobody else.
        """
        return self._disconnect_holder(connection, self._lock(staging))

    def _disconnect_holder(self, connection: Connection, lock: str) -> bool:
        [(holder,)] = connection.rows("SELECT IS_USED_LOCK(%s)", [lock])
        if holder is not None:
            # It is gone by itself, or another account's.
            with suppress(err.OperationalError, err.InternalError):
                connection.run(f"KILL {int(holder)}")
        return holder is not None

    def _lock(self, what: str) -> str:
        # At most 64 characters, whatever the names are.
        return "jobber " + hashlib.sha256(f"{self._database}\0{what}".encode()).hexdigest()[:48]


def _get(connection: Connection, lock: str, seconds: int) -> bool:
    [(got,)] = connection.rows("SELECT GET_LOCK(%s, %s)", [lock, seconds])
    return bool(got)
