"""Connections to a results database on PostgreSQL: opened when first needed, kept, checked without a round trip."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from jobber.config import ResultsSettings
from jobber.errors import ResultsUnavailable
from jobber.results.postgresql_errors import translated

Connection = psycopg.Connection[tuple[Any, ...]]

#: What a role's or a database's own defaults must not change. A lock or an open transaction of ours never outlives a
#: hung worker by much; the ledger's compare-and-set relies on READ COMMITTED.
_SESSION = """
SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET statement_timeout = 0; SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '60s'; SET default_transaction_isolation = 'read committed'
"""


class Connections:
    """A pool of at most ``pool_size`` connections in autocommit mode. Nothing is connected before it is asked for.

    SQLAlchemy's pool connects in the calling thread, so a refusal arrives at once and in the server's own words;
    psycopg's connects in the background and can only say that time ran out.
    """

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
        self._size = settings.pool_size
        self._timeout = settings.connect_timeout
        self._pool = QueuePool(
            self._connect,  # type: ignore[arg-type]  # SQLAlchemy's own protocol of a DBAPI connection is narrower
            pool_size=settings.pool_size,
            max_overflow=0,
            timeout=settings.connect_timeout,
            reset_on_return=None,
            use_lifo=True,
        )

    def _connect(self) -> Connection:
        connection = psycopg.connect(autocommit=True, prepare_threshold=None, **self._parameters)
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
    def connection(self) -> Iterator[Connection]:
        """Lend a connection; one that comes back broken or inside a transaction is closed.

        Raises:
            ResultsUnavailable: the server cannot be reached, or all connections are in use for ``connect_timeout``.
            ResultsFailed: whatever the server refused to the body, in its own words.
        """
        with translated(self._name):
            proxy = self._checked()
            connection: Connection = proxy.driver_connection  # type: ignore[assignment]
            try:
                yield connection
            finally:
                if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
                    proxy.invalidate()
                proxy.close()

    def _checked(self) -> PoolProxiedConnection:
        while True:
            try:
                proxy = self._pool.connect()
            except PoolTimeout as exc:
                raise ResultsUnavailable(
                    f'all {self._size} connections to results database "{self._name}" are in use '
                    f"(waited {self._timeout:g} s); raise its pool_size"
                ) from exc
            connection: Connection = proxy.driver_connection  # type: ignore[assignment]
            # An idle connection has nothing to read, unless the server has said goodbye.
            poll = select.poll()
            if not connection.closed:
                poll.register(connection.fileno(), select.POLLIN)
                if not poll.poll(0):
                    return proxy
            proxy.invalidate()
            proxy.close()

    def close(self) -> None:
        """Close all connections that are not lent."""
        self._pool.dispose()
