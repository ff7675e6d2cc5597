"""Values of dynamically typed sources: what kind a Python value is, and its canonical form in a column of some kind.

The kinds form a lattice: BOOLEAN < INTEGER < FLOAT < NUMERIC < TEXT, and each of the others < TEXT. A value goes into
a column of its own kind or a wider one, and only if it can be read back unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from jobber.columns import Column, Kind
from jobber.sources.texts import binary_text, decimal_text, json_text, plain_text, timestamp_text

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
#: The largest integer below which a float holds every integer.
FLOAT_EXACT = 2**53

#: Numbers, each of which holds all values of those before it (FLOAT those within ``FLOAT_EXACT``).
_NUMBERS = (Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.NUMERIC)

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,6})0*)?)?(Z|[-+]\d\d(?::?\d\d)?)?", re.ASCII
)
_PLAIN_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?|NaN|-?Infinity", re.ASCII)


class Unfit(Exception):
    """Raised when a value cannot be in a column of that kind unchanged."""


def join(one: Kind, other: Kind) -> Kind:
    """Return the narrowest kind that holds the values of both."""
    if one is other:
        return one
    if one in _NUMBERS and other in _NUMBERS:
        return max(one, other, key=_NUMBERS.index)
    return Kind.TEXT


def kind_of(value: Any) -> Kind:
    """Return the kind of a value by itself."""
    kind = _KINDS.get(type(value))
    if kind is None:
        kind = next((_KINDS[base] for base in type(value).__mro__ if base in _KINDS), Kind.TEXT)
    if kind is Kind.INTEGER and not INTEGER_MIN <= value <= INTEGER_MAX:
        return Kind.NUMERIC
    return kind


_KINDS: Mapping[type, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    Decimal: Kind.NUMERIC,
    str: Kind.TEXT,
    date: Kind.DATE,
    datetime: Kind.TIMESTAMP,
    bytes: Kind.BINARY,
    bytearray: Kind.BINARY,
    memoryview: Kind.BINARY,
    list: Kind.JSON,
    tuple: Kind.JSON,
    dict: Kind.JSON,
}


def to_column(value: Any, column: Column, *, declared: bool = False) -> bool | int | float | str:
    """Return the canonical form of ``value`` in ``column``.

    Parameters:
        value: anything but None.
        column: its kind and, for NUMERIC, its bounds.
        declared: the column was declared of that kind in the database, so that text in it may mean a number, a date
            or a document, and 0 and 1 a boolean.

    Raises:
        Unfit: the value needs a wider column.
    """
    return _WRITERS[column.kind](value, column, declared)


def _boolean(value: Any, _column: Column, declared: bool) -> bool:
    if isinstance(value, bool):
        return value
    if declared and isinstance(value, int) and value in {0, 1}:
        return bool(value)
    raise Unfit


def _integer(value: Any, _column: Column, _declared: bool) -> int:
    if isinstance(value, int) and INTEGER_MIN <= value <= INTEGER_MAX:
        return int(value)
    raise Unfit


def _float(value: Any, _column: Column, _declared: bool) -> float:
    if isinstance(value, float) or (isinstance(value, int) and -FLOAT_EXACT <= value <= FLOAT_EXACT):
        return float(value)
    raise Unfit


def _numeric(value: Any, column: Column, declared: bool) -> str:
    if isinstance(value, str):
        if not (declared and _DECIMAL.fullmatch(value)):
            raise Unfit
        text = value
    elif isinstance(value, int | float | Decimal):
        text = decimal_text(value)
    else:
        raise Unfit
    if column.precision is not None and not _within(text, column.precision, column.scale or 0):
        raise Unfit
    return text


def _within(text: str, precision: int, scale: int) -> bool:
    if text == "NaN":
        return True
    whole, _, fraction = text.removeprefix("-").partition(".")
    return len(whole.lstrip("0")) <= precision - scale and len(fraction) <= scale and whole != "Infinity"


def _date(value: Any, _column: Column, declared: bool) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if declared and isinstance(value, str) and _DATE.fullmatch(value) and _exists(value):
        return value
    raise Unfit


def _timestamp(value: Any, _column: Column, declared: bool) -> str:
    if isinstance(value, datetime):
        if (text := timestamp_text(value)) is None:
            raise Unfit
        return text
    if declared and isinstance(value, str):
        if _PLAIN_TIMESTAMP.fullmatch(value) and _exists(value):
            return value
        if match := _TIMESTAMP.fullmatch(value):
            day, minutes, seconds, fraction, offset = match.groups()
            whole = f"{day} {minutes}:{seconds or '00'}.{(fraction or '').ljust(6, '0')}{offset or ''}"
            with suppress(ValueError):
                if (text := timestamp_text(datetime.fromisoformat(whole))) is not None:
                    return text
    raise Unfit


def _exists(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _json(value: Any, _column: Column, declared: bool) -> str:
    if isinstance(value, list | tuple | dict):
        return json_text(value)
    if not declared:
        raise Unfit
    # An INTEGER or REAL in a column declared JSON is what SQLite's affinity made of a document that is one number.
    text = value if isinstance(value, str) else json_text(value) if type(value) in {int, float} else None
    if text is None:
        raise Unfit
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Unfit from None
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _binary(value: Any, _column: Column, _declared: bool) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return binary_text(value)
    raise Unfit


def _text(value: Any, _column: Column, _declared: bool) -> str:
    return plain_text(value)


_WRITERS: Mapping[Kind, Callable[[Any, Column, bool], bool | int | float | str]] = {
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.NUMERIC: _numeric,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _timestamp,
    Kind.JSON: _json,
    Kind.BINARY: _binary,
    Kind.TEXT: _text,
}
