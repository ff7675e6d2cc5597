"""A SQLite query whose rows SQLite itself copies into another SQLite file, in one statement.

Taken where every column is declared. Each value is proven to be one that the general path would store as it stands
(``sqlite_proofs``), in the statement that copies or in a second one beside it; what SQL cannot prove, Python looks at.
Text, dates and timestamps are looked at in the copy, at the end (``sqlite_look``). The first value that must be
changed, and any error of a statement, makes the copy give way: the general path has the conversions and tells errors
of the source from those of the results.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from jobber.columns import Column, Kind, Row
from jobber.errors import QueryFailed, SourceUnavailable, ValueNotRepresentable
from jobber.sources.base import Chunk, GaveWay, Place, Query, Shape
from jobber.sources.kinds import Unfit, to_column
from jobber.sources.sqlite_beside import Beside, begin_both, is_worth_it, loops, may_run_twice
from jobber.sources.sqlite_look import look_at, quoted
from jobber.sources.sqlite_proofs import doubt

Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]
Values = Mapping[str, Any] | Sequence[Any]

_SCHEMA = "jobber_staging"
#: Whose answers depend on what the connection has written, or on what is attached to it.
_TELLTALE = frozenset({"changes", "total_changes", "last_insert_rowid"})
#: Bytes of a page of a file that gets many rows.
_LARGE_PAGE = 16384
#: Rows between two reports, less one.
_REPORT = 1023
#: Virtual machine instructions between two looks at the clock and the cancellation: about a millisecond.
INSTRUCTIONS = 100_000


class CopiedRows:
    """The rows of one query that is yet to run (see ``sources.base.CopiedStream``).

    Parameters:
        connection: open for reading.
        query, values: what to run.
        columns: all of them declared.
        schema: the version of the source's schema in which they are.
        may_read: what the query may do.
        guard: interrupts and translates what runs in its context.
        ended: whether the attempt must stop.
        another: opens a second connection to the same file, which does not wait for locks; None if it cannot.
    """

    shape = Shape.COPIED

    def __init__(
        self,
        connection: sqlite3.Connection,
        query: Query,
        values: Values,
        columns: Sequence[Column],
        schema: int,
        *,
        may_read: Authorizer,
        guard: Callable[[], AbstractContextManager[None]],
        ended: Callable[[], bool],
        another: Callable[[], AbstractContextManager[sqlite3.Connection | None]],
    ) -> None:
        self.columns = columns
        self._schema = schema
        self._connection = connection
        self._query = query
        self._values = values
        self._may_read = may_read
        self._guard = guard
        self._ended = ended
        self._another = another
        self._inlined, self._may_run_twice = self._compile()

    def chunks(self) -> Iterator[Chunk]:
        """Refuse: the rows never come here."""
        raise TypeError("this stream copies itself")

    def batches(self) -> Iterator[list[Row]]:
        """Refuse: the rows never come here."""
        raise TypeError("this stream copies itself")

    def copy(self, place: Place, most: int, moved: Callable[[int, int], None]) -> int:
        """Write the rows into the table at ``place`` and return their number."""
        try:
            with self._guard():
                self._attach(place)
            self._query.begins()
            with self._guard():
                rows = self._copied(place, most, moved)
                size = os.stat(place.file).st_size
                moved(rows, size)
                look_at(place, self.columns, rows, size, self._ended)
        except (QueryFailed, SourceUnavailable, ValueNotRepresentable, OSError) as error:
            raise GaveWay from error
        return rows

    def _copied(self, place: Place, most: int, moved: Callable[[int, int], None]) -> int:
        """Run the query in one transaction, and its proofs in the same statement or beside it."""
        first = self._connection
        with ExitStack() as stack:
            proofs: Beside | None = None
            second = stack.enter_context(self._another()) if self._may_run_twice and is_worth_it(first) else None
            if second is not None:
                # A fifth less time for many rows. Nobody knows how many there will be: a large source stands for them.
                first.execute(f"PRAGMA {_SCHEMA}.page_size = {_LARGE_PAGE}").close()
                first.execute(f"VACUUM {_SCHEMA}").close()
            if begin_both(first, second) and second is not None:
                proofs = Beside(partial(self._prove, second))
            if schema_version(first) != self._schema:
                raise GaveWay  # the columns may have changed places meanwhile
            self._prepare(place, moved, proofs)
            insert = self._insert(place, most, proven=proofs is not None)
            with proofs or nullcontext():
                rows = first.execute(insert, self._values).rowcount
                if proofs and most and rows >= most:
                    proofs.stop()  # too many, whatever they are
            first.set_authorizer(None)
            first.execute("COMMIT")
            first.execute(f"DETACH {_SCHEMA}")
        return rows

    def _compile(self) -> tuple[bool, bool]:
        """Return whether the query's columns cost nothing to be computed again, and whether its rows cost little.

        The first is one SELECT without functions, over one table.

        Raises:
            sqlite3.Error: the query does not compile, or looks at what is attached to the connection.
        """
        selects, functions = 0, 0

        def count(action: int, one: str | None, two: str | None, database: str | None, trigger: str | None) -> int:
            nonlocal selects, functions
            selects += action == sqlite3.SQLITE_SELECT
            functions += action == sqlite3.SQLITE_FUNCTION
            told = action == sqlite3.SQLITE_FUNCTION and (two or "").lower() in _TELLTALE
            if told or action == sqlite3.SQLITE_PRAGMA:
                return sqlite3.SQLITE_DENY
            return self._may_read(action, one, two, database, trigger)

        self._connection.set_authorizer(count)
        sql = self._query.statement.sql
        plan = [row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", self._values)]
        # Of several loops, SQLite would not report each row: a condition without columns belongs to the first one.
        plain = selects == 1 and not functions and len(loops(plan)) == 1
        return plain, plain and may_run_twice(sql, plan)

    def _attach(self, place: Place) -> None:
        connection = self._connection
        connection.set_authorizer(None)
        connection.execute(f"ATTACH ? AS {_SCHEMA}", [f"{Path(place.file).as_uri()}?mode=rw"])
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            connection.execute(f"PRAGMA {_SCHEMA}.{pragma}").close()

    def _prepare(self, place: Place, moved: Callable[[int, int], None], proofs: Beside | None) -> None:
        """Allow the copy, and make the functions that it calls."""

        def may_copy(action: int, one: str | None, two: str | None, database: str | None, trigger: str | None) -> int:
            if database == _SCHEMA:
                mine = action == sqlite3.SQLITE_INSERT and one == place.table
                return sqlite3.SQLITE_OK if mine else sqlite3.SQLITE_DENY
            return self._may_read(action, one, two, database, trigger)

        def report(rows: int) -> int:
            moved(rows, os.stat(place.file).st_size)
            return 1

        if proofs is not None:
            # Not only with a row: a sort may come before the first one, and a condition may leave none.
            self._connection.set_progress_handler(lambda: proofs.failed or self._ended(), INSTRUCTIONS)
        self._connection.create_function("jobber_same", 2, self._same)
        self._connection.create_function("jobber_report", 1, report)
        self._connection.set_authorizer(may_copy)

    def _prove(self, connection: sqlite3.Connection, stopped: Callable[[], bool]) -> None:
        """Look for a row of the query that is not canonical, and raise an error of SQLite for it."""
        connection.create_function("jobber_same", 2, self._same)
        # Often: nobody interrupts this connection, and rows may be long.
        connection.set_progress_handler(lambda: stopped() or self._ended(), INSTRUCTIONS // 10)
        # Nothing is counted: the query, which may have an ORDER BY, would not become part of a statement that counts.
        looking = f"{self._with()} SELECT 1 FROM jobber_query WHERE NOT {self._proof()}"  # noqa: S608 - our own names
        connection.execute(looking, self._values).fetchall()

    def _same(self, position: int, value: Any) -> int:
        """Return 1 if a value is canonical as it stands."""
        fitted = to_column(value, self.columns[position], declared=True)
        if type(fitted) is not type(value) or fitted != value:
            raise Unfit
        return 1

    def _names(self) -> list[str]:
        return [f"c{n}" for n in range(len(self.columns))]

    def _with(self) -> str:
        return f"WITH jobber_query({', '.join(self._names())}) AS (\n{self._query.statement.sql}\n)"

    def _proof(self) -> str:
        """Return an expression that is true of each row that is canonical, and raises for any other."""
        pairs = zip(self.columns, self._names(), strict=True)
        doubts = [f"({doubt(column, name)})" for column, name in pairs]
        same = [f"CASE WHEN {doubtful} THEN jobber_same({n}, c{n}) ELSE 1 END" for n, doubtful in enumerate(doubts)]
        return f"CASE WHEN {' OR '.join(doubts)} THEN {' AND '.join(same)} ELSE 1 END"

    def _insert(self, place: Place, most: int, *, proven: bool) -> str:
        proofs = [] if proven else [self._proof()]
        last = "last_insert_rowid()"
        report = f"CASE {last} & {_REPORT} WHEN {_REPORT} THEN jobber_report({last}) ELSE 1 END"
        # The LIMIT keeps a query apart, so that SQLite computes each of its columns once.
        rows = "jobber_query" if self._inlined else "(SELECT * FROM jobber_query LIMIT -1 OFFSET 0)"
        return (
            f"INSERT INTO {_SCHEMA}.{quoted(place.table)} {self._with()} "  # noqa: S608 - names are quoted, values bound
            f"SELECT {', '.join(self._names())} FROM {rows} WHERE {' AND '.join([*proofs, report])}"
            + (f" LIMIT {most}" if most else "")
        )


#: Whether SQLite makes exact text of numbers of 15 digits: before 3.43 it counts in C's ``long double``, which is a
#: plain double on some machines (https://sqlite.org/releaselog/3_43_0.html).
_EXACT_TEXT = sqlite3.sqlite_version_info >= (3, 43) or ctypes.sizeof(ctypes.c_longdouble) > ctypes.sizeof(
    ctypes.c_double
)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes with everything that is made or dropped in the file."""
    version: int = connection.execute("PRAGMA main.schema_version").fetchone()[0]
    return version


def copyable(names: Sequence[str], declared: Sequence[Column | None]) -> list[Column] | None:
    """Return a query's columns if the rows can be proven to have the kinds that the database declares."""
    columns = [column for column in declared if column is not None and doubt(column, "c") is not None]
    if not _EXACT_TEXT and any(column.kind is Kind.NUMERIC for column in columns):
        return None
    return columns if columns and len(columns) == len(names) else None
