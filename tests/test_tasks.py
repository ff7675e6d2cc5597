"""Task files: what is read from them, and what is said when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.config import BrokerSettings, DatabaseSettings, ResultsSettings, Settings, StateSettings, embedded
from jobber.config.settings import AppSettings
from jobber.errors import TaskFileError
from jobber.tasks import Task, TaskSet, files, load
from jobber.tasks.tags import ALIASES, TAGS, _misspelt

POSTGRESQL = {"my_db": "postgresql", "other_db": "postgresql"}


def settings(databases: Mapping[str, str], results: tuple[str, ...] = ("my_results", "archive")) -> Settings:
    return Settings(
        app=AppSettings(),
        broker=BrokerSettings(url="filesystem://"),
        state=StateSettings(url="sqlite:////tmp/state.db"),
        databases={name: DatabaseSettings(name=name, url="", engine=engine) for name, engine in databases.items()},
        results={name: ResultsSettings(name=name, url="", engine="postgresql") for name in results},
    )


class Loading:
    """Writes files, then loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, databases: Mapping[str, str] = POSTGRESQL, **files: str) -> TaskSet:
        for name, text in files.items():
            (self.folder / f"{name}.sql").write_text(text)
        return load([self.folder], settings(databases))

    def problems(self, databases: Mapping[str, str] = POSTGRESQL, **files: str) -> list[str]:
        with pytest.raises(TaskFileError) as caught:
            self(databases, **files)
        found: list[str] = [
            problem.replace(f"{self.folder.resolve()}/", "") for problem in caught.value.details["problems"]
        ]
        for problem in caught.value.details["problems"]:
            assert problem in caught.value.message
        return found


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


def only(tasks: TaskSet) -> Task:
    [task] = tasks.values()
    return task


# -- what is read -----------------------------------------------------------------------------------------------------


def test_every_tag_reaches_its_task(loading: Loading) -> None:
    task = only(
        loading(
            a="""-- reports of the shop

-- name: get_profit
-- db: my_db, other_db
-- Profit of a user.
-- queue: reports
-- results: archive
-- raw: 1
-- conc: 5
-- timeout: 10m
-- ttl: 7d
-- priority: 8
-- retries: 2
-- max_rows: 1000
-- param: user_id integer
-- param: since date = 2026-01-01
-- index: user_id, day
-- cron: 0 6 * * mon-fri
-- Long, but fast.
SELECT * FROM entries WHERE user_id = :user_id AND day >= :since;
"""
        )
    )
    assert task.name == "get_profit"
    assert task.description == "Profit of a user.\nLong, but fast."
    assert task.sql == "SELECT * FROM entries WHERE user_id = :user_id AND day >= :since"
    assert (task.databases, task.results, task.queue) == (("my_db", "other_db"), ("archive",), "reports")
    assert (task.raw, task.concurrency, task.timeout, task.ttl) == (True, 5, 600, 7 * 86_400)
    assert (task.priority, task.retries, task.max_rows) == (8, 2, 1000)
    assert [(param.name, param.type, param.required, param.default) for param in task.params] == [
        ("user_id", "integer", True, None),
        ("since", "date", False, "2026-01-01"),
    ]
    assert (task.index, task.cron, task.line) == (("user_id", "day"), "0 6 * * mon-fri", 3)
    assert task.file.name == "a.sql"
    assert task.statements["postgresql"].names == ("user_id", "since")


def test_a_task_without_tags_may_run_anywhere(loading: Loading) -> None:
    task = only(loading({"a": "postgresql", "b": "sqlite"}, a="-- name: x\nSELECT 1"))
    assert (task.databases, task.results, task.queue) == (("a", "b"), ("my_results", "archive"), None)
    assert (task.raw, task.concurrency, task.timeout, task.ttl, task.priority) == (False, 0, None, None, None)
    assert set(task.statements) == {"postgresql", "sqlite"}


def test_files_of_the_older_programs_load_unchanged(loading: Loading) -> None:
    tasks = loading(
        a="""-- test.sql
-- concurrency parameter is associated with the queue.
-- In the below example both `get_profit_summary` and `get_profit_entries` use
-- a common queue with concurrency = 5. It's okay to pass concurrency

-- name: get_profit_summary
-- db: my_db
-- concurrency: 5
-- queue: test
SELECT SUM(amount) AS total, entry_date FROM entries WHERE user_id = $1 GROUP BY entry_date;

-- name: get-profit-entries
-- db: my_db, other_db
-- results: my_results
SELECT * FROM entries WHERE user_id = $1;

-- name: slow_query\x20
-- raw: 1
-- This query will not be prepared (raw=1)
-- Note: it takes long
SELECT pg_sleep($1);"""
    )
    assert list(tasks) == ["get-profit-entries", "get_profit_summary", "slow_query"]
    assert tasks.queues == ("default", "test")
    slow = tasks["slow_query"]
    assert slow.raw
    assert slow.description == "This query will not be prepared (raw=1)\nNote: it takes long"
    assert tasks["get-profit-entries"].databases == ("my_db", "other_db")


