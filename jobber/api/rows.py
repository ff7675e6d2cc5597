"""Rows of a result as JSON objects: every value exactly, the way that PostgreSQL's ``to_json`` writes it.

Numbers are JSON numbers with all their digits; what JSON has no number for (NaN and the infinities) is text, and so are
dates, times and binary values; a JSON document is embedded as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from jobber.columns import Column, Kind, Row


def _number(text: Any) -> Any:
    number = Decimal(text)
    return number if number.is_finite() else text


def _float(value: Any) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _document(text: Any) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        return text  # SQLite stores any text in a column that it calls JSON


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_CONVERT: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.NUMERIC: _number,
    Kind.FLOAT: _float,
    Kind.JSON: _document,
}


def objects(columns: Sequence[Column], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows in canonical form as JSON-able objects, keyed by column name in the order of the columns."""
    names = [column.name for column in columns]
    converted = [
        (name, _CONVERT[column.kind]) for name, column in zip(names, columns, strict=True) if column.kind in _CONVERT
    ]
    items = []
    for row in rows:
        item = dict(zip(names, row, strict=True))
        for name, convert in converted:
            if item[name] is not None:
                item[name] = convert(item[name])
        items.append(item)
    return items
