"""The connection to the state database: one transaction after another, what differs by engine, and trying again.

``write`` and ``read`` take a function, because a transaction that lost a race is run again from its start.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from jobber.errors import ConfigError
from jobber.store.failures import Cause, cause, translated

T = TypeVar("T")

#: How often, and for how long (seconds), a transaction that lost a race is run again.
ATTEMPTS = 10
PATIENCE = 15.0
#: Seconds that a writer waits for SQLite's one write lock, unless the URL says ``?timeout=``.
SQLITE_TIMEOUT = 10.0

#: Nobody may hold up the others: a claimer that hangs between two statements is thrown out, and its lock with it.
_POSTGRESQL_SETTINGS = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "30s",
    "default_transaction_isolation": "read committed",
}
#: libpq notices a dead peer within about half a minute instead of two hours
#: (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES).
_POSTGRESQL_CONNECT = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "jobber state",
}

#: The database's clock, in microseconds. PostgreSQL: stable within a statement, so that an index on a time is used;
#: SQLite: julianday counts whole milliseconds.
_NOW = {
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS BIGINT) * 1000",
}


def clock(engine_name: str) -> ColumnElement[int]:
    """Return the clock of an engine as an SQL expression, in microseconds."""
    return literal_column(f"({_NOW[engine_name]})", BigInteger())


def among(engine_name: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return ``column IN values`` with one parameter, whatever their number, so that one statement serves all.

    Parameters:
        name: of the parameter; its value comes from ``Database.many``.
    """
    if engine_name == "postgresql":
        kind = postgresql.TEXT() if isinstance(column.type, Text) else BigInteger()
        return column == func.any(bindparam(name, type_=postgresql.ARRAY(kind)))
    return column.in_(select(func.json_each(bindparam(name, type_=Text())).table_valued("value").c.value))


class TryAgain(Exception):
    """Raised inside ``write`` by work that lost a race; the transaction is rolled back and run again."""


class Database:
    """An engine with its pool. Safe to use from several threads; not to be carried over a fork.

    Parameters:
        url: SQLAlchemy URL of SQLite (a file) or PostgreSQL.
        pool_size: connections at most.

    Raises:
        ConfigError: the URL names another engine, or SQLite without a file.
    """

    def __init__(self, url: str, *, pool_size: int) -> None:
        parsed = make_url(url)
        self.engine_name = parsed.get_backend_name()
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": PATIENCE}
        if self.engine_name == "sqlite":
            if not parsed.database or parsed.database == ":memory:" or "mode=memory" in url:
                raise ConfigError("the state database must be a file: SQLite in memory is seen by one process only")
            parsed = _with_default(parsed, "timeout", str(SQLITE_TIMEOUT))
        elif self.engine_name == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
            options["connect_args"] = {k: v for k, v in _POSTGRESQL_CONNECT.items() if k not in parsed.query}
        else:
            raise ConfigError(f"the state database cannot be {self.engine_name}; use PostgreSQL or SQLite")
        # Errors are chained for the log, and arguments of jobs are not for the log.
        self._engine = create_engine(parsed, hide_parameters=True, **options)
        if self.engine_name == "sqlite":
            event.listen(self._engine, "connect", _open_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            # One of our own threads at a time at SQLite's lock: its waiters sleep and poll, ours are woken.
            self._turn: AbstractContextManager[Any] = threading.Lock()
            self._reader = self._engine
        else:
            event.listen(self._engine, "connect", _open_postgresql)
            self._turn = nullcontext()
            # A read is one statement: no BEGIN, no COMMIT, a third of the round trips.
            self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self._engine.execution_options(jobber_write=True)

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a write transaction and commit; again from the start where it lost a race.

        SQLite: ``BEGIN IMMEDIATE``. PostgreSQL: READ COMMITTED.

        Raises:
            StateUnavailable: the database cannot be reached, or the lock was not to be had.
            IntegrityError: of SQLAlchemy, for the caller to make sense of.
        """

        def once() -> T:
            with self._turn, self._writer.connect() as connection, connection.begin() as transaction:
                result = work(connection)
                try:
                    transaction.commit()
                except SQLAlchemyError as error:
                    raise _CommitFailed(error) from error
                return result

        return self._persist(once)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads; each statement sees what is committed when it starts.

        Raises:
            StateUnavailable: the database cannot be reached.
        """

        def once() -> T:
            with self._reader.connect() as connection:
                return work(connection)

        return self._persist(once)

    def _persist(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        connection_lost = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return once()
            except IntegrityError:
                raise
            except _CommitFailed as failed:
                # Whether it was committed is not known: only the caller's own check can tell.
                if cause(failed.error) is not Cause.CONFLICT:
                    raise translated(failed.error) from failed.error
                last: SQLAlchemyError | None = failed.error
            except SQLAlchemyError as error:
                kind = cause(error)
                # A pooled connection may have died while it lay idle. Nothing was committed: one fresh one is tried.
                if kind is Cause.CONNECTION and not connection_lost:
                    connection_lost = True
                    continue
                if kind is not Cause.CONFLICT:
                    raise translated(error) from error
                last = error
            except TryAgain:
                last = None
            if time.monotonic() > deadline or attempt == ATTEMPTS:
                break
            time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))  # noqa: S311
        raise translated(last or _Contended()) from last

    # -- what differs by engine ----------------------------------------------------------------------------------------

    @property
    def now(self) -> ColumnElement[int]:
        """The database's clock as an SQL expression, in microseconds."""
        return clock(self.engine_name)

    def many(self, values: Collection[Any]) -> Any:
        """Return values as the one parameter that ``among`` takes."""
        return list(values) if self.engine_name == "postgresql" else json.dumps(list(values))

    def insert(self, table: Any) -> Any:
        """Return an INSERT that knows ON CONFLICT, which both engines spell alike."""
        return postgresql.insert(table) if self.engine_name == "postgresql" else sqlite.insert(table)


class _CommitFailed(Exception):
    """Raised where COMMIT itself failed, so that the outcome is not known."""

    def __init__(self, error: SQLAlchemyError) -> None:
        super().__init__()
        self.error = error


class _Contended(SQLAlchemyError):
    """Stands for work that lost every race."""


def _with_default(url: URL, key: str, value: str) -> URL:
    return url if key in url.query else url.update_query_dict({key: value})


def _open_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin and commit by itself; BEGIN is ours (see _begin_sqlite).
    connection.isolation_level = None
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except Exception as error:
            # Turning WAL on takes the file for itself and does not ask the busy handler: several first starts collide.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # An accepted job survives a power cut: WAL with FULL syncs each commit (https://sqlite.org/pragma.html#pragma_synchronous).
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # Readers take no lock and need no transaction: each statement sees one state.
    if connection.get_execution_options().get("jobber_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open_postgresql(connection: Any, _record: Any) -> None:
    settings = ", ".join("set_config(%s, %s, false)" for _ in _POSTGRESQL_SETTINGS)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {settings}", [part for pair in _POSTGRESQL_SETTINGS.items() for part in pair])
    connection.commit()
