"""Every scalar type of PostgreSQL arrives unchanged, the same in both shapes."""

from __future__ import annotations

import math

import pytest

from jobber.columns import Column, Kind
from jobber.sources.base import Shape, Source
from jobber.sqltext import parse
from tests.servers import Postgres
from tests.sources.reading import BOTH, DECODED, Value, read

pytestmark = pytest.mark.usefixtures("types")

INTEGER, NUMERIC, FLOAT, BOOLEAN = Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN
DATE, TIMESTAMP, JSON, BINARY, TEXT = Kind.DATE, Kind.TIMESTAMP, Kind.JSON, Kind.BINARY, Kind.TEXT

#: (expression, kind, canonical value)
VALUES: list[tuple[str, Kind, Value]] = [
    ("'-32768'::int2", INTEGER, -32768),
    ("'-2147483648'::int4", INTEGER, -(2**31)),
    ("'-9223372036854775808'::int8", INTEGER, -(2**63)),
    ("9223372036854775807::int8", INTEGER, 2**63 - 1),
    ("4294967295::oid", INTEGER, 4294967295),
    ("NULL::int4", INTEGER, None),
    ("'t'::bool", BOOLEAN, True),
    ("'f'::bool", BOOLEAN, False),
    ("1e-30::numeric", NUMERIC, "0." + "0" * 29 + "1"),
    ("('1' || repeat('0', 400))::numeric", NUMERIC, "1" + "0" * 400),
    ("12345678901234567890.123456789::numeric", NUMERIC, "12345678901234567890.123456789"),
    ("1.50::numeric(10,2)", NUMERIC, "1.50"),
    ("'NaN'::numeric", NUMERIC, "NaN"),
    ("'NaN'::numeric(5,1)", NUMERIC, "NaN"),
    ("'Infinity'::numeric", NUMERIC, "Infinity"),
    ("'-Infinity'::numeric", NUMERIC, "-Infinity"),
    ("'0.1'::float4", FLOAT, 0.1),
    ("'3.4028235e38'::float4", FLOAT, 3.4028235e38),
    ("0.1::float8", FLOAT, 0.1),
    ("'5e-324'::float8", FLOAT, 5e-324),
    ("'1.7976931348623157e308'::float8", FLOAT, 1.7976931348623157e308),
    ("'-0'::float8", FLOAT, -0.0),
    ("'Infinity'::float8", FLOAT, math.inf),
    ("'-Infinity'::float8", FLOAT, -math.inf),
    ("'NaN'::float8", FLOAT, math.nan),
    ("date '2024-02-29'", DATE, "2024-02-29"),
    ("date '0044-03-15 BC'", DATE, "0044-03-15 BC"),
    ("date '12345-01-01'", DATE, "12345-01-01"),
    ("date 'infinity'", DATE, "infinity"),
    ("date '-infinity'", DATE, "-infinity"),
    ("timestamp '2024-02-29 23:59:59.999999'", TIMESTAMP, "2024-02-29 23:59:59.999999"),
    ("timestamp '2024-01-01 10:00:00.500'", TIMESTAMP, "2024-01-01 10:00:00.5"),
    ("timestamp '0044-03-15 12:00 BC'", TIMESTAMP, "0044-03-15 12:00:00 BC"),
    ("timestamp '12345-01-01 01:02:03'", TIMESTAMP, "12345-01-01 01:02:03"),
    ("timestamp 'infinity'", TIMESTAMP, "infinity"),
    ("timestamptz '2024-01-01 10:00:00+05:30'", TIMESTAMP, "2024-01-01 04:30:00"),
    ("timestamptz '2024-01-01 10:00:00.000001-08'", TIMESTAMP, "2024-01-01 18:00:00.000001"),
    ("timestamptz '0044-03-15 12:00:00.25+00 BC'", TIMESTAMP, "0044-03-15 12:00:00.25 BC"),
    ("timestamptz '12345-01-01 00:00+00'", TIMESTAMP, "12345-01-01 00:00:00"),
    ("timestamptz '-infinity'", TIMESTAMP, "-infinity"),
    ("json '{\"a\":  [1, 1.50, null]}'", JSON, '{"a":  [1, 1.50, null]}'),
    ('jsonb \'{"b": 1e400, "a": "\\u00e9\\n"}\'', JSON, '{"a": "é\\n", "b": 1' + "0" * 400 + "}"),
    (r"'\xdeadbeef'::bytea", BINARY, r"\xdeadbeef"),
    ("''::bytea", BINARY, r"\x"),
    ("''::text", TEXT, ""),
    ("'NULL'::text", TEXT, "NULL"),
    (r"'\N'::text", TEXT, r"\N"),
    (r"'\.'::text", TEXT, r"\."),
    (r"E'tab\tnewline\nreturn\rslash\\bell\b\f\x0b\x01'", TEXT, "tab\tnewline\nreturn\rslash\\bell\b\f\v\x01"),
    ("'žluťoučký 🐎 漢字'", TEXT, "žluťoučký 🐎 漢字"),
    ("'ab'::char(5)", TEXT, "ab   "),
    ("'ab'::varchar(5)", TEXT, "ab"),
    ("'a'::\"char\"", TEXT, "a"),
    ("'name'::name", TEXT, "name"),
    ("NULL", TEXT, None),
    ("'7c9e6679-7425-40de-944b-e07fc1f90ae7'::uuid", TEXT, "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    ("time '23:59:59.5'", TEXT, "23:59:59.5"),
    ("time '24:00'", TEXT, "24:00:00"),
    ("timetz '10:00+02'", TEXT, "10:00:00+02"),
    ("interval '1 year 2 months -3 days 04:05:06.7'", TEXT, "1 year 2 mons -3 days +04:05:06.7"),
    ("interval '-1 second'", TEXT, "-00:00:01"),
    ("'192.168.0.1/24'::inet", TEXT, "192.168.0.1/24"),
    ("'::1'::inet", TEXT, "::1"),
    ("'10.0.0.0/8'::cidr", TEXT, "10.0.0.0/8"),
    ("'08:00:2b:01:02:03'::macaddr", TEXT, "08:00:2b:01:02:03"),
    ("'08:00:2b:01:02:03:04:05'::macaddr8", TEXT, "08:00:2b:01:02:03:04:05"),
    ("B'10101'", TEXT, "10101"),
    ("B'1010'::bit(8)", TEXT, "10100000"),
    ("'101'::varbit", TEXT, "101"),
    ("'1234.5'::money", TEXT, "$1,234.50"),
    ("'{1,NULL,3}'::int[]", TEXT, "{1,NULL,3}"),
    ("ARRAY['a,b', 'c\"d', NULL, '']", TEXT, '{"a,b","c\\"d",NULL,""}'),
    ("'[0:1]={1,2}'::int[]", TEXT, "[0:1]={1,2}"),
    ("ARRAY[timestamptz '2024-01-01 10:00+02']", TEXT, '{"2024-01-01 08:00:00+00"}'),
    ("ARRAY[date 'infinity']", TEXT, "{infinity}"),
    ("ARRAY[true, false]", TEXT, "{t,f}"),
    ("int4range(1, 5)", TEXT, "[1,5)"),
    ("'{[1,3),[5,8)}'::int4multirange", TEXT, "{[1,3),[5,8)}"),
    ("tstzrange('2024-01-01 00:00+01', NULL)", TEXT, '["2023-12-31 23:00:00+00",)'),
    ("'empty'::numrange", TEXT, "empty"),
    ("ROW(1, 'x y', NULL)::types_pair", TEXT, '(1,"x y",)'),
    ("ROW(1, 'a')", TEXT, "(1,a)"),
    ("'great mood'::types_mood", TEXT, "great mood"),
    ("5::types_positive", INTEGER, 5),
    ("1.5::types_price", NUMERIC, "1.50"),
    ("timestamptz '2024-01-01 10:00+02'::types_when", TIMESTAMP, "2024-01-01 08:00:00"),
    ("'a fat cat'::tsvector", TEXT, "'a' 'cat' 'fat'"),
    ("'fat & cat'::tsquery", TEXT, "'fat' & 'cat'"),
    ("point(1.5, -2)", TEXT, "(1.5,-2)"),
    ("'{1,2,3}'::line", TEXT, "{1,2,3}"),
    ("lseg '((0,0),(1,1))'", TEXT, "[(0,0),(1,1)]"),
    ("box '((0,0),(1,1))'", TEXT, "(1,1),(0,0)"),
    ("path '((0,0),(1,1))'", TEXT, "((0,0),(1,1))"),
    ("polygon '((0,0),(1,1),(1,0))'", TEXT, "((0,0),(1,1),(1,0))"),
    ("circle '((0,0),0.1)'", TEXT, "<(0,0),0.1>"),
    ("'16/B374D848'::pg_lsn", TEXT, "16/B374D848"),
    ("'10:20:10,14,15'::pg_snapshot", TEXT, "10:20:10,14,15"),
    ("'42'::xid8", TEXT, "42"),
    ("'(1,2)'::tid", TEXT, "(1,2)"),
    ("'pg_class'::regclass", TEXT, "pg_class"),
    ("'$.a[*] ? (@ > 1)'::jsonpath", TEXT, '$."a"[*]?(@ > 1)'),
    ("'<a>é</a>'::xml", TEXT, "<a>é</a>"),
    ("repeat('ž', 5000000)", TEXT, "ž" * 5_000_000),
    ("pg_sleep(0)", TEXT, ""),
]


@pytest.fixture(scope="module")
def types(postgres: Postgres, database: str) -> None:
    postgres.execute(
        """
        CREATE TYPE types_pair AS (a int, b text, c text);
        CREATE TYPE types_mood AS ENUM ('bad', 'great mood');
        CREATE DOMAIN types_positive AS int CHECK (value > 0);
        CREATE DOMAIN types_price AS numeric(8,2);
        CREATE DOMAIN types_when AS timestamptz;
        """,
        database,
    )
    # What an administrator may set, and what jobber's sessions must not be moved by.
    postgres.execute(
        f"""
        ALTER DATABASE {database} SET TimeZone = 'Asia/Kolkata';
        ALTER DATABASE {database} SET DateStyle = 'German, DMY';
        ALTER DATABASE {database} SET IntervalStyle = 'iso_8601';
        ALTER DATABASE {database} SET bytea_output = 'escape';
        ALTER DATABASE {database} SET extra_float_digits = -5;
        ALTER DATABASE {database} SET lc_monetary = 'C.UTF-8';
        """
    )


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same to the last bit, NaN and the sign of zero included."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize(("expression", "kind", "value"), VALUES, ids=[v[0][:50] for v in VALUES])
def test_a_value_arrives_in_canonical_form(
    pg: Source, accepts: frozenset[Shape], expression: str, kind: Kind, value: Value
) -> None:
    if expression.startswith(("'1234.5'::money",)):
        value = read(pg, f"SELECT ({expression})::text").rows[0][0]  # depends on the server's locale
    result = read(pg, f"SELECT {expression} AS v", accepts=accepts)
    assert result.kinds == [kind]
    assert same(result.rows[0][0], value)
    assert result.shape is (Shape.ENCODED if accepts is BOTH else Shape.DECODED)


def test_all_values_at_once_are_equal_in_both_shapes(pg: Source) -> None:
    sql = "SELECT " + ", ".join(v[0] for v in VALUES) + " FROM generate_series(1, 3)"
    decoded, encoded = read(pg, sql, accepts=DECODED), read(pg, sql, accepts=BOTH)
    assert decoded.columns == encoded.columns
    assert len(decoded.rows) == 3
    assert all(
        same(one, other)
        for pair in zip(decoded.rows, encoded.rows, strict=True)
        for one, other in zip(*pair, strict=True)
    )


def test_description_tells_the_same_columns_without_running(pg: Source) -> None:
    sql = "SELECT " + ", ".join(v[0] for v in VALUES) + ", 1/0 AS never"
    described = pg.describe(parse(sql, "postgresql"))
    assert described is not None
    assert [column.kind for column in described] == [v[1] for v in VALUES] + [Kind.INTEGER]


@pytest.mark.parametrize(
    ("declared", "column"),
    [
        ("numeric(10,2)", (10, 2)),
        ("numeric(10)", (10, 0)),
        ("numeric", (None, None)),
        ("numeric(1000,500)", (1000, 500)),
        ("numeric(5,-2)", (7, 0)),  # PostgreSQL 15
        ("numeric(3,5)", (5, 5)),
        ("numeric(1000,-1000)", (None, None)),
    ],
)
def test_the_bounds_of_a_numeric_hold_its_values(
    pg: Source, accepts: frozenset[Shape], declared: str, column: tuple[int | None, int | None]
) -> None:
    result = read(pg, f"SELECT NULL::{declared} AS v", accepts=accepts)
    assert result.columns == [Column("v", Kind.NUMERIC, *column)]


def test_values_within_odd_numeric_bounds_keep_their_digits(pg: Source, accepts: frozenset[Shape]) -> None:
    rows = read(pg, "SELECT 99949::numeric(5,-2) AS a, 0.00123::numeric(3,5) AS b", accepts=accepts).rows
    assert rows == [("99900", "0.00123")]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ('SELECT 1 AS a, 2 AS a, 3 AS "A"', ["a", "a", "A"]),
        ("SELECT 1, 2", ["?column?", "?column?"]),
        ('SELECT 1 AS "naïve ""quoted"" 漢字; --"', ['naïve "quoted" 漢字; --']),
        (f'SELECT 1 AS "{"x" * 63}"', ["x" * 63]),
        ("VALUES (1, 2)", ["column1", "column2"]),
    ],
)
def test_column_names_pass_as_they_are(pg: Source, accepts: frozenset[Shape], sql: str, names: list[str]) -> None:
    assert read(pg, sql, accepts=accepts).names == names


