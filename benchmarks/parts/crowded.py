"""What small jobs and submissions lose where many jobs wait, millions are over, and as many results lie around.

Two instances beside each other, one on empty tables. Of the jobs that wait, two fifths stand in the served queue, in
front of all that is submitted: in 88 lanes of four databases that are paused. The others are in queues that nobody
serves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks import crowd, sites
from benchmarks.lab import Lab
from benchmarks.load import Line, get
from benchmarks.measuring import JOBS, MILLISECONDS, Figure, Unit, alternate, quantile
from benchmarks.parts.jobs import finished
from benchmarks.parts.submissions import accepted, bulk_rate
from benchmarks.sites import Site
from jobber.store import Gate, GateKind, Store

GOAL = 0.8


def measure(lab: Lab) -> Iterator[Figure]:
    """Fill one of two databases, and compare them."""
    scale = lab.scale
    with ExitStack() as stack:
        both = []
        for full in (False, True):
            url, folder = stack.enter_context(lab.database()), stack.enter_context(lab.room())
            sites.fill(url)
            more = (crowd.more_config(url), crowd.more_tasks())
            broker = lab.redis.url.removesuffix("0") + str(int(full))  # a room of its own in Redis
            if full:
                with sites.site(folder, url, broker, *more) as at:  # makes the tables
                    finished(at, 0.1)
                crowd.fill(
                    lab.postgres, url, queued=scale.queued, history=scale.history, tables=scale.tables, say=lab.say
                )
            store = Store(url)
            store.migrate()
            for name in crowd.HELD:
                store.pause(Gate(GateKind.DATABASE, name), "bench")
            store.close()
            both.append(stack.enter_context(sites.site(folder, url, broker, *more)))
        empty, crowded = both
        for at in both:
            finished(at, 1)
        yield from compare(lab, empty, crowded)


def compare(lab: Lab, empty: Site, crowded: Site) -> Iterator[Figure]:
    """Measure each kind of work on both in turn."""
    scale = lab.scale

    def figure(work: str, unit: Unit, measured: Callable[[Site], float]) -> Figure:
        def say(text: str) -> None:
            lab.say(f"{work}, {text}")

        ours, theirs = alternate(scale.rounds, lambda: measured(crowded), lambda: measured(empty), say)
        what = f"{scale.queued:,} jobs waiting, {scale.history:,} finished, {scale.tables:,} results"
        return Figure(work, unit, ours, theirs, against="the same with empty tables", goal=GOAL, note=what)

    yield figure("small jobs", JOBS, lambda at: finished(at, scale.seconds))
    yield figure("from submission to SUCCESS seen, median", MILLISECONDS, lambda at: latency(at, scale.latency))
    yield figure("single submissions", JOBS, lambda at: accepted(at, scale.seconds))
    yield figure("bulks of 1,000", JOBS, lambda at: bulk_rate(at, scale.bulks))


def latency(at: Site, jobs: int) -> float:
    """Return the median time from a submission until its end is seen, in milliseconds."""
    line, times = Line(at.port), []
    for request in sites.submissions("entries_of")[:jobs]:
        time.sleep(0.02)
        began = time.perf_counter()
        job_id = json.loads(line.ask(request))["data"]["job_id"]
        job = json.loads(line.ask(get(f"/jobs/{job_id}?wait=10")))["data"]
        times.append((time.perf_counter() - began) * 1000)
        assert job["state"] == "SUCCESS", job
    line.close()
    return quantile(times, 0.5)
