"""A query that fails halfway leaves nothing of itself, whatever it reads and wherever it writes."""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from jobber.client import JobStatus
from tests.clickhouse_server import ClickHouse
from tests.e2e.conftest import Databases, config_text
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, wait_until

#: Rows of a whole result; the query breaks at the row in the middle. The servers make one row after the other.
ROWS, MIDDLE = 10_000, 5_000
#: Letters in each row. Of the wide result more than the megabyte that is held back has been written by the middle.
WIDE, NARROW = 1_000, 5

QUERIES = {
    # Nobody else takes this lock but a test that wants the query to wait at that row.
    "pg": """
SELECT n, repeat('x', :width) AS filler,
       CASE n WHEN :breaks_at THEN 1 / (SELECT 0 FROM pg_advisory_xact_lock_shared(5000)) END AS q
FROM generate_series(1, 10000) AS n""",
    # A division by zero is NULL there.
    "my": "SELECT n, repeat('x', :width) AS filler, 9223372036854775807 + (n = :breaks_at) AS q FROM numbers",
    "lite": """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 10000)
SELECT n, printf('%.*c', :width, 'x') AS filler, CASE n WHEN :breaks_at THEN abs(-9223372036854775807 - 1) END AS q
FROM numbers""",
    "duck": """
SELECT n, repeat('x', :width) AS filler, CASE n WHEN :breaks_at THEN error('broken halfway') END AS q
FROM range(1, 10001) AS numbers(n)""",
    "click": """
SELECT toInt64(number + 1) AS n, toFixedString('x', :width) AS filler, intDiv(1, :breaks_at - n) AS q
FROM system.numbers LIMIT 10000 SETTINGS max_block_size = 500""",
}
#: What each engine says then.
WORDS = {
    "pg": "division by zero",
    "my": "BIGINT value is out of range",
    "lite": "integer overflow",
    "duck": "broken halfway",
    "click": "Division by zero",
}
PARAMS = "-- param: width integer\n-- param: breaks_at integer\n-- retries: 0"
#: That row is none of them.
NEVER = -1


