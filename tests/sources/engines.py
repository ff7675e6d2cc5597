"""What the conformance tests of sources must know of an engine: how to say in its SQL what they want to happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from jobber.config import DatabaseSettings
from jobber.sources import open_source
from jobber.sources.base import Source
from tests.clickhouse_server import ClickHouse
from tests.servers import MariaDB, Postgres

Rows = list[tuple[Any, ...]]

#: Parameters of the fixture ``engine``: those with sessions that an administrator sees and ends, and all.
SESSIONS = ["postgresql", "pgbouncer", "mysql"]
ALL = [*SESSIONS, "clickhouse"]


class Served(Protocol):
    """A server with a database of the test module's own, and the words for it."""

    #: Of SQLAlchemy's.
    name: str
    #: More of ``DatabaseSettings``.
    options: dict[str, Any]
    #: Takes at least a minute.
    sleeping: str
    #: Words of the server's.
    no_database: str
    no_such_column: str
    syntax: str
    #: Fails on the row of n = 5005, and how.
    breaking: str
    broken: str

    def url(self, database: str | None = None) -> str: ...

    def watch(self, sql: str) -> Rows:
        """Run SQL as an administrator in the database."""
        ...

    def rows(self, count: int, columns: str = "n") -> str:
        """Return a query of so many rows that come one by one; ``n`` counts from 1."""
        ...

    def text(self, length: int) -> str:
        """Return an expression of so many letters."""
        ...

    def running(self, marker: str) -> Sequence[object]:
        """Return what runs a query with that label."""
        ...


class Engine(Served, Protocol):
    """One whose connections an administrator sees."""

    #: The query's connection.
    session_id: str
    #: Where the server stops for a minute.
    sleep: str
    #: What runs a query and shows only how.
    analyze: str

    def running(self, marker: str) -> list[int]:
        """Return the connections that run a query with that label."""
        ...

    def cancel(self, connection: int) -> None:
        """End a query as an administrator does."""
        ...

    def kill(self, connection: int) -> None:
        """End a connection as an administrator does."""
        ...

    def connections(self) -> list[int]:
        """Return jobber's connections."""
        ...


@dataclass
class PostgresEngine:
    server: Postgres
    database: str
    options: dict[str, Any] = field(default_factory=dict)
    name = "postgresql"
    session_id = "pg_backend_pid()"
    sleep = "pg_sleep(60)"
    sleeping = f"SELECT {sleep}"
    no_database = 'database "nope" does not exist'
    no_such_column = 'column "nothing" does not exist'
    syntax = 'syntax error at or near "SELEC"'
    breaking = "1 / (5005 - n)"
    broken = "division by zero"
    analyze = "EXPLAIN (ANALYZE)"

    def url(self, database: str | None = None) -> str:
        return self.server.url(database or self.database)

    def watch(self, sql: str) -> Rows:
        with psycopg.connect(self.server.dsn(self.database), autocommit=True, application_name="watch") as connection:
            return connection.execute(sql).fetchall()  # type: ignore[arg-type]  # tests write their SQL as text

    def rows(self, count: int, columns: str = "n") -> str:
        # In FROM itself the function would put all of its rows aside first.
        return f"SELECT {columns} FROM (SELECT generate_series(1, {count}) AS n) q"

    def text(self, length: int) -> str:
        return f"repeat('x', {length})"

    def running(self, marker: str) -> list[int]:
        found = self.watch(f"SELECT pid FROM pg_stat_activity WHERE query LIKE '/* {marker}%' AND state = 'active'")
        return [pid for (pid,) in found]

    def cancel(self, connection: int) -> None:
        self.watch(f"SELECT pg_cancel_backend({connection})")

    def kill(self, connection: int) -> None:
        self.watch(f"SELECT pg_terminate_backend({connection}, 2000)")

    def connections(self) -> list[int]:
        return [pid for (pid,) in self.watch("SELECT pid FROM pg_stat_activity WHERE application_name = 'jobber'")]


