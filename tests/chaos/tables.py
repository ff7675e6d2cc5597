"""Results databases as the audit sees them: their tables, their ledgers and rows, not through jobber."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from pymysql.cursors import SSCursor

from tests.chaos.site import Site
from tests.chaos.work import COLUMNS
from tests.servers import MariaDB, Postgres

STAGING = "jobber_staging_"
#: Results databases by the place that holds them: two backends share one on PostgreSQL, and its ledger.
TEMPLATES = {
    "pg_results": ("PostgreSQL", "results_%s"),
    "pg_fast": ("PostgreSQL", "fast_%s"),
    "my_results": ("MariaDB", "results_%s"),
    "lite_results": ("SQLite", "results_%s"),
}


@dataclass(frozen=True)
class Entry:
    """What a ledger says of a table.

    Parameters:
        run: of the published result, None without one.
        unfinished: staging tables that it still lists.
    """

    run: int | None
    rows: int | None
    unfinished: frozenset[str]


class Place:
    """One database that holds results."""

    def __init__(self, name: str) -> None:
        self.name = name

    def tables(self) -> set[str]:
        """Return the names of all tables that jobber may have made, staging tables included."""
        raise NotImplementedError

    def ledger(self) -> dict[str, Entry]:
        """Return the ledger, by table."""
        raise NotImplementedError

    def watch(self) -> None:
        """Note from now on which attempt is published where; the ledger is there already."""
        raise NotImplementedError

    def published(self) -> list[tuple[str, int, int]]:
        """Return table, run and attempt of every publication since ``watch``, in their order."""
        raise NotImplementedError

    @contextlib.contextmanager
    def rows(self, table: str) -> Iterator[tuple[Sequence[str], Iterable[Any]]]:
        """Give the columns that ``SELECT *`` shows, and the rows in the order that was kept."""
        raise NotImplementedError
        yield


_PUBLISHED = "SELECT table_name, run, attempt FROM chaos_published ORDER BY seq"
_WATCH_POSTGRESQL = """
CREATE TABLE chaos_published (seq bigserial PRIMARY KEY, table_name text, run bigint, attempt bigint);
CREATE FUNCTION chaos_published() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_published (table_name, run, attempt) VALUES (NEW.table_name, NEW.run, NEW.attempt);
    RETURN NEW; END $$;
CREATE TRIGGER chaos_published AFTER UPDATE ON jobber_ledger FOR EACH ROW
    WHEN (NEW.run IS NOT NULL AND (NEW.run, NEW.attempt) IS DISTINCT FROM (OLD.run, OLD.attempt))
    EXECUTE FUNCTION chaos_published();
CREATE TRIGGER chaos_published_at_once AFTER INSERT ON jobber_ledger FOR EACH ROW WHEN (NEW.run IS NOT NULL)
    EXECUTE FUNCTION chaos_published()
"""
_WATCH_MARIADB = (
    "CREATE TABLE chaos_published (seq BIGINT AUTO_INCREMENT PRIMARY KEY, table_name VARCHAR(64), run BIGINT, "
    "attempt BIGINT)",
    """CREATE TRIGGER chaos_published AFTER UPDATE ON jobber_ledger FOR EACH ROW
    IF NEW.run IS NOT NULL AND NOT (NEW.run <=> OLD.run AND NEW.attempt <=> OLD.attempt) THEN
        INSERT INTO chaos_published (table_name, run, attempt) VALUES (NEW.table_name, NEW.run, NEW.attempt);
    END IF""",
)
_WATCH_SQLITE = """
CREATE TABLE chaos_published (seq INTEGER PRIMARY KEY, table_name TEXT, run INTEGER, attempt INTEGER);
CREATE TRIGGER chaos_published AFTER UPDATE ON jobber_ledger
WHEN NEW.run IS NOT NULL AND (NEW.run IS NOT OLD.run OR NEW.attempt IS NOT OLD.attempt) BEGIN
    INSERT INTO chaos_published (table_name, run, attempt) VALUES (NEW.table_name, NEW.run, NEW.attempt);
