"""Statements that take a table from its readers, and wait for them so briefly that nobody queues up behind.

A RENAME, DROP or ALTER that waits for a reader has done nothing yet, and whoever wants to read the table next waits
behind it. The servers' own limits of that wait are whole seconds (``lock_wait_timeout``, MariaDB's ``WAIT``). Not to
wait at all (``NOWAIT``) takes its luck to find a gap between readers: with eight whose queries of 20 ms overlap, 854
tries in 9 s, where a RENAME that waits gets its turn after 24 ms. So it waits, and ``KILL QUERY`` from a second
connection ends that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from pymysql import err

from jobber.mysql import Connection, Meaning, meaning, number
from jobber.results.mysql.errors import LOCK_WAIT_TIMEOUT, Held
from jobber.results.readers import WAIT

#: Opens a second connection to the same server, as the same account: one's own queries can be ended without a right.
Another = Callable[[], Connection]

#: Seconds that a statement waits while somebody keeps all tables locked, as backups do. On MySQL such a backup may
#: itself wait for the query that is being read, and everybody else for the backup: so not for long.
LOCK_WAIT = 30
#: Seconds that the server itself lets such a statement wait, where the second connection fails to end that.
_AT_MOST = 1
#: Seconds until the second connection is opened: statements that wait for nobody are done by then.
_EARLY = 0.03
#: Seconds between two looks at what the statement does.
_AGAIN = 0.01
#: Seconds that the server has to answer on the second connection.
_PATIENCE = 1.0
#: What ``SHOW PROCESSLIST`` calls waiting for those who use a table, on both servers.
_WAITING = "Waiting for table metadata lock"


def run_briefly(connection: Connection, statement: str, rest: str = "", *, another: Another | None) -> None:
    """Run ``statement`` and ``rest`` as one; MariaDB's own clause for the wait stands between them.

    https://mariadb.com/kb/en/wait-and-nowait/

    Parameters:
        another: None for a table that nobody else wants to read: it is waited for for a second.

    Raises:
        Held: others used the table for longer than ``readers.WAIT``.
    """
    mariadb = connection.is_mariadb
    if not mariadb:
        connection.run(f"SET SESSION lock_wait_timeout = {_AT_MOST}")
    watch = None if another is None else _Watch(connection, another)
    try:
        with watch or nullcontext():
            connection.run(f"{statement} WAIT {_AT_MOST}{rest}" if mariadb else f"{statement}{rest}")
    except err.Error as exc:
        if number(exc) == LOCK_WAIT_TIMEOUT or _was_ended(watch, exc):
            raise Held from exc
        raise
    finally:
        if not mariadb:
            with suppress(err.Error):
                connection.run(f"SET SESSION lock_wait_timeout = {LOCK_WAIT}")


def _was_ended(watch: _Watch | None, exc: err.Error) -> bool:
    return watch is not None and watch.struck and meaning(exc) is Meaning.INTERRUPTED


class _Watch:
    """Ends what a connection does in the body, if that waits for readers for too long."""

    def __init__(self, connection: Connection, another: Another) -> None:
        self.struck = False
        self._id = connection.id
        self._server = connection.server
        self._another = another
        self._over = threading.Event()
        self._striking = threading.Lock()

    def __enter__(self) -> None:
        threading.Thread(target=self._run, args=[time.monotonic() + WAIT], name="mysql-brief", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        # A KILL that is on its way must not meet the connection's next statement.
        with self._striking:
            self._over.set()

    def _run(self, due: float) -> None:
        if self._over.wait(_EARLY):
            return
        # The server's own limit is left where this fails.
        with suppress(err.Error, OSError, RuntimeError), self._another() as second:
            second.wait_at_most(_PATIENCE)
            # Behind one address there may be several servers, each with connections of that ID.
            if second.server != self._server:
                return
            self._over.wait(max(0.0, due - time.monotonic()))
            while not self._over.is_set():
                if self._waits(second):
                    self._strike(second)
                self._over.wait(_AGAIN)

    def _waits(self, second: Connection) -> bool:
        # A statement that has got its turn is left in peace, however long the disk takes.
        return any(row[0] == self._id and row[6] == _WAITING for row in second.rows("SHOW PROCESSLIST"))

    def _strike(self, second: Connection) -> None:
        with self._striking:
            if not self._over.is_set():
                self.struck = True
                second.run(f"KILL QUERY {self._id}")
