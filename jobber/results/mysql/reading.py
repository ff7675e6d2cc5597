"""Reading pages of a published result on MySQL or MariaDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pymysql import err

from jobber.columns import ROW_PLACE, Column, Kind, Row
from jobber.mysql import Connection, Meaning, meaning, number
from jobber.results import notes
from jobber.results.base import Published
from jobber.results.mysql import ledger, tables

#: A table of that name is not one of ours, or is gone.
_OTHER = tables.NO_SUCH_TABLE | {1054, 1356, 1347}
#: Seconds that a reader waits while tables are swapped.
_PATIENCE = 15.0

T = TypeVar("T")


def page(
    connection: Connection, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int
) -> list[Row] | None:
    """Return a page, or None if the table is not that of the run, or not whole, or the ledger does not say so."""

    def look(rows: int, entry: ledger.Entry, dense: bool) -> list[Row] | None:
        if entry.expired:
            return None  # the janitor may take a while to come
        place, name = tables.quoted(ROW_PLACE), tables.quoted(table)
        where = f"WHERE {place} > {int(offset)} " if dense else ""
        start = 0 if dense else int(offset)
        names = ", ".join(tables.quoted(column.name) for column in columns)
        found = connection.rows(
            f"SELECT {names} FROM {name} {where}ORDER BY {place} LIMIT {int(limit)} OFFSET {start}"  # noqa: S608
        )
        # Somebody may have deleted rows.
        return found if len(found) == max(0, min(limit, rows - offset)) else None

    found = _at_rest(connection, table, run, look)
    if found is None:
        return None
    changes = [(n, change) for n, column in enumerate(columns) if (change := _canonical(column)) is not None]
    return [_changed(row, changes) for row in found] if changes else found


def published(connection: Connection, table: str, run: int, attempt: int) -> Published | None:
    """Return what an attempt published, or None if it does not stand there whole."""

    def look(rows: int, entry: ledger.Entry, _: bool) -> Published | None:
        return notes.published(run, attempt, rows, entry.columns) if entry.attempt == attempt else None

    return _at_rest(connection, table, run, look)


def _at_rest(
    connection: Connection, table: str, run: int, look: Callable[[int, ledger.Entry, bool], T | None]
) -> T | None:
    """Look at the whole published table of a run while nothing can take its place; None if it is not there.

    Parameters:
        look: gets the number of its rows, its entry, and whether the rows are numbered without gaps.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            # Touched first: while this transaction lasts, nothing else can take the table's place.
            connection.run("START TRANSACTION READ ONLY")
            [(last,)] = connection.rows(
                f"SELECT MAX({tables.quoted(ROW_PLACE)}) FROM {tables.quoted(table)}"  # noqa: S608
            )
            entry = ledger.read(connection, table)
            if entry is None or entry.run != run or entry.rows is None:
                return None
            if tables.comment(connection, table) != entry.published:
                return None
            # Unless the server counts in steps (auto_increment_increment).
            dense = (last or 0) == entry.rows
            if not dense and tables.count(connection, table) != entry.rows:
                return None
            return look(entry.rows, entry, dense)
        except err.Error as exc:
            if number(exc) in _OTHER:
                return None
            if meaning(exc) is not Meaning.CONFLICT or time.monotonic() > deadline:
                raise
        finally:
            with suppress(err.Error):
                connection.run("ROLLBACK")


def _changed(row: tuple[Any, ...], changes: Sequence[tuple[int, Callable[[Any], Any]]]) -> Row:
    values = list(row)
    for position, change in changes:
        if values[position] is not None:
            values[position] = change(values[position])
    return tuple(values)


def _canonical(column: Column) -> Callable[[Any], Any] | None:
    """Return what makes a value that the server printed canonical, None if it is already."""
    if column.kind is Kind.BOOLEAN:
        return bool
    if column.kind is Kind.TIMESTAMP:
        return _without_zeros
    if column.kind is Kind.NUMERIC:
        return _without_zeros if column.precision is None else _to_scale(max(column.scale or 0, 0))
    return None


def _without_zeros(text: str) -> str:
    """Return a number or a time without the zeros that its column's fixed fraction adds."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _to_scale(scale: int) -> Callable[[str], str]:
    """Return what cuts the zeros of a column that has more digits after the point than were asked for."""

    def cut(text: str) -> str:
        whole, _, fraction = text.partition(".")
        fraction = fraction[:scale] + fraction[scale:].rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole

    return cut
