"""A measurement: rounds of jobber and of a baseline in turn, medians, and what was to be reached."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


class Kind(enum.StrEnum):
    """What a goal is about."""

    RATIO = "ratio"  # how much of the baseline's speed jobber reaches: 1 is as fast
    MORE = "more"  # what jobber adds to the baseline
    MOST = "most"  # jobber's figure itself


@dataclass(frozen=True, slots=True)
class Unit:
    """What figures are counted in.

    Parameters:
        name: such as ``s``.
        digits: after the point.
        rate: whether more is better.
    """

    name: str
    digits: int = 0
    rate: bool = False

    def show(self, value: float) -> str:
        """Return the value with its unit."""
        return f"{value:,.{self.digits}f} {self.name}"


SECONDS, MILLISECONDS, MEGABYTES = Unit("s", 2), Unit("ms", 1), Unit("MB")
PERCENT, JOBS = Unit("%", 2), Unit("jobs/s", rate=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one measurement found.

    Parameters:
        work: what was measured.
        unit: of ``ours`` and ``theirs``.
        ours: jobber's values, one per round.
        theirs: the baseline's values in the same rounds; empty where there is none.
        against: what the baseline is.
        kind: what ``goal`` is about.
        goal: the least ratio, or the most of the others; None if there is none.
        note: what else is to be known.
    """

    work: str
    unit: Unit
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    against: str = ""
    kind: Kind = Kind.RATIO
    goal: float | None = None
    note: str = ""

    @property
    def each(self) -> list[float]:
        """What the goal is about, of each round."""
        if self.kind is Kind.MOST:
            return list(self.ours)
        if not self.theirs:
            return []
        pairs = zip(self.ours, self.theirs, strict=True)
        if self.kind is Kind.MORE:
            return [ours - theirs for ours, theirs in pairs]
        return [ours / theirs if self.unit.rate else theirs / ours for ours, theirs in pairs]

    @property
    def value(self) -> float | None:
        """What the goal is about: the median of the rounds; None without a baseline."""
        return median(self.each) if self.each else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.kind is Kind.RATIO else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "work": self.work,
            "unit": self.unit.name,
            "digits": self.unit.digits,
            "jobber": median(self.ours),
            "baseline": median(self.theirs) if self.theirs else None,
            "baseline_is": self.against,
            "kind": self.kind.value,
            "value": self.value,
            "least": min(self.each, default=None),
            "most": max(self.each, default=None),
            "goal": self.goal,
            "met": self.met,
            "note": self.note,
            "rounds": {"jobber": list(self.ours), "baseline": list(self.theirs)},
        }


def shown(kind: Kind, unit: Unit, value: float) -> str:
    """Return what a goal is about as text."""
    if kind is Kind.RATIO:
        return f"{value:.2f}"
    return f"{'+' if kind is Kind.MORE and value >= 0 else ''}{unit.show(value)}"


def alternate(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float], say: Callable[[str], None]
) -> tuple[list[float], list[float]]:
    """Measure both in turn, each first in every other round; return their values.

    What else the machine does hits both alike, and neither always has the warmer caches.
    """
    found: dict[Callable[[], float], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for one in (ours, theirs) if number % 2 else (theirs, ours):
            found[one].append(one())
    return found[ours], found[theirs]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the ``q`` quantile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]
