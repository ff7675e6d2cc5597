"""Small results on PostgreSQL have no TOAST table, and every row that is stored without one has room."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

import pytest
from psycopg.sql import Identifier

from jobber.columns import Column, Kind, Row
from jobber.results import postgresql_plain
from jobber.results.copytext import CopyText
from jobber.results.postgresql import PostgresResults
from jobber.results.postgresql_plain import Templates, fits
from tests.results.conftest import COLUMNS, ONE, PostgresLab, postgres_lab, read, settings_for, target, write
from tests.servers import Postgres

#: PostgreSQL compresses or moves out values of tuples that are longer.
THRESHOLD = 2032


def publish(
    pg: PostgresLab, numbers: Sequence[int], rows: list[Row], columns: Sequence[Column] = COLUMNS
) -> list[bool]:
    """Publish the same result under several names, and say which of them has a TOAST table."""
    found = []
    for number in numbers:
        write(pg.backend, target(f"results_{number}", job_id=str(number)), rows, columns)
        [(toasted,)] = pg.query(f"SELECT reltoastrelid <> 0 FROM pg_class WHERE oid = 'results_{number}'::regclass")
        found.append(toasted)
        assert read(pg.backend, columns=columns, table=f"results_{number}") == rows
    return found


@pytest.mark.parametrize("unlogged", [False, True])
def test_results_of_columns_that_come_again_and_again_have_no_toast_table(postgres: Postgres, unlogged: bool) -> None:
    with contextmanager(postgres_lab)(postgres, unlogged=unlogged) as pg:
        assert publish(pg, range(5), ONE) == [True, True, False, False, False]
        assert publish(pg, range(5, 7), [(1, "x" * 3000)]) == [True, True]
        assert publish(pg, [7], []) == [False]
        kinds = pg.query(
            "SELECT DISTINCT relpersistence FROM pg_class "
            "WHERE relname LIKE 'results\\_%' AND relnamespace = current_schema()::regnamespace"
        )
        assert kinds == [("u" if unlogged else "p",)]


def test_an_owner_may_give_such_a_table_wider_columns(pg: PostgresLab) -> None:
    assert publish(pg, range(3), ONE)[-1] is False
    pg.query("CREATE INDEX ON results_2 (name); UPDATE results_2 SET name = repeat('x', 2500)")
    pg.query("ALTER TABLE results_2 ADD COLUMN more text; UPDATE results_2 SET more = repeat('x', 100000)")
    pg.query("ALTER TABLE results_2 ALTER name SET STORAGE EXTENDED; UPDATE results_2 SET name = repeat('x', 100000)")
    assert pg.query("SELECT length(name), length(more) FROM results_2") == [(100000, 100000)]


WIDE: dict[str, tuple[Column, ...]] = {
    "text": COLUMNS,
    "json": (Column("j", Kind.JSON),),
    "numeric": (Column("n", Kind.NUMERIC), Column("f", Kind.FLOAT)),
    "many": tuple(Column(f"c{n}", kind) for n, kind in enumerate([Kind.TEXT, Kind.INTEGER, Kind.TIMESTAMP] * 20)),
}


def widest(columns: Sequence[Column]) -> list[Row]:
    """Return rows of which each is as wide as a table without TOAST gets them."""
    rows: list[Row] = []
    for part in ("[1,1]", "[[],[]]", '["",""]', "[[1],[1]]", '{"a":1,"b":[]}') if columns[0].kind is Kind.JSON else "x":
        size = 0
        row: Row = ()
        while True:
            size += 1
            values: dict[Kind, int | float | str] = {
                Kind.TEXT: "x" * size,
                Kind.JSON: f"[{','.join([part] * size)}]",
                Kind.NUMERIC: "9" * size,
                Kind.FLOAT: 1.5,
                Kind.INTEGER: 1,
                Kind.TIMESTAMP: "2024-01-01 00:00:00",
            }
            wider = tuple(values[column.kind] for column in columns)
            if not fits(columns, [CopyText(columns).encode([wider])]):
                break
            row = wider
        assert row
        rows.append(row)
    return rows


@pytest.mark.parametrize("kind", WIDE)
def test_the_widest_rows_without_toast_are_stored_as_they_are(pg: PostgresLab, kind: str) -> None:
    columns = WIDE[kind]
    rows = widest(columns)
    for number in range(3):
        write(pg.backend, target(f"results_{number}", job_id=str(number)), rows, columns)
    [(toasted, widest_row)] = pg.query(
        "SELECT (SELECT reltoastrelid <> 0 FROM pg_class WHERE oid = 'results_2'::regclass), "
        "max(pg_column_size(r.*)) FROM results_2 AS r"
    )
    assert toasted is False
    assert widest_row <= THRESHOLD


def test_templates_hold_back_nothing_that_vacuum_may_freeze_and_are_bounded(
    pg: PostgresLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_plain, "_MOST", 4)
    backend = pg.another(pool_size=1)
    for number in range(20):
        columns = (Column(f"c{number}", Kind.TEXT),)
        for run in range(3 if number < 3 or number > 10 else 1):
            write(backend, target(f"r{number}_{run}", job_id=f"{number}.{run}"), [("x",)], columns)
    with backend.connections.connection() as connection:
        found = connection.execute(
            "SELECT relkind, relfrozenxid::text, relfilenode::int FROM pg_class "
            "WHERE relnamespace = pg_my_temp_schema() AND relname LIKE 'jobber%'"
        ).fetchall()
    assert found == [("p", "0", 0)] * 4


def test_a_template_that_is_gone_costs_no_result(pg: PostgresLab) -> None:
    """A pooler that lends another session, or one that resets it."""
    backend = pg.another(pool_size=1)
    for number in range(6):
        if number == 4:
            with backend.connections.connection() as connection:
                connection.execute("DISCARD TEMP")
        write(backend, target(f"results_{number}", job_id=str(number)), ONE)
        assert read(backend, table=f"results_{number}") == ONE


def test_a_session_that_never_had_a_temporary_table_costs_no_result(
    pg: PostgresLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([Identifier("pg_temp", "jobber_plain_lost"), None])
    monkeypatch.setattr(Templates, "find", lambda *_: next(found))
    write(pg.backend, target("results_1"), ONE)
    assert read(pg.backend, table="results_1") == ONE
    assert next(found, "asked twice") == "asked twice"


def test_an_account_without_the_right_to_temporary_tables_publishes_with_toast(postgres: Postgres) -> None:
    name = postgres.new_database()
    postgres.execute("CREATE ROLE untemporary LOGIN")
    postgres.execute(
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; GRANT CREATE ON SCHEMA public TO untemporary", name
    )
    backend = PostgresResults(settings_for(postgres, name, "untemporary"))
    for number in range(5):
        write(backend, target(f"results_{number}", job_id=str(number)), ONE)
        assert read(backend, table=f"results_{number}") == ONE
    backend.close()
    postgres.drop_database(name)


def test_columns_of_bounded_length_need_no_template(pg: PostgresLab) -> None:
    columns = (Column("id", Kind.INTEGER), Column("amount", Kind.NUMERIC, 12, 2))
    assert publish(pg, range(1), [(1, "1.50")], columns) == [False]
