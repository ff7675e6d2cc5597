"""Arguments as ClickHouse's constants: its own parameters need a type each, which ``?`` and ``:name`` do not say."""

from __future__ import annotations

from decimal import Decimal

from jobber.errors import BadArguments
from jobber.jobs import Scalar

#: From this version on there is a type Bool.
_BOOL_SINCE = (21, 12)
_INTEGERS = range(-(2**63), 2**64)
_LONG_INTEGERS = range(-(2**255), 2**255)
#: Digits that each of the longer decimals holds.
_DECIMALS = ((38, "toDecimal128"), (76, "toDecimal256"))
_ESCAPED = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0"})


def literal(value: Scalar, version: tuple[int, ...]) -> str:
    """Return an argument as a constant with all of its digits.

    A number is written as one would by hand; only what the server would round to a Float64 is a wider type's.

    Parameters:
        version: of the server.

    Raises:
        BadArguments: a number has more digits than any type, or a text is not Unicode.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower() if version >= _BOOL_SINCE else str(int(value))
        case int():
            return _integer(value)
        case Decimal():
            return _decimal(value)
        case str():
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise BadArguments("an argument holds half of a surrogate pair, which is no character")
            return f"'{value.translate(_ESCAPED)}'"


def _integer(value: int) -> str:
    if value in _INTEGERS:
        return str(value)
    if value not in _LONG_INTEGERS:
        raise BadArguments("an argument is an integer of more than 256 bits")
    return f"toInt256('{value}')"


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise BadArguments(f"an argument is {value}, which is no number to ClickHouse")
    as_float = float(value)
    if Decimal(repr(as_float)) == value:
        return repr(as_float)
    exponent = int(value.as_tuple().exponent)
    digits = max(len(value.as_tuple().digits) + max(exponent, 0), -exponent)
    for most, function in _DECIMALS:
        if digits <= most:
            return f"{function}('{value:f}', {max(-exponent, 0)})"
    raise BadArguments("an argument is a number of more than 76 digits")