@pytest.mark.parametrize("head", ["-- NAME: x", "--name:x", "  --  Name :  x", "-- name: x(a, b)", "-- name: x(a,b)^"])
def test_the_head_of_a_query_is_read_in_all_its_forms(loading: Loading, head: str) -> None:
    assert only(loading(a=f"{head}\nSELECT :a, :b")).name == "x"


@pytest.mark.parametrize("name", ["x", "get-x", "get.x", "1st", "A_b-c.d", "x" * 100])
def test_names_stay_as_they_are_written(loading: Loading, name: str) -> None:
    assert only(loading(a=f"-- name: {name}\nSELECT 1")).name == name


def test_tags_are_read_without_regard_to_case(loading: Loading) -> None:
    assert only(loading(a="-- name: x\n-- QUEUE: high\n-- Max_Rows: 5\nSELECT 1")).queue == "high"


def test_only_leading_comments_are_tags_and_the_others_stay_in_the_sql(loading: Loading) -> None:
    sql = "SELECT 1 -- db: nowhere\n-- queue: q\n/* c */, 'a\n-- not a comment\nb'"
    task = only(loading(a=f"-- name: x\n-- text\n\n-- queue: p\n{sql}\n-- ttl: never\n"))
    assert (task.sql, task.queue, task.ttl, task.description) == (sql, "p", None, "text")


def test_a_name_line_within_a_quote_or_comment_begins_no_task(loading: Loading) -> None:
    tasks = loading(
        a="""-- name: a
SELECT 'x
-- name: in_string
', $t$
-- name: in_dollars
$t$ /*
-- name: in_comment
*/;
-- name: b
SELECT 'it''s' -- don't
;
/*
-- name: disabled
SELECT 2;
*/
-- name: c
SELECT 3
"""
    )
    assert list(tasks) == ["a", "b", "c"]
    assert "in_string" in tasks["a"].sql
    assert tasks["b"].sql == "SELECT 'it''s'"


