"""Reading pages of a published result on MySQL or MariaDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pymysql import err

from jobber.columns import ROW_PLACE, Column, Kind, Row
from jobber.mysql import Connection, Meaning, meaning, number
from jobber.results.mysql import ledger, tables

#: A table of that name is not one of ours, or is gone.
_OTHER = tables.NO_SUCH_TABLE | {1054, 1356, 1347}
#: Seconds that a reader waits while tables are swapped.
_PATIENCE = 15.0


def page(
    connection: Connection, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int
) -> list[Row] | None:
    """Return a page, or None if the table is not that of the run, or not whole, or the ledger does not say so."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _page(connection, table, run, columns, offset=offset, limit=limit)
        except err.Error as exc:
            if number(exc) in _OTHER:
                return None
            if meaning(exc) is not Meaning.CONFLICT or time.monotonic() > deadline:
                raise


def _page(
    connection: Connection, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int
) -> list[Row] | None:
    place, name = tables.quoted(ROW_PLACE), tables.quoted(table)
    connection.run("START TRANSACTION READ ONLY")
    try:
        # Touched first: while this transaction lasts, nothing else can take the table's place.
        [(last,)] = connection.rows(f"SELECT MAX({place}) FROM {name}")  # noqa: S608
        entry = ledger.read(connection, table)
        if entry is None or entry.run != run or entry.rows is None:
            return None
        if tables.comment(connection, table) != entry.published:
            return None
        # Rows are numbered without gaps, unless the server counts in steps (auto_increment_increment).
        dense = (last or 0) == entry.rows
        if not dense and tables.count(connection, table) != entry.rows:
            return None
        where = f"WHERE {place} > {int(offset)} " if dense else ""
        start = 0 if dense else int(offset)
        names = ", ".join(tables.quoted(column.name) for column in columns)
        found = connection.rows(
            f"SELECT {names} FROM {name} {where}ORDER BY {place} LIMIT {int(limit)} OFFSET {start}"  # noqa: S608
        )
        if len(found) != max(0, min(limit, entry.rows - offset)):
            return None  # somebody deleted rows
    finally:
        with suppress(err.Error):
            connection.run("ROLLBACK")
    changes = [(n, change) for n, column in enumerate(columns) if (change := _canonical(column)) is not None]
    return [_changed(row, changes) for row in found] if changes else found


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
