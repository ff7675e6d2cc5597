"""Several statements in one round trip, past SQLAlchemy's own execution: for what runs while all claims wait for it.

A claim is mostly waiting for the next answer, and building what asks for it. What is sent together still runs one
statement after another, each of which sees what was committed before it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError

from jobber.store.engines import Engine, Rows, Statement
from jobber.store.failures import CommitFailed


class Request(NamedTuple):
    """A statement and its parameters: whole numbers, texts, booleans, and what ``Engine.many`` makes of several."""

    statement: Executable
    values: Mapping[str, Any] = {}


class Answer(NamedTuple):
    """What came back of a request.

    Parameters:
        names: of the columns of its rows; none where it returns no rows.
    """

    names: Sequence[str]
    rows: Rows

    def mappings(self) -> list[dict[str, Any]]:
        """Return the rows by the names of their columns."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


class Exchange:
    """Sends requests; compiles each statement once, if whoever sends it keeps it.

    Parameters:
        engine: of all connections.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # All connections are to one server: its dialect writes the same for each.
        self._prepared = lru_cache(maxsize=512)(partial(_Prepared, engine))

    def __call__(self, connection: Connection, *requests: Request, commit: bool = False) -> list[Answer]:
        """Return the answers of all requests.

        Parameters:
            commit: end the transaction in the same round trip, where that spares one; nothing may follow in it.

        Raises:
            DBAPIError: as of ``connection.execute``.
            CommitFailed: whether it was committed is not known; never of an IntegrityError.
        """
        driver = connection.connection.dbapi_connection
        prepared = [self._prepared(statement, connection.dialect) for statement, _ in requests]
        statements = [one.bind(values) for one, (_, values) in zip(prepared, requests, strict=True)]
        sent = False
        try:
            self._engine.renew(driver)
            sent = True
            found = self._engine.exchange(driver, statements, commit=commit)
        except connection.dialect.loaded_dbapi.Error as error:
            failed = _wrapped(connection, error, lost=self._engine.is_lost(connection, error))
            # What the server refuses for a constraint is not committed, and never will be.
            if commit and sent and not isinstance(failed, IntegrityError):
                raise CommitFailed(failed) from error
            raise failed from error
        return [one.read(rows) for one, rows in zip(prepared, found, strict=True)]


class _Bound(NamedTuple):
    """A statement with values that were given for it: others go the same way."""

    text: str
    whole: Mapping[str, Any]
    order: Sequence[str] | None


class _Prepared:
    """A statement as its engine has it, and how to read what it returns."""

    def __init__(self, engine: Engine, statement: Executable, dialect: Dialect) -> None:
        whole: Any = statement
        self._compiled = whole.compile(dialect=engine.dialect_of(dialect))
        #: By the names of the values that are given: the text, all values, and which of them go in which order.
        self._bound: dict[frozenset[str], _Bound] = {}
        columns = getattr(statement, "selected_columns", ())
        self._names = tuple(column.key for column in columns)
        readers = ((place, engine.reader_of(column.type, dialect)) for place, column in enumerate(columns))
        self._readers = [(place, reader) for place, reader in readers if reader is not None]

    def bind(self, values: Mapping[str, Any]) -> Statement:
        """Return what the driver takes."""
        bound = self._bound.get(frozenset(values))
        if bound is not None:
            whole = {**bound.whole, **values}
            return Statement(bound.text, whole if bound.order is None else tuple(whole[name] for name in bound.order))
        expanded = self._compiled.construct_expanded_state(values)
        order = expanded.positiontup
        if not self._compiled.post_compile_params:  # else the text depends on the values
            self._bound[frozenset(values)] = _Bound(expanded.statement, dict(expanded.parameters), order)
        given = expanded.parameters if order is None else expanded.positional_parameters
        return Statement(expanded.statement, given)

    def read(self, rows: Rows) -> Answer:
        """Return what the driver returned, with values as SQLAlchemy would return them."""
        if self._readers:
            rows = [self._read(row) for row in rows]
        return Answer(self._names, rows)

    def _read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for place, reader in self._readers:
            value = values[place]
            values[place] = None if value is None else reader(value)
        return tuple(values)


def _wrapped(connection: Connection, error: Any, *, lost: bool) -> DBAPIError:
    """Return an error of a driver as SQLAlchemy would raise it; a connection that is lost leaves the pool."""
    if lost:
        connection.invalidate(error)
    base = connection.dialect.loaded_dbapi.Error
    wrapped: Any = DBAPIError.instance(
        "", {}, error, base, hide_parameters=True, connection_invalidated=lost, dialect=connection.dialect
    )
    return wrapped  # type: ignore[no-any-return]
