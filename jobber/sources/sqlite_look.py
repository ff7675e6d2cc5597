"""What SQL does not prove of copied values, seen in the copy: text is UTF-8, and dates and timestamps exist.

Values are read many at a time, joined to one text. Two threads share the rows: SQLite works without the interpreter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from jobber.columns import ROW_PLACE, Column, Kind
from jobber.sources.base import GaveWay, Place
from jobber.sources.sqlite_beside import Beside
from jobber.sources.sqlite_moments import SEPARATOR, are_canonical

#: Rows that are looked at together, at most; bytes about and at most.
_ROWS, _BYTES, _LIMIT = 8192, 1 << 20, 1 << 26
#: Rows from which on a second thread pays.
_MANY = 20_000
#: Virtual machine instructions between two looks at whether to go on.
_INSTRUCTIONS = 10_000


def look_at(place: Place, columns: Sequence[Column], rows: int, size: int, ended: Callable[[], bool]) -> None:
    """Look at all rows of a copy that nobody writes to any more.

    Parameters:
        columns: of the copy.
        rows, size: how many they are, with how many bytes about.
        ended: whether to stop, which raises sqlite3.OperationalError.

    Raises:
        GaveWay: a value is not canonical.
        sqlite3.Error: the copy cannot be read, or a row is too long.
    """
    looked_at = [n for n, column in enumerate(columns) if column.kind in {Kind.TEXT, Kind.DATE, Kind.TIMESTAMP}]
    if not looked_at or not rows:
        return
    step = max(1, min(_ROWS, rows * _BYTES // max(1, size)))
    middle = rows // 2 if rows >= _MANY else rows

    def look(first: int, last: int, ended: Callable[[], bool]) -> None:
        uri = f"{Path(place.file).as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.set_progress_handler(ended, _INSTRUCTIONS)
            connection.text_factory = bytes
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LIMIT)
            for start in range(first, last, step):
                if ended():  # which the handler does not ask of few rows, however long they are
                    raise sqlite3.OperationalError("interrupted")
                _look(connection, place.table, [(n, columns[n]) for n in looked_at], start, min(last, start + step))

    if middle == rows:
        look(0, rows, ended)
        return
    with Beside(lambda stopped: look(middle, rows, lambda: stopped() or ended())) as other:
        look(0, middle, lambda: other.failed or ended())


def _look(
    connection: sqlite3.Connection, table: str, columns: Sequence[tuple[int, Column]], first: int, last: int
) -> None:
    stored = [row[1].decode() for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]
    shown = ", ".join(f"count({name}), group_concat({name})" for name in (quoted(stored[n]) for n, _ in columns))
    sql = f"SELECT {shown} FROM {quoted(table)} WHERE {ROW_PLACE} > ? AND {ROW_PLACE} <= ?"  # noqa: S608 - quoted
    found = connection.execute(sql, [first, last]).fetchone()
    for (_, column), count, joined in zip(columns, found[::2], found[1::2], strict=True):
        if count and not _is_canonical(joined, count, column):
            raise GaveWay


def _is_canonical(joined: bytes, count: int, column: Column) -> bool:
    if column.kind is not Kind.TEXT:
        return are_canonical(joined + SEPARATOR, count, column)
    try:
        joined.decode()
    except UnicodeDecodeError:
        return False
    return True


def quoted(name: str) -> str:
    """Return an identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'
