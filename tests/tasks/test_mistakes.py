"""Task files: what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobber.errors import TaskFileError
from jobber.tasks import load
from tests.tasks.conftest import POSTGRESQL, Loading, only, settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-- name: x\n-- queu: q\nSELECT 1", "a.sql:2: task x: there is no tag queu; did you mean queue?"),
        ("-- name: x\n-- max-rows: 1\nSELECT 1", "a.sql:2: task x: there is no tag max-rows; did you mean max_rows?"),
        ("-- name: x\n-- dbs: my_db\nSELECT 1", "a.sql:2: task x: there is no tag dbs; did you mean db?"),
        (
            "-- name: x\n\n-- db: my_bd\nSELECT 1",
            "a.sql:3: task x: db: there is no database 'my_bd'; did you mean my_db?",
        ),
        (
            "-- name: x\n-- results: archiv\nSELECT 1",
            "a.sql:2: task x: results: there is no results database 'archiv'; did you mean archive?",
        ),
        ("-- name: x\n-- db: ,\nSELECT 1", "a.sql:2: task x: db: names nothing"),
        ("-- name: x\nSELECT 1\n-- db: none\n", "a.sql:3: task x: db: there is no database 'none'"),
        ("-- name: x\n-- db: my_db\nSELECT 1\n-- db: my_db\n", "a.sql:4: task x: db: is given twice"),
        ("-- name: x\n-- db:\nSELECT 1", "a.sql:2: task x: db: has no value"),
        ("-- name: x\n-- queue: a\n-- queue: b\nSELECT 1", "a.sql:3: task x: queue: is given twice"),
        ("-- name: x\n-- conc: 1\n-- concurrency: 2\nSELECT 1", "a.sql:3: task x: concurrency: is given twice"),
        ("-- name: x\n-- queue: a, b\nSELECT 1", "a.sql:2: task x: queue: must be one name"),
        ("-- name: x\n-- raw: maybe\nSELECT 1", "a.sql:2: task x: raw: must be 1 or 0"),
        ("-- name: x\n-- concurrency: few\nSELECT 1", "a.sql:2: task x: concurrency: must be a whole number"),
        ("-- name: x\n-- priority: 11\nSELECT 1", "a.sql:2: task x: priority: must be 1 to 10 or one of low, normal"),
        ("-- name: x\n-- retries: -1\nSELECT 1", "a.sql:2: task x: retries: must be a whole number"),
        ("-- name: x\n-- retry_on: all\nSELECT 1", "a.sql:2: task x: retry_on: must be transient or any"),
        ("-- name: x\n-- max_rows: 99999999999\nSELECT 1", "a.sql:2: task x: max_rows: must be a whole number"),
        ("-- name: x\n-- timeout: soon\nSELECT 1", "a.sql:2: task x: timeout: must be seconds or a duration"),
        ("-- name: x\n-- ttl: 500ms\nSELECT 1", "a.sql:2: task x: ttl: must be whole seconds"),
        ("-- name: x\n-- index: a,,b\nSELECT 1", "a.sql:2: task x: index: has an empty column"),
        ("-- name: x\n-- cron: 5 minutes\nSELECT 1", "a.sql:2: task x: cron: must have five fields"),
        ("-- name: x\n-- param: a\nSELECT :a", "a.sql:2: task x: param: must be NAME TYPE"),
        ("-- name: x\n-- param: a int\nSELECT :a", "a.sql:2: task x: param: int is not one of the types"),
        (
            "-- name: x\n-- param: a integer = x\nSELECT :a",
            "a.sql:2: task x: param: the default of a must be an integer",
        ),
        (
            "-- name: x\n-- param: user_di integer\nSELECT :user_id",
            "a.sql:1: task x: param: there is no placeholder :user_di; did you mean user_id?",
        ),
        ("-- name: x\n-- param: a text\n-- param: a text\nSELECT :a", "a.sql:1: task x: param: a is declared twice"),
        (
            "-- name: x\n-- param: a text\n-- param: b text\nSELECT $1",
            "a.sql:1: task x: param: 2 are declared, but the query has 1 placeholder;",
        ),
        (
            "-- name: x\n-- param: a text\nSELECT $1, $2",
            "a.sql:1: task x: param: 1 is declared, but the query has 2 placeh",
        ),
        ("-- name: x\n\nSELECT\n'y", "a.sql:4: task x: the ' quote that opens here is never closed"),
        ("-- name: x\nSELECT 1;\nSELECT 2", "a.sql:3: task x: a task is one statement"),
        ("-- name: x\nSELECT :a, $1", "a.sql:2: task x: the query mixes"),
        ("-- name: x\n-- only text\n", "a.sql:1: task x: there is no SQL below the name"),
        ("-- name: x\n/* none */;\n", "a.sql:2: task x: there is no SQL"),
        ("-- name:\nSELECT 1", "a.sql:1: -- name: without a name"),
        ("-- name: größe\nSELECT 1", "a.sql:1: 'größe' is not a name"),
        ("-- name: x y\nSELECT 1", "a.sql:1: task x: after the name x there may be a list of parameters"),
        ("-- name: x!\nDELETE FROM t", "a.sql:1: task x: is marked as a query that writes"),
        (
            "-- name: x(a)\nSELECT :b",
            "a.sql:1: task x: the list after the name says (a), but the query's placeholders are b",
        ),
        ("SELECT 1;\n-- name: x\nSELECT 1", "a.sql:1: there is SQL before the first -- name:"),
        ("-- name: x\nSELECT 1\n-- name: x\nSELECT 2", "a.sql:3: task x: a task of this name stands in line 1 already"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_task(loading: Loading, text: str, problem: str) -> None:
    [found] = loading.problems(a=text)
    assert found.startswith(problem)


def test_a_wrong_database_is_not_followed_by_what_is_wrong_on_others(loading: Loading) -> None:
    databases = {"pg": "postgresql", "my": "mysql"}
    [problem] = loading.problems(databases, a="-- name: x\n-- db: pq\nSELECT $1 ? 'x'")
    assert problem.startswith("a.sql:2: task x: db: there is no database 'pq'")
    assert len(loading.problems(databases, a="-- name: x\n-- db: pq\nSELECT 'x")) == 2


def test_all_mistakes_of_all_files_are_told_at_once(loading: Loading) -> None:
    problems = loading.problems(
        a="-- name: x\n-- queu: q\n-- db: none\nSELECT '\n-- name: y\n-- raw: ?\nSELECT 'fine'\n",
        b="-- name: z\nSELECT 1\n-- name: x\nSELECT 1",
    )
    assert [problem.split(":")[:2] for problem in problems] == [
        ["a.sql", "2"], ["a.sql", "3"], ["a.sql", "4"], ["a.sql", "6"], ["b.sql", "3"],
    ]  # fmt: skip
    assert problems[-1].endswith("a.sql:1 already")


def test_a_wrong_tag_causes_no_second_complaint(loading: Loading) -> None:
    [problem] = loading.problems(a="-- name: x\n-- param: a int\n-- param: b text\nSELECT $1, $2")
    assert problem.startswith("a.sql:2: task x: param: int is not one of the types")


def test_a_tag_given_twice_is_told_even_if_the_first_is_wrong(loading: Loading) -> None:
    problems = loading.problems(a="-- name: x\n-- queue: a b\n-- queue: c\nSELECT 1")
    assert problems[1].endswith("queue: is given twice")


def test_a_directory_without_tasks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme").mkdir()
    (tmp_path / "readme" / "a.sql").write_text("-- nothing yet\n")
    with pytest.raises(TaskFileError) as caught:
        load([tmp_path / "empty", tmp_path / "readme", tmp_path / "missing"], settings(POSTGRESQL))
    assert "empty: holds no task" in caught.value.message
    assert "readme: holds no task" in caught.value.message
    assert "missing: cannot be read: No such file or directory" in caught.value.message
    with pytest.raises(TaskFileError, match=r"no directory of \.sql files is named"):
        load([], settings(POSTGRESQL))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_bytes(b"-- name: x\nSELECT '\xff'")
    (tmp_path / "b.sql").write_text("-- name: x\nSELECT 1")
    with pytest.raises(TaskFileError, match=r"a\.sql: is not UTF-8 text"):
        load([tmp_path], settings(POSTGRESQL))


def test_what_only_one_engine_refuses_is_told_with_its_name(loading: Loading) -> None:
    both = {"pg": "postgresql", "lite": "sqlite"}
    [problem] = loading.problems(both, a="-- name: x\nSELECT\n$1")
    assert problem.startswith("a.sql:3: task x: $1 is not a placeholder that jobber binds on sqlite")
    [problem] = loading.problems(both, a="-- name: x\nSELECT ?")
    assert problem.startswith("a.sql:1: task x: the number of placeholders depends on the engine")
    assert "0 on postgresql, 1 on sqlite" in problem
    assert set(only(loading(both, a="-- name: x\n-- db: lite\nSELECT ?")).statements) == {"sqlite"}
