"""Fills a database with jobs that wait, a history and results, as years would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg

from benchmarks.sites import COLUMNS, libpq
from jobber.store.schema import ORD_STEP
from tests.servers import Postgres

#: Databases of jobs that wait in the served queue, in front of all others: they are paused.
HELD = ("held0", "held1", "held2", "held3")
#: Tasks of the jobs that wait, and the queues of those that nobody serves.
TASKS, ELSEWHERE = tuple(f"task{number}" for number in range(22)), ("nightly", "yearly")
#: What has grown; of a whole database with so many tables it takes minutes.
GROWN = ("jobber_jobs", "jobber_finished_jobs", "jobber_lanes", "jobber_ledger")
GROWN += tuple(f"pg_{name}" for name in ("class", "attribute", "type", "depend", "index", "shdepend"))
CHUNK = 1_000_000
DDL = 1000

#: Columns that every run has, by SQL of its number ``i`` (the youngest has the greatest).
_RUN = {
    "run": "{first} + i",
    "job_id": "'crowd-{name}-' || i",
    "task": "'task' || i % 22",
    "results": "'results'",
    "result_table": "'results_crowd_{name}_' || i",
    "args": "'[' || i % 10000 || ']'",
    "priority": "5",
    "tags": "'{{}}'",
    "cancel_requested": "false",
    "version": "repeat('0', 64)",
    "fingerprint": "i * 7919",
    "created_at": "{now} - 600000000 - ({count} - i) * {step}",
} | dict.fromkeys(["retries", "ttl", "timeout", "failures", "rescues", "rows_so_far", "bytes_so_far"], "0")
_HISTORY = _RUN | {
    "queue": "CASE WHEN i % 3 = 0 THEN 'served' ELSE 'nightly' END",
    "db": "'source'",
    "state": "CASE WHEN i % 50 = 1 THEN 'FAILURE' ELSE 'SUCCESS' END",
    "attempt": "1",
    "worker": "'w1'",
    "rows": "i % 1000",
    "columns": "'[]'",
    "error": "CASE WHEN i % 50 = 1 THEN 'it did not work' ELSE '' END",
    "error_code": "CASE WHEN i % 50 = 1 THEN 'query_failed' ELSE '' END",
    "started_at": "{now} - 590000000 - ({count} - i) * {step}",
    "finished_at": "{now} - 580000000 - ({count} - i) * {step}",
}
_QUEUED = _RUN | {
    # The first 400 of each 1,000 wait in the served queue for databases that are paused.
    "queue": "CASE WHEN i % 1000 < 400 THEN 'served' WHEN i % 2 = 0 THEN 'nightly' ELSE 'yearly' END",
    "db": "CASE WHEN i % 1000 < 400 THEN 'held' || i / 22 % 4 ELSE 'source' END",
    "state": "'PENDING'",
    "attempt": "0",
    "worker": "''",
    "columns": "'[]'",
    "error": "''",
    "error_code": "''",
    "lane": "0",
    "ord": f"5 * {ORD_STEP} + {{first}} + i",
    "ended_attempt": "0",
    "ended_as": "''",
}


def more_config(url: str) -> str:
    """Return what the config says more, so that the served queue has to do with the paused databases."""
    return "".join(f'[db.{name}]\nurl = "{url}"\n' for name in HELD)


def more_tasks() -> str:
    """Return the tasks of the jobs that wait."""
    databases = ", ".join(("source", *HELD))
    return "".join(f"-- name: {task}\n-- db: {databases}\n-- queue: served\nSELECT 1 AS one;\n\n" for task in TASKS)


def fill(
    server: Postgres, url: str, *, queued: int, history: int, tables: int, say: Callable[[str], None] = lambda _: None
) -> None:
    """Fill a database whose tables a jobber has made and which nobody uses."""
    with _careless(server), psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '512MB'")
        _rows(connection, "jobber_finished_jobs", _HISTORY, history, "history", 7 * 86_400_000_000, say)
        _rows(connection, "jobber_jobs", _QUEUED, queued, "queued", 3_600_000_000, say)
        say("lanes and pauses")
        connection.execute(
            "INSERT INTO jobber_lanes (queue, task, db, tenant, job_group, suspect, head, version) "
            "SELECT queue, task, db, '', '', false, min(ord), 1 FROM jobber_jobs GROUP BY queue, task, db "
            "ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "UPDATE jobber_jobs j SET lane = l.id FROM jobber_lanes l WHERE j.lane = 0 AND NOT l.suspect "
            "AND (l.queue, l.task, l.db) = (j.queue, j.task, j.db)"
        )
        _results(connection, tables, say)
        for table in GROWN:
            say(f"VACUUM ANALYZE {table}")
            connection.execute(f"VACUUM ANALYZE {table}")  # type: ignore[arg-type]  # names of our own


@contextmanager
def _careless(server: Postgres) -> Iterator[None]:
    """Let the server write without care in the body, and with its usual care afterwards."""
    settings = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "'16GB'", "autovacuum": "off"}
    for name, value in settings.items():
        server.execute(f"ALTER SYSTEM SET {name} = {value}")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for name in settings:
            server.execute(f"ALTER SYSTEM RESET {name}")
        server.execute("SELECT pg_reload_conf()")
        server.execute("CHECKPOINT")


def _rows(
    connection: psycopg.Connection[tuple[object, ...]],
    table: str,
    columns: Mapping[str, str],
    count: int,
    name: str,
    span: int,
    say: Callable[[str], None],
) -> None:
    """Make runs whose numbers lie before those of the next ones, over the last ``span`` microseconds."""
    secondary = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname NOT IN "
        "(SELECT conname FROM pg_constraint)",
        [table],
    ).fetchall()
    for index, _ in secondary:
        connection.execute(f'DROP INDEX "{index}"')  # type: ignore[arg-type]  # names of our own
    # Runs are numbered from the milliseconds since the epoch on.
    now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    row = connection.execute(f"SELECT {now}, last_value FROM jobber_run_seq").fetchone()  # type: ignore[arg-type]
    assert row is not None
    at, newest = row
    first = int(str(newest)) - 86_400_000 - (20_000_000 if name == "history" else 0)
    words = {"first": first, "name": name, "now": at, "count": count, "step": span // max(count, 1)}
    values = ", ".join(value.format(**words) for value in columns.values())
    for start in range(0, count, CHUNK):
        say(f"{name}: {start:,} of {count:,}")
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} "  # type: ignore[arg-type]
            f"FROM generate_series({start}::bigint, {min(start + CHUNK, count) - 1}::bigint) AS i"
        )
    for index, definition in secondary:
        say(f"{name}: {index}")
        connection.execute(str(definition).encode())


def _results(connection: psycopg.Connection[tuple[object, ...]], count: int, say: Callable[[str], None]) -> None:
    """Make results of the newest jobs of the history, with a row each and their entries in the ledger."""
    for start in range(0, count, DDL):
        say(f"results: {start:,} of {count:,}")
        end = min(start + DDL, count) - 1
        connection.execute(
            f"DO $$ BEGIN FOR n IN {start}..{end} LOOP "  # type: ignore[arg-type]
            f"EXECUTE 'CREATE TABLE results_crowd_result_' || n || ' ({COLUMNS})'; "
            "EXECUTE 'INSERT INTO results_crowd_result_' || n || ' VALUES (1, 2, 3.50, ''2024-01-01'', ''a note'')'; "
            "END LOOP; END $$"
        )
        connection.execute(
            "INSERT INTO jobber_ledger "
            "(table_name, job_id, claim_run, claim_attempt, run, attempt, rows, published_at, expires_at) "
            "SELECT 'results_crowd_result_' || n, 'crowd-result-' || n, n + 1, 1, n + 1, 1, 1, now(), "
            "now() + interval '1 day' + n * interval '1 ms' FROM generate_series(%s::int, %s::int) AS n",
            [start, end],
        )
