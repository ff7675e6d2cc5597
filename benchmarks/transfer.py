"""Whole jobs of many rows, beside the same transfer by the engines' own tools in the same run.

    python benchmarks/transfer.py --postgres postgresql://postgres@127.0.0.1/bench --mysql mysql://root@127.0.0.1/bench

The tools are psql and mariadb, one piped into the other, and SQLite's ATTACH; they fill a table of the very types that
the job's has. Each job runs in a process of its own, so that its peak memory is its own. The figure to quote is the
ratio. ``make bench`` measures the same (``parts/transfers.py``).
"""

from __future__ import annotations

import argparse
import json
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
            "((i %% 100000) * 1.25)::numeric(12,2) AS amount, date '2024-01-01' + (i %% 366)::int AS entry_date, "
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


def run_job(source: str, results: str, source_url: str, results_url: str, query: str) -> tuple[float, int]:
    """Run one attempt; return seconds and rows. An empty table of the result's types is left on a server."""
    run = time.time_ns()
    opened = open_source(DatabaseSettings(name="bench", url=source_url, engine=source))
    backend = open_results(
        ResultsSettings(name="bench", url=results_url, engine=results, unlogged=results == "postgresql")
    )
    backend.prepare()
    task = Task(
        name="bench",
        description="",
        sql=query,
        version="",
        file=Path("bench.sql"),
        line=1,
        statements={source: parse(query, source)},
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
    keep_types(results, make_url(results_url), types_of(source), job.table)
    backend.drop(job.table, run)
    opened.close()
    backend.close()
    return took, outcome.rows


def types_of(source: str) -> str:
    """Return the table that has the types of results from there."""
    return f"jobber_bench_types_{source}"


def keep_types(engine: str, url: URL, name: str, table: str) -> None:
    """Make an empty table of the same types, if it is not there; nothing in SQLite."""
    if engine == "mysql":
        subprocess.run(mariadb(url, f"CREATE TABLE IF NOT EXISTS {name} LIKE {table}"), check=True)
    elif engine == "postgresql":
        with psycopg.connect(libpq(url), autocommit=True) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (LIKE {table})")  # type: ignore[arg-type]


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


def reader(source: str, results: str, url: URL) -> list[str]:
    """Return the command that writes the source table to its standard output."""
    if source == "mysql":
        return mariadb(url, QUERY)
    # MySQL's boolean is a number.
    paid = "paid::int" if results == "mysql" else "paid"
    columns = f"id, user_id, amount, entry_date, at, ratio, {paid}, note, kind"
    return ["psql", libpq(url), "-qc", f"COPY ({QUERY.replace('*', columns)}) TO STDOUT"]


def writer(source: str, results: str, url: URL) -> list[str]:
    """Make an empty table of the types of a job's result and return the command that fills it from standard input."""
    drop, types = "DROP TABLE IF EXISTS jobber_bench_copy", types_of(source)
    if results == "mysql":
        for sql in (drop, f"CREATE TABLE jobber_bench_copy LIKE {types}"):
            subprocess.run(mariadb(url, sql), check=True)
        return mariadb(url, "LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE jobber_bench_copy")
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(f"CREATE UNLOGGED TABLE jobber_bench_copy (LIKE {types})")  # type: ignore[arg-type]
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
    """Return the seconds that the engines' own tools take, None where there are none for the pair.

    A job of the pair has been there, whose types they use.
    """
    if "sqlite" in (source, results):
        return attach(Path(str(urls["sqlite"].database))) if source == results else None
    into = writer(source, results, urls[results])
    began = time.perf_counter()
    with subprocess.Popen(reader(source, results, urls[source]), stdout=subprocess.PIPE) as pipe:
        subprocess.run(into, stdin=pipe.stdout, check=True)
    took = time.perf_counter() - began
    if pipe.returncode:
        raise RuntimeError(f"the tool that reads ended with {pipe.returncode}")
    return took


def in_process(source: str, results: str, urls: Mapping[str, URL], query: str = QUERY) -> tuple[float, int, int]:
    """Run a job in a process of its own; return seconds, rows and the process's peak memory in MB.

    Parameters:
        urls: of each engine; results in SQLite go into a folder beside the source.
    """
    addresses = [urls[source], urls[results]]
    if results == "sqlite":
        addresses[1] = URL.create("sqlite", database=str(Path(str(urls["sqlite"].database)).with_name("results")))
    words = [source, results, *(url.render_as_string(hide_password=False) for url in addresses), query]
    done = subprocess.run(
        [sys.executable, __file__, "--pair", json.dumps(words)], stdout=subprocess.PIPE, check=True, text=True
    )
    took, moved, most = json.loads(done.stdout)
    return took, moved, most


def peak() -> int:
    """Return the most memory that this process had, in MB; what getrusage tells begins with that of its parent."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


FILLERS = {"postgresql": fill_postgresql, "mysql": fill_mysql, "sqlite": fill_sqlite}


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
        print(json.dumps([took, rows, peak()]))
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
    for source in {source for source, _ in pairs}:
        FILLERS[source](urls[source], rows)
    print(f"{rows:,} rows x 9 columns, medians of {rounds}")
    print(f"{'source -> results':<26}{'job s':>8}{'rows/s':>12}{'own tools s':>13}{'ratio':>8}{'peak MB':>9}")
    for source, results in pairs:
        ours, theirs, peaks = [], [], []
        for _ in range(rounds):
            took, moved, most = in_process(source, results, urls)
            assert moved == rows
            ours.append(took)
            peaks.append(most)
            other = baseline(source, results, urls)
            theirs += [other] if other is not None else []
        took = statistics.median(ours)
        own = statistics.median(theirs) if theirs else None
        print(
            f"{source + ' -> ' + results:<26}{took:>8.2f}{rows / took:>12,.0f}"
            f"{f'{own:.2f}' if own else '-':>13}{f'{own / took:.2f}' if own else '-':>8}{max(peaks):>9}"
        )


if __name__ == "__main__":
    main()
