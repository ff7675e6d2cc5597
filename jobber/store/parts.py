"""Long lists in parts, so that no statement takes for long or is too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

#: Values that one statement is given.
MOST = 1000


def parts(values: Sequence[T], most: int = MOST) -> Iterator[Sequence[T]]:
    """Yield slices of at most ``most`` values."""
    for start in range(0, len(values), most):
        yield values[start : start + most]
