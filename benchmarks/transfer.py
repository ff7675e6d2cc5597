"""Whole jobs of many rows, beside the same transfer by the engines' own tools in the same run.

    python benchmarks/transfer.py --postgres postgresql://postgres@127.0.0.1/bench --rows 1000000

Each pair runs in a process of its own, so that its peak memory is its own. The figure to quote is the ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from jobber import execution
from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings, ResultsSettings
from jobber.jobs import Job, JobState
from jobber.results import open_results
from jobber.sources import open_source
from jobber.sqltext import parse
from jobber.tasks import Task

#: Nine columns of usual types, about 87 bytes a row.
QUERY = "SELECT * FROM jobber_bench ORDER BY id"
PAIRS = [("postgresql", "postgresql"), ("postgresql", "sqlite"), ("sqlite", "postgresql"), ("sqlite", "sqlite")]


def fill_postgresql(dsn: str, rows: int) -> None:
    """Create the source table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS jobber_bench")
        connection.execute(
            "CREATE UNLOGGED TABLE jobber_bench AS SELECT i AS id, 'user' || i %% 1000 AS user_id, "
            "(i %% 100000) * 1.25 AS amount, date '2024-01-01' + (i %% 366)::int AS entry_date, "
            "timestamp '2024-01-01' + i * interval '1 s' AS at, i / 7.0::float8 AS ratio, i %% 2 = 0 AS paid, "
            "'a note of usual length' AS note, i %% 10 AS kind FROM generate_series(1, %s::bigint) AS i",
            [rows],
        )
        connection.execute("ALTER TABLE jobber_bench ADD PRIMARY KEY (id)")
        connection.execute("VACUUM ANALYZE jobber_bench")


def fill_sqlite(path: Path, rows: int) -> None:
    """Create the source file."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE jobber_bench (id INTEGER PRIMARY KEY, user_id TEXT, amount DECIMAL(12,2), entry_date DATE, "
            "at TIMESTAMP, ratio REAL, paid BOOLEAN, note TEXT, kind INTEGER)"
        )
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO jobber_bench "
            "SELECT i, 'user' || i % 1000, (i % 100000) * 1.25, date('2024-01-01', (i % 366) || ' days'), "
            "datetime('2024-01-01', i || ' seconds'), i / 7.0, i % 2 = 0, 'a note of usual length', i % 10 FROM n",
            [rows],
        )


def run_job(source: str, results: str, source_url: str, results_url: str, run: int) -> tuple[float, int]:
    """Run one attempt; return seconds and rows."""
    opened = open_source(DatabaseSettings(name="bench", url=source_url, engine=source))
    backend = open_results(
        ResultsSettings(name="bench", url=results_url, engine=results, unlogged=results == "postgresql")
    )
    backend.prepare()
    task = Task(
        name="bench",
        description="",
        sql=QUERY,
        version="",
        file=Path("bench.sql"),
        line=1,
        statements={source: parse(QUERY, source)},
        databases=("bench",),
        results=("bench",),
    )
    job = _job(backend.table_name("bench"), run)
    began = time.perf_counter()
    outcome = execution.run(
        job,
        task,
        sources={"bench": opened},
        results={"bench": backend},
        timeout=0,
        cancellation=Cancellation(),
        progress=execution.Progress(),
    )
    took = time.perf_counter() - began
    backend.drop(job.table, run)
    opened.close()
    backend.close()
    return took, outcome.rows


def _job(table: str, run: int) -> Job:
    blank = Job(
        **dict.fromkeys(Job.__dataclass_fields__, 0),  # type: ignore[arg-type]  # what an attempt reads follows
    )
    return replace(
        blank,
        run=run,
        job_id="bench",
        table=table,
        args=[],
        state=JobState.STARTED,
        attempt=1,
        db="bench",
        results="bench",
        task="bench",
    )


def baseline(source: str, results: str, dsn: str, lite: Path) -> float | None:
    """Return the seconds that the engines' own tools take, None where there are none for the pair."""
    began = time.perf_counter()
    if (source, results) == ("postgresql", "postgresql"):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS jobber_bench_copy")
            connection.execute("CREATE UNLOGGED TABLE jobber_bench_copy (LIKE jobber_bench)")
        began = time.perf_counter()
        reader = subprocess.Popen(["psql", dsn, "-qc", f"COPY ({QUERY}) TO STDOUT"], stdout=subprocess.PIPE)
        subprocess.run(["psql", dsn, "-qc", "COPY jobber_bench_copy FROM STDIN"], stdin=reader.stdout, check=True)
        reader.wait()
    elif (source, results) == ("sqlite", "sqlite"):
        copy = lite.with_name("copy.db")
        copy.unlink(missing_ok=True)
        connection = sqlite3.connect(copy, isolation_level=None)
        connection.execute("ATTACH ? AS source", [str(lite)])
        began = time.perf_counter()
        connection.execute("CREATE TABLE jobber_bench_copy AS SELECT * FROM source.jobber_bench ORDER BY id")
        connection.close()
    else:
        return None
    return time.perf_counter() - began


def main() -> None:
    """Measure every pair and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgres", help="URL of an empty PostgreSQL database; without it only SQLite is measured")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="SOURCE:RESULTS", help="one pair, such as postgresql:sqlite")
    parser.add_argument("--pair", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pair:
        took, rows = run_job(*json.loads(options.pair))
        print(json.dumps([took, rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
        return
    folder = Path(tempfile.mkdtemp(prefix="jobber-bench-"))
    try:
        measure(folder, options.postgres, options.rows, options.rounds, options.only)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, postgres: str | None, rows: int, rounds: int, only: str | None) -> None:
    """Fill the sources, run each pair and its baseline in turn, and print the medians."""
    lite = folder / "source.db"
    if not only or only.startswith("sqlite"):
        fill_sqlite(lite, rows)
    dsn = ""
    if postgres:
        dsn = make_url(postgres).set(drivername="postgresql").render_as_string(hide_password=False)
        fill_postgresql(dsn, rows)
    urls = {
        "postgresql": (dsn.replace("postgresql:", "postgresql+psycopg:"),) * 2,
        "sqlite": (f"sqlite:///{lite}", f"sqlite:///{folder}/results"),
    }
    print(f"{rows:,} rows x 9 columns, medians of {rounds}")
    print(f"{'source -> results':<26}{'job s':>8}{'rows/s':>12}{'own tools s':>13}{'ratio':>8}{'peak MB':>9}")
    for source, results in PAIRS:
        if (not postgres and "postgresql" in (source, results)) or (only and only != f"{source}:{results}"):
            continue
        ours, theirs, peaks = [], [], []
        for number in range(rounds):
            other = baseline(source, results, dsn, lite)
            words = json.dumps([source, results, urls[source][0], urls[results][1], time.time_ns() + number])
            done = subprocess.run(
                [sys.executable, __file__, "--pair", words], stdout=subprocess.PIPE, check=True, text=True
            )
            took, moved, peak = json.loads(done.stdout)
            assert moved == rows
            ours.append(took)
            peaks.append(peak)
            theirs += [other] if other is not None else []
        took = statistics.median(ours)
        own = statistics.median(theirs) if theirs else None
        print(
            f"{source + ' -> ' + results:<26}{took:>8.2f}{rows / took:>12,.0f}"
            f"{f'{own:.2f}' if own else '-':>13}{f'{own / took:.2f}' if own else '-':>8}{max(peaks):>9}"
        )


if __name__ == "__main__":
    main()
