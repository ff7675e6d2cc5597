"""Jobs that would wait for each other for ever, found before they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: IDs of a cycle that are named; a longer one is cut in its middle.
_NAMED = 10


def circles(parents: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return circles by one job of each, the first in the order of ``parents``; none where all can run.

    Parameters:
        parents: of each job, by ID; those that are not among the keys wait for nothing.

    A circle begins and ends with its job: ``["a", "b", "a"]`` where a waits for b and b for a.
    """
    children: dict[str, list[str]] = {job_id: [] for job_id in parents}
    open_: dict[str, int] = {}
    for job_id, of in parents.items():
        known = [parent for parent in of if parent in parents]
        open_[job_id] = len(known)
        for parent in known:
            children[parent].append(job_id)
    free = [job_id for job_id, count in open_.items() if not count]
    while free:
        for child in children[free.pop()]:
            open_[child] -= 1
            if not open_[child]:
                free.append(child)
    return _walks(parents, [job_id for job_id, count in open_.items() if count])


def _walks(parents: Mapping[str, Sequence[str]], stuck: Sequence[str]) -> dict[str, list[str]]:
    """Return circles among jobs that cannot run: every one of them has a parent among them."""
    among, seen, found = {*stuck}, set[str](), dict[str, list[str]]()
    for start in stuck:
        path: dict[str, None] = {}
        job_id = start
        while job_id not in seen and job_id not in path:
            path[job_id] = None
            job_id = next(parent for parent in parents[job_id] if parent in among)
        if job_id in path:
            walked = list(path)
            circle = walked[walked.index(job_id) :]
            first = min(circle, key=stuck.index) if len(circle) <= _NAMED else job_id
            at = circle.index(first)
            found[first] = [*circle[at:], *circle[:at], first]
        seen.update(path)
    return found


def told(circle: Sequence[str]) -> str:
    """Return what is wrong with a circle, for people."""
    if len(circle) == 2:
        return f"{circle[0]} is the job itself"
    named = [*circle] if len(circle) <= _NAMED else [*circle[: _NAMED - 2], "…", *circle[-2:]]
    return f"these jobs would wait for each other for ever: {' → '.join(named)}"
