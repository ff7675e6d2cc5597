"""When a query begins to read: the age of a result counts from there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jobber.cancellation import Cancellation
from jobber.sources.base import Shape, Source
from tests.sources.engines import Engine
from tests.sources.reading import drain, query


def count(source: Source, sql: str, accepts: frozenset[Shape], begins: Callable[[], None]) -> int:
    asked = replace(query(source, sql), begins=begins)
    return drain(source.read(asked, accepts, timeout=30, cancellation=Cancellation()))


def test_a_query_reads_what_was_there_when_it_says_that_it_begins(
    engine: Engine, source: Source, accepts: frozenset[Shape]
) -> None:
    name = f"log_{len(accepts)}"
    _run(engine, f"CREATE TABLE {name} (i INT)")
    begun: list[str] = []

    def begins() -> None:
        begun.append(name)
        _run(engine, f"INSERT INTO {name} VALUES (1)")

    # A snapshot that was taken earlier would lack the row that is inserted at that moment.
    assert count(source, f"SELECT i FROM {name}", accepts, begins) == 1
    assert count(source, f"SELECT i FROM {name}", accepts, begins) == 2
    assert begun == [name, name]


def _run(engine: Engine, sql: str) -> None:
    engine.server.execute(sql, engine.database)  # type: ignore[attr-defined]


def test_a_sqlite_file_is_read_as_it_is_when_the_query_says_that_it_begins(
    sqlite: Callable[..., Source], sqlite_file: Path
) -> None:
    source = sqlite("CREATE TABLE log (i INT)")

    def begins() -> None:
        with sqlite3.connect(sqlite_file) as connection:
            connection.execute("INSERT INTO log VALUES (1)")
        connection.close()

    assert count(source, "SELECT i FROM log", frozenset({Shape.DECODED}), begins) == 1
