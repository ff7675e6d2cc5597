"""Random tables through all nine pairs of engines, on the encoded and on the decoded path: the same rows, or a failure
that names a column and a value that cannot be held."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.errors import ValueNotRepresentable
from jobber.sources.base import Shape, Source
from tests.servers import MariaDB, Postgres
from tests.types.labs import Lab, Published, Shaped, publish
from tests.types.random_tables import Table, fits, same, tables

Fill = Callable[[Table], None]


def _columns(table: Table) -> str:
    return ", ".join(["id BIGINT", *(f"c{n} {kind.declared}" for n, kind in enumerate(table.types))])


def _rows(table: Table) -> list[list[Any]]:
    """Return what drivers insert; the first column says where a row stands."""
    rows = [row for row in table.rows for _ in range(table.repeat)]
    return [
        [n, *(None if text is None else kind.bound(text) for kind, text in zip(table.types, row, strict=True))]
        for n, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def fill(postgres: Postgres, pg_database: str, mariadb: MariaDB, my_database: str, lite_file: Path) -> dict[str, Fill]:
    """Make a table called ``random`` on each source."""

    def postgresql(table: Table) -> None:
        with psycopg.connect(postgres.dsn(pg_database)) as connection:
            connection.execute("SET TimeZone = 'UTC'; DROP TABLE IF EXISTS random")
            connection.execute(f"CREATE TABLE random ({_columns(table)})")  # type: ignore[arg-type]
            kinds = ", ".join(["%s::bigint", *(f"%s::{kind.declared}" for kind in table.types)])
            connection.cursor().executemany(f"INSERT INTO random VALUES ({kinds})", _rows(table))  # type: ignore[arg-type]

    def mysql(table: Table) -> None:
        with mariadb.connect(my_database, charset="utf8mb4") as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_mode = '', time_zone = '+00:00', autocommit = 0")
            cursor.execute("DROP TABLE IF EXISTS random")
            cursor.execute(f"CREATE TABLE random ({_columns(table)}) CHARACTER SET utf8mb4")
            places = ", ".join(["%s"] * (len(table.types) + 1))
            cursor.executemany(f"INSERT INTO random VALUES ({places})", _rows(table))
            connection.commit()

    def sqlite(table: Table) -> None:
        with closing(sqlite3.connect(lite_file)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("DROP TABLE IF EXISTS random")
            connection.execute(f"CREATE TABLE random ({_columns(table)})")
            places = ", ".join(["?"] * (len(table.types) + 1))
            connection.executemany(f"INSERT INTO random VALUES ({places})", _rows(table))
            connection.commit()

    return {"postgresql": postgresql, "mysql": mysql, "sqlite": sqlite}


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "sqlite"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_random_table_arrives_as_it_is_or_not_at_all(
    engine: str, data: st.DataObject, sources: dict[str, Source], labs: dict[str, Lab], fill: dict[str, Fill]
) -> None:
    table = data.draw(tables(engine))
    fill[engine](table)
    for target, lab in labs.items():
        dumps = []
        for shape in Shape:
            result = check(table, Shaped(sources[engine], shape), lab, target)
            dumps.append(lab.dump(result) if result else None)
        encoded, decoded, copied = dumps
        assert encoded == decoded == copied


def check(table: Table, source: Shaped, lab: Lab, target: str) -> Published | None:
    """Return the result, None where the job failed as it must."""
    sql = "SELECT * FROM random ORDER BY id DESC"
    misfits = {
        f"c{n}"
        for row in table.rows
        for n, (kind, text) in enumerate(zip(table.types, row, strict=True))
        if text is not None and not fits(target, kind.kind, text)
    }
    if misfits:
        with pytest.raises(ValueNotRepresentable) as failed:
            publish(source, lab.backend, sql)
        assert failed.value.details["column"] in misfits
        assert f'column "{failed.value.details["column"]}"' in str(failed.value)
        return None
    result = publish(source, lab.backend, sql)
    expected = [(n, row) for n, row in enumerate(row for row in table.rows for _ in range(table.repeat))][::-1]
    assert result.rows == len(expected)
    assert not table.rows or [column.kind for column in result.columns[1:]] == [kind.kind for kind in table.types]
    found = lab.backend.rows(result.table, result.run, result.columns, offset=0, limit=len(expected) + 1)
    assert len(found) == len(expected)
    for (n, row), (number, *values) in zip(expected, found, strict=True):
        assert number == n
        for kind, text, value in zip(table.types, row, values, strict=True):
            assert same(kind.kind, text, value), (kind, text, value)
    return result
