"""Jobs that are accepted and run by nobody: one per request beside an empty route, a thousand beside an INSERT."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from benchmarks.lab import Lab
from benchmarks.load import Driver, Line, post
from benchmarks.measuring import JOBS, Figure, alternate
from benchmarks.sites import USERS, Site, fill, libpq, site, submissions
from tests.servers import free_port, wait_until

CONNECTIONS = 16
BULK = 1000
_names = itertools.count()


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure single submissions, then bulks."""
    with lab.database() as url, lab.room() as folder:
        fill(url)
        with site(folder, url, lab.redis.url) as at:
            yield singles(lab, at)
            yield bulks(lab, at)


def singles(lab: Lab, at: Site) -> Figure:
    """Compare jobs accepted one per request with what an empty route answers."""
    with empty_route() as port:
        ours, theirs = alternate(
            lab.scale.rounds,
            lambda: accepted(at, lab.scale.seconds),
            lambda: answered(port, lab.scale.seconds),
            lab.say,
        )
    return Figure(
        "single submissions, 16 connections",
        JOBS,
        ours,
        theirs,
        against="an empty Flask route on the same server",
        goal=0.3,
        note="nobody serves their queue, so that only their acceptance is measured",
    )


def answered(port: int, seconds: float) -> float:
    """Return the answers per second."""
    return Driver(port, submissions("waiting"), connections=CONNECTIONS, seconds=seconds).answers().rate


def accepted(at: Site, seconds: float) -> float:
    """Return the jobs per second that are accepted one per request."""
    rate = answered(at.port, seconds)
    at.forget()
    return rate


@contextmanager
def empty_route() -> Iterator[int]:
    """Serve an empty route and give its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.emptyroute", str(port)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), 30)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        Line(port).close()
    except OSError:
        return False
    return True


# -- in bulk ----------------------------------------------------------------------------------------------------------


def bulk_request() -> bytes:
    """Return a request for a thousand jobs."""
    name = next(_names)
    items = [
        {"task": "waiting", "job_id": f"bulk-{time.time_ns()}-{name}-{n}", "args": {"user": n * 7 % USERS}}
        for n in range(BULK)
    ]
    return post("/jobs", {"jobs": items})


def bulk_rate(at: Site, count: int) -> float:
    """Return the jobs per second that are accepted a thousand at a time on one connection."""
    requests = [bulk_request() for _ in range(count + 1)]
    line = Line(at.port)
    line.ask(requests.pop())
    answers = []
    began = time.perf_counter()
    for request in requests:
        answers.append(line.ask(request))
    took = time.perf_counter() - began
    line.close()
    for answer in answers:
        if (accepted := json.loads(answer)["accepted"]) != BULK:
            raise RuntimeError(f"{accepted} of {BULK} accepted")
    at.forget()
    return count * BULK / took


class Inserter:
    """Writes the same rows into a copy of the job table, with its indexes, a thousand per statement and commit."""

    def __init__(self, at: Site) -> None:
        line = Line(at.port)
        line.ask(bulk_request())
        line.close()
        self._connection = psycopg.connect(libpq(at.url), autocommit=True)
        self._connection.execute("DROP TABLE IF EXISTS bench_jobs")
        self._connection.execute("CREATE TABLE bench_jobs (LIKE jobber_jobs INCLUDING ALL)")
        # The copy is as long as the table itself.
        self._connection.execute("INSERT INTO bench_jobs SELECT * FROM jobber_jobs WHERE task <> 'waiting'")
        cursor = self._connection.execute("SELECT * FROM jobber_jobs WHERE task = 'waiting' LIMIT %s", [BULK])
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        self._rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        assert len(self._rows) == BULK
        at.forget()
        # What all rows have in common is turned into text once; what differs, every time.
        differing = ("run", "job_id", "result_table", "args", "fingerprint", "created_at", "ord")
        self._head = sql.SQL("INSERT INTO bench_jobs ({}) VALUES ").format(
            sql.SQL(", ").join(map(sql.Identifier, names))
        )
        same = self._rows[0]
        self._template = ",".join(
            f"%({name})s"
            if name in differing
            else sql.Literal(same[name]).as_string(self._connection).replace("%", "%%")
            for name in names
        )
        self._quoted = ("job_id", "result_table", "args")
        self._number = 0

    def insert(self) -> None:
        """Write a thousand rows."""
        self._number += 1
        lines = []
        for row in self._rows:
            own = {**row, "job_id": f"{row['job_id']}-{self._number}"}
            own["run"] += self._number * 10_000_000
            own["ord"] += self._number * 10_000_000
            own |= {name: "'" + own[name].replace("'", "''") + "'" for name in self._quoted}
            lines.append(f"({self._template % own})")
        self._connection.execute((self._head.as_string(self._connection) + ",".join(lines)).encode())

    def rate(self, count: int) -> float:
        """Return the rows per second."""
        self.insert()
        began = time.perf_counter()
        for _ in range(count):
            self.insert()
        took = time.perf_counter() - began
        self._connection.execute("DELETE FROM bench_jobs WHERE task = 'waiting'")
        self._connection.execute("VACUUM bench_jobs")
        return count * BULK / took

    def close(self) -> None:
        """Remove the copy."""
        self._connection.execute("DROP TABLE bench_jobs")
        self._connection.close()


def bulks(lab: Lab, at: Site) -> Figure:
    """Compare jobs accepted a thousand at a time with rows inserted by hand."""
    inserter = Inserter(at)
    ours, theirs = alternate(
        lab.scale.rounds,
        lambda: bulk_rate(at, lab.scale.bulks),
        lambda: inserter.rate(lab.scale.bulks),
        lab.say,
    )
    inserter.close()
    return Figure(
        "bulks of 1,000",
        JOBS,
        ours,
        theirs,
        against="multi-row INSERT into a copy of the job table",
        goal=0.4,
        note="one connection, one commit per thousand",
    )
