"""Connections to a results database on MySQL or MariaDB: opened when first needed, kept, checked without asking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pymysql import err
from pymysql.constants import FIELD_TYPE, SERVER_STATUS

from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.errors import JobberError
from jobber.mysql import Connection, connect
from jobber.results.mysql.brief import LOCK_WAIT
from jobber.results.mysql.errors import Held, translated
from jobber.results.pool import Pool, is_silent

#: What the server's own settings must not change. Rounded and cut values are told of by warnings and notes only; a
#: backup may lock all tables for a while (``tables`` says what waits less); a stream of rows may pause as long as its
#: source does (seconds). https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html
_VARIABLES = {
    "sql_mode": ("'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"),
    "time_zone": "'+00:00'",
    "lc_messages": "'en_US'",
    "sql_notes": "1",
    "lock_wait_timeout": str(LOCK_WAIT),
    "innodb_lock_wait_timeout": "5",
    "net_read_timeout": "86400",
    "net_write_timeout": "600",
    "wait_timeout": "86400",
    "sql_select_limit": "18446744073709551615",
    "sql_safe_updates": "0",
    "completion_type": "'NO_CHAIN'",
}
#: Not on every server, or not for every account. A table of strict InnoDB has no more than 196 columns of text, however
#: short the texts are. Warnings are counted whether they are kept or not. Between two INSERTs a source may pause. LOAD
#: DATA asks for its rows in the character set of file names.
_IF_POSSIBLE = {
    "max_statement_time": "0",
    "max_execution_time": "0",
    "idle_transaction_timeout": "0",
    "idle_write_transaction_timeout": "0",
    "max_error_count": "64",
    "innodb_strict_mode": "OFF",
    "character_set_filesystem": "binary",
}
#: Read as the text that the server prints: the canonical form.
_AS_TEXT = frozenset(
    {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL, FIELD_TYPE.DATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
)


class Connections:
    """The pool of one results database; its connections are in autocommit mode."""

    def __init__(self, settings: ResultsSettings) -> None:
        self._name = settings.name
        self._url = settings.url
        self._timeout = settings.connect_timeout
        self._pool = Pool(settings, self._connect, _is_idle)

    def _connect(self) -> Connection:
        connection = connect(self._url, connect_timeout=self._timeout, local_infile=True)
        try:
            connection.decoders = {kind: decode for kind, decode in connection.decoders.items() if kind not in _AS_TEXT}
            connection.run("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in _VARIABLES.items()))
            connection.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
            for name, value in _IF_POSSIBLE.items():
                with suppress(err.Error):
                    connection.run(f"SET SESSION {name} = {value}")
        except BaseException:
            connection.abort()
            connection.close()
            raise
        return connection

    def another(self) -> Connection:
        """Return a connection beside those of the pool; it never waits longer than ``connect_timeout``."""
        return connect(self._url, connect_timeout=self._timeout, read_timeout=self._timeout)

    def ping(self) -> None:
        """Ask the server something on a connection of its own: those of the pool may all be in use.

        Raises:
            ResultsUnavailable: there was no answer in time.
        """
        until = time.monotonic() + self._timeout
        with translated(self._name), self.another() as connection:
            connection.wait_at_most(max(0.1, until - time.monotonic()))
            connection.rows("SELECT 1")

    @contextmanager
    def connection(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        """Lend a connection; one that comes back broken, inside a transaction or by a foreign error is closed.

        Parameters:
            cancellation: of an attempt that holds no connection yet: it waits for one until this ends the wait.

        Raises:
            ResultsUnavailable: the server cannot be reached, or all connections are in use for ``connect_timeout``.
            ResultsFailed: whatever the server refused to the body, in its own words.
        """
        with translated(self._name), self._pool.lend(cancellation, harmless=(JobberError, Held)) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections that are not lent."""
        self._pool.close()


@contextmanager
def heard(cancellation: Cancellation, connection: Connection) -> Iterator[None]:
    """While the body waits for the server, a pulled token breaks the connection; the body ends with the reason.

    What the server still does then, it ends when somebody ends its connection (``MysqlResults.give_up``).
    """
    with cancellation.interruptible(connection.abort):
        yield


def _is_idle(connection: Connection) -> bool:
    """Whether a connection is open and outside of a transaction, and the server has not said goodbye."""
    if connection.sock is None or connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
        return False
    return is_silent(connection.sock.fileno())
