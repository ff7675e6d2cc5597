"""SQLite as a source: a read-only connection per query, types found by ``inference``."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings
from jobber.errors import (
    AttemptError,
    BadArguments,
    ConfigError,
    QueryFailed,
    SourceUnavailable,
    TimedOut,
    ValueNotRepresentable,
)
from jobber.jobs import Scalar
from jobber.sources.base import Query, RowStream, Shape
from jobber.sources.inference import Inference, InferredRows
from jobber.sources.kinds import INTEGER_MAX, INTEGER_MIN
from jobber.sources.sqlite_copy import INSTRUCTIONS, CopiedRows, copyable, schema_version
from jobber.sqltext import Statement

BATCH_ROWS = 2000
#: Seconds to wait for a writer's lock.
_BUSY = 5.0

#: Pragmas that only tell; virtual tables read some of them on their own.
_PRAGMAS = frozenset(
    {"collation_list", "compile_options", "data_version", "foreign_key_list", "function_list", "index_info"}
    | {"index_list", "index_xinfo", "page_count", "page_size", "pragma_list", "table_info", "table_list"}
    | {"table_xinfo"}
)
#: With an argument these would write, and a file's header with them.
_PRAGMAS_WITHOUT_ARGUMENT = frozenset({"application_id", "encoding", "schema_version", "user_version"})
_FUNCTIONS_DENIED = frozenset({"load_extension", "fts3_tokenizer"})
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})

#: Result codes (https://sqlite.org/rescode.html) by what they mean for a job.
_UNAVAILABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL})
_TRANSIENT = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT}
)


class SqliteSource:
    """A SQLite database file that queries read from (see ``sources.base.Source``)."""

    engine = "sqlite"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = settings.name
        self._file = _file(settings)
        # For reading only (https://sqlite.org/uri.html).
        self._uri = f"{self._file.as_uri()}?mode=ro"

    def describe(self, statement: Statement) -> Sequence[Column]:
        """Compile ``statement`` and return its columns as the database declares them; it is not run.

        A column without a declared type, and any expression, is shown as TEXT; its rows decide (``inference``).
        """
        with self._connection(_may_read) as connection, _translated(self.name):
            connection.execute(f"EXPLAIN {statement.sql}", _nulls(statement)).close()
        names, declared, _ = self._declared(statement)
        return Inference(names, declared).columns

    @contextmanager
    def read(
        self,
        query: Query,
        accepts: frozenset[Shape],
        *,
        timeout: float,
        cancellation: Cancellation,
        columns: Sequence[Column] | None = None,
    ) -> Iterator[RowStream]:
        """Run ``query`` in a read transaction and give its rows (see ``sources.base.Source``)."""
        values = _bound(query)
        deadline = time.monotonic() + timeout if timeout else None

        def ended() -> bool:
            return cancellation.reason is not None or (deadline is not None and time.monotonic() > deadline)

        cancellation.check()
        names, declared, schema = self._declared(query.statement)
        identity = self._identity()
        copied = copyable(names, declared) if Shape.COPIED in accepts and columns is None else None
        with self._connection(_may_read, query_only=not copied) as connection:
            # An interrupt that comes before the query runs is lost; the handler's look at the token is not.
            connection.set_progress_handler(ended, INSTRUCTIONS)

            @contextmanager
            def guarded() -> Iterator[None]:
                with _translated(self.name, timeout, deadline), cancellation.interruptible(connection.interrupt):
                    yield

            if copied:
                stream = None
                with suppress(sqlite3.Error, sqlite3.Warning):
                    stream = CopiedRows(
                        connection,
                        query,
                        values,
                        copied,
                        schema,
                        may_read=_may_read,
                        guard=guarded,
                        ended=ended,
                        another=partial(self._another, identity),
                    )
                if stream is not None:
                    yield stream
                    return
                connection.set_authorizer(None)
                connection.execute("PRAGMA query_only = ON").close()
                connection.set_authorizer(_may_read)

            def fetch() -> list[tuple[Any, ...]]:
                with guarded():
                    return cursor.fetchmany(BATCH_ROWS)

            with guarded():
                connection.execute("BEGIN")
                query.begins()
                cursor = connection.execute(query.statement.sql, values)
            if cursor.description is None:
                raise QueryFailed(f"{self.name}: the statement returns no columns; a task must read", retryable=False)
            first = fetch()
            inference = Inference([name for name, *_ in cursor.description], declared, columns)
            yield InferredRows(first, fetch, inference)

    def estimate(self, query: Query, *, timeout: float) -> None:
        """Return None: SQLite keeps its estimates to itself."""

    def close(self) -> None:
        """Do nothing: a connection lives as long as its query."""

    @contextmanager
    def _connection(
        self, authorizer: Callable[..., int], *, query_only: bool = True, busy: float = _BUSY
    ) -> Iterator[sqlite3.Connection]:
        with _translated(self.name):
            # Only the interrupt comes from another thread.
            connection = sqlite3.connect(
                self._uri, uri=True, timeout=busy, isolation_level=None, check_same_thread=False
            )
        with closing(connection):
            with _translated(self.name):
                connection.execute("PRAGMA query_only = ON" if query_only else "SELECT 1").close()
                connection.set_authorizer(authorizer)
            yield connection

    def _identity(self) -> tuple[int, int] | None:
        """Return which file stands at the path."""
        try:
            told = os.stat(self._file)
        except OSError:
            return None
        return told.st_dev, told.st_ino

    @contextmanager
    def _another(self, identity: tuple[int, int] | None) -> Iterator[sqlite3.Connection | None]:
        """Open a connection beside one that was opened after the file was ``identity``; None if it was replaced."""
        with self._connection(_may_read, busy=0) as connection:
            yield connection if identity is not None and self._identity() == identity else None

    def _declared(self, statement: Statement) -> tuple[list[str], list[Column | None], int]:
        """Return the names and declared types of a query's columns, and of which version of the schema they are.

        They are empty if the engine cannot tell them.

        SQLite resolves the columns of a view without running it, and tells the type of the table's column behind each
        (https://sqlite.org/pragma.html#pragma_table_info). The view is temporary, on a connection of its own.
        """
        sql = statement.render(lambda _: "NULL")
        opened = self._connection(_may_make_a_view, query_only=False)
        with opened as connection, suppress(sqlite3.Error, sqlite3.Warning):
            version = schema_version(connection)
            connection.execute(f"CREATE TEMP VIEW jobber_query AS {sql}").close()
            rows = connection.execute("PRAGMA temp.table_info(jobber_query)").fetchall()
            names = _original([row[1] for row in rows])
            declared = [_declared_column(name, row[2]) for name, row in zip(names, rows, strict=True)]
            return names, declared, version
        return [], [], -1


# -- what a query may do ----------------------------------------------------------------------------------------------


def _may_read(action: int, one: str | None, two: str | None, _database: str | None, _trigger: str | None) -> int:
    """Allow what reads this file, deny all else: ATTACH, writes, temporary tables, pragmas that change anything."""
    if action in _READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (two or "").lower() in _FUNCTIONS_DENIED else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_TRANSACTION:
        return sqlite3.SQLITE_OK if one == "BEGIN" else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_UPDATE:
        # What SQLite asks when it looks at the columns of a virtual table. It refuses the statement of that name
        # itself, and so do ``mode=ro`` and ``query_only``; making a table or an index also asks to insert.
        return sqlite3.SQLITE_OK if one in {"sqlite_master", "sqlite_schema"} else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        pragma = (one or "").lower()
        if pragma in _PRAGMAS or (pragma in _PRAGMAS_WITHOUT_ARGUMENT and two is None):
            return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _may_make_a_view(action: int, one: str | None, two: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_CREATE_TEMP_VIEW and one == "jobber_query":
        return sqlite3.SQLITE_OK
    if action in {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE} and database == "temp":
        return sqlite3.SQLITE_OK if one in {"sqlite_temp_master", "sqlite_temp_schema"} else sqlite3.SQLITE_DENY
    return _may_read(action, one, two, database, trigger)


# -- declared types ---------------------------------------------------------------------------------------------------

_BOUNDS = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
#: What a part of a declared type's name says, first match first; SQLite itself matches parts, too
#: (https://sqlite.org/datatype3.html#determination_of_column_affinity). BLOB says nothing: it is also what newer
#: versions report of an expression without a type.
_DECLARED = (
    ("BOOL", Kind.BOOLEAN),
    ("JSON", Kind.JSON),
    ("DECIMAL", Kind.NUMERIC),
    ("NUMERIC", Kind.NUMERIC),
    ("DATETIME", Kind.TIMESTAMP),
    ("TIMESTAMP", Kind.TIMESTAMP),
    ("INTERVAL", None),
    ("POINT", None),
    ("INT", Kind.INTEGER),
    ("CHAR", Kind.TEXT),
    ("CLOB", Kind.TEXT),
    ("TEXT", Kind.TEXT),
    ("REAL", Kind.FLOAT),
    ("FLOA", Kind.FLOAT),
    ("DOUB", Kind.FLOAT),
    ("DATE", Kind.DATE),
)


def _declared_column(name: str, declared: str) -> Column | None:
    upper = declared.upper()
    kind = next((kind for part, kind in _DECLARED if part in upper), None)
    if kind is Kind.NUMERIC and (bounds := _BOUNDS.search(upper)):
        precision, scale = int(bounds[1]), int(bounds[2] or 0)
        if 0 < precision <= 1000 and scale <= precision:
            return Column(name, kind, precision, scale)
    return Column(name, kind) if kind else None


def _original(names: Sequence[str]) -> list[str]:
    """Return the names of a view's columns as the query has them: a view's second ``a`` is ``a:1``."""
    seen: set[str] = set()
    original = []
    for name in names:
        base, _, number = name.rpartition(":")
        original.append(base if number.isdigit() and base.lower() in seen else name)
        seen.add(original[-1].lower())
    return original


# -- arguments --------------------------------------------------------------------------------------------------------


def _nulls(statement: Statement) -> dict[str, None] | list[None]:
    return dict.fromkeys(statement.names) if statement.names else [None] * statement.count


def _bound(query: Query) -> dict[str, str | int | float | None] | list[str | int | float | None]:
    bound = [_argument(value, position) for position, value in enumerate(query.statement.bind(query.args), 1)]
    return dict(zip(query.statement.names, bound, strict=True)) if query.statement.names else bound


def _argument(value: Scalar, position: int) -> str | int | float | None:
    if isinstance(value, Decimal):
        number = float(value)
        if Decimal(repr(number)) != value:
            raise BadArguments(
                f"argument {position} has more digits than SQLite's REAL holds; send it as text: {value}"
            )
        return number
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise BadArguments(f"argument {position} does not fit SQLite's 64-bit integers; send it as text: {value}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadArguments(f"argument {position} holds half of a surrogate pair, which is no character") from None
    return value


# -- failures ---------------------------------------------------------------------------------------------------------

_NOT_UTF8 = re.compile(r"Could not decode to UTF-8 column '(.*)' with text '(.*)'", re.DOTALL)


@contextmanager
def _translated(source: str, timeout: float = 0, deadline: float | None = None) -> Iterator[None]:
    """Turn what sqlite3 raises into jobber's errors."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        raise _translate(error, source, timeout, deadline) from error


def _translate(error: Exception, source: str, timeout: float, deadline: float | None) -> AttemptError:
    words = str(error)
    code = getattr(error, "sqlite_errorcode", None)
    code = code & 0xFF if code is not None else None  # extended codes keep the primary one in their low byte
    if found := _NOT_UTF8.match(words):
        return ValueNotRepresentable(
            f"column {found[1]}: the value {found[2][:100]!r} is no valid text in UTF-8", column=found[1]
        )
    if code == sqlite3.SQLITE_INTERRUPT and deadline is not None and time.monotonic() > deadline:
        return TimedOut(f"the query ran longer than its time limit ({timeout:g} s) on {source}")
    if code in _UNAVAILABLE:
        return SourceUnavailable(f"the database {source} cannot be read: {words}")
    if code == sqlite3.SQLITE_AUTH or words == "not authorized":
        return QueryFailed(f"{source}: a task may only read: {words}", retryable=False)
    return QueryFailed(f"{source}: {words}", retryable=code in _TRANSIENT)


def _file(settings: DatabaseSettings) -> Path:
    """Return the file's absolute path."""
    database = make_url(settings.url).database
    if not database or database == ":memory:" or database.startswith("file:"):
        raise ConfigError(f"db.{settings.name}: a SQLite source is a file: sqlite:////path/to/file.db")
    return Path(database).absolute()
