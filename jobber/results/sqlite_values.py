"""What SQLite would change or lose without a word, found before it is written.

SQLite turns NaN into NULL (https://sqlite.org/c3ref/bind_blob.html), and text in a DATE or TIMESTAMP column into a
number if it looks like one; a date that is not ISO text of the years 1 to 9999 neither sorts nor compares as one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from jobber.columns import Column, Kind, Row
from jobber.errors import ValueNotRepresentable
from jobber.results.copytext import unfit

_DAY = r"(?!0000)\d{4}-\d\d-\d\d"
_PATTERNS = {Kind.DATE: _DAY, Kind.TIMESTAMP: rf"{_DAY} \d\d:\d\d:\d\d(?:\.\d{{1,6}})?"}
_INTEGER_LIMIT = 1 << 63


class Values:
    """Checks the batches of one result.

    Parameters:
        columns: of the result, in order.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._floats = [n for n, column in enumerate(columns) if column.kind is Kind.FLOAT]
        # One pattern over all values of a batch: several times as fast as one match per value.
        self._dates = [
            (n, re.compile(pattern), re.compile(rf"(?:{pattern}\n)*"))
            for n, column in enumerate(columns)
            if (pattern := _PATTERNS.get(column.kind)) is not None
        ]

    def check(self, batch: Sequence[Row]) -> None:
        """Raise ValueNotRepresentable, naming column and value, if SQLite would change a value."""
        for position in self._floats:
            values = [row[position] for row in batch if row[position] is not None]
            if any(map(math.isnan, values)):  # type: ignore[arg-type]  # canonical: a FLOAT is a float
                raise unfit(self._columns[position], math.nan, "SQLite has no NaN")
        for position, one, many in self._dates:
            texts: list[Any] = [row[position] for row in batch if row[position] is not None]
            if many.fullmatch("".join([text + "\n" for text in texts])) is None:
                bad = next(text for text in texts if one.fullmatch(text) is None)
                raise unfit(self._columns[position], bad, "SQLite's dates are ISO text of the years 1 to 9999")

    def culprit(self, batch: Sequence[Row]) -> ValueNotRepresentable | None:
        """Return the error that names the value that sqlite3 refused, None if no value is at fault."""
        checks: list[tuple[Callable[[Any], bool], str]] = [
            (lambda value: isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT, "beyond 64 bits"),
            (_broken, "half a surrogate pair is not text"),
            (lambda value: isinstance(value, str) and len(value.encode()) > 10**9, "longer than SQLite's limit"),
        ]
        for row in batch:
            for column, value in zip(self._columns, row, strict=True):
                for is_bad, why in checks:
                    if is_bad(value):
                        return unfit(column, value, why)
        return None


def _broken(value: object) -> bool:
    try:
        return isinstance(value, str) and not isinstance(value.encode(), bytes)
    except UnicodeEncodeError:
        return True