def test_line_ends_and_byte_order_marks_of_windows_are_understood(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_bytes(b"\xef\xbb\xbf-- name: x\r\n-- queue: q\r\nSELECT\r\n1;\r\n")
    task = only(load([tmp_path], settings(POSTGRESQL)))
    assert (task.queue, task.sql) == ("q", "SELECT\n1")


def test_tasks_come_from_all_directories_in_order_of_their_names(tmp_path: Path) -> None:
    for folder, name in (("one", "b"), ("two", "a")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.sql").write_text(f"-- name: {name}\nSELECT 1")
    (tmp_path / "two" / "t.sql.sample").write_text("-- name: sample\nbroken '")
    (tmp_path / "two" / ".hidden.sql").write_text("broken")
    (tmp_path / "two" / "inner").mkdir()
    (tmp_path / "two" / "inner" / "t.sql").write_text("-- name: inner\nSELECT 1")
    tasks = load([tmp_path / "one", tmp_path / "two", tmp_path / "one"], settings(POSTGRESQL))
    assert list(tasks) == ["a", "b"]
    assert "a" in tasks
    assert "nothing" not in tasks


def test_the_queues_are_the_default_one_and_all_that_tasks_name(loading: Loading) -> None:
    files = {name: f"-- name: {name}\n-- queue: {queue}\nSELECT 1" for name, queue in [("a", "z"), ("b", "default")]}
    assert loading(**files, c="-- name: c\nSELECT 1", d="-- name: d\n-- queue: y\nSELECT 1").queues == (
        "default",
        "y",
        "z",
    )


def test_versions_change_with_what_files_say_and_not_with_where_they_lie(tmp_path: Path) -> None:
    def version(folder: str, text: str) -> str:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.sql").write_text(text)
        return load([tmp_path / folder], settings(POSTGRESQL)).version

    first = version("one", "-- name: a\nSELECT 1")
    assert version("two", "\n\n-- name: a\nSELECT 1;\n") == first
    assert version("three", "-- name: a\nSELECT 2") != first
    assert version("four", "-- name: a\n-- queue: q\nSELECT 1") != first
    assert version("five", "-- name: b\nSELECT 1") != first


def test_the_version_of_a_task_is_that_of_its_sql_alone(loading: Loading) -> None:
    tasks = loading(a="-- name: a\nSELECT 1;\n-- name: b\n-- queue: q\nSELECT 1\n-- name: c\nSELECT 2")
    assert tasks["a"].version == tasks["b"].version != tasks["c"].version


def test_the_embedded_default_needs_one_database_only(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- name: a\nSELECT ?")
    tasks = load([tmp_path], embedded(tmp_path / "data", {"shop": f"sqlite:///{tmp_path}/shop.db"}))
    assert (only(tasks).databases, only(tasks).results) == (("shop",), ("results",))


# -- what is refused --------------------------------------------------------------------------------------------------


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
        ("-- name: x\n-- db: my_db,\nSELECT 1", "a.sql:2: task x: db: has an empty name"),
        ("-- name: x\n-- db:\nSELECT 1", "a.sql:2: task x: db: has no value"),
        ("-- name: x\n-- queue: a\n-- queue: b\nSELECT 1", "a.sql:3: task x: queue: is given twice"),
        ("-- name: x\n-- conc: 1\n-- concurrency: 2\nSELECT 1", "a.sql:3: task x: concurrency: is given twice"),
        ("-- name: x\n-- queue: a, b\nSELECT 1", "a.sql:2: task x: queue: must be one name"),
        ("-- name: x\n-- raw: maybe\nSELECT 1", "a.sql:2: task x: raw: must be 1 or 0"),
        ("-- name: x\n-- concurrency: few\nSELECT 1", "a.sql:2: task x: concurrency: must be a whole number"),
        ("-- name: x\n-- priority: 11\nSELECT 1", "a.sql:2: task x: priority: must be a whole number between 1 and 10"),
        ("-- name: x\n-- retries: -1\nSELECT 1", "a.sql:2: task x: retries: must be a whole number"),
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


# -- tags and prose ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comment",
    [
        "Note: slow",
        "Returns: one row per user",
        "Author: Ada",
        "see: https://example.org",
        "TODO: index",
        "date: 2026",
        "parameters: user id",
        "entries: all of them",
        "query: the big one",
        "columns: a, b",
        "Warning: this locks",
        "with raw: 1 it is not prepared",
        "This query will not be prepared (raw=1)",
        "https://example.org/db: x",
        "queue",
    ],
)
def test_prose_stays_description(loading: Loading, comment: str) -> None:
    assert only(loading(a=f"-- name: x\n-- {comment}\nSELECT 1")).description == comment


@examples(deadline=None)  # other tests run beside these
@given(st.sampled_from(sorted([*TAGS, *ALIASES])), st.data())
def test_every_single_slip_in_a_tag_is_noticed(tag: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(tag) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    slips = [tag[:at] + tag[at + 1 :], tag[:at] + letter + tag[at:], tag[:at] + letter + tag[at + 1 :]]
    if at + 1 < len(tag):
        slips.append(tag[:at] + tag[at + 1] + tag[at] + tag[at + 2 :])
    for slip in slips:
        if slip and slip not in TAGS and slip not in ALIASES:
            assert _misspelt(slip) is not None


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 0-6,22 1 jan,jul sun", "0 12 1-31/2 * 1-5", "59 23 31 12 7"])
def test_cron_expressions_are_taken(loading: Loading, cron: str) -> None:
    assert only(loading(a=f"-- name: x\n-- cron: {cron}\nSELECT 1")).cron == cron


@pytest.mark.parametrize(
    "cron",
    [
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "* * * mon *",
        "1,,2 * * * *",
        "* * * * * *",
        "- * * * *",
    ],
)
def test_cron_expressions_that_never_fire_are_refused(loading: Loading, cron: str) -> None:
    [problem] = loading.problems(a=f"-- name: x\n-- cron: {cron}\nSELECT 1")
    assert problem.startswith("a.sql:2: task x: cron: ")


@examples(deadline=None)  # other tests run beside these
@given(st.text(alphabet="-nameq: x'\"$/*;\nSELCT1", max_size=80))
def test_any_file_is_loaded_or_refused_with_a_line(text: str) -> None:
    queries, errors = files.split(text)
    lines = text.count("\n") + 1
    for query in queries:
        assert 1 <= query.line < query.sql_line <= lines + 1
        assert query.sql in text
    assert all(1 <= error.details["line"] <= lines for error in errors)


def test_a_cron_tag_is_warned_of_with_file_and_line_as_nothing_obeys_it(loading: Loading) -> None:
    found = loading(
        a="-- name: x\n-- Says: cron\n-- CRON: 0 7 * * *\nSELECT 1;\n-- name: y\n-- every morning\nSELECT 2"
    )
    [warning] = found.warnings
    assert warning.endswith(
        "a.sql:3: task x: cron: has no effect: there are no schedules yet, so no job will start by itself"
    )
    assert loading(a="-- name: x\n-- queue: q\nSELECT 1 -- cron: 5").warnings == ()
