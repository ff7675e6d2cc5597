"""What DuckDB tells of a query before it runs, and the query that gives its rows without a loss.

Its Python driver cuts nanoseconds, counts a month as 30 days and knows no infinite date. So DuckDB itself turns all
that is no plain number or text into text (https://duckdb.org/docs/stable/sql/data_types/overview).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobber.columns import Column, Kind, Row
from jobber.sources.base import Chunk, Shape

_AS_TEXT = "CAST(#{n} AS VARCHAR)"
_IN_UTC = "CAST(#{n} AT TIME ZONE 'UTC' AS VARCHAR)"
_IN_HEX = "'\\x' || lower(hex(#{n}))"
_AS_IT_IS = "#{n}"

_INTEGER, _NUMERIC = (Kind.INTEGER, _AS_IT_IS), (Kind.NUMERIC, _AS_TEXT)
_TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), _INTEGER),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT", "BIGNUM"), _NUMERIC),
    "FLOAT": (Kind.FLOAT, _AS_IT_IS),
    "DOUBLE": (Kind.FLOAT, _AS_IT_IS),
    "BOOLEAN": (Kind.BOOLEAN, _AS_IT_IS),
    "DATE": (Kind.DATE, _AS_TEXT),
    "TIMESTAMP": (Kind.TIMESTAMP, _AS_TEXT),
    "TIMESTAMP_S": (Kind.TIMESTAMP, _AS_TEXT),
    "TIMESTAMP_MS": (Kind.TIMESTAMP, _AS_TEXT),
    "TIMESTAMP WITH TIME ZONE": (Kind.TIMESTAMP, _IN_UTC),
    "BLOB": (Kind.BINARY, _IN_HEX),
    "JSON": (Kind.JSON, _AS_TEXT),
    "VARCHAR": (Kind.TEXT, _AS_IT_IS),
}
_BOUNDS = {"UBIGINT": (20, 0), "HUGEINT": (39, 0), "UHUGEINT": (39, 0)}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
#: Statements that DESCRIBE does not take, and that need none of this.
_TOLD_AS_TEXT = re.compile(r"\s*(?:PRAGMA|EXPLAIN|CALL)\b", re.IGNORECASE)


def describable(sql: str) -> bool:
    """Return whether DuckDB describes such a statement."""
    return not _TOLD_AS_TEXT.match(sql)


def columns_of(described: Sequence[Sequence[Any]]) -> tuple[Column, ...]:
    """Return the columns that ``DESCRIBE`` lists."""
    return tuple(_column(name, declared) for name, declared, *_ in described)


def _column(name: str, declared: str) -> Column:
    if found := _DECIMAL.fullmatch(declared):
        return Column(name, Kind.NUMERIC, int(found[1]), int(found[2]))
    return Column(name, _TYPES.get(declared, (Kind.TEXT, ""))[0], *_BOUNDS.get(declared, (None, None)))


def lossless(sql: str, described: Sequence[Sequence[Any]]) -> str:
    """Return ``sql`` with each column as text where the driver would change it; columns are named by position."""
    fields = (_TYPES.get(declared, (Kind.TEXT, _AS_TEXT))[1] for _, declared, *_ in described)
    selected = ", ".join(field.replace("{n}", str(n)) for n, field in enumerate(fields, 1))
    return f"SELECT {selected} FROM ({sql}\n) AS q"  # noqa: S608 - numbers, and the task's own SQL


def keep_quiet(connection: Any, _record: object) -> None:
    """Turn off the bar that DuckDB draws on standard output when it takes a process for interactive."""
    connection.execute("SET enable_progress_bar = false")


class DuckDbRows:
    """The rows of a ``lossless`` query (see ``sources.base.RowStream``).

    Parameters:
        columns: from ``columns_of``.
        fetch: gives the next rows, empty after the last.
    """

    shape = Shape.DECODED

    def __init__(self, columns: Sequence[Column], fetch: Callable[[], list[Row]]) -> None:
        self.columns = columns
        self._fetch = fetch
        self._days = [i for i, column in enumerate(columns) if column.kind in {Kind.DATE, Kind.TIMESTAMP}]

    def chunks(self) -> Iterator[Chunk]:
        """Refuse: the values are Python's."""
        raise TypeError("this stream is decoded")

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows in canonical form."""
        while batch := self._fetch():
            yield [self._before_christ(row) for row in batch] if self._days else batch

    def _before_christ(self, row: Row) -> Row:
        """Write ``0044-03-15 (BC) 12:00:00`` as ``0044-03-15 12:00:00 BC``."""
        if not any("(BC)" in str(row[i]) for i in self._days):
            return row
        fields = list(row)
        for i in self._days:
            if isinstance(text := fields[i], str) and "(BC)" in text:
                fields[i] = text.replace(" (BC)", "") + " BC"
        return tuple(fields)
