"""``param`` tags: what they declare, and how the args of a job are held against them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.errors import InvalidRequest
from jobber.jobs import Args, Scalar
from jobber.sqltext import parse as parse_sql
from jobber.tasks import Param, Task
from jobber.tasks.params import TYPES, parse


def task(sql: str, *params: str) -> Task:
    return Task(
        name="x",
        description="",
        sql=sql,
        version="",
        file=Path("x.sql"),
        line=1,
        statements={"sqlite": parse_sql(sql, "sqlite")},
        databases=("db",),
        results=("results",),
        params=tuple(parse(text) for text in params),
    )


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("a integer", Param("a", "integer", required=True)),
        (" a   TEXT ", Param("a", "text", required=True)),
        ("a integer = 10", Param("a", "integer", required=False, default=10)),
        ("a integer=-1", Param("a", "integer", required=False, default=-1)),
        ("a number = 0.10", Param("a", "number", required=False, default=Decimal("0.10"))),
        ("a text = 'it''s = x'", Param("a", "text", required=False, default="it's = x")),
        ("a text = plain words", Param("a", "text", required=False, default="plain words")),
        ("a text = ''", Param("a", "text", required=False, default="")),
        ("a boolean = true", Param("a", "boolean", required=False, default=True)),
        ("a date = 2026-02-28", Param("a", "date", required=False, default="2026-02-28")),
        ("a timestamp = 2026-02-28 10:00", Param("a", "timestamp", required=False, default="2026-02-28 10:00")),
        ("a text = NULL", Param("a", "text", required=False, default=None)),
        ("größe integer", Param("größe", "integer", required=True)),
    ],
)
def test_a_declaration_is_read(text: str, param: Param) -> None:
    assert parse(text) == param


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be NAME TYPE"),
        ("a", "must be NAME TYPE"),
        ("1a integer", "must be NAME TYPE"),
        ("a integer 5", "must be NAME TYPE"),
        ("a intger", "did you mean integer?"),
        ("a text =", "no default after it"),
        ("a integer = 1.5", "the default of a must be an integer"),
        ("a boolean = 1", "the default of a must be true or false"),
        ("a date = 2026-02-30", "the default of a must be a date"),
        ("a timestamp = now", "the default of a must be a timestamp"),
    ],
)
def test_a_wrong_declaration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse(text)


@pytest.mark.parametrize(
    ("kind", "given_value", "taken"),
    [
        ("integer", 5, 5),
        ("integer", "-5", -5),
        ("integer", Decimal("5.0"), 5),
        ("integer", 2**63 - 1, 2**63 - 1),
        ("integer", str(-(2**63)), -(2**63)),
        ("number", 5, 5),
        ("number", Decimal("12345678901234567890.123456789"), Decimal("12345678901234567890.123456789")),
        ("number", "1.50", Decimal("1.50")),
        ("number", "1e3", Decimal("1e3")),
        ("text", "", ""),
        ("text", "5", "5"),
        ("boolean", False, False),
        ("boolean", "True", True),
        ("date", "2024-02-29", "2024-02-29"),
        ("timestamp", "2024-02-29", "2024-02-29"),
        ("timestamp", "2024-02-29 23:59", "2024-02-29 23:59"),
        ("timestamp", "2024-02-29T23:59:59.123456+05:30", "2024-02-29T23:59:59.123456+05:30"),
        ("timestamp", "2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
    ],
)
def test_a_value_of_the_type_is_taken_and_no_digit_lost(kind: str, given_value: Scalar, taken: Scalar) -> None:
    checked = task("SELECT :a", f"a {kind}").check_args({"a": given_value})
    assert checked == {"a": taken}
    assert isinstance(checked, dict)
    assert type(checked["a"]) is type(taken)
    assert str(checked["a"]) == str(taken)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", True), ("integer", "1.5"), ("integer", Decimal("1.5")), ("integer", 2**63), ("integer", "x"),
        ("integer", Decimal("1e999999999")), ("integer", Decimal("1e-999999999")), ("integer", "9" * 100_000),
        ("integer", Decimal("NaN")), ("integer", "٥"), ("integer", "5\n"),
        ("number", False), ("number", "1,5"), ("number", "NaN"), ("number", Decimal("Infinity")), ("number", "1e99999"),
        ("text", 5), ("text", True), ("text", Decimal("1.5")),
        ("boolean", 1), ("boolean", "yes"),
        ("date", "2026-02-29"), ("date", "20260228"), ("date", "2026-02-28 10:00"), ("date", 20260228),
        ("timestamp", "10:00"), ("timestamp", "2026-02-28 25:00"), ("timestamp", "2026-02-28 10"), ("timestamp", 5),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(kind: str, value: Scalar) -> None:
    with pytest.raises(InvalidRequest, match="a must be ") as caught:
        task("SELECT :a", f"a {kind}").check_args({"a": value})
    assert caught.value.details["field"] == "args"
    assert len(caught.value.message) < 200


def test_defaults_fill_in_what_is_missing_or_null() -> None:
    checked = task("SELECT :a, :b, :c", "a integer = 1", "b text = null", "c text").check_args({"a": None, "c": "x"})
    assert checked == {"a": 1, "b": None, "c": "x"}


def test_placeholders_without_a_tag_take_any_value_but_must_be_there() -> None:
    partly = task("SELECT :a, :b", "a integer")
    assert partly.check_args({"a": 1, "b": None}) == {"a": 1, "b": None}
    with pytest.raises(InvalidRequest, match="b is missing"):
        partly.check_args({"a": 1})


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        task("SELECT :user_id, :day, :n", "user_id integer", "day date", "n integer").check_args(
            {"usr_id": 1, "day": "x", "n": "many"}
        )
    assert caught.value.message == (
        "args: there is no argument usr_id; did you mean user_id?; user_id is missing (integer); "
        "day must be a date such as 2026-01-31, not 'x'; n must be an integer of at most 64 bits, not 'many'"
    )


def test_positional_args_are_checked_in_their_order() -> None:
    listed = task("SELECT ?, ?", "a integer", "b text = x")
    assert listed.check_args(["5", "y"]) == [5, "y"]
    assert listed.check_args([5]) == [5, "x"]
    with pytest.raises(InvalidRequest, match="3 arguments came, but the task takes at most 2"):
        listed.check_args([1, "y", "z"])
    with pytest.raises(InvalidRequest, match="a is missing"):
        listed.check_args([])
    with pytest.raises(InvalidRequest, match="must be a list"):
        listed.check_args({"a": 1})
    with pytest.raises(InvalidRequest, match="a is missing"):
        listed.check_args({})


def test_a_list_does_not_fit_names() -> None:
    named = task("SELECT :a", "a integer = 1")
    with pytest.raises(InvalidRequest, match="must be an object with the names a"):
        named.check_args([1])
    assert named.check_args([]) == {"a": 1}


@pytest.mark.parametrize("args", [[], [1, "x"], {}, {"anything": None}])
def test_a_task_without_tags_takes_any_args_as_they_are(args: Args) -> None:
    assert task("SELECT :a").check_args(args) is args


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.decimals(), st.text(), st.from_regex(r"\A[-+0-9.eT: ]{0,30}\Z")
)


@settings(deadline=None)  # other tests run beside these
@given(st.sampled_from(sorted(TYPES)), _SCALARS)
def test_what_was_taken_once_is_taken_again_unchanged(kind: str, value: Scalar) -> None:
    typed = task("SELECT :a", f"a {kind}")
    try:
        checked = typed.check_args({"a": value})
    except InvalidRequest:
        return
    assert typed.check_args(checked) == checked
    assert typed.statements["sqlite"].bind(checked)
