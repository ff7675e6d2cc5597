"""One conformance suite over all results backends: a new engine joins the list of parameters and gets a ``Lab``."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.results import open_results
from jobber.results.base import ResultsBackend, ResultsWriter, Target
from jobber.results.mysql import MysqlResults
from jobber.results.postgresql import PostgresResults
from jobber.results.sqlite import SqliteResults
from jobber.sources.base import Chunk
from tests.servers import MariaDB, Postgres

COLUMNS = (Column("id", Kind.INTEGER), Column("name", Kind.TEXT))
ONE: list[Row] = [(1, "one")]
TWO: list[Row] = [(1, "uno"), (2, "dos")]
BULKY: list[Row] = [(n, "x" * 1_500_000) for n in range(4)]


class Lab(Protocol):
    """A backend together with what a test needs to look behind it."""

    backend: ResultsBackend
    settings: ResultsSettings

    def another(self, **changes: Any) -> ResultsBackend:
        """Return a second backend on the same database, as another process would have, with other settings."""
        ...

    def tables(self) -> set[str]:
        """Return the names of all tables there but the ledger."""
        ...

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL of an application on a result; ``{table}`` as it must be written there."""
        ...

    def reading(self, table: str) -> AbstractContextManager[object]:
        """Keep a transaction open that reads a result (or the ledger)."""
        ...

    def make_stranger(self, table: str) -> None:
        """Make something of that name that jobber did not make."""
        ...

    def ledger(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL on the ledger."""
        ...

    def overdue(self, table: str) -> None:
        """Make a result's time be over."""
        ...

    def ago(self, days: int) -> str:
        """Return SQL for the time so many days ago, as the ledger has it."""
        ...

    def lifetime(self) -> float:
        """Return the seconds from publishing to expiry of the only result."""
        ...


@dataclass
class PostgresLab:
    server: Postgres
    schema: str
    settings: ResultsSettings
    backend: PostgresResults
    opened: list[ResultsBackend]

    def another(self, **changes: Any) -> PostgresResults:
        ours = {key: changes.pop(key) for key in ("segment_seconds",) if key in changes}
        backend = PostgresResults(replace(self.settings, **changes), **ours)
        self.opened.append(backend)
        return backend

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            self.server.dsn("postgres"), options=f"-csearch_path={self.schema}", autocommit=True, **options
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    ledger = query

    def reading(self, table: str) -> AbstractContextManager[object]:
        return transaction(self, f'SELECT * FROM "{table}"')

    def tables(self) -> set[str]:
        rows = self.query(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        return {name for (name,) in rows} - {"jobber_ledger"}

    def make_stranger(self, table: str) -> None:
        self.query(f'CREATE TABLE "{table}" (precious text); INSERT INTO "{table}" VALUES (\'mine\')')

    def overdue(self, table: str) -> None:
        self.query(f"UPDATE jobber_ledger SET expires_at = now() - interval '1 second' WHERE table_name = '{table}'")

    def ago(self, days: int) -> str:
        return f"now() - interval '{days} days'"

    def lifetime(self) -> float:
        [(lifetime,)] = self.query("SELECT extract(epoch FROM expires_at - published_at)::float FROM jobber_ledger")
        return float(lifetime)


@dataclass
class SqliteLab:
    settings: ResultsSettings
    backend: SqliteResults
    folder: Path
    opened: list[ResultsBackend]

    def another(self, **changes: Any) -> SqliteResults:
        backend = SqliteResults(replace(self.settings, **changes))
        self.opened.append(backend)
        return backend

    def tables(self) -> set[str]:
        return {file.stem for file in self.folder.glob("*.db")} - {"jobber_ledger"}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        table = sql.split('"')[1]
        with closing(sqlite3.connect(self.folder / f"{table}.db", isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    def ledger(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "jobber_ledger.db", isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    @contextmanager
    def reading(self, table: str) -> Iterator[object]:
        with closing(sqlite3.connect(self.folder / f"{table}.db", isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute(f'SELECT * FROM "{table}"').fetchone()
            yield connection

    def make_stranger(self, table: str) -> None:
        self.query(f'CREATE TABLE "{table}" (precious text)')
        self.query(f"INSERT INTO \"{table}\" VALUES ('mine')")

    def overdue(self, table: str) -> None:
        self.ledger(f"UPDATE jobber_ledger SET expires_at = julianday('now', '-1 second') WHERE table_name = '{table}'")

    def ago(self, days: int) -> str:
        return f"julianday('now') - {days}"

    def lifetime(self) -> float:
        [(lifetime,)] = self.ledger("SELECT expires_at - published_at FROM jobber_ledger")
        return float(lifetime) * 86400


@dataclass
class MysqlLab:
    server: MariaDB
    database: str
    settings: ResultsSettings
    backend: MysqlResults
    opened: list[ResultsBackend]

    def another(self, **changes: Any) -> MysqlResults:
        backend = MysqlResults(replace(self.settings, **changes))
        self.opened.append(backend)
        return backend

    def connect(self, **options: Any) -> pymysql.Connection[Any]:
        return self.server.connect(
            self.database, init_command="SET sql_mode = 'ANSI_QUOTES', time_zone = '+00:00'", **options
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    ledger = query

    def reading(self, table: str) -> AbstractContextManager[object]:
        return reading(self, table)

    def tables(self) -> set[str]:
        return {name for (name,) in self.query("SHOW TABLES")} - {"jobber_ledger"}

    def renaming(self) -> bool:
        """Say whether a RENAME waits for a reader."""
        return bool(self.query("SELECT 1 FROM information_schema.processlist WHERE info LIKE 'RENAME TABLE%'"))

    def make_stranger(self, table: str) -> None:
        self.query(f'CREATE TABLE "{table}" (precious text)')
        self.query(f"INSERT INTO \"{table}\" VALUES ('mine')")

    def overdue(self, table: str) -> None:
        self.query(f"UPDATE jobber_ledger SET expires_at = now() - interval 1 second WHERE table_name = '{table}'")

    def ago(self, days: int) -> str:
        return f"now() - interval {days} day"

    def lifetime(self) -> float:
        [(lifetime,)] = self.query("SELECT timestampdiff(MICROSECOND, published_at, expires_at) FROM jobber_ledger")
        return float(lifetime) / 1e6


_schemas = itertools.count(1)


def postgres_lab(server: Postgres, **settings: Any) -> Iterator[PostgresLab]:
    """A schema of its own in one database: several times as fast as a database of its own."""
    schema = f"lab_{next(_schemas)}"
    server.execute(f"CREATE SCHEMA {schema}")
    url = f"{server.url('postgres')}?options=-csearch_path%3D{schema}"
    chosen = ResultsSettings(name="main", url=url, engine="postgresql", **settings)
    backend = open_results(chosen)
    assert isinstance(backend, PostgresResults)
    lab = PostgresLab(server, schema, chosen, backend, [backend])
    try:
        yield lab
    finally:
        for opened in lab.opened:
            opened.close()


def mysql_lab(server: MariaDB, **settings: Any) -> Iterator[MysqlLab]:
    """A database of its own; ``insert`` forbids LOAD DATA LOCAL."""
    database = server.new_database()
    options = "?local_infile=0" if settings.pop("insert", False) else ""
    chosen = ResultsSettings(name="main", url=server.url(database) + options, engine="mysql", **settings)
    backend = open_results(chosen)
    assert isinstance(backend, MysqlResults)
    lab = MysqlLab(server, database, chosen, backend, [backend])
    try:
        yield lab
    finally:
        for opened in lab.opened:
            opened.close()
        server.drop_database(database)


def sqlite_lab(folder: Path, **settings: Any) -> Iterator[SqliteLab]:
    chosen = ResultsSettings(name="main", url=f"sqlite:///{folder}", engine="sqlite", **settings)
    backend = open_results(chosen)
    assert isinstance(backend, SqliteResults)
    lab = SqliteLab(chosen, backend, folder, [backend])
    try:
        yield lab
    finally:
        for opened in lab.opened:
            opened.close()


ENGINES = ["postgresql", "postgresql-unlogged", "mysql", "sqlite"]


@pytest.fixture(params=ENGINES)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """An empty results database, one per engine."""
    yield from any_lab(request, tmp_path)


def any_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """The lab that a fixture's parameter names."""
    if request.param == "sqlite":
        yield from sqlite_lab(tmp_path / "results")
    elif request.param.startswith("mysql"):
        yield from mysql_lab(request.getfixturevalue("mariadb"), insert=request.param.endswith("insert"))
    else:
        server = request.getfixturevalue("postgres")
        yield from postgres_lab(server, unlogged=request.param.endswith("unlogged"))


@pytest.fixture
def pg(postgres: Postgres) -> Iterator[PostgresLab]:
    """An empty results database on PostgreSQL."""
    yield from postgres_lab(postgres)


@pytest.fixture
def my(mariadb: MariaDB) -> Iterator[MysqlLab]:
    """An empty results database on MariaDB."""
    yield from mysql_lab(mariadb)


@pytest.fixture
def folder_lab(tmp_path: Path) -> Iterator[SqliteLab]:
    """An empty results folder."""
    yield from sqlite_lab(tmp_path / "results")


def is_mysql(lab: Lab) -> bool:
    """Say whether it is MySQL itself, whose JSON is binary."""
    return isinstance(lab, MysqlLab) and lab.server.is_mysql


def target(table: str = "results_a", *, run: int = 1, attempt: int = 1, ttl: int = 0, job_id: str = "a") -> Target:
    return Target(table, job_id, run, attempt, ttl)


def write(
    backend: ResultsBackend,
    where: Target,
    rows: Sequence[Row],
    columns: Sequence[Column] = COLUMNS,
    before: Callable[[ResultsWriter], None] | None = None,
) -> int:
    """Write and publish a result; ``before`` is called between the two."""
    batches = [rows[start : start + 1000] for start in range(0, len(rows), 1000)]
    return load(backend, where, *batches, *([before] if before else []), columns=columns)


def load(
    backend: ResultsBackend,
    where: Target,
    *parts: Sequence[Row] | Chunk | Callable[[ResultsWriter], object],
    columns: Sequence[Column] = COLUMNS,
) -> int:
    """Write batches and chunks, call what can be called, in the order given; then publish."""
    with backend.begin(where, columns, Cancellation()) as writer:
        for part in parts:
            if isinstance(part, Chunk):
                writer.write_chunk(part)
            elif callable(part):
                part(writer)
            else:
                writer.write_batch(part)
        return writer.publish()


def read(
    backend: ResultsBackend,
    run: int = 1,
    columns: Sequence[Column] = COLUMNS,
    *,
    table: str = "results_a",
    offset: int = 0,
    limit: int = 1000,
) -> list[Row]:
    return backend.rows(table, run, columns, offset=offset, limit=limit)


@contextmanager
def transaction(lab: PostgresLab, sql: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Keep a transaction open that has run ``sql``."""
    with lab.connect() as connection, connection.transaction():
        connection.execute(sql)  # type: ignore[call-overload]
        yield connection


@contextmanager
def reading(lab: MysqlLab, table: str = "results_a") -> Iterator[pymysql.Connection[Any]]:
    """Keep a transaction open that reads a result."""
    with lab.connect() as connection, connection.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute(f'SELECT * FROM "{table}"')
        yield connection


def settings_for(postgres: Postgres, database: str, user: str = "postgres", **more: object) -> ResultsSettings:
    url = make_url(postgres.url(database)).set(username=user).render_as_string(hide_password=False)
    return ResultsSettings(name="main", url=url, engine="postgresql", **more)  # type: ignore[arg-type]
