"""Values of Python types as text: digits are kept, moments are in UTC, nested values are JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import singledispatch
from math import isfinite
from typing import Any


@singledispatch
def plain_text(value: Any) -> str:
    """Return the text of a value of any type, with all of its digits."""
    return str(value)


@plain_text.register
def _(value: bool) -> str:
    return "true" if value else "false"


@plain_text.register
def _(value: float) -> str:
    return repr(value) if isfinite(value) else decimal_text(value)


@plain_text.register(int)
@plain_text.register(Decimal)
def _(value: int | Decimal) -> str:
    return decimal_text(value)


@plain_text.register(bytes)
@plain_text.register(bytearray)
@plain_text.register(memoryview)
def binary_text(value: bytes | bytearray | memoryview) -> str:
    """Return bytes as ``\\x`` and two hex digits each."""
    return "\\x" + bytes(value).hex()


@plain_text.register(date)
@plain_text.register(time)
def _(value: date | time) -> str:
    return value.isoformat()


@plain_text.register
def _(value: datetime) -> str:
    return timestamp_text(value) or value.isoformat(" ")


@plain_text.register
def interval_text(value: timedelta) -> str:
    """Return a length of time as PostgreSQL prints an interval: ``3 days 02:03:04.5``."""
    micros = abs(value) // timedelta(microseconds=1)
    days, micros = divmod(micros, 86_400_000_000)
    seconds, micros = divmod(micros, 1_000_000)
    sign = "-" if value < timedelta(0) else ""
    clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    clock += f".{micros:06}".rstrip("0") if micros else ""
    if not days:
        return clock
    counted = f"{sign}{days} day" if days == 1 and not sign else f"{sign}{days} days"
    return f"{counted} {clock}" if seconds or micros else counted


@plain_text.register(list)
@plain_text.register(tuple)
@plain_text.register(dict)
def _(value: Any) -> str:
    return json_text(value)


@singledispatch
def json_text(value: Any) -> str:
    """Return nested values as a JSON document; numbers keep their digits, what JSON lacks becomes a string."""
    return json.dumps(plain_text(value), ensure_ascii=False)


@json_text.register
def _(_value: None) -> str:
    return "null"


@json_text.register
def _(value: bool) -> str:
    return plain_text(value)


@json_text.register(int)
@json_text.register(float)
@json_text.register(Decimal)
def _(value: int | float | Decimal) -> str:
    text = plain_text(value)
    return text if text[-1].isdigit() else json.dumps(text)  # NaN and the infinities


@json_text.register(list)
@json_text.register(tuple)
def _(value: Any) -> str:
    return "[" + ", ".join(map(json_text, value)) + "]"


@json_text.register
def _(value: dict) -> str:  # type: ignore[type-arg]  # singledispatch takes no parametrised type
    members = (f"{json.dumps(plain_text(key), ensure_ascii=False)}: {json_text(v)}" for key, v in value.items())
    return "{" + ", ".join(members) + "}"


def decimal_text(value: int | float | Decimal) -> str:
    """Return a number in plain decimal digits; of a float, the fewest that give it back."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and "e" not in (text := repr(value)) and isfinite(value):
        return text
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    if number.is_finite():
        return format(number, "f")
    return "NaN" if number.is_nan() else "Infinity" if number > 0 else "-Infinity"


def timestamp_text(moment: datetime) -> str | None:
    """Return a moment as ``YYYY-MM-DD HH:MM:SS[.ffffff]``, a zoned one in UTC; None if UTC takes it out of 1–9999."""
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            return None
    text = moment.isoformat(" ")
    return text.rstrip("0") if moment.microsecond else text
