"""Arguments reach PostgreSQL as values of the type that it wants, whatever they hold."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.errors import BadArguments, QueryFailed
from jobber.jobs import Scalar
from jobber.sources.base import Shape, Source
from tests.sources.reading import BOTH, DECODED, read

HOSTILE = [
    "'", "''", "\\", "\\'", "%", "%s", "%%", "$1", "$$", ":name", "?", "--", "/* x", "*/", ";", "'; DROP TABLE t; --",
    "\n", "\t", "\r\n", '"', "E'\\''", "é🐎", "\\N", "\\.", "", " ", "NULL", ") TO PROGRAM 'touch /tmp/x'; --",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_arrives_as_it_is(pg: Source, accepts: frozenset[Shape], text: str) -> None:
    assert read(pg, "SELECT $1::text, length($1)", [text], accepts=accepts).rows == [(text, len(text))]


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_arrives_as_it_is(pg: Source, accepts: frozenset[Shape], text: str) -> None:
    assert read(pg, "SELECT $1::text", [text], accepts=accepts).rows == [(text,)]


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [
        ("int4", 5, 5),
        ("int4", -5, -5),
        ("int4", "5", 5),
        ("int8", 2**63 - 1, 2**63 - 1),
        ("numeric", 10**30, "1" + "0" * 30),
        ("numeric", Decimal("0.10"), "0.10"),
        ("numeric", Decimal("1E+3"), "1000"),
        ("float8", Decimal("0.1"), 0.1),
        ("float8", 1, 1.0),
        ("text", 5, "5"),
        ("text", Decimal("1.50"), "1.50"),
        ("text", True, "true"),
        ("bool", True, True),
        ("bool", False, False),
        ("bool", "yes", True),
        ("bool", 1, True),
        ("date", "2024-01-31", "2024-01-31"),
        ("timestamptz", "2024-01-01 10:00+02", "2024-01-01 08:00:00"),
        ("bpchar", "abc", "abc"),
        ("bit", "101", "101"),
        ("varbit", "101", "101"),
        ('"char"', "x", "x"),
        ("int4[]", "{1,2}", "{1,2}"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("uuid", "7c9e6679-7425-40de-944b-e07fc1f90ae7", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("bytea", r"\x00ff", r"\x00ff"),
        *((name, None, None) for name in ("int4", "text", "bool", "date", "numeric", "jsonb", "int4[]")),
    ],
)
def test_an_argument_becomes_the_parameters_type(
    pg: Source, accepts: frozenset[Shape], parameter: str, value: Scalar, shown: object
) -> None:
    # Without a cast of its own, as in real queries: Describe must tell the type.
    sql = f"SELECT x FROM (SELECT NULL::{parameter} AS x WHERE false UNION ALL SELECT $1) q"
    if parameter == "bit":
        sql = "SELECT x FROM (SELECT B'1'::bit(3) AS x WHERE false UNION ALL SELECT $1) q"
    assert read(pg, sql, [value], accepts=accepts).rows == [(shown,)]


def test_a_composite_an_enum_and_a_domain_of_the_database_take_arguments(pg: Source, accepts: frozenset[Shape]) -> None:
    result = read(pg, 'SELECT $1::"odd schema"."odd enum", $2::"odd schema".pair', ["a'b", "(1,x)"], accepts=accepts)
    assert result.rows == [("a'b", "(1,x)")]


@pytest.fixture(autouse=True, scope="module")
def _odd_types(postgres: object, database: str) -> None:
    postgres.execute(  # type: ignore[attr-defined]
        """
        CREATE SCHEMA "odd schema";
        CREATE TYPE "odd schema"."odd enum" AS ENUM ('a''b');
        CREATE TYPE "odd schema".pair AS (a int, b text);
        """,
        database,
    )


@pytest.mark.parametrize("value", ["abc", "", "1.5", Decimal("1.5"), True, 2**31])
def test_an_argument_that_the_type_cannot_hold_fails_in_the_engines_words(
    pg: Source, accepts: frozenset[Shape], value: Scalar
) -> None:
    with pytest.raises(QueryFailed, match=r"invalid input syntax for type integer|out of range for type integer") as e:
        read(pg, "SELECT $1::int4", [value], accepts=accepts)
    assert not e.value.retryable


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_that_postgresql_has_not_is_named(pg: Source, accepts: frozenset[Shape], value: str) -> None:
    with pytest.raises(BadArguments, match="argument 2 holds"):
        read(pg, "SELECT $1, $2", ["x", value], accepts=accepts)


@pytest.mark.parametrize(("sql", "args"), [("SELECT $1", []), ("SELECT 1", [1]), ("SELECT :a", ["x"])])
def test_too_few_or_too_many_arguments_are_refused(
    pg: Source, accepts: frozenset[Shape], sql: str, args: list[Scalar]
) -> None:
    with pytest.raises(BadArguments):
        read(pg, sql, args, accepts=accepts)


def test_named_placeholders_are_bound_by_name(pg: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT :b::int, :a::text, :b + 1, '10%' LIKE '%\\%', (ARRAY[1,2,3])[1:2]"
    assert read(pg, sql, {"a": ":b", "b": 1}, accepts=accepts).rows == [(1, ":b", 2, True, "{1,2}")]


def test_an_argument_where_a_constant_would_mean_a_position_is_a_value(pg: Source) -> None:
    sql = "SELECT g FROM generate_series(1, 3) g ORDER BY $1::int, g DESC LIMIT $2"
    for shapes in (DECODED, BOTH):
        assert read(pg, sql, [1, 2], accepts=shapes).rows == [(3,), (2,)]
