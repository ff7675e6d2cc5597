"""The form of a cron expression: five fields, as crontab(5) has them."""

from __future__ import annotations

import re

_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_ITEM = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)


def check_cron(expression: str) -> None:
    """Refuse what is not ``MINUTE HOUR DAY MONTH WEEKDAY``, each ``*``, values, ranges, steps or a list of them.

    Raises:
        ValueError: names the field that is wrong.
    """
    parts = expression.lower().split()
    if len(parts) != len(_FIELDS):
        raise ValueError("must have five fields: minute, hour, day of the month, month, day of the week")
    for part, (name, lowest, highest, words) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            found = _ITEM.fullmatch(item)
            if found is None or found["step"] == "0":
                raise ValueError(f"{part!r} is not a {name}; write *, a number, 1-5, */10 or a list of these")
            bounds = [_value(text, words, lowest) for text in (found["first"], found["last"]) if text is not None]
            if not all(bound is not None and lowest <= bound <= highest for bound in bounds):
                raise ValueError(f"{part!r} is not a {name}: it goes from {lowest} to {highest}")
            if len(bounds) == 2 and (bounds[0] or 0) > (bounds[1] or 0):
                raise ValueError(f"{part!r} is not a {name}: the range runs backwards")


def _value(text: str, words: tuple[str, ...], lowest: int) -> int | None:
    if text.isdecimal():
        return int(text)
    return words.index(text) + lowest if text in words else None
