"""Jobs that are due at one moment, beside as many without a delay, through a private jobber, from state to result.

    python benchmarks/delayed.py
    python benchmarks/delayed.py --jobs 10000 --state postgresql://postgres@127.0.0.1/bench \
        --source postgresql://postgres@127.0.0.1/bench --results postgresql://postgres@127.0.0.1/bench

Nothing of the databases must be jobber's, or other instances would run the jobs; tables stay in them. First all jobs
wait behind a pause that is lifted: the rate counts from the first start to the last end. Then all have one start time:
here it counts from that time on, so that the wait for the first start costs, too. Times are the state database's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from sqlalchemy import func, select

from jobber import config
from jobber.jobs import Micros, NewJob
from jobber.results import open_results
from jobber.store import Gate, GateKind, Store
from jobber.store.database import Database
from jobber.store.schema import finished_jobs, jobs

TASKS = "-- name: one\nSELECT 1 AS one;\n"
QUEUE = Gate(GateKind.QUEUE, "default")
BULK = 1000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``write_config`` and ``private_jobber`` look at."""
    parser.add_argument("--state", help="SQLAlchemy URL of an empty database (default: SQLite)")
    parser.add_argument("--source", help="SQLAlchemy URL of a database to query (default: SQLite)")
    parser.add_argument("--results", help="SQLAlchemy URL of a database for results (default: SQLite)")
    parser.add_argument("--processes", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--concurrency", type=int, default=10, help="jobs at a time in each (default 10)")


def write_config(folder: Path, options: argparse.Namespace) -> Path:
    """Write the private jobber's config and task; return the config's path."""
    (folder / "sql").mkdir()
    (folder / "sql" / "one.sql").write_text(TASKS)
    (folder / "source.db").touch()
    urls = {
        "job_queue.state": options.state or f"sqlite:///{folder}/state.db",
        "db.source": options.source or f"sqlite:///{folder}/source.db",
        "results.results": options.results or f"sqlite:///{folder}/results",
    }
    sections = [f'[app]\ndata_dir = "{folder}/data"\nsweep = 1\nlog_level = "warning"\n']
    sections += [f'[{section}]\nurl = "{url}"\n' for section, url in urls.items()]
    path = folder / "config.toml"
    path.write_text("\n".join(sections))
    return path


@contextmanager
def private_jobber(folder: Path, options: argparse.Namespace) -> Iterator[None]:
    """Run the workers while the body does."""
    command = [
        *(sys.executable, "-m", "jobber", "--config", f"{folder}/config.toml", "--sql-directory", f"{folder}/sql"),
        *("--worker-only", "--worker-processes", str(options.processes)),
        *("--worker-concurrency", str(options.concurrency)),
    ]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            while "\nready" not in (folder / "log").read_text():
                if process.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


class Bench:
    """Submits jobs straight to the state database, and reads there when they ran."""

    def __init__(self, path: Path) -> None:
        settings = config.load(path, {})
        self.store = Store(settings.state.url)
        self.store.migrate()
        self._database = Database(settings.state.url, pool_size=1)
        self._backend = open_results(settings.results["results"])

    def submit(self, name: str, count: int, eta: Micros | None = None) -> None:
        """Submit ``count`` jobs."""
        for start in range(0, count, BULK):
            ids = [f"{name}-{n}" for n in range(start, min(start + BULK, count))]
            self.store.submit([self._job(job_id, eta) for job_id in ids])

    def _job(self, job_id: str, eta: Micros | None) -> NewJob:
        return NewJob(
            job_id=job_id,
            task="one",
            queue=QUEUE.name,
            db="source",
            results="results",
            table=self._backend.table_name(job_id),
            eta=eta,
        )

    def times(self, count: int) -> tuple[Sequence[Micros], Micros]:
        """Wait until no job is left; return when the newest ``count`` started, in that order, and the last end."""
        while self._database.read(lambda c: c.execute(select(func.count()).select_from(jobs)).scalar_one()):
            time.sleep(0.25)
        wanted = (
            select(finished_jobs.c.started_at, finished_jobs.c.finished_at, finished_jobs.c.state)
            .order_by(finished_jobs.c.run.desc())
            .limit(count)
        )
        rows = self._database.read(lambda c: c.execute(wanted).all())
        assert {row.state for row in rows} == {"SUCCESS"}, "a job failed"
        return sorted(row.started_at for row in rows), max(row.finished_at for row in rows)

    def without_delay(self, count: int) -> float:
        """Return the rate, in jobs a second, of jobs that wait for nothing but their turn."""
        self.store.pause(QUEUE, "benchmark")
        self.submit(f"plain{time.time_ns()}", count)
        self.store.resume(QUEUE)
        starts, last = self.times(count)
        return count / ((last - starts[0]) / 1e6)

    def delayed(self, count: int) -> tuple[float, float, float]:
        """Return the rate of jobs that are due at once, when the first started, and the longest pause between two."""
        begun = self.store.now()
        # To submit them takes a while; and then all is to be quiet for a moment.
        due = begun + int((5 + count / 2000) * 1_000_000)
        self.submit(f"delayed{time.time_ns()}", count, due)
        left = (due - self.store.now()) / 1e6
        if left < 1:
            raise SystemExit(f"submitting took {-left + 5 + count / 2000:.1f} s, longer than the delay")
        starts, last = self.times(count)
        pause = max((b - a for a, b in pairwise(starts)), default=0)
        return count / ((last - due) / 1e6), (starts[0] - due) / 1e6, pause / 1e6

    def close(self) -> None:
        """Close all connections."""
        self._backend.close()
        self._database.close()
        self.store.close()


def measure(bench: Bench, count: int, number: int) -> dict[str, float]:
    """Measure both kinds, in another order each time, print the figures, and return them."""
    if number % 2:
        rate, first, pause = bench.delayed(count)
        plain = bench.without_delay(count)
    else:
        plain = bench.without_delay(count)
        rate, first, pause = bench.delayed(count)
    figures = {
        "jobs": count,
        "rate_without_delay": round(plain, 1),
        "rate_delayed": round(rate, 1),
        "ratio": round(rate / plain, 3),
        "first_start_after_due_s": round(first, 3),
        "longest_pause_between_starts_s": round(pause, 3),
    }
    print(json.dumps(figures), flush=True)
    return figures


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of each kind (default 2,000)")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of both kinds in turn (default 1)")
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobber-bench-") as name:
        folder = Path(name)
        bench = Bench(write_config(folder, options))
        with private_jobber(folder, options):
            bench.without_delay(200)  # connections, and what else is made once
            rounds = [measure(bench, options.jobs, number) for number in range(options.rounds)]
        bench.close()
    plain, rate, first = (
        median(figures[name] for figures in rounds)
        for name in ("rate_without_delay", "rate_delayed", "first_start_after_due_s")
    )
    print(
        f"{options.jobs:,} jobs, median of {len(rounds)}: {plain:.0f}/s without a delay, {rate:.0f}/s due at once, "
        f"ratio {median(figures['ratio'] for figures in rounds):.2f}; the first started {first:.2f} s after its time"
    )


if __name__ == "__main__":
    main()
