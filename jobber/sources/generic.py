"""Any other database that SQLAlchemy has a dialect for, as a source.

The general path: rows as the driver gives them, kinds found by ``inference``. How far it is read-only depends on the
database: DuckDB files are opened read-only and closed to other files; elsewhere the query runs in a transaction that
is always rolled back, and rights must do the rest: give jobber a role that can only read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, CursorResult, make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column
from jobber.config import DatabaseSettings
from jobber.errors import AttemptError, ConfigError, QueryFailed, SourceUnavailable, TimedOut
from jobber.jobs import Scalar
from jobber.sources import duckdb
from jobber.sources.base import Query, RowStream, Shape
from jobber.sources.inference import Inference, InferredRows
from jobber.sqltext import Statement

BATCH_ROWS = 2000
#: Seconds between two interrupts, and until the connection is closed over a query that no interrupt ends.
_AGAIN, _PATIENCE = 0.1, 1.5


class GenericSource:
    """A database that is read through its SQLAlchemy dialect (see ``sources.base.Source``)."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = settings.name
        self.engine = settings.engine
        url = make_url(settings.url)
        try:
            self._engine = sa.create_engine(
                url,
                connect_args=_read_only(url),
                pool_size=settings.connections,
                max_overflow=0,
                poolclass=sa.QueuePool,
                pool_pre_ping=True,
                pool_timeout=settings.connect_timeout,
            )
        except (exc.NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"db.{settings.name}: there is no driver for {url.drivername}; install the SQLAlchemy dialect and "
                "the database's driver in jobber's environment"
            ) from error
        if self.engine == "duckdb":
            sa.event.listen(self._engine, "connect", duckdb.keep_quiet)

    def describe(self, statement: Statement) -> Sequence[Column] | None:
        """Return the columns that DuckDB describes; None elsewhere: drivers share no way to prepare a statement."""
        if self.engine != "duckdb" or not duckdb.describable(statement.sql):
            return None
        limit = _Limit(0)
        with self._connected(Cancellation(), limit) as connection, self._translated(limit):
            return duckdb.columns_of(_execute(connection, "DESCRIBE ", statement, [None] * statement.count).fetchall())

    @contextmanager
    def read(
        self,
        query: Query,
        accepts: frozenset[Shape],  # noqa: ARG002 - DECODED is always among them
        *,
        timeout: float,
        cancellation: Cancellation,
        columns: Sequence[Column] | None = None,
    ) -> Iterator[RowStream]:
        """Run ``query`` in a transaction that is rolled back, and give its rows (see ``sources.base.Source``)."""
        values = query.statement.bind(query.args)
        cancellation.check()
        limit = _Limit(timeout)
        with self._connected(cancellation, limit) as connection:
            interrupter = _Interrupter(connection)

            @contextmanager
            def guarded() -> Iterator[None]:
                with self._translated(limit), interrupter.armed(cancellation, limit):
                    yield

            def fetch() -> list[tuple[Any, ...]]:
                with guarded():
                    return [tuple(row) for row in result.cursor.fetchmany(BATCH_ROWS)]

            comment = _comment(query.label)
            if self.engine == "duckdb" and duckdb.describable(query.statement.sql):
                with guarded():
                    described = _execute(connection, "DESCRIBE ", query.statement, values).fetchall()
                    query.begins()
                    result = _execute(
                        connection, comment, query.statement, values, lambda sql: duckdb.lossless(sql, described)
                    )
                yield duckdb.DuckDbRows(duckdb.columns_of(described), fetch)
                return
            with guarded():
                query.begins()
                result = _execute(connection, comment, query.statement, values)
            if not result.returns_rows or result.cursor is None:
                raise QueryFailed(f"{self.name}: the statement returns no columns; a task must read", retryable=False)
            inference = Inference([field[0] for field in result.cursor.description], [], columns)
            yield InferredRows(fetch(), fetch, inference)

    def estimate(self, query: Query, *, timeout: float) -> None:
        """Return None: dialects share no way to ask a planner."""

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, cancellation: Cancellation, limit: _Limit) -> Iterator[Connection]:
        with self._translated(limit, connecting=True):
            connection = self._engine.connect()
        clean = False
        try:
            cancellation.check()
            yield connection
            clean = True
        finally:
            # A query may still run on it, or an interrupt be on its way.
            if not clean:
                with suppress(Exception):
                    connection.invalidate()
            with suppress(exc.SQLAlchemyError):
                connection.close()

    @contextmanager
    def _translated(self, limit: _Limit, *, connecting: bool = False) -> Iterator[None]:
        try:
            yield
        except AttemptError:
            raise
        except Exception as error:
            dbapi = self._engine.dialect.loaded_dbapi.Error
            if not isinstance(error, exc.SQLAlchemyError | dbapi):
                raise
            raise self._translate(error, limit, connecting) from error

    def _translate(self, error: Exception, limit: _Limit, connecting: bool) -> AttemptError:
        if limit.passed:
            return TimedOut(f"the query ran longer than its time limit ({limit.seconds:g} s) on {self.name}")
        if isinstance(error, exc.TimeoutError):
            return SourceUnavailable(f"all connections to the database {self.name} are busy")
        words = str(getattr(error, "orig", None) or error)
        if connecting:
            # A driver's words on connecting may hold the address or the password.
            return SourceUnavailable(f"the database {self.name} cannot be reached ({type(error).__name__})")
        if getattr(error, "connection_invalidated", False):
            return SourceUnavailable(f"the connection to the database {self.name} broke: {words}")
        # Of the standard's classes (https://peps.python.org/pep-0249/#exceptions) those that may pass by waiting.
        transient = isinstance(error, exc.OperationalError | exc.InternalError | exc.InterfaceError)
        return QueryFailed(f"{self.name}: {words}", retryable=transient)


