"""Tasks are prepared on every database at start; a database that is down is nobody's fault."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobber.columns import Column, Kind
from jobber.config import embedded
from jobber.errors import QueryFailed, SourceUnavailable
from jobber.sources.base import Query
from jobber.sqltext import Statement
from jobber.tasks import TaskSet, load, prepare
from tests.tasks.conftest import Loading


class SQLiteFile:
    """A source as far as preparing needs one: SQLite itself says what is wrong."""

    engine = "sqlite"

    def __init__(self, path: Path, barrier: threading.Barrier | None = None) -> None:
        self.name = path.stem
        self.path = path
        self.asked = 0
        self.barrier = barrier

    def describe(self, statement: Statement) -> Sequence[Column] | None:
        self.asked += 1
        if self.barrier is not None:
            self.barrier.wait(10)
        if not self.path.exists():
            raise SourceUnavailable(f"{self.name} is not there")
        connection = sqlite3.connect(self.path)
        try:
            connection.execute("EXPLAIN " + statement.sql, [None] * statement.count)
        except sqlite3.OperationalError as exc:
            raise QueryFailed(str(exc)) from exc
        finally:
            connection.close()
        return [Column("user_id", Kind.INTEGER)] if "user_id" in statement.sql else None

    @contextmanager
    def read(self, query: Query, *_: object, **__: object) -> Iterator[None]:
        self.describe(query.statement)
        yield


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.databases: dict[str, Path] = {}

    def database(self, name: str, *, up: bool = True) -> None:
        self.databases[name] = self.folder / f"{name}.db"
        if up:
            connection = sqlite3.connect(self.databases[name])
            connection.execute("CREATE TABLE entries (user_id INTEGER)")
            connection.commit()
            connection.close()

    def tasks(self, text: str) -> TaskSet:
        (self.folder / "t.sql").write_text(text)
        urls = {name: f"sqlite:///{path}" for name, path in self.databases.items()}
        return load([self.folder], embedded(self.folder / "data", urls))

    def sources(self, barrier: threading.Barrier | None = None) -> Mapping[str, SQLiteFile]:
        return {name: SQLiteFile(path, barrier) for name, path in self.databases.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_task_is_prepared_on_every_database_that_it_may_run_on(world: World) -> None:
    world.database("a")
    world.database("b")
    tasks = world.tasks("-- name: both\nSELECT * FROM entries WHERE user_id = ?\n-- name: one\n-- db: b\nSELECT :x")
    sources = world.sources()
    preparation = prepare(tasks.values(), sources)
    assert (preparation.prepared, preparation.problems, preparation.unavailable) == (3, [], {})
    # Nobody asks b whether it is there: "both" gave its columns.
    assert (sources["a"].asked, sources["b"].asked) == (1, 2)


def test_a_refusal_names_file_line_task_and_database_and_the_rest_goes_on(world: World) -> None:
    world.database("a")
    world.database("b")
    tasks = world.tasks("\n-- name: bad\n-- db: b\nSELECT nope FROM entries\n-- name: good\nSELECT 1")
    preparation = prepare(tasks.values(), world.sources())
    [problem] = preparation.problems
    assert problem == f"{world.folder / 't.sql'}:2: task bad on database b: no such column: nope"
    assert preparation.prepared == 2


def test_an_index_on_a_column_that_the_query_does_not_give_is_a_problem(world: World) -> None:
    world.database("one")
    tasks = world.tasks(
        "-- name: a\n-- index: user_id\nSELECT user_id FROM entries\n\n"
        "-- name: b\n-- index: usr_id\nSELECT user_id FROM entries\n"
    )

    (problem,) = prepare(tasks.values(), world.sources()).problems

    assert "task b on database one" in problem
    assert 'the index tag names the column "usr_id", but the query gives user_id' in problem


def test_raw_tasks_are_not_prepared(world: World) -> None:
    world.database("a")
    preparation = prepare(world.tasks("-- name: x\n-- raw: 1\nSELECT nope FROM nothing").values(), world.sources())
    assert (preparation.prepared, preparation.problems) == (0, [])


def test_a_database_on_which_nothing_is_prepared_is_asked_whether_it_is_there(world: World) -> None:
    world.database("a")
    world.database("raw", up=False)
    world.database("unused", up=False)
    tasks = world.tasks("-- name: x\n-- db: a\nSELECT 1\n-- name: y\n-- db: raw\n-- raw: 1\nSELECT 1")
    preparation = prepare(tasks.values(), world.sources())
    assert preparation.unavailable == {"raw": "raw is not there", "unused": "unused is not there"}


def test_the_placeholder_of_mysql_is_explained_on_postgresql(loading: Loading) -> None:
    class Refusing(SQLiteFile):
        engine = "postgresql"

        def describe(self, statement: Statement) -> Sequence[Column] | None:
            raise QueryFailed(f"{self.name}: syntax error at end of input")

    tasks = loading(a="-- name: x\n-- db: my_db\nSELECT 1 WHERE 1 = ?\n-- name: y\n-- db: my_db\nSELECT $1 ? 'a'")
    first, second = prepare(tasks.values(), {"my_db": Refusing(Path("my_db"))}).problems
    assert "task x on database my_db: syntax error at end of input; if ? stands for an argument: on Postgre" in first
    assert second.endswith("task y on database my_db: syntax error at end of input")


def test_a_database_that_is_down_is_asked_once_and_is_no_failure_of_a_task(world: World) -> None:
    world.database("a")
    world.database("down", up=False)
    sources = world.sources()
    preparation = prepare(world.tasks("-- name: x\nSELECT 1\n-- name: y\nSELECT 2").values(), sources)
    assert preparation.unavailable == {"down": "down is not there"}
    assert (preparation.problems, preparation.prepared, sources["down"].asked) == ([], 2, 1)


def test_databases_are_asked_beside_each_other(world: World) -> None:
    for name in "abc":
        world.database(name)
    # Nobody passes the barrier before all three are asked.
    preparation = prepare(world.tasks("-- name: x\nSELECT 1").values(), world.sources(threading.Barrier(3)))
    assert preparation.prepared == 3


def test_an_error_of_the_program_itself_is_not_swallowed(world: World) -> None:
    world.database("a")
    with pytest.raises(KeyError):
        prepare(world.tasks("-- name: x\nSELECT 1").values(), {})
