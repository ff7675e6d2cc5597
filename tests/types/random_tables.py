"""Random tables: column types with values for each source, and what a result must hold of them, or cannot."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from jobber.columns import Kind

#: A value in its canonical form, floats and integers as text too; None is NULL.
Text = str | None


@dataclass(frozen=True)
class ColumnType:
    """A column type of a source.

    Parameters:
        declared: as CREATE TABLE takes it.
        kind: what a result makes of it.
        values: canonical forms.
        bound: turns a canonical form into what the driver inserts.
    """

    declared: str
    kind: Kind
    values: st.SearchStrategy[str]
    bound: Callable[[str], Any] = str

    def __repr__(self) -> str:
        return self.declared


@dataclass(frozen=True)
class Table:
    """A table, its rows in canonical form. ``repeat``: each row stands so many times."""

    types: list[ColumnType]
    rows: list[tuple[Text, ...]]
    repeat: int


#: What encodings stumble over, more often than chance would have it.
_HOSTILE = ["\\", "\\N", "NULL", "\t", "\n", "\r", "\r\n", "\\t", "\\\\", "\\.", "\b", "\f", "\v", "\x1a", "\\f", "\\v"]
_MORE = ["'", '"', "`", "%", "%s", ":x", "?", "\x7f", "\u2028", "é", "ß", "€", "\ufeff", "\uffff", "😀", "t", "f", ""]
_PIECES = st.sampled_from([*_HOSTILE, *_MORE, "N", "n", "0", " ", "  ", "x" * 300])
_ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_TEXTS = st.lists(_PIECES | _ANY, max_size=6).map("".join)
_WITH_NUL = _TEXTS | st.sampled_from(["\0", "a\0b", "\\\0", "\0\\N"])
_LATIN1 = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=8)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[str]:
    top = 10**precision - 1
    digits = st.integers(-top, top) | st.sampled_from([0, 1, -1, top, -top, 10 ** min(scale, precision - 1)])

    def text(number: int) -> str:
        whole, fraction = divmod(abs(number), 10**scale)
        return f"{'-' if number < 0 else ''}{whole}.{fraction:0{scale}}"

    return digits.map(text)


def _float32(number: float) -> str:
    """Return the fewest digits that give the same single-precision number back."""
    for digits in range(1, 10):
        text = f"{number:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", number):
            return repr(float(text))
    raise AssertionError(number)


_FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
_DOUBLES = _FINITE.map(repr)
_SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(_float32)
_INT64 = st.integers(-(2**63), 2**63 - 1).map(str)
_DATES = st.dates().map(str)
_MOMENTS = st.datetimes().map(lambda moment: str(moment).rstrip("0") if moment.microsecond else str(moment))
_BYTES = st.binary(max_size=12).map(lambda data: "\\x" + data.hex())
_LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _ANY
_DOCUMENTS = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY, inner, max_size=3), max_leaves=6
).map(json.dumps)
_TIMES = st.integers(0, 838 * 3600).map(lambda s: f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.000000")
_OUT_OF_RANGE = ["infinity", "-infinity", "0044-03-15 BC", "12345-01-01"]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


TYPES: dict[str, list[ColumnType]] = {
    "postgresql": [
        ColumnType("bigint", Kind.INTEGER, _INT64),
        ColumnType("smallint", Kind.INTEGER, st.integers(-(2**15), 2**15 - 1).map(str)),
        ColumnType("numeric(12,3)", Kind.NUMERIC, _decimals(12, 3)),
        ColumnType("numeric(65,30)", Kind.NUMERIC, _decimals(65, 30)),
        ColumnType(
            "numeric", Kind.NUMERIC, _decimals(40, 20) | _decimals(20, 35) | st.sampled_from(["NaN", "Infinity", "1.0"])
        ),
        ColumnType("double precision", Kind.FLOAT, st.floats().map(repr)),
        ColumnType("real", Kind.FLOAT, _SINGLES),
        ColumnType("boolean", Kind.BOOLEAN, st.sampled_from(["true", "false"])),
        ColumnType("date", Kind.DATE, _DATES | st.sampled_from(_OUT_OF_RANGE)),
        ColumnType("timestamp", Kind.TIMESTAMP, _MOMENTS),
        ColumnType("timestamptz", Kind.TIMESTAMP, _MOMENTS, lambda text: f"{text}+00"),
        ColumnType("jsonb", Kind.JSON, _DOCUMENTS),
        ColumnType("json", Kind.JSON, _DOCUMENTS),
        ColumnType("bytea", Kind.BINARY, _BYTES, _bytes),
        ColumnType("text", Kind.TEXT, _TEXTS),
        ColumnType("uuid", Kind.TEXT, st.uuids().map(str)),
    ],
    "mysql": [
        ColumnType("BIGINT", Kind.INTEGER, _INT64),
        ColumnType("TINYINT(1)", Kind.INTEGER, st.integers(-128, 127).map(str)),
        ColumnType("BIGINT UNSIGNED", Kind.NUMERIC, st.integers(0, 2**64 - 1).map(str)),
        ColumnType("DECIMAL(12,3)", Kind.NUMERIC, _decimals(12, 3)),
        ColumnType("DECIMAL(65,30)", Kind.NUMERIC, _decimals(65, 30)),
        ColumnType("DOUBLE", Kind.FLOAT, _DOUBLES, float),
        ColumnType("FLOAT", Kind.FLOAT, _SINGLES, float),
        ColumnType("BIT(7)", Kind.TEXT, st.integers(0, 127).map(lambda n: f"{n:07b}"), lambda text: int(text, 2)),
        ColumnType("YEAR", Kind.INTEGER, st.integers(1901, 2155).map(str)),
        ColumnType("DATE", Kind.DATE, _DATES | st.sampled_from(["0000-00-00", "2024-00-10"])),
        ColumnType("DATETIME(6)", Kind.TIMESTAMP, _MOMENTS),
        ColumnType("TIME(6)", Kind.TEXT, _TIMES),
        ColumnType("JSON", Kind.JSON, _DOCUMENTS),
        ColumnType("VARBINARY(20)", Kind.BINARY, _BYTES, _bytes),
        ColumnType("LONGTEXT", Kind.TEXT, _WITH_NUL),
        ColumnType("VARCHAR(20) CHARACTER SET latin1", Kind.TEXT, _LATIN1),
        ColumnType("ENUM('a','B','c,d','')", Kind.TEXT, st.sampled_from(["a", "B", "c,d", ""])),
        ColumnType("SET('x','y','z')", Kind.TEXT, st.sampled_from(["", "x", "x,z", "x,y,z"])),
    ],
    "sqlite": [
        ColumnType("BIGINT", Kind.INTEGER, _INT64, int),
        ColumnType("REAL", Kind.FLOAT, st.floats(allow_nan=False).map(repr), float),
        ColumnType("BOOLEAN", Kind.BOOLEAN, st.sampled_from(["true", "false"]), lambda text: text == "true"),
        ColumnType("DATE", Kind.DATE, _DATES),
        ColumnType("TIMESTAMP", Kind.TIMESTAMP, _MOMENTS),
        ColumnType("JSON_TEXT", Kind.JSON, _DOCUMENTS),
        ColumnType("TEXT", Kind.TEXT, _WITH_NUL),
        ColumnType("BLOB", Kind.BINARY, _BYTES, _bytes),
    ],
}


@st.composite
def tables(draw: st.DrawFn, engine: str) -> Table:
    """Return a table of a few columns."""
    types = draw(st.lists(st.sampled_from(TYPES[engine]), min_size=1, max_size=5))
    # One NULL in a while; and a first row without: SQLite's BLOB column shows by its values what it holds.
    row = st.tuples(*(kind.values for kind in types))
    later = st.tuples(*(st.none() | kind.values | kind.values for kind in types))
    rows = draw(st.builds(lambda first, rest: [*first, *rest], st.lists(row, max_size=1), st.lists(later, max_size=6)))
    if rows and None in rows[0]:
        rows = []
    return Table(types, rows, draw(st.sampled_from([1, 1, 1, 500])))


#: Digits before and after the point, without the zeros that mean nothing.
_NUMBER = re.compile(r"-?0*(\d*?)(?:\.(\d*?)0*)?")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)( .*)?")


def fits(engine: str, kind: Kind, text: str) -> bool:
    """Whether a results engine can hold a value."""
    if kind is Kind.FLOAT:
        number = float(text)
        return math.isfinite(number) or engine == "postgresql" or (engine == "sqlite" and not math.isnan(number))
    if kind is Kind.NUMERIC and engine == "mysql":
        digits = _NUMBER.fullmatch(text)
        return digits is not None and len(digits[1]) <= 35 and len(digits[2] or "") <= 30
    if kind in (Kind.DATE, Kind.TIMESTAMP):
        found = _DATE.fullmatch(text)
        if found and "00" in found.group(2, 3):
            return False
        return engine == "postgresql" or bool(found and found[1] != "0000" and not text.endswith("BC"))
    if engine == "postgresql":
        return "\0" not in text
    return True


def same(kind: Kind, expected: Text, found: Any) -> bool:
    """Whether a result's value, in canonical form, is the one that was put into the source."""
    if expected is None or found is None:
        return expected is found
    if kind is Kind.FLOAT:
        number = float(expected)
        return float(found) == number or (math.isnan(number) and math.isnan(float(found)))
    if kind is Kind.NUMERIC:
        return str(found) == expected if expected in ("NaN", "Infinity") else Decimal(found) == Decimal(expected)
    if kind is Kind.INTEGER:
        return isinstance(found, int) and found == int(expected)
    if kind is Kind.BOOLEAN:
        return found is (expected == "true")
    if kind is Kind.JSON:
        return bool(json.loads(found) == json.loads(expected))
    return bool(found == expected)