class _Limit:
    """A time limit that the client watches, as drivers share no way to set one in the server."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds if seconds else None

    @property
    def passed(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


class _Interrupter:
    """Ends what a driver's connection is doing: ``interrupt`` or ``cancel`` where it has one, else ``close``."""

    def __init__(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        self._close: Callable[[], object] = driver.close
        self._stop: Callable[[], object] = (
            getattr(driver, "interrupt", None) or getattr(driver, "cancel", None) or driver.close
        )

    @contextmanager
    def armed(self, cancellation: Cancellation, limit: _Limit) -> Iterator[None]:
        """While the body runs, a pulled token or a passed limit interrupts it, again and again until it is over.

        One interrupt is not enough: a driver forgets one that comes before the query does.
        """
        wanted, over = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(wanted, over, limit), name="jobber-interrupt", daemon=True)
        watcher.start()
        try:
            with cancellation.interruptible(wanted.set):
                yield
        finally:
            over.set()
            wanted.set()
            watcher.join()

    def _watch(self, wanted: threading.Event, over: threading.Event, limit: _Limit) -> None:
        wanted.wait(limit.left)
        started = time.monotonic()
        while not over.is_set():
            stop = self._stop if time.monotonic() - started < _PATIENCE else self._close
            with suppress(Exception):  # drivers raise anything; the thread that waits learns what came of it
                stop()
            over.wait(_AGAIN)


def _execute(
    connection: Connection,
    before: str,
    statement: Statement,
    values: Sequence[Scalar],
    wrapped: Callable[[str], str] = str,
) -> CursorResult[Any]:
    """Run the statement with each parameter bound by name, as SQLAlchemy renders it for the driver.

    Parameters:
        before: SQL to put in front of it.
        wrapped: puts the statement into another one; neither may hold a colon.
    """
    # text() takes a colon with a word after it for a parameter, unless it is escaped.
    sql = statement.render(lambda i: f":jobber_{i}", lambda text: text.replace(":", "\\:"))
    named = {f"jobber_{i}": value for i, value in enumerate(values)}
    streaming = connection.execution_options(stream_results=True, max_row_buffer=BATCH_ROWS)
    return streaming.execute(sa.text(before + wrapped(sql)), named)


def _comment(label: str) -> str:
    return f"/* {''.join(c if c.isalnum() or c in '=_-., @' else '_' for c in label)} */ " if label else ""


def _read_only(url: URL) -> dict[str, Any]:
    """Return what opens a database for reading only, where its driver knows such a thing."""
    if url.get_backend_name() != "duckdb":
        return {}
    # Without this, COPY … TO writes files and ATTACH opens them (https://duckdb.org/docs/stable/operations_manual/
    # securing_duckdb/overview). A URL that asks for it with ?enable_external_access=true may read them.
    config: dict[str, Any] = {"enable_external_access": str(url.query.get("enable_external_access", "false"))}
    in_memory = not url.database or url.database.startswith(":memory:")
    return {"config": config} if in_memory else {"config": config, "read_only": True}
