"""The order in which the jobs of a queue run: priority, then turns among tenants, then age."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from jobber.store.schema import ORD_STEP


class Place(NamedTuple):
    """Where a job is in its queue: the least runs next.

    Parameters:
        rank: grows as its priority falls.
        running: jobs of its tenant that run.
        served: the turn in which one of its tenant was last started.
        ord: by priority and age.
    """

    rank: int
    running: int
    served: int
    ord: int


class Turns:
    """Whose turn it is among tenants: the one of whom the fewest jobs run, of several the one served longest ago.

    Jobs without a tenant are those of one tenant, "".
    """

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.served: Counter[str] = Counter()

    def add(self, tenant: str, count: int) -> None:
        """Count running jobs of a tenant."""
        self.running[tenant] += count

    def serve(self, tenant: str, turn: int) -> None:
        """Start a job of a tenant."""
        self.running[tenant] += 1
        self.served[tenant] = turn

    def place(self, tenant: str, ord_: int) -> Place:
        """Return the place of a job; as its tenant is served, it only grows."""
        return Place(ord_ // ORD_STEP, self.running[tenant], self.served[tenant], ord_)
