"""What the store asks of an engine: a connection set up in its way, the few spellings that differ, what it can do."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import BigInteger, ColumnElement, Connection, FromClause, Insert, Table, literal_column
from sqlalchemy.engine import URL
from sqlalchemy.types import TypeEngine

#: Seconds that a statement of a migration may take: an index of a large table does.
UNHURRIED = 3600.0


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

    def reader(self, pool: sqlalchemy.Engine) -> sqlalchemy.Engine:
        """Return the engine for reads: each is a statement of its own and needs no transaction."""
        return pool

    def lanes_at_once(self, limit: int) -> int:  # noqa: ARG002
        """Return how many lanes a claim of ``limit`` jobs should read in one round trip."""
        return 1

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
