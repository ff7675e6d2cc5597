"""Sources and results databases for the tests of types, and ways to look at a table as its own engine shows it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql

from jobber.columns import Column, Kind
from jobber.results.base import ResultsBackend
from jobber.results.sqlite import SqliteResults
from jobber.sources.base import Shape, Source
from jobber.sqltext import parse
from jobber.tasks import Task
from tests.servers import MariaDB, Postgres
from tests.test_execution import job, run

RUNS = iter(range(1, 10_000_000))


class Shaped:
    """A source that may give its rows in one shape or decoded; remembers which it gave last."""

    def __init__(self, source: Source, shape: Shape) -> None:
        self.engine, self.name = source.engine, source.name
        self._source = source
        self._shape = shape
        self.gave: Shape | None = None

    @contextmanager
    def read(self, query: Any, accepts: frozenset[Shape], **more: Any) -> Iterator[Any]:
        # DECODED is always among what the other side takes.
        with self._source.read(query, accepts & {self._shape, Shape.DECODED}, **more) as stream:
            self.gave = stream.shape
            yield stream


@dataclass(frozen=True)
class Published:
    """A result."""

    table: str
    run: int
    rows: int
    columns: Sequence[Column]


def publish(source: Any, backend: ResultsBackend, sql: str) -> Published:
    """Run a query into ``backend``."""
    task = Task(
        name="task",
        description="",
        sql=sql,
        version="",
        file=Path("task.sql"),
        line=1,
        statements={source.engine: parse(sql, source.engine)},
        databases=("src",),
        results=("out",),
    )
    attempt = replace(job(backend), run=next(RUNS))
    outcome = run(attempt, task, source, backend)
    return Published(attempt.table, attempt.run, outcome.rows, outcome.columns)


class Lab(Protocol):
    """A results database that can be looked into."""

    backend: ResultsBackend

    def column_type(self, table: str) -> str:
        """Return the type of the column ``v`` as the engine names it."""
        ...

    def expected_type(self, kind: str) -> str:
        """Return the type that a kind has, as the engine names it."""
        ...

    def value(self, table: str) -> Any:
        """Return the value of the only row's column ``v``."""
        ...

    def expected(self, kind: str, text: str | None) -> Any:
        """Return how ``value`` shows a canonical value."""
        ...

    def dump(self, result: Published) -> list[tuple[Any, ...]]:
        """Return all rows of a table as the engine shows them, in order."""
        ...


def _base(kind: str) -> tuple[str, str]:
    """Split ``numeric(10,2)`` into its name and its bounds."""
    name, bracket, bounds = kind.partition("(")
    return name, bracket + bounds


@dataclass
class PostgresLab:
    server: Postgres
    database: str
    backend: ResultsBackend

    def column_type(self, table: str) -> str:
        sql = "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = %s::regclass"
        return str(self._query(f"{sql} AND a.attnum > 0", f'"{table}"')[0][0])

    def expected_type(self, kind: str) -> str:
        name, bounds = _base(kind)
        names = {
            "integer": "bigint",
            "numeric": "numeric",
            "float": "numeric",
            "boolean": "boolean",
            "date": "date",
            "timestamp": "timestamp without time zone",
            "json": "jsonb",
            "binary": "text",
            "text": "text",
        }
        return names[name] + bounds

    def value(self, table: str) -> Any:
        return self._query(f'SELECT v::text FROM "{table}"')[0][0]

    def expected(self, kind: str, text: str | None) -> Any:
        return text

    def dump(self, result: Published) -> list[tuple[Any, ...]]:
        # Of the shortest digits that give a double back there may be several: PostgreSQL and Python choose differently.
        shown = ", ".join(
            f'"{column.name}"::float8' if column.kind is Kind.FLOAT else f'"{column.name}"::text'
            for column in result.columns
        )
        return [tuple(map(repr, row)) for row in self._query(f'SELECT {shown} FROM "{result.table}" ORDER BY ctid')]

    def close(self) -> None:
        self._connection.close()

    @cached_property
    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = psycopg.connect(self.server.dsn(self.database), autocommit=True)
        connection.execute("SET timezone = 'Asia/Kolkata'")  # a result has no zone, so nobody's can shift it
        return connection

    def _query(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values or None, prepare=False).fetchall()  # type: ignore[arg-type]


