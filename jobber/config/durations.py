"""Durations as people write them."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

#: A century: far beyond any use, and far from overflowing a microsecond counter of 64 bits.
LONGEST = 100 * 366 * 86_400


def seconds(value: object) -> float:
    """Return a duration in seconds.

    Parameters:
        value: seconds as a number, or text: ``30``, ``30s``, ``5m``, ``24h``, ``7d``, ``1h30m``, ``500ms``.

    Raises:
        ValueError: it is no such thing, negative, or longer than a century; the message says so.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be seconds or a duration such as 30s, 5m, 24h, 7d")
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= 40 and _NUMBER.fullmatch(text):
            total = float(text)
        elif len(text) <= 40 and _WHOLE.fullmatch(text):
            total = math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        else:
            raise ValueError("must be seconds or a duration such as 30s, 5m, 24h, 7d")
    else:
        # Compared as it is: a large int does not fit a float.
        if not 0 <= value <= LONGEST:
            raise ValueError("must be between 0 and a century")
        total = float(value)
    if total > LONGEST:
        raise ValueError("must be between 0 and a century")
    return total
