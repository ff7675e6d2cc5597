"""Every scalar type, from a source through an attempt into a table: what docs/type-mapping.md promises.

Each value travels alone, so that one which must fail fails alone. PostgreSQL feeds PostgreSQL twice, encoded and
decoded, and both must give the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobber.config import DatabaseSettings, ResultsSettings
from jobber.errors import ValueNotRepresentable
from jobber.results.postgresql import PostgresResults
from jobber.results.sqlite import SqliteResults
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sqltext import parse
from jobber.tasks import Task
from tests.servers import Postgres
from tests.test_execution import job, run

FAILS = object()


@dataclass(frozen=True)
class Case:
    """A value in SQL, and what stands for it in each results database, there as text.

    Parameters:
        lite: in SQLite, where it differs from ``text``; FAILS if the job must fail.
    """

    sql: str
    type: str
    text: Any
    lite_type: str
    lite: Any = None


POSTGRESQL = [
    Case("32767::smallint", "bigint", "32767", "BIGINT", 32767),
    Case("(-2147483648)::integer", "bigint", "-2147483648", "BIGINT", -2147483648),
    Case("(-9223372036854775808)::bigint", "bigint", "-9223372036854775808", "BIGINT", -(2**63)),
    Case("4294967295::oid", "bigint", "4294967295", "BIGINT", 4294967295),
    Case("1.50::numeric(10,2)", "numeric(10,2)", "1.50", "DECIMAL_TEXT(10,2)"),
    Case(
        "12345678901234567890.1234567890123456789::numeric",
        "numeric",
        "12345678901234567890.1234567890123456789",
        "DECIMAL_TEXT",
    ),
    Case("'NaN'::numeric", "numeric", "NaN", "DECIMAL_TEXT"),
    Case("'-Infinity'::numeric", "numeric", "-Infinity", "DECIMAL_TEXT"),
    Case("0.1::real", "numeric", "0.1", "REAL", 0.1),
    Case("0.1::float8 + 0.2::float8", "numeric", "0.30000000000000004", "REAL", 0.30000000000000004),
    Case("1.7976931348623157e308::float8", "numeric", "17976931348623157" + "0" * 292, "REAL", 1.7976931348623157e308),
    Case("'NaN'::float8", "numeric", "NaN", "REAL", FAILS),
    Case("'Infinity'::float8", "numeric", "Infinity", "REAL", float("inf")),
    Case("true", "boolean", "true", "BOOLEAN", 1),
    Case("false", "boolean", "false", "BOOLEAN", 0),
    Case("date '2024-02-29'", "date", "2024-02-29", "DATE"),
    Case("date '9999-12-31'", "date", "9999-12-31", "DATE"),
    Case("date '0044-03-15 BC'", "date", "0044-03-15 BC", "DATE", FAILS),
    Case("date '12345-01-01'", "date", "12345-01-01", "DATE", FAILS),
    Case("date 'infinity'", "date", "infinity", "DATE", FAILS),
    Case(
        "timestamp '2024-02-29 23:59:59.123456'",
        "timestamp without time zone",
        "2024-02-29 23:59:59.123456",
        "TIMESTAMP",
    ),
    Case(
        "timestamp '0001-01-01 00:00:00.5 BC'",
        "timestamp without time zone",
        "0001-01-01 00:00:00.5 BC",
        "TIMESTAMP",
        FAILS,
    ),
    Case("timestamp '-infinity'", "timestamp without time zone", "-infinity", "TIMESTAMP", FAILS),
    Case("timestamptz '2024-07-01 12:00:00+05:30'", "timestamp without time zone", "2024-07-01 06:30:00", "TIMESTAMP"),
    Case(
        "timestamptz '0044-03-15 12:00:00+00 BC'",
        "timestamp without time zone",
        "0044-03-15 12:00:00 BC",
        "TIMESTAMP",
        FAILS,
    ),
    Case("time '23:59:59.999999'", "text", "23:59:59.999999", "TEXT"),
    Case("timetz '12:00:00+02'", "text", "12:00:00+02", "TEXT"),
    Case("interval '1 year 2 mons 3 days 04:05:06'", "text", "1 year 2 mons 3 days 04:05:06", "TEXT"),
    Case("""'{"a": [1, 2.50, "x\\ty"]}'::jsonb""", "jsonb", '{"a": [1, 2.50, "x\\ty"]}', "JSON_TEXT"),
    Case("'[1,  2]'::json", "jsonb", "[1, 2]", "JSON_TEXT", "[1,  2]"),
    Case("'\\x00ff5c'::bytea", "text", "\\x00ff5c", "TEXT"),
    Case("''::bytea", "text", "\\x", "TEXT"),
    Case("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "text", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "TEXT"),
    Case("'192.168.0.1/24'::inet", "text", "192.168.0.1/24", "TEXT"),
    Case("'10.0.0.0/8'::cidr", "text", "10.0.0.0/8", "TEXT"),
    Case("'08:00:2b:01:02:03'::macaddr", "text", "08:00:2b:01:02:03", "TEXT"),
    Case("B'10110'", "text", "10110", "TEXT"),
    Case("B'101'::varbit(8)", "text", "101", "TEXT"),
    Case("'{1,NULL,3}'::int[]", "text", "{1,NULL,3}", "TEXT"),
    Case("ARRAY['a,b', 'c\"d', E'back\\\\slash']", "text", '{"a,b","c\\"d","back\\\\slash"}', "TEXT"),
    Case("int4range(1, 10)", "text", "[1,10)", "TEXT"),
    Case("tstzrange('2024-01-01 00:00+01', NULL)", "text", '["2023-12-31 23:00:00+00",)', "TEXT"),
    Case("'{[1,3),[5,7)}'::int4multirange", "text", "{[1,3),[5,7)}", "TEXT"),
    Case("(ROW(1, 'a b')::pair)", "text", '(1,"a b")', "TEXT"),
    Case("'sad'::mood", "text", "sad", "TEXT"),
    Case("7::positive", "bigint", "7", "BIGINT", 7),
    Case("'$1,234.50'::money", "text", "$1,234.50", "TEXT"),
    Case("point '(1.5,-2)'", "text", "(1.5,-2)", "TEXT"),
    Case("'fat & rat'::tsquery", "text", "'fat' & 'rat'", "TEXT"),
    Case("'16/B374D848'::pg_lsn", "text", "16/B374D848", "TEXT"),
    Case("'x'::\"char\"", "text", "x", "TEXT"),
    Case("'abc'::char(5)", "text", "abc  ", "TEXT"),
    Case("'pg_class'::name", "text", "pg_class", "TEXT"),
    Case("''", "text", "", "TEXT"),
    Case("'\\N'", "text", "\\N", "TEXT"),
    Case("'NULL'", "text", "NULL", "TEXT"),
    Case("E'tab\\there\\nline\\r\\\\ back \\\\. end'", "text", "tab\there\nline\r\\ back \\. end", "TEXT"),
    Case("'ünïcode 😀 \u200b'", "text", "ünïcode 😀 \u200b", "TEXT"),
    Case("repeat('ü0123456789', 1000000)", "text", "ü0123456789" * 1_000_000, "TEXT"),
    Case("NULL::numeric", "numeric", None, "DECIMAL_TEXT"),
    Case("NULL::date", "date", None, "DATE"),
    Case("NULL", "text", None, "TEXT"),
]

SQLITE = [
    Case("9223372036854775807", "bigint", "9223372036854775807", "BIGINT", 2**63 - 1),
    Case("1.5", "numeric", "1.5", "REAL", 1.5),
    Case("9e999", "numeric", "Infinity", "REAL", float("inf")),
    Case("'text'", "text", "text", "TEXT"),
    Case("'ünïcode 😀'", "text", "ünïcode 😀", "TEXT"),
    Case("x'00ff'", "text", "\\x00ff", "TEXT"),
    Case("NULL", "text", None, "TEXT"),
    Case("(SELECT flag FROM declared)", "boolean", "true", "BOOLEAN", 1),
    Case("(SELECT day FROM declared)", "date", "2024-02-29", "DATE"),
    Case("(SELECT moment FROM declared)", "timestamp without time zone", "2024-02-29 10:00:00.5", "TIMESTAMP"),
    Case("(SELECT price FROM declared)", "numeric(10,2)", "12.50", "DECIMAL_TEXT(10,2)", "12.5"),
    Case("(SELECT document FROM declared)", "jsonb", '{"a": 1}', "JSON_TEXT", '{"a":1}'),
]


class Decoding:
    """A source that is asked for decoded rows, whatever the backend takes."""

    def __init__(self, source: Source) -> None:
        self.engine, self.name = source.engine, source.name
        self._source = source

    def read(self, query: Any, accepts: frozenset[Shape], **more: Any) -> Any:
        assert Shape.DECODED in accepts
        return self._source.read(query, frozenset({Shape.DECODED}), **more)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    name = postgres.new_database()
    postgres.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')", name)
    postgres.execute("CREATE TYPE pair AS (a int, b text)", name)
    postgres.execute("CREATE DOMAIN positive AS bigint CHECK (VALUE > 0)", name)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def sources(postgres: Postgres, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Source]]:
    path = tmp_path_factory.mktemp("source") / "source.db"
    with closing(sqlite3.connect(path)) as lite:
        lite.execute(
            "CREATE TABLE declared (flag BOOLEAN, day DATE, moment TIMESTAMP, price DECIMAL(10,2), document JSON)"
        )
        lite.execute("INSERT INTO declared VALUES (1, '2024-02-29', '2024-02-29T12:00:00.5+02:00', 12.50, '{\"a\":1}')")
        lite.commit()
    opened = {
        "postgresql": open_source(DatabaseSettings(name="src", url=postgres.url(database), engine="postgresql")),
        "sqlite": open_source(DatabaseSettings(name="src", url=f"sqlite:///{path}", engine="sqlite")),
    }
    yield opened
    for source in opened.values():
        source.close()


@pytest.fixture(scope="module")
def pg_results(postgres: Postgres, database: str) -> Iterator[PostgresResults]:
    backend = PostgresResults(ResultsSettings(name="out", url=postgres.url(database), engine="postgresql"))
    backend.prepare()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def lite_results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteResults]:
    folder = tmp_path_factory.mktemp("results")
    backend = SqliteResults(ResultsSettings(name="out", url=f"sqlite:///{folder}", engine="sqlite"))
    backend.prepare()
    yield backend
    backend.close()


RUNS = iter(range(1, 100_000))


def publish(source: Any, backend: Any, sql: str) -> str:
    """Run a query into ``backend`` and return the table's name."""
    text = f"SELECT {sql} AS v"
    task = Task(
        name="task",
        description="",
        sql=text,
        version="",
        file=Path("task.sql"),
        line=1,
        statements={source.engine: parse(text, source.engine)},
        databases=("src",),
        results=("out",),
    )
    attempt = replace(job(backend), run=next(RUNS))
    assert run(attempt, task, source, backend).rows == 1
    return attempt.table