@dataclass
class SqliteLab:
    backend: SqliteResults

    def column_type(self, table: str) -> str:
        with closing(sqlite3.connect(self.backend.file(table))) as connection:
            (declared,) = [row[2] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            return str(declared)

    def expected_type(self, kind: str) -> str:
        name, bounds = _base(kind)
        names = {
            "integer": "BIGINT",
            "numeric": "DECIMAL_TEXT",
            "float": "REAL",
            "boolean": "BOOLEAN",
            "date": "DATE",
            "timestamp": "TIMESTAMP",
            "json": "JSON_TEXT",
            "binary": "TEXT",
            "text": "TEXT",
        }
        return names[name] + bounds

    def value(self, table: str) -> Any:
        with closing(sqlite3.connect(self.backend.file(table))) as connection:
            return connection.execute(f'SELECT v FROM "{table}"').fetchone()[0]

    def expected(self, kind: str, text: str | None) -> Any:
        if text is None:
            return None
        return {"integer": int, "float": float, "boolean": lambda value: int(value == "true")}.get(kind, str)(text)

    def dump(self, result: Published) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.backend.file(result.table))) as connection:
            return connection.execute(f'SELECT * FROM "{result.table}" ORDER BY rowid').fetchall()


@dataclass
class MariaLab:
    server: MariaDB
    database: str
    backend: ResultsBackend

    def column_type(self, table: str) -> str:
        rows = self._query(
            "SELECT column_type, coalesce(collation_name, '') FROM information_schema.columns "
            f"WHERE table_schema = '{self.database}' AND table_name = '{table}' AND column_name = 'v'"
        )
        # MariaDB shows a width of integers that MySQL does not have any more.
        return re.sub(r"^bigint\(\d+\)", "bigint", f"{rows[0][0]} {rows[0][1]}".strip())

    def expected_type(self, kind: str) -> str:
        name, bounds = _base(kind)
        text = "longtext utf8mb4_bin"
        names = {
            "integer": "bigint",
            "numeric": "decimal",
            "float": "double",
            "boolean": "tinyint(1)",
            "date": "date",
            "timestamp": "datetime(6)",
            "json": "json" if self.server.is_mysql else text,
            "binary": text,
            "text": text,
        }
        if name == "numeric":
            precision, scale = map(int, re.findall(r"\d+", bounds) or (65, 30))
            bounds = bounds if precision <= 65 and scale <= 30 and bounds else "(65,30)"
        return names[name] + bounds

    def value(self, table: str) -> Any:
        return self._query(f"SELECT v FROM `{table}`")[0][0]

    def expected(self, kind: str, text: str | None) -> Any:
        if text is None:
            return None
        name = _base(kind)[0]
        if name == "numeric":
            return Number(text)
        if name == "float":
            return Double(text)
        if name == "boolean":
            return str(int(text == "true"))
        if name == "timestamp":
            whole, _, fraction = text.partition(".")
            return f"{whole}.{fraction:0<6}"
        if name == "json" and self.server.is_mysql:
            return Document(text)
        return text

    def dump(self, result: Published) -> list[tuple[Any, ...]]:
        return self._query(f"SELECT * FROM `{result.table}` ORDER BY `_rowid_`")

    def close(self) -> None:
        self._connection.close()

    @cached_property
    def _connection(self) -> pymysql.Connection[Any]:
        # Without converters every value comes as the server's own text.
        connection = self.server.connect(self.database, conv={}, charset="utf8mb4")
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+05:30'")
        return connection

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


class Number(str):
    """Text that equals every other text of the same number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and Decimal(self) == Decimal(str(other))

    __hash__ = None  # type: ignore[assignment]


class Double(str):
    """Text that equals every other text of the same double."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and float(self) == float(str(other))

    __hash__ = None  # type: ignore[assignment]


class Document(str):
    """Text that equals every other text of the same JSON document."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._value(self) == self._value(str(other))

    @staticmethod
    def _value(text: str) -> Any:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)

    __hash__ = None  # type: ignore[assignment]
