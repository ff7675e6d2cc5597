"""What a source database must be able to do; one module beside this one per engine.

A source hands rows over in one of these shapes. ``ENCODED``: chunks of bytes in PostgreSQL's COPY text format
(https://www.postgresql.org/docs/current/sql-copy.html), never decoded on the way. ``DECODED``: batches of rows in the
canonical form of ``jobber.columns``. The backend says which it takes; the source gives the best that it can. Two of the
same engine may have a shorter way, ``COPIED``: the source writes the rows into the staging table itself, and where it
cannot keep a promise of the general way it gives way to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.jobs import Args
from jobber.sqltext import Statement

#: Seconds after which rows travel on though they are few: who looks at a slow query sees them come.
DAWDLING = 0.5


#: Why a source is overloaded (``SourceOverloaded``).
TOO_MANY, SLOW_CONNECT = "too many connections", "connecting took too long"


class Shape(Enum):
    """The form in which rows travel from a source to a backend."""

    ENCODED = auto()  # chunks of COPY text
    DECODED = auto()  # batches of canonical rows
    COPIED = auto()  # by the engine itself, from the source into the staging table


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an encoded result.

    Parameters:
        data: whole rows in COPY text format, each ended by a newline.
        rows: how many.
    """

    data: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Place:
    """A staging table as a source of the same engine finds it.

    Parameters:
        file: absolute path of the database file.
        table: name of the table, which has the stream's columns and no rows.
    """

    file: str
    table: str


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its arguments, ready to run on a source.

    Parameters:
        statement: the task's SQL, parsed for this source's engine.
        args: a list for positional placeholders, a mapping for named ones.
        label: what the database's own administrator should see of it in the process list: ``task=… job=…``.
        begins: called by the source right before it sends the query: what it reads is no older than that.
    """

    statement: Statement
    args: Args
    label: str = ""
    begins: Callable[[], None] = _nothing


class RowStream(Protocol):
    """The rows of one running query, in one shape, read once from first to last.

    ``columns`` are known before the first row. Iterating raises ``QueryFailed``, ``SourceUnavailable``,
    ``ValueNotRepresentable`` or the reason of the cancellation; a stream that ends without an error was read whole.
    """

    columns: Sequence[Column]
    shape: Shape

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows encoded; only if ``shape`` is ENCODED."""
        ...

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows decoded, a few thousand at a time; only if ``shape`` is DECODED."""
        ...


class CopiedStream(RowStream, Protocol):
    """The rows of a query that is yet to run; ``shape`` is COPIED."""

    def copy(self, place: Place, most: int, moved: Callable[[int, int], None]) -> int:
        """Run the query, write its rows to a staging table and return their number.

        Parameters:
            most: rows that are written at most; 0 is no limit.
            moved: told now and then how many rows, and about how many bytes, are written so far.

        Raises:
            GaveWay: the rows must go the general way; the staging table is not to be used.
        """
        ...


class Source(Protocol):
    """A database that queries read from. Safe to use from several threads at a time."""

    name: str
    #: ``postgresql``, ``sqlite`` or the SQLAlchemy dialect's name; chooses how placeholders are parsed.
    engine: str

    def describe(self, statement: Statement) -> Sequence[Column] | None:
        """Prepare ``statement`` without running it; None if the engine cannot tell the columns before it runs.

        Raises:
            QueryFailed: the engine refuses the statement; the message holds its words.
            SourceUnavailable: the database cannot be reached.
        """
        ...

    def read(
        self,
        query: Query,
        accepts: frozenset[Shape],
        *,
        timeout: float,
        cancellation: Cancellation,
        columns: Sequence[Column] | None = None,
    ) -> AbstractContextManager[RowStream]:
        """Run ``query`` in a read-only session and give its rows.

        The query is gone from the server, and its connection back in the pool or closed, when the context is left,
        however it is left.

        Parameters:
            query: what to run.
            accepts: the shapes that the other side takes; DECODED is always among them.
            timeout: seconds that the query may run, enforced by the engine; 0 is no limit.
            cancellation: pulled by another thread to end the query wherever it is.
            columns: what an earlier ``SchemaChanged`` of this query asked for.

        Raises:
            SchemaChanged: only from dynamically typed sources, while rows are read.
            GaveWay: only while rows are copied.
            BadArguments: the arguments do not fit the placeholders.
            QueryFailed, SourceUnavailable, TimedOut: the engine's refusal, at opening or while rows are read.
        """
        ...

    def estimate(self, query: Query, *, timeout: float) -> int | None:
        """Return how many rows the engine's planner expects of a query; None if it says nothing that can be relied on.

        The query is not run. It takes a connection of its own, and comes to nothing where none is free.

        Parameters:
            timeout: seconds that it may take; no planner needs many.

        Raises:
            AttemptError: the planner could not be asked.
        """
        ...

    def close(self) -> None:
        """Close all connections; the source is not used again."""
        ...


class GaveWay(Exception):
    """Raised by a shorter way that cannot keep all promises for these rows.

    ``execution`` throws the staged rows away and reads again without it.
    """


class SchemaChanged(Exception):
    """Raised by a dynamically typed source (SQLite, drivers without column types) when a value does not fit the kind
    that the rows so far suggested. ``execution`` throws the staged rows away and reads again with ``columns``; kinds
    only ever widen, so this ends after a few rounds, and a typed source never begins it.

    Parameters:
        columns: the columns as they must be.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__("a value does not fit the column kinds inferred so far")
        self.columns = columns
