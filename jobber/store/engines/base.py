"""What the store asks of an engine: a connection set up in its way, the few spellings that differ, what it can do."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import sqlalchemy
from sqlalchemy import BigInteger, ColumnElement, Connection, FromClause, Insert, Table, literal_column, select, true
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.types import TypeEngine

#: Seconds that a statement of a migration may take: an index of a large table does.
UNHURRIED = 3600.0


class Statement(NamedTuple):
    """A statement and its parameters, as a driver takes them."""

    text: str
    values: Any


#: Rows as drivers return them.
Rows = Sequence[tuple[Any, ...]]


class Engine(ABC):
    """One engine. Holds no state: one object serves all databases and is a key of caches."""

    name: ClassVar[str]
    #: Its clock as SQL, in microseconds since the epoch, the same throughout a statement.
    clock: ClassVar[str]
    #: Whether several write at a time, so that rows have locks that one may wait for.
    row_locks: ClassVar[bool] = True
    #: Whether UPDATE and DELETE return rows.
    returning: ClassVar[bool] = True
    #: Whether arrays can be parameters, and one statement write to several tables: a claim in four statements.
    arrays: ClassVar[bool] = False
    #: Whether it has sequences, which nobody waits for; else a row is a counter.
    sequences: ClassVar[bool] = False

    @abstractmethod
    def settings(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Return the URL to connect to and arguments for ``create_engine``. Raises ConfigError."""

    @abstractmethod
    def prepare(self, pool: sqlalchemy.Engine) -> None:
        """Add what has to happen when a connection is made, a transaction begins, and so on.

        Write transactions carry the execution option ``jobber_write``.
        """

    def take_time(self, connection: Connection) -> None:
        """Let the statements of a connection, which is not in a transaction, take ``UNHURRIED`` seconds.

        It leaves the pool and is closed after use, so that the next one has the usual limits.
        """
        connection.detach()

    def lanes_at_once(self, limit: int) -> int:  # noqa: ARG002
        """Return how many lanes a claim of ``limit`` jobs should read in one round trip."""
        return 1

    def renew(self, driver: Any) -> None:  # noqa: B027 - most have nothing to do
        """Do what a connection needs from time to time before a transaction, of which nothing has been sent yet.

        Raises:
            Error: of the driver.
        """

    @abstractmethod
    def exchange(self, driver: Any, statements: Sequence[Statement], *, commit: bool) -> list[Rows]:
        """Run statements one after another, in one round trip if it has any; return the rows of each.

        Parameters:
            driver: a connection of the driver's.
            commit: whether to end the transaction in the same round trip; an engine that spares nothing by it does not.

        Raises:
            Error: of the driver; of the first statement that failed, after which none was run.
        """

    def dialect_of(self, dialect: Dialect) -> Dialect:
        """Return the dialect of statements that go through ``exchange``, from that of its connections."""
        return dialect

    def reader_of(self, kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
        """Return what makes a value of a column of what ``exchange`` returned, None where it is one already."""
        return kind.dialect_impl(dialect).result_processor(dialect, None)

    def is_lost(self, connection: Connection, error: Exception) -> bool:
        """Whether an error of the driver means that its connection is of no more use."""
        return connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]

    def turn(self) -> AbstractContextManager[Any]:
        """Return what the writers of this process take turns at."""
        return nullcontext()

    @property
    def now(self) -> ColumnElement[int]:
        """Its clock as an SQL expression, in microseconds."""
        return literal_column(f"({self.clock})", BigInteger())

    @abstractmethod
    def among(self, which: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return ``which IN values`` with one parameter, whatever their number, so that one statement serves all.

        Parameters:
            name: of the parameter; its value comes from ``many``.
        """

    def many(self, values: Collection[Any]) -> Any:
        """Return values as the one parameter that ``among`` takes."""
        return list(values)

    def insert_json(self, table: Table) -> Insert | None:  # noqa: ARG002
        """Return an INSERT whose one parameter ``rows`` is a JSON list of objects; None where that gains nothing."""
        return None

    @abstractmethod
    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
        """Return a table of rows that one parameter holds, to join others with: its value comes from ``as_rows``.

        Parameters:
            name: of the table, and of the parameter.
            columns: their types: whole numbers and texts. What a row lacks is NULL.
        """

    def as_rows(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return rows as the one parameter that ``rows`` takes."""
        return json.dumps(rows)

    @abstractmethod
    def insert_missing(self, table: Any) -> Any:
        """Return an INSERT that skips rows that are there already."""

    @abstractmethod
    def upsert(self, table: Any, key: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """Return the statement that sets ``values`` in the row of ``key``, the primary key; makes it if need be."""

    @abstractmethod
    def put_rows(self, table: Table, rows: FromClause) -> Insert:
        """Return the statement that puts ``rows`` into a table, in the order of its key, over those of the same key.

        Parameters:
            rows: with all columns of the table, the first of which is its key.
        """


class OnConflict(Engine):
    """An engine that has ``INSERT … ON CONFLICT``."""

    @abstractmethod
    def insert(self, table: Any) -> Any:
        """Return an INSERT of its dialect."""

    def insert_missing(self, table: Any) -> Any:
        return self.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Any, key: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        row = self.insert(table).values(**key, **values)
        return row.on_conflict_do_update(index_elements=list(key), set_=values)

    def put_rows(self, table: Table, rows: FromClause) -> Insert:
        key, *others = (column.name for column in table.columns)
        # Without a condition, SQLite would take "ON" for a part of the SELECT.
        listed = select(*(rows.c[name] for name in (key, *others))).where(true()).order_by(rows.c[key])
        row = self.insert(table).from_select([key, *others], listed)
        done: Insert = row.on_conflict_do_update(
            index_elements=[key], set_={name: row.excluded[name] for name in others}
        )
        return done
