"""Task files: what is read from them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobber.config import embedded
from jobber.tasks import load
from jobber.tasks.files import split
from tests.tasks.conftest import POSTGRESQL, Loading, only, settings


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
-- priority: High
-- retries: 2
-- retry_on: ANY
-- max_rows: 1000
-- param: user_id integer = 7
-- param: since date = 2026-01-01
-- index: user_id, day
-- cron: 0 6  * * mon-fri
-- timezone: Europe/Berlin
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
    assert (task.priority, task.retries, task.retry_on, task.max_rows) == (8, 2, "any", 1000)
    assert [(param.name, param.type, param.required, param.default) for param in task.params] == [
        ("user_id", "integer", False, 7),
        ("since", "date", False, "2026-01-01"),
    ]
    assert (task.index, task.line) == (("user_id", "day"), 3)
    assert (task.cron, task.timezone) == ("0 6 * * mon-fri", "Europe/Berlin")
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
    sql = "SELECT 1 -- db: nowhere\n-- timeout: soon\n/* c */, 'a\n-- queue: q\nb'"
    task = only(loading(a=f"-- name: x\n-- text\n\n-- queue: p\n{sql}\n-- ttl: never\n-- Queue: of all\n"))
    assert (task.sql, task.queue, task.timeout, task.ttl, task.description) == (sql, "p", None, None, "text")


def test_the_tags_of_older_files_count_in_and_below_the_sql_too(loading: Loading) -> None:
    task = only(loading(a="-- name: x\nSELECT 1\n-- db: other_db\n, 2\n  -- conc: 3\n;\n\n-- queue: q\n-- raw: 1\n"))
    assert (task.databases, task.concurrency, task.queue, task.raw) == (("other_db",), 3, "q", True)
    assert task.sql == "SELECT 1\n-- db: other_db\n, 2"


def test_a_comma_too_many_between_names_does_no_harm(loading: Loading) -> None:
    task = only(loading(a="-- name: x\n-- db: other_db,\n-- results: my_results,,archive\nSELECT 1"))
    assert (task.databases, task.results) == (("other_db",), ("my_results", "archive"))


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


@pytest.mark.parametrize(
    "tricky",
    [
        r"SELECT 'it\'s'",
        r'SELECT "say \"so"',
        "SELECT 1 # don't",
        r"SELECT 'C:\'",  # the whole string on PostgreSQL and SQLite
        r"SELECT E'it\'s'",
        "SELECT j #>> '{a}', 'x'",
        "SELECT $$ it's $$",
        "SELECT 'two\n-- name: no\nlines'",
    ],
)
def test_a_query_ends_where_the_next_begins_whichever_engine_it_is_for(tricky: str) -> None:
    text = f"-- name: a\nSELECT 1;\n-- name: b\n{tricky};\n-- name: c\n{tricky};\n-- name: d\nSELECT 'it''s';\n"
    queries, errors = split(text)
    assert not errors
    assert [query.name for query in queries] == ["a", "b", "c", "d"]
    assert queries[1].sql.strip() == queries[2].sql.strip() == f"{tricky};"


def test_comments_in_front_of_the_first_query_may_be_of_any_engine() -> None:
    assert split("# it's MySQL's\n/* and */ -- this\n-- name: a\nSELECT 1") == split("--\n--\n-- name: a\nSELECT 1")
    assert [error.details["line"] for error in split("# c\nSELECT 1;\n-- name: a\nSELECT 1")[1]] == [1]


def test_a_thousand_queries_with_backslashes_take_a_moment() -> None:
    text = "".join(f"-- name: q{number}\nSELECT 'it\\'s', {'1, ' * 50} 2;\n" for number in range(1000))
    began = time.process_time()
    queries, errors = split(text)
    assert (len(queries), errors) == (1000, [])
    assert time.process_time() - began < 5


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