@pytest.mark.parametrize(
    "sql", ["EXPLAIN SELECT 1", "SHOW TimeZone", "/* c */ SHOW TimeZone -- end", "EXPLAIN (FORMAT JSON) SELECT $1::int"]
)
def test_what_copy_does_not_take_comes_decoded_by_itself(pg: Source, sql: str) -> None:
    result = read(pg, sql, [1] if "$1" in sql else [], accepts=BOTH)
    assert result.shape is Shape.DECODED
    assert len(result.rows) == 1


@pytest.mark.parametrize(
    "sql",
    ["VALUES (1)", "TABLE pg_namespace LIMIT 1", "WITH a AS (SELECT 1) SELECT * FROM a -- end", "(SELECT 1) /* end */"],
)
def test_what_copy_takes_comes_encoded(pg: Source, sql: str) -> None:
    result = read(pg, sql, accepts=BOTH)
    assert result.shape is Shape.ENCODED
    assert len(result.rows) == 1


def test_an_empty_result_has_columns_and_no_rows(pg: Source, accepts: frozenset[Shape]) -> None:
    result = read(pg, "SELECT 1 AS a, now() AS b WHERE false", accepts=accepts)
    assert result.names == ["a", "b"]
    assert result.rows == []


def test_the_order_of_rows_is_the_querys(pg: Source, accepts: frozenset[Shape]) -> None:
    result = read(pg, "SELECT g FROM generate_series(1, 20000) g ORDER BY (g * 7919) % 20011", accepts=accepts)
    assert [row[0] for row in result.rows] == sorted(range(1, 20001), key=lambda g: g * 7919 % 20011)