def on_postgresql(postgres: Postgres, database: str, table: str) -> tuple[str, str | None]:
    """Return type and value of the only column, as PostgreSQL itself writes them."""
    with psycopg.connect(postgres.dsn(database)) as connection:
        connection.execute("SET timezone = 'Asia/Kolkata'")  # a result has no zone, so nobody's zone can shift it
        row = connection.execute(
            "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
            "WHERE a.attrelid = %s::regclass AND a.attnum > 0",
            [f'"{table}"'],
        ).fetchone()
        value = connection.execute(f'SELECT v::text FROM "{table}"').fetchone()
        assert row
        assert value
        return row[0], value[0]


def in_sqlite(backend: SqliteResults, table: str) -> tuple[str, Any]:
    """Return declared type and value of the only column."""
    with closing(sqlite3.connect(backend.file(table))) as connection:
        (declared,) = [row[2] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        (row,) = connection.execute(f'SELECT v FROM "{table}"').fetchall()
        return declared, row[0]


def name_of(case: Case) -> str:
    return case.sql[:50]


@pytest.mark.parametrize("shape", ["encoded", "decoded"])
@pytest.mark.parametrize("case", POSTGRESQL, ids=name_of)
def test_postgresql_to_postgresql(
    case: Case, shape: str, sources: dict[str, Source], pg_results: PostgresResults, postgres: Postgres, database: str
) -> None:
    source: Any = sources["postgresql"] if shape == "encoded" else Decoding(sources["postgresql"])

    table = publish(source, pg_results, case.sql)

    assert on_postgresql(postgres, database, table) == (case.type, case.text)


@pytest.mark.parametrize("case", POSTGRESQL, ids=name_of)
def test_postgresql_to_sqlite(case: Case, sources: dict[str, Source], lite_results: SqliteResults) -> None:
    if case.lite is FAILS:
        with pytest.raises(ValueNotRepresentable, match=r'column "?v"?'):
            publish(sources["postgresql"], lite_results, case.sql)
        return

    table = publish(sources["postgresql"], lite_results, case.sql)

    assert in_sqlite(lite_results, table) == (case.lite_type, case.text if case.lite is None else case.lite)


@pytest.mark.parametrize("case", SQLITE, ids=name_of)
def test_sqlite_to_postgresql(
    case: Case, sources: dict[str, Source], pg_results: PostgresResults, postgres: Postgres, database: str
) -> None:
    table = publish(sources["sqlite"], pg_results, case.sql)

    assert on_postgresql(postgres, database, table) == (case.type, case.text)


@pytest.mark.parametrize("case", SQLITE, ids=name_of)
def test_sqlite_to_sqlite(case: Case, sources: dict[str, Source], lite_results: SqliteResults) -> None:
    table = publish(sources["sqlite"], lite_results, case.sql)

    assert in_sqlite(lite_results, table) == (case.lite_type, case.text if case.lite is None else case.lite)
