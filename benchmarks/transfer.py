"""Whole jobs of many rows, beside the same transfer by the engines' own tools in the same run.

    python benchmarks/transfer.py --postgres postgresql://postgres@127.0.0.1/bench --mysql mysql://root@127.0.0.1/bench

The tools are psql and mariadb, one piped into the other, and SQLite's ATTACH. Each pair runs in a process of its own,
so that its peak memory is its own. The figure to quote is the ratio.
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
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psycopg
from sqlalchemy import URL, make_url

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
ENGINES = ("postgresql", "mysql", "sqlite")


def libpq(url: URL) -> str:
    """Return the address as psql takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def mariadb(url: URL, sql: str) -> list[str]:
    """Return the command that runs ``sql`` with MySQL's or MariaDB's own client."""
    flags = {"--host": url.host, "--port": url.port, "--user": url.username, "--password": url.password}
    known = [f"{flag}={value}" for flag, value in flags.items() if value]
    options = ["--local-infile=1", "--quick", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
    return ["mariadb", *known, *options, "--execute", sql, str(url.database)]


def fill_mysql(url: URL, rows: int) -> None:
    """Create the source table."""
    columns = (
        "id BIGINT PRIMARY KEY, user_id VARCHAR(20), amount DECIMAL(12,2), entry_date DATE, at DATETIME, ratio DOUBLE, "
        "paid BOOLEAN, note VARCHAR(40), kind INT"
    )
    numbers = " CROSS JOIN ".join(
        f"(SELECT 0 n UNION ALL {' UNION ALL '.join(f'SELECT {n}' for n in range(1, 10))}) d{place}"
        for place in range(7)
    )
    number = " + ".join(f"d{place}.n * {10**place}" for place in range(7)) + " + 1"
    for sql in (
        "DROP TABLE IF EXISTS jobber_bench",
        f"CREATE TABLE jobber_bench ({columns})",
        "INSERT INTO jobber_bench SELECT i, CONCAT('user', i % 1000), (i % 100000) * 1.25, "
        "DATE '2024-01-01' + INTERVAL (i % 366) DAY, TIMESTAMP '2024-01-01 00:00:00' + INTERVAL i SECOND, i / 7e0, "
        f"i % 2 = 0, 'a note of usual length', i % 10 FROM (SELECT {number} AS i FROM {numbers}) s WHERE i <= {rows}",
        "ANALYZE TABLE jobber_bench",
    ):
        subprocess.run(mariadb(url, sql), check=True, stdout=subprocess.DEVNULL)


def fill_postgresql(url: URL, rows: int) -> None:
    """Create the source table."""
    with psycopg.connect(libpq(url), autocommit=True) as connection:
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


def fill_sqlite(url: URL, rows: int) -> None:
    """Create the source file."""
    with sqlite3.connect(str(url.database)) as connection:
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


def reader(engine: str, url: URL) -> list[str]:
    """Return the command that writes the source table to its standard output."""
    if engine == "mysql":
        return mariadb(url, QUERY)
    # As a number, because MySQL's boolean is one.
    columns = "id, user_id, amount, entry_date, at, ratio, paid::int, note, kind"
    return ["psql", libpq(url), "-qc", f"COPY ({QUERY.replace('*', columns)}) TO STDOUT"]


def writer(engine: str, url: URL) -> list[str]:
    """Make an empty table and return the command that fills it from its standard input."""
    columns = (
        "id BIGINT, user_id TEXT, amount DECIMAL(12,2), entry_date DATE, at {}, ratio {}, paid {}, note TEXT, "
        "kind BIGINT"
    )
    drop = "DROP TABLE IF EXISTS jobber_bench_copy"
    if engine == "mysql":
        typed = columns.format("DATETIME(6)", "DOUBLE", "BOOLEAN")
        for sql in (drop, f"CREATE TABLE jobber_bench_copy ({typed})"):
            subprocess.run(mariadb(url, sql), check=True)
        return mariadb(url, "LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE jobber_bench_copy")
    typed = columns.format("TIMESTAMP", "NUMERIC", "INT")
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(f"CREATE UNLOGGED TABLE jobber_bench_copy ({typed})")  # type: ignore[arg-type]
    return ["psql", libpq(url), "-qc", "COPY jobber_bench_copy FROM STDIN"]


def attach(lite: Path) -> float:
    """Return the seconds that SQLite takes to copy the table into another file."""
    copy = lite.with_name("copy.db")
    copy.unlink(missing_ok=True)
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.execute("ATTACH ? AS source", [str(lite)])
    began = time.perf_counter()
    connection.execute("CREATE TABLE jobber_bench_copy AS SELECT * FROM source.jobber_bench ORDER BY id")
    connection.close()
    return time.perf_counter() - began


def baseline(source: str, results: str, urls: Mapping[str, URL]) -> float | None:
    """Return the seconds that the engines' own tools take, None where there are none for the pair."""
    if "sqlite" in (source, results):
        return attach(Path(str(urls["sqlite"].database))) if source == results else None
    into = writer(results, urls[results])
    began = time.perf_counter()
    pipe = subprocess.Popen(reader(source, urls[source]), stdout=subprocess.PIPE)
    subprocess.run(into, stdin=pipe.stdout, check=True)
    assert pipe.wait() == 0
    return time.perf_counter() - began


def main() -> None:
    """Measure every pair and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--postgres", help="URL of an empty PostgreSQL database; without it no pair with it is measured"
    )
    parser.add_argument("--mysql", help="URL of an empty MySQL or MariaDB database, likewise")
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
        urls = {"sqlite": URL.create("sqlite", database=str(folder / "source.db"))}
        if options.postgres:
            urls["postgresql"] = make_url(options.postgres).set(drivername="postgresql+psycopg")
        if options.mysql:
            urls["mysql"] = make_url(options.mysql).set(drivername="mysql+pymysql")
        measure(urls, options.rows, options.rounds, options.only)
    finally:
        shutil.rmtree(folder)


def measure(urls: Mapping[str, URL], rows: int, rounds: int, only: str | None) -> None:
    """Fill the sources, run each pair and its baseline in turn, and print the medians."""
    pairs = [(source, results) for source in ENGINES for results in ENGINES if {source, results} <= urls.keys()]
    if only:
        pairs = [pair for pair in pairs if only == ":".join(pair)]
    fillers = {"postgresql": fill_postgresql, "mysql": fill_mysql, "sqlite": fill_sqlite}
    for source in {source for source, _ in pairs}:
        fillers[source](urls[source], rows)
    lite = Path(str(urls["sqlite"].database))
    results_urls = {**urls, "sqlite": URL.create("sqlite", database=str(lite.with_name("results")))}
    print(f"{rows:,} rows x 9 columns, medians of {rounds}")
    print(f"{'source -> results':<26}{'job s':>8}{'rows/s':>12}{'own tools s':>13}{'ratio':>8}{'peak MB':>9}")
    for source, results in pairs:
        ours, theirs, peaks = [], [], []
        for number in range(rounds):
            other = baseline(source, results, urls)
            addresses = [url.render_as_string(hide_password=False) for url in (urls[source], results_urls[results])]
            words = json.dumps([source, results, *addresses, time.time_ns() + number])
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
