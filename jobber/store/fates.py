"""What the end of runs means for those that wait for them, worked out in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jobber.errors import ParentCancelled, ParentFailed
from jobber.jobs import JobState, Policy


@dataclass(frozen=True, slots=True)
class Fate:
    """How a run ended, or ends because of another one without having run.

    Parameters:
        shares: the run whose result it has; None if it has one of its own, or none.
        cause: ID of the job with whose end it began; "" if that is its own.
    """

    state: JobState
    error: str = ""
    code: str = ""
    shares: int | None = None
    cause: str = ""


def shared(row: Any) -> Fate:
    """Return the fate of a run that has the result of a finished run that succeeded: ``row`` is that one's."""
    return Fate(JobState.SUCCESS, shares=row.run)


class Edge(NamedTuple):
    """A row of ``jobber_dependencies``."""

    child: int
    parent: int
    parent_id: str
    policy: str


def fate_of(policy: Policy, parent: int, parent_id: str, end: Fate) -> Fate | None:
    """Return how a child ends because of its parent; None if it does not.

    Parameters:
        end: of the parent.
    """
    if policy is Policy.SHARE:
        return {
            JobState.SUCCESS: Fate(JobState.SUCCESS, shares=end.shares or parent),
            JobState.FAILURE: Fate(JobState.FAILURE, end.error, end.code),
        }.get(end.state)
    if policy is Policy.FINISHED or end.state is JobState.SUCCESS:
        return None
    cause = end.cause or parent_id
    failed = end.state is JobState.FAILURE
    error = f"job {cause}, which it depends on, {'failed' if failed else 'was cancelled'}"
    return Fate(end.state, error, (ParentFailed if failed else ParentCancelled).code, cause=cause)


@dataclass(slots=True)
class Spread:
    """What some ends mean for all runs below them.

    Parameters:
        fates: of the runs that end, too.
        touched: all runs below, these among them.
        heirs: of a cancelled run, those that shared it.
    """

    fates: dict[int, Fate] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    heirs: dict[int, list[int]] = field(default_factory=dict)


def spread(ended: Mapping[int, Fate], below: Callable[[Collection[int]], Iterable[Edge]]) -> Spread:
    """Follow ends down from parents to children, as far as children end, too.

    Parameters:
        below: gives the edges of some parents.
    """
    found, known = Spread(), dict(ended)
    level: Collection[int] = ended.keys()
    while level:
        ends: dict[int, Fate] = {}
        # Of two reasons to end, a failure goes first.
        for edge in sorted(below(level), key=lambda edge: (known[edge.parent].state is not JobState.FAILURE, edge)):
            if edge.child in known:
                continue
            policy, end = Policy(edge.policy), known[edge.parent]
            found.touched.add(edge.child)
            if policy is Policy.SHARE and end.state is JobState.CANCELLED:
                found.heirs.setdefault(edge.parent, []).append(edge.child)
            fate = fate_of(policy, edge.parent, edge.parent_id, end)
            if fate is not None:
                ends.setdefault(edge.child, fate)
        known |= ends
        found.fates |= ends
        level = ends.keys()
    return found
