"""Task files: what is a tag and what is prose, and which tags are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.tasks import files
from jobber.tasks.tags import ALIASES, TAGS, _misspelt
from tests.tasks.conftest import Loading, only


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


@pytest.mark.parametrize("comment", ["params: user_id, since", "row: one per user"])
def test_prose_that_is_nearly_a_tag_stays_description_with_a_warning(loading: Loading, comment: str) -> None:
    tasks = loading(a=f"-- name: x\n-- {comment}\nSELECT 1")
    assert only(tasks).description == comment
    [warning] = tasks.warnings
    assert "a.sql:2: task x: " in warning
    assert "is no tag, so the line is description" in warning


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


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("cron: 0 0 30 2 *", "2: task x: cron: no day is day 30 of month 2 (weekday *), so it would never fire"),
        ("cron: 0 25 * * *", "2: task x: cron: '25' is not an hour; write *, 0 to 23, 1-5, */10 or a list of these"),
        ("timezone: Europe/Berlyn", "2: task x: timezone: there is no time zone 'Europe/Berlyn'; did you mean"),
        ("timezone: Europe/Berlin", "1: task x: timezone: is that of a cron tag, and there is none"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_file_and_line(loading: Loading, tag: str, says: str) -> None:
    [problem] = loading.problems(a=f"-- name: x\n-- {tag}\nSELECT 1")
    assert problem.startswith(f"a.sql:{says}")


@pytest.mark.parametrize("name", ["x.y", "x" * 81])
def test_a_task_with_a_cron_tag_has_a_name_that_a_schedule_can_have(loading: Loading, name: str) -> None:
    [problem] = loading.problems(a=f"-- name: {name}\n-- cron: 0 7 * * *\nSELECT 1")
    assert "may hold 1 to 80 characters A-Z a-z 0-9 _ -" in problem
    assert only(loading(a="-- name: x-y\n-- cron: 0 7 * * *\n-- timezone: UTC\nSELECT 1")).timezone == "UTC"


@pytest.mark.parametrize(
    ("more", "sql", "lacking"),
    [
        ("", "SELECT :a, :b", "a, b"),
        ("-- param: a integer = 1\n", "SELECT :a, :b", "b"),
        ("-- param: a integer\n-- param: b integer = null\n", "SELECT :a, :b", "a"),
        ("-- param: a integer\n", "SELECT $1", "a"),
        ("", "SELECT $1, $2", "all 2 placeholders"),
    ],
)
def test_a_cron_tag_needs_a_default_for_every_placeholder(loading: Loading, more: str, sql: str, lacking: str) -> None:
    [problem] = loading.problems(a=f"-- name: x\n-- cron: 0 7 * * *\n{more}{sql}")
    assert f"cron: its jobs come without args, so {lacking} would have no value" in problem


def test_a_cron_tag_goes_with_params_that_have_defaults(loading: Loading) -> None:
    tagged = "-- name: x\n-- cron: 0 7 * * *\n-- param: a integer = 1\n-- param: b text = null\n"
    assert loading(a=f"{tagged}SELECT :a, :b").warnings == ()
    assert only(loading(a=f"{tagged}SELECT $1, $2")).cron == "0 7 * * *"
