"""Every scalar type, from each source into each results database, on the encoded and on the decoded path.

Each value travels alone, so that one which must fail fails alone.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jobber.errors import ValueNotRepresentable
from jobber.sources.base import Shape, Source
from tests.servers import MariaDB, Postgres
from tests.types.cases import FAILS, MARIADB, NEVER_SEEN, POSTGRESQL, SQLITE, Case
from tests.types.conftest import ENGINES
from tests.types.labs import Lab, Shaped, publish

each_lab = pytest.mark.parametrize("engine", ENGINES)
#: SQLite takes decoded rows only.
each_path = pytest.mark.parametrize(
    ("shape", "engine"),
    [
        (shape, engine)
        for engine in ENGINES
        for shape in (Shape.ENCODED, Shape.DECODED)
        if (shape, engine) != (Shape.ENCODED, "sqlite")
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Shape) else value,
)


@pytest.fixture(scope="module")
def from_postgresql(postgres: Postgres, pg_database: str, sources: dict[str, Source]) -> Source:
    postgres.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')", pg_database)
    postgres.execute("CREATE TYPE pair AS (a int, b text)", pg_database)
    postgres.execute("CREATE DOMAIN positive AS bigint CHECK (VALUE > 0)", pg_database)
    return sources["postgresql"]


@pytest.fixture(scope="module")
def from_sqlite(lite_file: Path, sources: dict[str, Source]) -> Source:
    with closing(sqlite3.connect(lite_file)) as lite:
        lite.execute(
            "CREATE TABLE declared (flag BOOLEAN, day DATE, moment TIMESTAMP, price DECIMAL(10,2), document JSON)"
        )
        lite.execute("INSERT INTO declared VALUES (1, '2024-02-29', '2024-02-29T12:00:00.5+02:00', 12.50, '{\"a\":1}')")
        lite.commit()
    return sources["sqlite"]


@pytest.fixture(scope="module")
def from_mariadb(mariadb: MariaDB, my_database: str, sources: dict[str, Source]) -> Source:
    """One table with a column for each case."""
    cases = [(f"c{n}", case) for n, case in enumerate(MARIADB) if not (case.mariadb_only and mariadb.is_mysql)]
    with mariadb.connect(my_database, charset="utf8mb4") as connection, connection.cursor() as cursor:
        # What a strict server refuses today lies in the tables of yesterday.
        cursor.execute("SET sql_mode = '', time_zone = '+05:30'")
        columns = ", ".join(f"{name} {case.type}" for name, case in cases)
        cursor.execute(f"CREATE TABLE everything ({columns}) CHARACTER SET utf8mb4")
        values = ", ".join(f"{name} = {case.sql}" for name, case in cases)
        cursor.execute("SET SESSION explicit_defaults_for_timestamp = ON")
        cursor.execute(f"INSERT INTO everything SET {values}")
    return sources["mysql"]


def check(source: Source, shape: Shape, lab: Lab, engine: str, sql: str, case: Case) -> None:
    held = case.held(engine)
    if held is FAILS:
        with pytest.raises(ValueNotRepresentable) as failed:
            publish(Shaped(source, shape), lab.backend, sql)
        words = str(failed.value)
        assert failed.value.details["column"] == "v"
        assert 'column "v"' in words
        assert (case.shown or str(case.text))[:30].lower() in words.lower(), words
        return
    shaped = Shaped(source, shape)
    result = publish(shaped, lab.backend, sql)
    assert shaped.gave is shape
    assert result.rows == 1
    assert lab.column_type(result.table) == lab.expected_type(case.kind)
    assert lab.expected(case.kind, held) == lab.value(result.table)
    column = result.columns[0]
    bounds = "" if column.precision is None else f"({column.precision},{column.scale})"
    # A scale below zero, or beyond the precision, is told as what holds the same values.
    assert (
        column.kind.value + bounds == case.kind
        or (column.scale or 0) < 0
        or (column.scale or 0) > (column.precision or 0)
    )


@each_path
@pytest.mark.parametrize("case", POSTGRESQL, ids=str)
def test_postgresql(case: Case, shape: Shape, engine: str, from_postgresql: Source, labs: dict[str, Lab]) -> None:
    check(from_postgresql, shape, labs[engine], engine, f"SELECT {case.sql} AS v", case)


@each_lab
@pytest.mark.parametrize("case", SQLITE, ids=str)
def test_sqlite(case: Case, engine: str, from_sqlite: Source, labs: dict[str, Lab]) -> None:
    check(from_sqlite, Shape.DECODED, labs[engine], engine, f"SELECT {case.sql} AS v", case)


@each_path
@pytest.mark.parametrize("number", range(len(MARIADB)), ids=lambda number: str(MARIADB[number]))
def test_mariadb(
    number: int, shape: Shape, engine: str, from_mariadb: Source, labs: dict[str, Lab], mariadb: MariaDB
) -> None:
    case = MARIADB[number]
    if case.mariadb_only and mariadb.is_mysql:
        pytest.skip("a type of MariaDB's")
    check(from_mariadb, shape, labs[engine], engine, f"SELECT c{number} AS v FROM everything", case)


def test_no_type_of_postgresql_is_forgotten(postgres: Postgres, pg_database: str, from_postgresql: Source) -> None:
    with psycopg.connect(postgres.dsn(pg_database)) as connection:
        known = connection.execute(
            "SELECT typname FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace "
            "AND typtype IN ('b', 'r', 'm') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)"
        ).fetchall()
        seen = {
            row[0]
            for case in POSTGRESQL
            for row in connection.execute(
                f"SELECT typname FROM pg_type WHERE oid = pg_typeof({case.sql})"  # type: ignore[arg-type]
            ).fetchall()
        }
    assert {name for (name,) in known} - seen == NEVER_SEEN