class Target(ABC):
    """A results database, looked into without jobber."""

    @abstractmethod
    def run(self, table: str, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query about one table, in whose file it runs where each has one."""

    @abstractmethod
    def tables(self) -> set[str]:
        """Return the names of all tables, jobber's own among them."""

    @abstractmethod
    def is_filling(self) -> bool:
        """Whether rows of an unpublished result are there."""

    def rows(self, table: str) -> tuple[int, int]:
        """Return how many rows a table has, and the greatest of their numbers."""
        [(count, last)] = self.run(table, f'SELECT count(*), max(n) FROM "{table}"')
        return count, last

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        """Return run, rows and staging table of what the ledger lists under that name."""
        listed = f"SELECT run, \"rows\", staging FROM jobber_ledger WHERE table_name = '{table}'"
        return self.run("jobber_ledger", listed)


@dataclass(frozen=True)
class OnPostgres(Target):
    server: Postgres
    database: str

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.dsn(self.database))

    def run(self, _table: str, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(sql).fetchall()  # type: ignore[arg-type]  # tests write their SQL as text

    def tables(self) -> set[str]:
        return {name for (name,) in self.run("", "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}

    def is_filling(self) -> bool:
        sql = "SELECT 1 FROM pg_stat_progress_copy WHERE command = 'COPY FROM' AND tuples_processed > 0"
        return bool(self.run("", f"{sql} AND datname = '{self.database}'"))


@dataclass(frozen=True)
class OnMariaDB(Target):
    server: MariaDB
    database: str

    def run(self, _table: str, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(sql.replace('"', "`"), self.database)

    def tables(self) -> set[str]:
        return {name for (name,) in self.run("", "SHOW TABLES")}

    def is_filling(self) -> bool:
        with self.server.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
            return any(cursor.execute(f"SELECT 1 FROM {table} LIMIT 1") for table in _staging(self))


@dataclass(frozen=True)
class OnSqlite(Target):
    folder: Path

    def run(self, table: str, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder / table}.db?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def tables(self) -> set[str]:
        return {file.stem for file in self.folder.glob("*.db")}

    def is_filling(self) -> bool:
        return any((self.folder / f"{name}.db").stat().st_size > 1_000_000 for name in _staging(self))


@dataclass(frozen=True)
class Site:
    """A jobber, and its results databases."""

    running: Running
    targets: dict[str, Target]
    postgres: OnPostgres

    @contextmanager
    def stopped_in_the_middle(self) -> Iterator[None]:
        """Let queries on PostgreSQL wait at the row that breaks them while the body runs."""
        with self.postgres.connect() as connection:
            connection.execute("SELECT pg_advisory_lock(5000)")
            yield

    def submit(self, source: str, results: str, job_id: str, *, width: int, breaks_at: int) -> None:
        """Submit a job."""
        args = {"width": width, "breaks_at": breaks_at}
        self.running.client.submit(f"rows_of_{source}", args, job_id=job_id, results=results, db=source)

    def end_of(self, job_id: str) -> JobStatus:
        """Return a job once it is over."""
        return self.running.client.wait(job_id, timeout=60)


@pytest.fixture(scope="module")
def click(request: pytest.FixtureRequest) -> Iterator[tuple[ClickHouse, str] | None]:
    """A ClickHouse server and a database on it, where there is one."""
    try:
        server: ClickHouse = request.getfixturevalue("clickhouse")
    except pytest.skip.Exception:
        yield None
        return
    name = server.new_database()
    yield server, name
    server.drop_database(name)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
    mariadb: MariaDB,
    click: tuple[ClickHouse, str] | None,
) -> Iterator[Site]:
    """A jobber with every kind of source and of results database."""
    folder = tmp_path_factory.mktemp("halfway")
    databases = Databases(postgres, postgres.new_database(), mariadb, mariadb.new_database())
    mariadb.execute("CREATE TABLE numbers (n INT PRIMARY KEY)", databases.on_mariadb)
    numbers = ", ".join(f"({n})" for n in range(1, ROWS + 1))
    mariadb.execute(f"INSERT INTO numbers VALUES {numbers}", databases.on_mariadb)
    (folder / "source.db").touch()
    duckdb.connect(str(folder / "source.duckdb")).close()
    config = config_text(folder, databases, state="", broker="")
    sources = ["pg", "my", "lite", "duck"]
    if click:
        sources.append("click")
        config += f'[db.click]\nurl = "{click[0].url(click[1])}"\n'
    tasks = [f"-- name: rows_of_{source}\n-- db: {source}\n{PARAMS}\n{QUERIES[source]};\n" for source in sources]
    on_postgres = OnPostgres(postgres, databases.on_postgres)
    targets: dict[str, Target] = {
        "pg_results": on_postgres,
        "pg_fast": on_postgres,
        "my_results": OnMariaDB(mariadb, databases.on_mariadb),
        "lite_results": OnSqlite(folder / "results"),
    }
    with jobber(folder, config, {"rows.sql": "\n".join(tasks)}) as running:
        yield Site(running, targets, on_postgres)
    postgres.drop_database(databases.on_postgres)
    mariadb.drop_database(databases.on_mariadb)


RESULTS = ("pg_results", "my_results", "lite_results")
#: What skips the log is the same code of jobber's: one source will do.
PAIRS = [*itertools.product(QUERIES, RESULTS), ("pg", "pg_fast")]


@pytest.mark.parametrize(
    ("source", "results", "width"),
    [
        *((source, results, WIDE) for source, results in PAIRS),
        *(("pg", results, NARROW) for source, results in PAIRS if source == "pg"),
    ],
)
def test_an_error_halfway_fails_the_job_and_leaves_nothing_but_the_older_result(
    site: Site, click: object, source: str, results: str, width: int
) -> None:
    if source == "click" and click is None:
        pytest.skip("ClickHouse is not installed")
    target = site.targets[results]
    job_id = f"{source}-{results}-{width}"

    with site.stopped_in_the_middle():
        site.submit(source, results, job_id, width=width, breaks_at=MIDDLE)
        if source == "pg" and width == WIDE:
            # The query breaks when rows of it are there already.
            wait_until(target.is_filling, 30)
    first = site.end_of(job_id)
    _check_failure(first, WORDS[source])
    assert first.table not in target.tables()
    assert not [entry for entry in target.ledger(first.table) if any(value is not None for value in entry)]
    assert not _staging(target)

    site.submit(source, results, job_id, width=width, breaks_at=NEVER)
    whole = site.end_of(job_id)
    assert (whole.state, whole.error, whole.count, whole.table) == ("SUCCESS", "", ROWS, first.table)
    published = target.ledger(whole.table)
    assert [entry[1:] for entry in published] == [(ROWS, None)]

    site.submit(source, results, job_id, width=width, breaks_at=MIDDLE)
    _check_failure(site.end_of(job_id), WORDS[source])
    assert target.rows(whole.table) == (ROWS, ROWS)
    assert target.ledger(whole.table) == published
    assert not _staging(target)


def _staging(target: Target) -> list[str]:
    return [name for name in target.tables() if "staging" in name]


def _check_failure(job: JobStatus, words: str) -> None:
    assert job.state == "FAILURE"
    assert words in job.error
    assert (job.attempt, job.count) == (1, 0)
    assert job.attempts is not None
    assert [(attempt.attempt, attempt.ending) for attempt in job.attempts] == [(1, "failure")]
