"""What claims, ends and submissions cost on the state store itself, with jobs in front that cannot run.

It is ``benchmarks/claim.py`` on both servers: its own words tell the cases. Where ten processes claim, once with few
jobs waiting and once with all, the ratio of the two is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks import claim
from benchmarks.lab import Lab
from benchmarks.measuring import JOBS, MILLISECONDS, Figure, Kind
from benchmarks.parts.transfers import NAMES
from jobber.store import Store

WORKERS, DELAY = 10, 5.0


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure each server that there is."""
    for engine in ("postgresql", "mysql"):
        if lab.has(engine):
            with lab.database(engine) as url, lab.database(engine) as beside:
                yield from one(lab, NAMES[engine], url, beside)


def one(lab: Lab, name: str, url: str, beside: str) -> Iterator[Figure]:
    """Measure one engine."""
    found: list[Figure] = []

    def report(_: str, what: str, times: Sequence[float]) -> None:
        lab.say(f"{name}, {what}")
        for q, text in ((0.5, "median"), (0.99, "99th percentile")):
            value = claim.quantile(times, q)
            found.append(Figure(f"{name}, {what}: {text}", MILLISECONDS, [value], kind=Kind.MOST))

    rounds = min(400, lab.scale.claims // 30)
    claim.measure(url, lab.scale.claims, rounds, report)
    yield from found
    full, few = Store(url), Store(beside)
    few.migrate()
    worker = few.register("bench", claim.QUEUES, 10, lease=86_400)
    ours, theirs = [], []
    for number in range(lab.scale.rounds):
        lab.say(f"{name}, {WORKERS} workers, round {number + 1} of {lab.scale.rounds}")
        theirs.append(claim.crowd(beside, WORKERS, few))
        claim.drain(few, worker)
        ours.append(claim.crowd(url, WORKERS, full))
    full.close()
    few.close()
    yield Figure(
        f"{name}, {WORKERS} workers claim and finish, {lab.scale.claims:,} jobs waiting",
        JOBS,
        ours,
        theirs,
        against="the same with few jobs waiting",
    )
    lab.say(f"{name}, {DELAY:g} ms away")
    rates = claim.far_rates(beside, WORKERS, DELAY)
    yield Figure(f"{name}, {WORKERS} workers, the database {DELAY:g} ms away", JOBS, rates, kind=Kind.MOST)
