"""The kinds of work that ``make bench`` measures, in the order in which it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from benchmarks.lab import Lab
from benchmarks.measuring import Figure

Measure = Callable[[Lab], Iterator[Figure]]


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of work.

    Parameters:
        name: what ``--only`` takes; the module has the same name.
        title: of its rows in the table.
        needs: the servers without which there is nothing to measure.
        uses: those without which there is less.
        asked: whether it is measured only if it is asked for.
    """

    name: str
    title: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    asked: bool = False

    def measure(self, lab: Lab) -> Iterator[Figure]:
        """Measure, and give each figure as soon as it is there."""
        measure: Measure = import_module(f"benchmarks.parts.{self.name}").measure
        return measure(lab)


PARTS = (
    Part("transfers", "One job of many rows", uses=("postgresql", "mysql")),
    Part("memory", "Memory of one job", uses=("postgresql", "mysql")),
    Part("jobs", "Many small jobs", needs=("postgresql", "redis")),
    Part("submissions", "Submitting", needs=("postgresql", "redis")),
    Part("crowded", "The same with many jobs, results and a long history", needs=("postgresql", "redis")),
    Part("idle", "Doing nothing", uses=("postgresql", "redis")),
    Part("claim", "The claim by itself", uses=("postgresql", "mysql"), asked=True),
)
