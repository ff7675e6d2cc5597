"""SQL that proves of a SQLite value that it is canonical (``jobber.columns``) as it stands, with a few comparisons.

They use that SQLite orders numbers before text before blobs, and divides integers as such
(https://sqlite.org/datatype3.html#comparison_expressions). Functions stand in conditions only: a query with one in its
result columns does not become part of the query around it, which is half as fast
(https://sqlite.org/optoverview.html#subquery_flattening).
"""

from __future__ import annotations

from collections.abc import Callable

from jobber.columns import Column, Kind
from jobber.sources.kinds import FLOAT_EXACT

#: Digits of which every decimal has a double of its own.
_SURE_DIGITS = 15
_SURE = 10**_SURE_DIGITS
#: Digits of which every integer has 64 bits.
_INT64_DIGITS = 18
#: Digits after the point that are looked for.
_FRACTION = 6
#: Greater than any number of so many digits that SQLite writes with an exponent.
_PLAIN = "0.00009999"


def doubt(column: Column, value: str) -> str | None:
    """Return a condition that holds where ``value`` is not proven to be canonical; None if nothing can be proven.

    What it lets pass as TEXT may still be no UTF-8, and what as DATE or TIMESTAMP no moment: ``sqlite_look``.
    """
    prove = _DOUBTS.get(column.kind)
    return None if prove is None else prove(column, value)


def _whole(value: str) -> str:
    # The remainder of a REAL is one, too: 0.0 or ±1.0, and (3 + that) / 5 a fraction.
    return f"({value} % 2 + 3) / 5 = 0"


def _integer(_column: Column, value: str) -> str:
    return f"+{value} >= '' COLLATE BINARY OR NOT {_whole(value)}"


def _float(_column: Column, value: str) -> str:
    return f"+{value} NOT BETWEEN {-FLOAT_EXACT} AND {FLOAT_EXACT}"


def _boolean(_column: Column, value: str) -> str:
    return f"+{value} NOT BETWEEN 0 AND 1 OR ({value} + 2) / 4 <> 0"


def _moment(_column: Column, value: str) -> str:
    # A blob of the same bytes. Of all else the copy shows whether it is a moment.
    return f"+{value} >= x''"


def _text(_column: Column, value: str) -> str:
    return f"+{value} < '' COLLATE BINARY OR +{value} >= x''"


def _json(_column: Column, value: str) -> str:
    return f"{value} IS NOT NULL"


def _scale(column: Column) -> int:
    """Return the digits after the point that a REAL in a NUMERIC column may show."""
    return _FRACTION if column.precision is None else min(column.scale or 0, _FRACTION)


def _numeric(column: Column, value: str) -> str:
    # A number becomes text because its column in a result has TEXT affinity: a REAL by its first 15 digits, and with
    # an exponent where it is smaller than 0.0001 (https://sqlite.org/datatype3.html#type_affinity, printf's "%!.15g").
    scale = _scale(column)
    whole = _INT64_DIGITS if column.precision is None else min(column.precision - (column.scale or 0), _INT64_DIGITS)
    fits = f"+{value} > {-(10**whole)} AND +{value} < {10**whole}"
    proofs = [f"({fits} AND {_whole(value)})", f"{value} IS NULL"]
    if scale:
        bound = 10 ** min(whole, _SURE_DIGITS - scale)
        inside = f"+{value} > {-bound} AND +{value} < {bound} AND +{value} NOT BETWEEN -{_PLAIN} AND {_PLAIN}"
        # Whole units, whose number is nearest to the value: the sum is positive, so that the CAST rounds down.
        units = f"CAST({value} * {10**scale} + {_SURE}.5 AS INTEGER) - {_SURE}"
        # A decimal of 15 digits that is nearest to a double is the only one of so few digits: the shortest there is.
        proofs.insert(0, f"({inside} AND ({units}) / {10**scale}.0 = {value})")
    return f"NOT ({' OR '.join(proofs)})"


_DOUBTS: dict[Kind, Callable[[Column, str], str]] = {
    Kind.INTEGER: _integer,
    Kind.NUMERIC: _numeric,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _boolean,
    Kind.DATE: _moment,
    Kind.TIMESTAMP: _moment,
    Kind.JSON: _json,
    Kind.TEXT: _text,
}
