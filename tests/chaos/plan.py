"""What will happen in a run: the load and the faults, decided by the seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.work import RESULTS, SOURCES, Work, pick_work

#: Retries after which a job that can succeed does, whatever is restarted meanwhile.
PLENTY = 40

#: Kinds of faults, and how often each is drawn.
FAULTS = {
    "kill -9 a worker": 10,
    "kill -9 the API": 3,
    "kill -9 an instance": 2,
    "kill -9 a supervisor": 1,
    "stop an instance": 1,
    "SIGSTOP a worker past its lease": 6,
    "SIGSTOP a worker for a moment": 1,
    "FLUSHALL Redis": 3,
    "restart Redis": 1,
    "kill -9 Redis": 1,
    "restart PostgreSQL": 1,
    "kill -9 PostgreSQL": 2,
    "restart MariaDB": 1,
    "kill -9 MariaDB": 2,
    "restart the state database": 1,
    "kill -9 the state database": 1,
    "SIGSTOP the state database": 1,
}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Parameters:
        at: seconds after the begin.
        pick: 0 … 1, chooses the victim among those that are there then.
        seconds: how long what is stopped stays so; where its lease is to pass, after the rescue of its jobs.
    """

    at: float
    kind: str
    pick: float
    seconds: float


@dataclass(frozen=True)
class JobPlan:
    """One job ID and all that is done with it.

    Parameters:
        at: seconds after the begin.
        delay: seconds ahead of its start time; None is at once.
        cancel_after: seconds between its acceptance and a cancel; None is never.
        twin: whether another client submits the same ID at the same moment.
        again: further runs of the ID, each once the one before has ended.
    """

    at: float
    job_id: str
    work: Work
    results: str
    retries: int = 0
    priority: int = 5
    delay: float | None = None
    cancel_after: float | None = None
    twin: bool = False
    again: tuple[Work, ...] = ()


@dataclass(frozen=True)
class GroupPlan:
    """A group with a callback."""

    at: float
    name: str
    members: tuple[JobPlan, ...]
    callback: JobPlan
    concurrency: int
    cancel_after: float | None


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    jobs: Sequence[JobPlan]
    groups: Sequence[GroupPlan]
    faults: Sequence[Fault] = field(default_factory=list)


def make_plan(
    seed: int, *, jobs: int, seconds: float, lease: float, gap: float, kinds: Sequence[str], in_order: bool = False
) -> Plan:
    """Return the plan of a seed.

    Parameters:
        jobs: how many runs are asked for, about.
        seconds: in which load comes and faults happen.
        lease: seconds of the leases.
        gap: seconds between two faults, on the average.
        kinds: of faults; each comes at least as often as it stands here.
        in_order: whether they come in the order in which they stand here, and the first one well before the others.
    """
    rng = random.Random(seed)
    heavy = 0.02 if jobs > 500 else 0.01
    singles: list[JobPlan] = []
    groups: list[GroupPlan] = []
    planned = 0
    while planned < jobs:
        at = rng.uniform(0, seconds)
        if rng.random() < 0.03:
            group = _group(rng, at, len(groups))
            groups.append(group)
            planned += len(group.members) + 1
        else:
            job = _job(rng, f"job-{len(singles)}", at, heavy)
            singles.append(job)
            planned += 1 + len(job.again)
    faults = _faults(rng, seconds=seconds, lease=lease, gap=gap, kinds=kinds, in_order=in_order)
    for number, fault in enumerate(faults):
        if "past its lease" in fault.kind:
            singles += _to_be_outlived(rng, fault.at, number)
    return Plan(
        seed,
        sorted(singles, key=lambda job: job.at),
        sorted(groups, key=lambda group: group.at),
        faults,
    )


def _to_be_outlived(rng: random.Random, at: float, number: int) -> list[JobPlan]:
    """Return jobs that run for seconds when a worker is stopped, so that it holds some."""
    return [
        JobPlan(
            at=max(0.0, at - rng.uniform(0.2, 0.8)),
            job_id=f"slow-{number}-{place}",
            work=Work("slow", rng.choice(("pg", "my")), 40, rng.randrange(1, 10_000), pause=rng.uniform(0.08, 0.12)),
            results=rng.choice(RESULTS),
            retries=PLENTY,
            priority=10,
        )
        for place in range(12)
    ]


def _job(rng: random.Random, job_id: str, at: float, heavy: float) -> JobPlan:
    db = rng.choice(SOURCES)
    chance = rng.random()
    return JobPlan(
        at=at,
        job_id=job_id,
        work=pick_work(rng, db, heavy=heavy),
        results=rng.choice(RESULTS),
        retries=rng.choices((0, 1, PLENTY), (2, 1, 7))[0],
        priority=rng.choice((1, 5, 5, 5, 8, 10)),
        delay=rng.uniform(0.5, 4) if rng.random() < 0.1 else None,
        cancel_after=rng.expovariate(1.5) if rng.random() < 0.1 else None,
        twin=chance < 0.06,
        again=tuple(pick_work(rng, db, heavy=0) for _ in range(rng.choice((1, 1, 2)))) if chance > 0.88 else (),
    )


def _group(rng: random.Random, at: float, number: int) -> GroupPlan:
    name = f"group-{number}"
    members = tuple(
        JobPlan(at, f"{name}-{place}", pick_work(rng, rng.choice(SOURCES), heavy=0), rng.choice(RESULTS), PLENTY)
        for place in range(rng.randrange(2, 9))
    )
    callback = JobPlan(at, f"{name}-done", Work("group", "pg", 1, 0), rng.choice(RESULTS), PLENTY)
    return GroupPlan(
        at, name, members, callback, rng.choice((0, 0, 2)), rng.expovariate(1.5) if rng.random() < 0.15 else None
    )


def _faults(
    rng: random.Random, *, seconds: float, lease: float, gap: float, kinds: Sequence[str], in_order: bool
) -> list[Fault]:
    """All kinds, then more of them by their weights, in any order."""
    first = list(kinds)
    count = max(len(first), round(seconds / gap))
    drawn = first + rng.choices(list(kinds), [FAULTS[kind] for kind in kinds], k=count - len(first))
    if not in_order:
        rng.shuffle(drawn)
    # From soon after the begin, when there is something to break, to the end of the load.
    times = sorted(rng.uniform(min(1.0, seconds / 10), seconds) for _ in drawn)
    if in_order:
        # The first has some time of its own.
        times = [1.0, *sorted(rng.uniform(seconds * 0.4, seconds) for _ in drawn[1:])]
    return [Fault(at, kind, rng.random(), _length(rng, kind, lease)) for at, kind in zip(times, drawn, strict=True)]


def _length(rng: random.Random, kind: str, lease: float) -> float:
    return rng.uniform(0.3, lease) if kind.startswith("SIGSTOP") else rng.uniform(0, 1)
