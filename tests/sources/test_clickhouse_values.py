"""ClickHouse's values: none is changed on its way, and arguments come as what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings
from jobber.errors import BadArguments, QueryFailed, TaskFileError, ValueNotRepresentable
from jobber.sources import open_source
from jobber.sources.base import Source
from jobber.sources.clickhouse import types
from jobber.sources.clickhouse.literals import literal
from jobber.sqltext import parse
from tests.clickhouse_server import ClickHouse
from tests.sources.reading import read

OLD, NEW = (18, 16), (25, 8)


@pytest.fixture(scope="module")
def source(clickhouse: ClickHouse) -> Iterator[Source]:
    source = open_source(DatabaseSettings(name="reports", url=clickhouse.url(), engine="clickhouse", pool_size=2))
    yield source
    source.close()


VALUES = [
    ("toInt8(-128)", Kind.INTEGER, -128),
    ("toInt64(-9223372036854775807 - 1)", Kind.INTEGER, -(2**63)),
    ("toUInt32(4294967295)", Kind.INTEGER, 2**32 - 1),
    ("toUInt64(18446744073709551615)", Kind.NUMERIC, "18446744073709551615"),
    ("toDecimal128('-99945678901.12345678', 8)", Kind.NUMERIC, None),
    ("toDecimal32('1.25', 4)", Kind.NUMERIC, "1.25"),
    ("toFloat32(1.1)", Kind.FLOAT, 1.1),
    ("0.1 + 0.2", Kind.FLOAT, 0.30000000000000004),
    ("toFloat64(1e308)", Kind.FLOAT, 1e308),
    ("1 / 0", Kind.FLOAT, math.inf),
    ("toFloat32(-1 / 0)", Kind.FLOAT, -math.inf),
    ("'Zürich \\\\ \\' \\t \\0 😀'", Kind.TEXT, "Zürich \\ ' \t \0 😀"),
    ("''", Kind.TEXT, ""),
    ("toFixedString('ab', 4)", Kind.TEXT, "ab"),
    ("toDate('2024-02-29')", Kind.DATE, "2024-02-29"),
    # The server is in Asia/Kolkata: a moment is a moment.
    ("toDateTime('2024-02-29 05:30:00')", Kind.TIMESTAMP, "2024-02-29 00:00:00"),
    ("toDateTime('2024-07-01 12:00:00', 'Europe/Berlin')", Kind.TIMESTAMP, "2024-07-01 10:00:00"),
    ("toDateTime(1)", Kind.TIMESTAMP, "1970-01-01 00:00:01"),
    ("CAST('b' AS Enum8('a' = 1, 'b' = 2))", Kind.TEXT, "b"),
    ("toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", Kind.TEXT, "61f0c404-5cb3-11e7-907b-a6006ad3dba0"),
    ("[1, 2]", Kind.TEXT, "[1,2]"),
    ("[['a\\'b'], []]", Kind.TEXT, "[['a\\'b'],[]]"),
    ("(1, 'a')", Kind.TEXT, "(1,'a')"),
    ("NULL", Kind.TEXT, None),
    ("CAST(NULL AS Nullable(Int32))", Kind.INTEGER, None),
    ("CAST(NULL AS Nullable(DateTime))", Kind.TIMESTAMP, None),
    ("CAST(7 AS Nullable(UInt64))", Kind.NUMERIC, "7"),
]


@pytest.mark.parametrize(("sql", "kind", "value"), VALUES, ids=[sql for sql, *_ in VALUES])
def test_a_value_comes_as_it_is(source: Source, sql: str, kind: Kind, value: object) -> None:
    if "Decimal" in sql:
        value = sql.split("'")[1] if value is None else value
    # Beside a column that only the server can make text of, and beside one that needs none of that.
    for beside in ("1", "now()"):
        result = read(source, f"SELECT {sql} AS v, {beside} AS w")
        found = result.rows[0][0]
        if isinstance(found, str) and kind is Kind.NUMERIC and "." in found:
            found = found.rstrip("0")
        assert (result.kinds[0], found) == (kind, value)


def test_a_number_that_the_server_garbles_fails() -> None:
    field = types.field("c", "Decimal(38, 8)", "reports")
    assert field.canonical(["-1.5", None]) == ["-1.5", None]
    with pytest.raises(ValueNotRepresentable, match="which is no number"):
        field.canonical(["-1\0\0\x0012345678901234567890.12345678"])


def test_nan_is_nan(source: Source) -> None:
    ((value,),) = read(source, "SELECT 0 / 0 AS v").rows
    assert isinstance(value, float)
    assert math.isnan(value)


def test_bounds_of_numbers_are_the_servers(source: Source) -> None:
    columns = read(source, "SELECT toDecimal64('1.5', 3) AS d, toUInt64(1) AS u").columns
    assert [(column.precision, column.scale) for column in columns] == [(18, 3), (20, 0)]


@pytest.mark.parametrize("sql", ["unhex('ff00')", "toFixedString(unhex('ff00'), 2)", "[unhex('ff')]"])
def test_bytes_that_are_no_text_fail_and_name_the_column(source: Source, sql: str) -> None:
    with pytest.raises(ValueNotRepresentable, match=r"column 'v' holds bytes that are no UTF-8 text.*hex\(v\)"):
        read(source, f"SELECT {sql} AS v FROM numbers(3)")
    assert read(source, "SELECT 1").rows == [(1,)]


def test_the_state_of_an_aggregate_is_refused(source: Source) -> None:
    with pytest.raises(QueryFailed, match="column 's' is the state of an aggregate function") as failed:
        read(source, "SELECT sumState(number) AS s FROM numbers(3)")
    assert not failed.value.retryable


def test_names_are_the_querys(source: Source) -> None:
    result = read(source, "SELECT now() AS `a \\` \\\\ b`")
    assert result.names == ["a ` \\ b"]


def test_columns_of_one_name_are_told_apart_by_their_place_or_refused(source: Source) -> None:
    assert read(source, "SELECT number, number FROM numbers(2)").rows == [("0", "0"), ("1", "1")]
    with pytest.raises(QueryFailed, match="more than one column is called 't'"):
        read(source, "SELECT t, t FROM (SELECT now() AS t)")


def test_rows_keep_their_order(source: Source) -> None:
    rows = read(source, "SELECT number AS n, toDate(1) AS d FROM numbers(200000) ORDER BY number % 1000, number").rows
    expected = sorted(range(200_000), key=lambda n: (n % 1000, n))
    assert [int(str(row[0])) for row in rows] == expected


def test_totals_are_no_rows(source: Source) -> None:
    sql = "SELECT number % 2 AS k, count() AS c FROM numbers(4) GROUP BY k WITH TOTALS ORDER BY k"
    assert read(source, sql).rows == [(0, "2"), (1, "2")]


def test_statements_that_tell_are_read_as_they_are(source: Source) -> None:
    assert ("system",) in read(source, "SHOW DATABASES").rows
    assert read(source, "EXISTS TABLE system.one").rows == [(1,)]
    assert read(source, "/* a */ DESCRIBE TABLE system.one").rows[0][:2] == ("dummy", "UInt8")
    assert source.describe(parse("SHOW DATABASES", "clickhouse")) is None


def test_a_query_is_described_without_its_arguments(source: Source) -> None:
    def described(sql: str) -> object:
        return source.describe(parse(sql, "clickhouse"))

    assert described("SELECT number AS n, now() AS t FROM numbers(5) WHERE number > ?") == [
        Column("n", Kind.NUMERIC, 20, 0),
        Column("t", Kind.TIMESTAMP),
    ]
    assert described("SELECT 1 LIMIT :n") is None
    with pytest.raises(QueryFailed, match="nothing"):
        described("SELECT nothing FROM numbers(5) WHERE number > ?")


# -- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_come_as_what_they_are(source: Source) -> None:
    args = {"a": -5, "b": "it's \\ o'k\0\n😀", "c": None, "d": True, "e": Decimal("1.25"), "f": 2**64 - 1}
    sql = "SELECT 1 -:a AS a, :b AS b, :c AS c, :d AS d, :e AS e, :f AS f, :b AS g"
    ((a, b, c, d, e, f, g),) = read(source, sql, args).rows
    assert (a, b, c, d, e, f, g) == (6, args["b"], None, 1, 1.25, str(2**64 - 1), args["b"])


def test_an_argument_stays_inside_its_quotes(source: Source) -> None:
    for text in ("'", "\\", "\\'", "''", "'; DROP TABLE x --", "\\\\'", "*/ /*", "\u2019", "$$", "`"):
        assert read(source, "SELECT ? AS v, '?' AS w, now() AS x", [text]).rows[0][:2] == (text, "?")


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_quoted_so_that_the_rules_read_it_back(text: str) -> None:
    quoted = literal(text, NEW)
    unescaped = quoted[1:-1].replace("\\\\", "\x01\x01").replace("\\'", "'").replace("\\0", "\0")
    assert unescaped.replace("\x01\x01", "\\") == text or "\x01" in text
    assert "'" not in quoted[1:-1].replace("\\\\", "").replace("\\'", "")


@pytest.mark.parametrize(
    ("value", "version", "expected"),
    [
        (True, NEW, "true"),
        (False, OLD, "0"),
        (2**64, NEW, "toInt256('18446744073709551616')"),
        (-(2**63), NEW, "-9223372036854775808"),
        (-(2**63) - 1, NEW, "toInt256('-9223372036854775809')"),
        (Decimal("0.10"), NEW, "0.1"),
        (Decimal("1E+3"), NEW, "1000.0"),
        (Decimal("123456789012345678.123"), NEW, "toDecimal128('123456789012345678.123', 3)"),
        (Decimal("1." + "1" * 40), NEW, "toDecimal256('1." + "1" * 40 + "', 40)"),
    ],
)
def test_a_number_keeps_its_digits(value: int | Decimal, version: tuple[int, ...], expected: str) -> None:
    assert literal(value, version) == expected


@pytest.mark.parametrize("value", [2**256, Decimal("1." + "1" * 80), Decimal("NaN"), "\ud800"])
def test_what_no_constant_can_be_is_refused(value: int | Decimal | str) -> None:
    with pytest.raises(BadArguments):
        literal(value, NEW)


def test_the_wrong_number_of_arguments_fails(source: Source) -> None:
    with pytest.raises(BadArguments, match="1 placeholder"):
        read(source, "SELECT ?", [1, 2])


def test_placeholders_are_told_from_what_only_looks_like_one() -> None:
    sql = "SELECT '\\'?', \"?\", `\\`?`, {a:UInt8}, x::Int8, [1,2][?], m[:k] -- ?\n, $$ ? $$ # ?"
    with pytest.raises(TaskFileError, match="mixes named"):
        parse(sql, "clickhouse")
    assert parse(sql.replace(":k", "1"), "clickhouse").count == 1


# -- types that the server at hand may not have -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "column", "asked"),
    [
        ("Bool", Column("c", Kind.BOOLEAN), "`c`"),
        ("LowCardinality(Nullable(String))", Column("c", Kind.TEXT), "`c`"),
        ("SimpleAggregateFunction(sum, UInt64)", Column("c", Kind.NUMERIC, 20, 0), "`c`"),
        ("SimpleAggregateFunction(groupArrayArray(5), Array(String))", Column("c", Kind.TEXT), "CAST"),
        ("Int256", Column("c", Kind.NUMERIC, 77, 0), "`c`"),
        ("Nullable(Decimal(76, 70))", Column("c", Kind.NUMERIC, 76, 70), "CAST"),
        ("Date32", Column("c", Kind.DATE), "CAST"),
        ("DateTime64(6, 'Asia/Kolkata')", Column("c", Kind.TIMESTAMP), "toString(`c`, 'UTC')"),
        ("DateTime64(9)", Column("c", Kind.TEXT), "toString(`c`, 'UTC')"),
        ("BFloat16", Column("c", Kind.FLOAT), "CAST"),
        ("JSON(max_dynamic_paths=5)", Column("c", Kind.JSON), "CAST"),
        ("Object('json')", Column("c", Kind.JSON), "CAST"),
        ("Map(String, UInt8)", Column("c", Kind.TEXT), "CAST"),
        ("Nullable(Tuple(Decimal(5, 2), String))", Column("c", Kind.TEXT), "CAST"),
        ("Variant(String, UInt8)", Column("c", Kind.TEXT), "CAST"),
        ("Time64(3)", Column("c", Kind.TEXT), "CAST"),
        ("IPv6", Column("c", Kind.TEXT), "CAST"),
    ],
)
def test_the_kind_of_a_type(declared: str, column: Column, asked: str) -> None:
    field = types.field("c", declared, "reports")
    assert field.column == column
    assert field.asked().startswith(asked)


def test_zeros_at_the_end_of_a_fraction_go() -> None:
    field = types.field("c", "DateTime64(6)", "reports")
    texts = ["2024-01-01 10:20:30.000000", "2024-01-01 00:00:00.120000", None]
    assert field.canonical(texts) == ["2024-01-01 10:20:30", "2024-01-01 00:00:00.12", None]