@dataclass
class MysqlEngine:
    server: MariaDB
    database: str
    options: dict[str, Any] = field(default_factory=dict)
    name = "mysql"
    session_id = "connection_id()"
    sleep = "sleep(60)"
    sleeping = f"SELECT {sleep}"
    no_database = "there is no such database"
    no_such_column = "Unknown column 'nothing'"
    syntax = "You have an error in your SQL syntax.*SELEC 1"
    breaking = "9223372036854775807 + (n = 5005)"
    broken = "BIGINT value is out of range"

    def __post_init__(self) -> None:
        digits = " UNION ALL SELECT ".join(map(str, range(1, 10)))
        self.server.execute(
            f"CREATE TABLE digits (d INT PRIMARY KEY) AS SELECT 0 AS d UNION ALL SELECT {digits}", self.database
        )
        self.server.execute(
            "CREATE TABLE numbers (n INT PRIMARY KEY) "
            "AS SELECT a.d + 10 * b.d + 100 * c.d AS n FROM digits a, digits b, digits c",
            self.database,
        )

    @property
    def analyze(self) -> str:
        return "EXPLAIN ANALYZE" if self.server.is_mysql else "ANALYZE"

    def url(self, database: str | None = None) -> str:
        return self.server.url(database or self.database)

    def watch(self, sql: str) -> Rows:
        return self.server.execute(sql, self.database)

    def rows(self, count: int, columns: str = "n") -> str:
        # The server makes a row only when the one before it is sent: it merges the inner query into the outer one.
        inner = "SELECT a.n * 1000 + b.n + 1 AS n FROM numbers a STRAIGHT_JOIN numbers b"
        if count > 10**6:
            inner = "SELECT 1000000000000 + a.n AS n FROM numbers a, numbers b, numbers c, numbers d"
        return f"SELECT {columns} FROM ({inner}) q LIMIT {count}"

    def text(self, length: int) -> str:
        return f"repeat('x', {length})"

    def running(self, marker: str) -> list[int]:
        found = self.watch(
            f"SELECT id FROM information_schema.processlist WHERE info LIKE '/* {marker}%' AND command <> 'Sleep'"
        )
        return [number for (number,) in found]

    def cancel(self, connection: int) -> None:
        self.watch(f"KILL QUERY {connection}")

    def kill(self, connection: int) -> None:
        self.watch(f"KILL {connection}")

    def connections(self) -> list[int]:
        found = self.watch(
            f"SELECT id FROM information_schema.processlist WHERE db = '{self.database}' AND id <> connection_id()"
        )
        return [number for (number,) in found]


@dataclass
class ClickhouseEngine:
    server: ClickHouse
    database: str
    options: dict[str, Any] = field(default_factory=dict)
    name = "clickhouse"
    # A sleep is per block, and the server looks for a cancel between blocks.
    sleeping = "SELECT count() FROM (SELECT sleep(0.05) AS s FROM system.numbers) WHERE s = 1"
    no_database = "does(n't| not) exist"
    no_such_column = "Unknown (expression )?identifier.*nothing"
    syntax = "Syntax error"
    breaking = "intDiv(1, 5005 - n)"
    broken = "Division by zero"

    def url(self, database: str | None = None) -> str:
        return self.server.url(database or self.database)

    def watch(self, sql: str) -> Rows:
        return self.server.execute(sql, self.database)

    def rows(self, count: int, columns: str = "n") -> str:
        return f"SELECT {columns} FROM (SELECT toInt64(number + 1) AS n FROM system.numbers LIMIT {count})"

    def text(self, length: int) -> str:
        return f"arrayStringConcat(arrayResize(['x'], {length}, 'x'))"

    def running(self, marker: str) -> list[str]:
        found = self.watch(f"SELECT query_id FROM system.processes WHERE query LIKE '/* {marker}%'")
        return [query for (query,) in found]


def opened(engine: Served, **options: Any) -> Source:
    """Return a source on the engine's database."""
    settings = {"name": "reports", "url": engine.url(), "engine": engine.name, **engine.options, **options}
    return open_source(DatabaseSettings(**settings))
