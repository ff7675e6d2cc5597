"""Small jobs from submission to result, beside the same SQL by hand on open connections."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from functools import partial

import psutil

from benchmarks.lab import Lab
from benchmarks.load import Line, driven, get
from benchmarks.measuring import JOBS, MILLISECONDS, Figure, Kind, alternate, quantile
from benchmarks.sites import Hand, Site, by_hand, fill, site, submissions

#: Jobs that wait while they are counted: enough for every thread, and no heap that only grows.
BACKLOG = 150
CONNECTIONS = 8


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure throughput and latency."""
    with lab.database() as url, lab.room() as folder:
        fill(url)
        with site(folder, url, lab.redis.url) as at:
            finished(at, 1)  # connections, and what else is made once
            yield from throughput(lab, at)
            yield from latency(lab, at)


def throughput(lab: Lab, at: Site) -> Iterator[Figure]:
    """Compare the finished jobs per second, and tell who spends how much processor time on each."""
    seconds = lab.scale.seconds
    kinds = {
        "4 processes": partial(by_hand, at.url, seconds, processes=True),
        "4 threads": partial(by_hand, at.url, seconds, processes=False),
    }
    tried = {name: kind() for name, kind in kinds.items()}
    best = max(tried, key=lambda name: tried[name])
    server = lab.postgres.process
    meter = Meter({**at.processes(), "PostgreSQL": psutil.Process(server.pid) if server else None})
    ours, theirs = alternate(lab.scale.rounds, lambda: finished(at, seconds, meter), kinds[best], lab.say)
    yield Figure(
        "small jobs, 8 connections submitting",
        JOBS,
        ours,
        theirs,
        against=f"query, CREATE TABLE, COPY, COMMIT on 4 connections ({best})",
        goal=0.6,
        note=f"30 rows by an index; 1 worker process of 10 threads; by hand with {_told(tried)}",
    )
    for name, each in meter.each.items():
        yield Figure(f"processor time of a small job: {name}", MILLISECONDS, each, kind=Kind.MOST)


def _told(tried: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.0f} jobs/s" for name, rate in tried.items())


class Meter:
    """Tells how much processor time groups of processes spend on a job.

    Parameters:
        processes: the first of each group, by the group's name; with them count those that they started.
    """

    def __init__(self, processes: Mapping[str, psutil.Process | None]) -> None:
        self._processes = {name: process for name, process in processes.items() if process is not None}
        self._began: dict[str, float] = {}
        #: Milliseconds per job, one for each round, by the name of the group.
        self.each: dict[str, list[float]] = {name: [] for name in self._processes}

    def begin(self) -> None:
        """Begin a round."""
        self._began = self._spent()

    def end(self) -> dict[str, float]:
        """Return the seconds since the round began."""
        return {name: spent - self._began[name] for name, spent in self._spent().items()}

    def _spent(self) -> dict[str, float]:
        return {
            name: sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))
            for name, process in self._processes.items()
        }


def finished(at: Site, seconds: float, meter: Meter | None = None) -> float:
    """Return how many jobs a second are finished while others are submitted."""
    with driven(at.port, submissions("entries_of"), connections=CONNECTIONS, seconds=seconds + 60) as driver:

        def hold_until(moment: float) -> None:
            while (left := moment - time.perf_counter()) > 0:
                (driver.hold.set if at.waiting() > BACKLOG else driver.hold.clear)()
                time.sleep(min(0.05, left))

        # Until as many wait as shall.
        deadline = time.perf_counter() + 30
        while at.waiting() < BACKLOG / 2 and time.perf_counter() < deadline:
            time.sleep(0.02)
        hold_until(time.perf_counter() + min(1.0, seconds))
        clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        if meter is not None:
            meter.begin()
        begin = at.one(clock)
        hold_until(time.perf_counter() + seconds)
        end = at.one(clock)
        spent = meter.end() if meter is not None else {}
    at.clear()
    between = "FROM jobber_finished_jobs WHERE finished_at >= %s AND finished_at < %s"
    if failed := at.one(f"SELECT count(*) {between} AND state <> 'SUCCESS'", begin, end):
        raise RuntimeError(f"{failed} jobs failed")
    count = at.one(f"SELECT count(*) {between}", begin, end)
    if meter is not None:
        for name, some in spent.items():
            meter.each[name].append(some / max(1, count) * 1000)
    return float(count / (end - begin) * 1_000_000)


def latency(lab: Lab, at: Site) -> Iterator[Figure]:
    """Compare the time from a submission until its end is seen, while nothing else runs."""
    line, hand = Line(at.port), Hand(at.url, "idle")
    requests = submissions("entries_of")

    def ours(number: int) -> None:
        job_id = json.loads(line.ask(requests[number % len(requests)]))["data"]["job_id"]
        job = json.loads(line.ask(get(f"/jobs/{job_id}?wait=10")))["data"]
        assert job["state"] == "SUCCESS", job

    found: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    for number in range(lab.scale.rounds):
        lab.say(f"round {number + 1} of {lab.scale.rounds}, one by one")
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for each in range(lab.scale.latency):
            for name, work in (("ours", ours), ("theirs", hand.job)):
                time.sleep(0.02)  # idle: nothing of the one before is left to do
                began = time.perf_counter()
                work(each * 7)
                if each >= 3:
                    times[name].append((time.perf_counter() - began) * 1000)
        for name, some in times.items():
            found[name].append(some)
    line.close()
    hand.close()
    for name, q, goal in (("median", 0.5, 5), ("99th percentile", 0.99, 15)):
        yield Figure(
            f"from submission to SUCCESS seen, idle: {name}",
            MILLISECONDS,
            [quantile(some, q) for some in found["ours"]],
            [quantile(some, q) for some in found["theirs"]],
            against="the same SQL on an open connection",
            kind=Kind.MORE,
            goal=goal,
            note=f"{lab.scale.latency} jobs per round, POST and then ?wait",
        )
