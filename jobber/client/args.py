"""Arguments of a job on their way to the server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from jobber.client.answers import Scalar
from jobber.errors import InvalidRequest

#: What an argument may be.
Arg = Scalar | date | datetime


def encoded(args: Sequence[Arg] | Mapping[str, Arg]) -> list[Scalar] | dict[str, Scalar]:
    """Return args as JSON can say them.

    Raises:
        InvalidRequest: names the argument; ``details["field"]`` is ``args``.
    """
    if isinstance(args, Mapping):
        for name in args:
            if not isinstance(name, str):
                raise _refusal(f"args: the name {name!r} must be text, not {type(name).__name__}")
        return {name: _scalar(f"args[{name!r}]", value) for name, value in args.items()}
    # Text is a sequence too, of letters; a set has no order.
    if isinstance(args, str | bytes | bytearray | memoryview | set | frozenset) or not isinstance(args, Iterable):
        raise _refusal(f"args: must be a list or a mapping of values, not {type(args).__name__}; one value is [value]")
    return [_scalar(f"args[{position}]", value) for position, value in enumerate(args)]


def _scalar(place: str, value: object) -> Scalar:
    if isinstance(value, datetime):
        moment = value if value.tzinfo is None else value.astimezone(UTC)
        return moment.isoformat(" ")  # with a blank, as databases write it: text compares as time does
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise _refusal(f"{place}: JSON has no number {value}; send it as text if the query wants it")
    if value is None or isinstance(value, str | int | float | Decimal):
        return value
    raise _refusal(
        f"{place}: {type(value).__name__} cannot be sent; arguments are text, numbers, booleans, dates and None"
    )


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, field="args")