END
"""


class _Postgres(Place):
    def __init__(self, server: Postgres) -> None:
        super().__init__("PostgreSQL")
        self._server = server

    def _all(self, sql: str) -> list[Any]:
        with psycopg.connect(self._server.dsn("chaos")) as connection:
            return connection.execute(sql).fetchall()

    def tables(self) -> set[str]:
        found = self._all("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        return {name for (name,) in found if is_results(name)}

    def ledger(self) -> dict[str, Entry]:
        found = self._all("SELECT table_name, run, rows, staging, leftovers FROM jobber_ledger")
        return {
            name: Entry(run, rows, frozenset(part for part in (staging, *leftovers) if part))
            for name, run, rows, staging, leftovers in found
        }

    def watch(self) -> None:
        self._server.execute(_WATCH_POSTGRESQL, "chaos")

    def published(self) -> list[tuple[str, int, int]]:
        return self._all(_PUBLISHED)

    @contextlib.contextmanager
    def rows(self, table: str) -> Iterator[tuple[Sequence[str], Iterable[Any]]]:
        with psycopg.connect(self._server.dsn("chaos")) as connection, connection.cursor() as cursor:
            cursor.execute(SQL("SELECT * FROM {} ORDER BY ctid").format(Identifier(table)))
            assert cursor.description is not None
            yield [column.name for column in cursor.description], cursor


class _MariaDB(Place):
    def __init__(self, server: MariaDB) -> None:
        super().__init__("MariaDB")
        self._server = server

    def tables(self) -> set[str]:
        found = self._server.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'chaos'")
        return {name for (name,) in found if is_results(name)}

    def ledger(self) -> dict[str, Entry]:
        found = self._server.execute("SELECT table_name, run, `rows`, staging, leftovers FROM jobber_ledger", "chaos")
        return {
            name: Entry(run, rows, frozenset(part for part in (staging, *(leftovers or "").split()) if part))
            for name, run, rows, staging, leftovers in found
        }

    def watch(self) -> None:
        for statement in _WATCH_MARIADB:
            self._server.execute(statement, "chaos")

    def published(self) -> list[tuple[str, int, int]]:
        return [(table, run, attempt) for table, run, attempt in self._server.execute(_PUBLISHED, "chaos")]

    @contextlib.contextmanager
    def rows(self, table: str) -> Iterator[tuple[Sequence[str], Iterable[Any]]]:
        with self._server.connect("chaos", cursorclass=SSCursor) as connection, connection.cursor() as cursor:
            # The invisible column keeps the order.
            cursor.execute(f"SELECT * FROM `{table}` ORDER BY `_rowid_`")
            yield [column[0] for column in cursor.description], cursor


class _SQLite(Place):
    def __init__(self, folder: Path) -> None:
        super().__init__("SQLite")
        self._folder = folder

    def tables(self) -> set[str]:
        # A file of SQLite may have a journal beside it.
        names = {path.name for path in self._folder.iterdir()}
        return {name.removesuffix(".db") for name in names if is_results(name)}

    def _all(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self._folder / "jobber_ledger.db", timeout=20)) as connection:
            return connection.execute(sql).fetchall()

    def watch(self) -> None:
        with contextlib.closing(sqlite3.connect(self._folder / "jobber_ledger.db", timeout=20)) as connection:
            connection.executescript(_WATCH_SQLITE)

    def published(self) -> list[tuple[str, int, int]]:
        return self._all(_PUBLISHED)

    def ledger(self) -> dict[str, Entry]:
        found = self._all("SELECT table_name, run, rows, staging FROM jobber_ledger")
        return {name: Entry(run, rows, frozenset({staging} - {None})) for name, run, rows, staging in found}

    @contextlib.contextmanager
    def rows(self, table: str) -> Iterator[tuple[Sequence[str], Iterable[Any]]]:
        with contextlib.closing(sqlite3.connect(f"file:{self._folder / table}.db?mode=ro", uri=True)) as connection:
            cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY rowid')
            yield [column[0] for column in cursor.description], cursor


def is_results(name: str) -> bool:
    """Whether a name is one that jobber gives to results, published or staged."""
    return name.startswith(("results_", "fast_", STAGING))


def places(site: Site) -> dict[str, Place]:
    """Return all databases that hold results, by name."""
    found: list[Place] = [_Postgres(site.postgres), _MariaDB(site.mariadb), _SQLite(site.results_folder)]
    return {place.name: place for place in found}


def table_of(results: str, job_id: str) -> tuple[str, str]:
    """Return the place and the name of the table of a job."""
    place, template = TEMPLATES[results]
    return place, template % job_id


def difference(columns: Sequence[str], found: Iterable[Any], wanted: Iterable[Any]) -> str:
    """Return where a table differs from an answer; "" if it does not."""
    if list(columns) != COLUMNS:
        return f"has the columns {list(columns)}"
    rows = iter(found)
    number = 0
    for number, answer in enumerate(wanted, 1):
        row = next(rows, None)
        if row is None:
            return f"ends after {number - 1} rows"
        if tuple(row) != answer:
            return f"has in row {number} {tuple(row)!r}, and not {answer!r}"
    return "" if next(rows, None) is None else f"has more than its {number} rows"


def running_queries(site: Site) -> list[str]:
    """Return the queries of jobs that run on the sources, or hold a transaction open there."""
    with psycopg.connect(site.postgres.dsn("postgres")) as connection:
        found = connection.execute(
            "SELECT application_name, state, left(query, 200) FROM pg_stat_activity WHERE datname = 'chaos' "
            "AND pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE '%job=%'"
        ).fetchall()
    texts = [f"on PostgreSQL, {state}: {query}" for _, state, query in found]
    listed = site.mariadb.execute(
        "SELECT command, state, info FROM information_schema.processlist WHERE info LIKE '%job=%' "
        "AND id <> CONNECTION_ID()"
    )
    return texts + [f"on MariaDB, {command} {state}: {info[:200]}" for command, state, info in listed]
