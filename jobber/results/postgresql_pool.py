"""Connections to a results database on PostgreSQL: opened when first needed, kept, checked without a round trip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Timer
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.errors import ResultsUnavailable
from jobber.results.pool import Pool, is_silent
from jobber.results.postgresql_errors import translated
from jobber.results.postgresql_waiting import heard

Connection = psycopg.Connection[tuple[Any, ...]]

#: What a role's or a database's own defaults must not change. A lock or an open transaction of ours never outlives a
#: hung worker by much; the ledger's compare-and-set relies on READ COMMITTED.
_SESSION = """
SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET statement_timeout = 0; SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '60s'; SET default_transaction_isolation = 'read committed'
"""


class Connections:
    """The pool of one results database; its connections are in autocommit mode."""

    def __init__(self, settings: ResultsSettings) -> None:
        self._name = settings.name
        url = make_url(settings.url)
        self._parameters: dict[str, Any] = {
            "connect_timeout": max(2, round(settings.connect_timeout)),  # libpq takes whole seconds, 2 at least
            "application_name": f"jobber results {settings.name}",
            "client_encoding": "UTF8",
            # A peer that vanished without a word is noticed within about a minute.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
            **url.query,
            **url.translate_connect_args(username="user", database="dbname"),
        }
        self._timeout = settings.connect_timeout
        self._pool = Pool(settings, self._connect, _is_idle)

    def ping(self) -> None:
        """Ask the server something on a connection of its own: those of the pool may all be in use.

        Raises:
            ResultsUnavailable: there was no answer in time.
        """
        token = Cancellation()
        late = ResultsUnavailable(f'results database "{self._name}" is not available: no answer')
        timer = Timer(self._timeout, token.pull, [late])
        timer.daemon = True
        timer.start()
        try:
            with translated(self._name), closing(self._open()) as connection, heard(token, connection):
                connection.execute("SELECT 1")
        finally:
            timer.cancel()

    def _open(self) -> Connection:
        return psycopg.connect(autocommit=True, prepare_threshold=None, **self._parameters)

    def _connect(self) -> Connection:
        connection = self._open()
        try:
            connection.execute(_SESSION)
            # A statement whose client is gone ends soon; not every version and system can look for that.
            with suppress(psycopg.Error):
                connection.execute("SET client_connection_check_interval = '500ms'")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def connection(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        """Lend a connection; one that comes back broken or inside a transaction is closed.

        Parameters:
            cancellation: of an attempt that holds no connection yet: it waits for one until this ends the wait.

        Raises:
            ResultsUnavailable: the server cannot be reached, or all connections are in use for ``connect_timeout``.
            ResultsFailed: whatever the server refused to the body, in its own words.
        """
        with translated(self._name), self._pool.lend(cancellation) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections that are not lent."""
        self._pool.close()


def _is_idle(connection: Connection) -> bool:
    if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
        return False
    return is_silent(connection.fileno())
