"""ClickHouse's types: the kind of a column, how it is asked for, and the canonical form of what comes.

The driver rounds decimals to 28 digits and cuts nanoseconds. So the server itself turns all that is no plain number,
flag or string into text (https://clickhouse.com/docs/sql-reference/data-types).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobber.columns import Column, Kind
from jobber.errors import QueryFailed, ValueNotRepresentable

#: Types that only say how the values of another one are kept.
_AROUND = re.compile(r"(?:LowCardinality\(|Nullable\(|SimpleAggregateFunction\(\w+(?:\([^)]*\))?, )(.*)\)", re.DOTALL)
_DECIMAL = re.compile(r"Decimal\((\d+), *(\d+)\)")
_DATETIME = re.compile(r"DateTime(?:64\((\d)(?:,.*)?\)|\(.*\))?")

_AS_IT_IS, _AS_TEXT, _IN_UTC = "{name}", "CAST({name}, 'Nullable(String)')", "toString({name}, 'UTC')"
#: Digits of a TIMESTAMP's fraction; what has more is text.
_MICROSECONDS = 6

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a query.

    Parameters:
        column: as the result has it.
        expression: what asks for it, with its name in place of ``{name}``.
        convert: makes the canonical form of a value as the driver gives it, NULL aside; None if that is what it gives.
    """

    column: Column
    expression: str
    convert: Convert | None = None

    @property
    def plain(self) -> bool:
        """Whether the driver reads it as it is without a loss."""
        return self.expression == _AS_IT_IS

    def asked(self) -> str:
        """Return the SQL that asks for the column in canonical form, or near it."""
        name = self.column.name.replace("\\", "\\\\").replace("`", "\\`")
        return self.expression.replace("{name}", f"`{name}`")

    def canonical(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the values of one block in canonical form.

        Raises:
            ValueNotRepresentable: a string is not UTF-8.
        """
        types = set(map(type, values))
        if bytes in types:  # what the driver could not decode
            raise ValueNotRepresentable(
                f"column {self.column.name!r} holds bytes that are no UTF-8 text: "
                f"{next(value for value in values if type(value) is bytes)[:40]!r}; write hex({self.column.name})",
                column=self.column.name,
            )
        if self.convert is None:
            return values
        convert = self.convert
        return [None if value is None else convert(value) for value in values]


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


def _digits(text: str) -> str:
    if not _NUMBER.fullmatch(text):  # servers of 2018 write NULs into long negative decimals
        raise ValueNotRepresentable(f"the server wrote {text[:80]!r}, which is no number; CAST it to Float64 or String")
    return text


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32")
#: What a type without parameters becomes; all that is not here is text.
_NAMED: Mapping[str, tuple[Kind, str, Convert | None]] = {
    **dict.fromkeys(_INTEGERS, (Kind.INTEGER, _AS_IT_IS, None)),
    "Float64": (Kind.FLOAT, _AS_IT_IS, None),
    # Floats that are shorter than Python's: the server knows their digits.
    "Float32": (Kind.FLOAT, _AS_TEXT, float),
    "BFloat16": (Kind.FLOAT, _AS_TEXT, float),
    "Bool": (Kind.BOOLEAN, _AS_IT_IS, None),
    "String": (Kind.TEXT, _AS_IT_IS, None),
    "Date": (Kind.DATE, _AS_TEXT, None),
    "Date32": (Kind.DATE, _AS_TEXT, None),
}
#: Digits of integers beyond 64 bits, signed.
_LONG = {"UInt64": 20, "Int128": 39, "UInt128": 39, "Int256": 77, "UInt256": 78}
_DOCUMENT = re.compile(r"JSON(?:\(.*\))?|Object\('json'\)", re.DOTALL)


def field(name: str, declared: str, source: str) -> Field:
    """Return how a column is read.

    Parameters:
        name: in the query.
        declared: the type as ``DESCRIBE`` gives it.
        source: name of the database, for messages.

    Raises:
        QueryFailed: it is the state of an aggregate function, which has no text form.
    """
    declared = _bare(declared)
    if declared.startswith("AggregateFunction("):
        raise QueryFailed(
            f"{source}: column {name!r} is the state of an aggregate function; finish it with finalizeAggregation() "
            "or the function's -Merge form",
            retryable=False,
        )
    if named := _NAMED.get(declared):
        kind, expression, convert = named
        return Field(Column(name, kind), expression, convert)
    if digits := _LONG.get(declared):
        return Field(Column(name, Kind.NUMERIC, digits, 0), _AS_IT_IS, str)
    if found := _DECIMAL.fullmatch(declared):
        return Field(Column(name, Kind.NUMERIC, int(found[1]), int(found[2])), _AS_TEXT, _digits)
    if found := _DATETIME.fullmatch(declared):
        if int(found[1] or 0) > _MICROSECONDS:
            return Field(Column(name, Kind.TEXT), _IN_UTC)
        return Field(Column(name, Kind.TIMESTAMP), _IN_UTC, _without_zeros if found[1] else None)
    return Field(Column(name, Kind.JSON if _DOCUMENT.fullmatch(declared) else Kind.TEXT), _AS_TEXT)


def fits(expected: Field, sent: str) -> bool:
    """Whether a column that the server sends is of the type that ``expected`` was made for."""
    if not expected.plain:
        return _bare(sent) == "String"
    column = expected.column
    return field(column.name, sent, "") == expected


def _bare(declared: str) -> str:
    while around := _AROUND.fullmatch(declared):
        declared = around[1]
    return declared
