"""Every type of MySQL and MariaDB arrives unchanged, the same in both shapes and over both protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.columns import Column, Kind
from jobber.errors import ValueNotRepresentable
from jobber.sources.base import Shape, Source
from jobber.sqltext import parse
from tests.sources.engines import MysqlEngine, opened
from tests.sources.reading import BOTH, DECODED, Result, Value, read

INTEGER, NUMERIC, FLOAT = Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT
DATE, TIMESTAMP, JSON, BINARY, TEXT = Kind.DATE, Kind.TIMESTAMP, Kind.JSON, Kind.BINARY, Kind.TEXT

#: (declared type, SQL of the value, kind, canonical value)
COLUMNS: list[tuple[str, str, Kind, Value]] = [
    ("TINYINT(1)", "-128", INTEGER, -128),
    ("BOOLEAN", "TRUE", INTEGER, 1),
    ("TINYINT UNSIGNED", "255", INTEGER, 255),
    ("SMALLINT", "-32768", INTEGER, -32768),
    ("SMALLINT UNSIGNED", "65535", INTEGER, 65535),
    ("MEDIUMINT", "-8388608", INTEGER, -8388608),
    ("MEDIUMINT UNSIGNED", "16777215", INTEGER, 16777215),
    ("INT", "-2147483648", INTEGER, -(2**31)),
    ("INT UNSIGNED", "4294967295", INTEGER, 2**32 - 1),
    ("INT(6) ZEROFILL", "42", INTEGER, 42),
    ("BIGINT", "-9223372036854775808", INTEGER, -(2**63)),
    ("BIGINT", "9223372036854775807", INTEGER, 2**63 - 1),
    ("BIGINT UNSIGNED", "18446744073709551615", NUMERIC, "18446744073709551615"),
    ("BIGINT(20) UNSIGNED ZEROFILL", "7", NUMERIC, "7"),
    ("YEAR", "2024", INTEGER, 2024),
    ("YEAR", "0", INTEGER, 0),
    ("DECIMAL(10,2)", "-1.50", NUMERIC, "-1.50"),
    ("DECIMAL(10,2) UNSIGNED ZEROFILL", "1.50", NUMERIC, "1.50"),
    ("DECIMAL(5,5)", "0.00012", NUMERIC, "0.00012"),
    ("DECIMAL(65,30)", "-12345678901234567890123456789012345.123456789012345678901234567890", NUMERIC,
     "-12345678901234567890123456789012345.123456789012345678901234567890"),
    ("FLOAT", "0.1", FLOAT, 0.1),
    ("FLOAT", "16777217", FLOAT, 16777216.0),
    ("FLOAT", "3.4028234e38", FLOAT, 3.4028235e38),
    ("FLOAT", "1e-45", FLOAT, 1e-45),
    ("FLOAT", "1234567.1", FLOAT, 1234567.1),
    ("FLOAT(10,2)", "1234567.12", FLOAT, 1234567.1),
    ("DOUBLE", "0.1", FLOAT, 0.1),
    ("DOUBLE", "5e-324", FLOAT, 5e-324),
    ("DOUBLE", "1.7976931348623157e308", FLOAT, 1.7976931348623157e308),
    ("DOUBLE(20,3)", "123456789012.345", FLOAT, 123456789012.345),
    ("DATE", "'0001-01-01'", DATE, "0001-01-01"),
    ("DATE", "'9999-12-31'", DATE, "9999-12-31"),
    ("DATE", "'2024-02-29'", DATE, "2024-02-29"),
    ("DATETIME", "'2024-02-29 23:59:59'", TIMESTAMP, "2024-02-29 23:59:59"),
    ("DATETIME(6)", "'2024-02-29 00:00:00.000001'", TIMESTAMP, "2024-02-29 00:00:00.000001"),
    ("DATETIME(3)", "'2024-01-01 10:00:00.500'", TIMESTAMP, "2024-01-01 10:00:00.5"),
    ("DATETIME(6)", "'2024-01-01 10:00:00'", TIMESTAMP, "2024-01-01 10:00:00"),
    ("DATETIME", "'2024-10-10 00:00:00'", TIMESTAMP, "2024-10-10 00:00:00"),
    ("TIMESTAMP NULL", "'2024-01-01 10:00:00'", TIMESTAMP, "2024-01-01 10:00:00"),
    ("TIMESTAMP(2) NULL", "'2037-12-31 23:59:59.99'", TIMESTAMP, "2037-12-31 23:59:59.99"),
    ("TIME", "'-838:59:59'", TEXT, "-838:59:59"),
    ("TIME(3)", "'100:00:00.500'", TEXT, "100:00:00.500"),
    ("TIME", "'00:00:00'", TEXT, "00:00:00"),
    ("CHAR(5)", "'ab'", TEXT, "ab"),
    ("VARCHAR(20)", "'žluťoučký 🐎 漢字'", TEXT, "žluťoučký 🐎 漢字"),
    ("VARCHAR(9) CHARACTER SET latin1", "'é€'", TEXT, "é€"),
    ("VARCHAR(9) CHARACTER SET utf16", "'🐎'", TEXT, "🐎"),
    ("VARCHAR(9) CHARACTER SET sjis", "'漢字'", TEXT, "漢字"),
    ("TINYTEXT", "''", TEXT, ""),
    ("TEXT", r"'\\N'", TEXT, r"\N"),
    ("TEXT", r"'\\.'", TEXT, r"\."),
    ("MEDIUMTEXT", r"'tab\tnewline\nreturn\rslash\\\\bell\b\Z'", TEXT, "tab\tnewline\nreturn\rslash\\\\bell\b\x1a"),
    ("LONGTEXT", r"'nul\0inside'", TEXT, "nul\0inside"),
    ("LONGTEXT", "REPEAT('x', 250)", TEXT, "x" * 250),
    ("LONGTEXT", "REPEAT('x', 251)", TEXT, "x" * 251),
    ("LONGTEXT", "REPEAT('ž', 40000)", TEXT, "ž" * 40000),
    ("LONGTEXT", "REPEAT('x', 70000)", TEXT, "x" * 70000),
    ("ENUM('a', 'it''s')", r"'it\'s'", TEXT, "it's"),
    ("SET('a', 'b', 'c')", "'a,c'", TEXT, "a,c"),
    ("JSON", """'{"a":  [1, 1.50, null]}'""", JSON, None),  # MySQL keeps the value, MariaDB the text
    ("BINARY(4)", "x'00ff'", BINARY, r"\x00ff0000"),
    ("VARBINARY(9)", "x'5c4e'", BINARY, r"\x5c4e"),
    ("TINYBLOB", "''", BINARY, r"\x"),
    ("LONGBLOB", r"'\0\n\t\\'", BINARY, r"\x000a095c"),
    ("BIT(1)", "b'1'", TEXT, "1"),
    ("BIT(10)", "b'101'", TEXT, "0000000101"),
    ("BIT(64)", "b'1'", TEXT, "0" * 63 + "1"),
    ("POINT", "ST_GeomFromText('POINT(1.5 -2)')", TEXT, "POINT(1.5 -2)"),
    ("GEOMETRY", "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)", TEXT, "SRID=4326;LINESTRING(0 0,1 1)"),
]  # fmt: skip

MARIADB_COLUMNS: list[tuple[str, str, Kind, Value]] = [
    ("UUID", "'7c9e6679-7425-40de-944b-e07fc1f90ae7'", TEXT, "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    ("INET6", "'2001:db8::1'", TEXT, "2001:db8::1"),
    ("INET4", "'192.168.0.1'", TEXT, "192.168.0.1"),
]
MYSQL_COLUMNS: list[tuple[str, str, Kind, Value]] = [
    ("VECTOR(2)", "STRING_TO_VECTOR('[1,2]')", BINARY, r"\x0000803f00000040")
]

#: (expression, kind, canonical value)
EXPRESSIONS: list[tuple[str, Kind, Value]] = [
    ("NULL", TEXT, None),
    ("TRUE", INTEGER, 1),
    ("1 = 2", INTEGER, 0),
    ("COUNT(*)", INTEGER, 1),
    ("~0", NUMERIC, "18446744073709551615"),
    ("CAST(-1 AS SIGNED)", INTEGER, -1),
    ("1.50", NUMERIC, "1.50"),
    ("SUM(1.50)", NUMERIC, "1.50"),
    ("1 / 3", NUMERIC, "0.3333"),
    ("PI()", FLOAT, math.pi),
    ("1e0 / 3", FLOAT, 1 / 3),
    ("ROUND(2.345e0, 2)", FLOAT, 2.35),
    ("1e300 * 1e-300", FLOAT, 1.0),
    ("x'41'", BINARY, r"\x41"),
    ("b'1000001'", BINARY, r"\x41"),
    ("CAST('é' AS BINARY)", BINARY, r"\xc3a9"),
    ("_latin1 x'e9'", TEXT, "é"),
    ("CONCAT('a', 1, NULL)", TEXT, None),
    ("CONCAT('a', 1)", TEXT, "a1"),
    ("GROUP_CONCAT('a')", TEXT, "a"),
    ("DATE('2024-01-31')", DATE, "2024-01-31"),
    ("TIMESTAMP('2024-01-31 10:00:00.250')", TIMESTAMP, "2024-01-31 10:00:00.25"),
    ("TIMEDIFF('00:00:00', '48:00:01')", TEXT, "-48:00:01"),
    ("FROM_UNIXTIME(0)", TIMESTAMP, "1970-01-01 00:00:00"),
    ("JSON_EXTRACT('{\"a\": [1, \"x\"]}', '$.a')", JSON, '[1, "x"]'),
    ("MAX(CAST('2024-01-31' AS DATE))", DATE, "2024-01-31"),
    ("REPEAT('z', 5000000)", TEXT, "z" * 5_000_000),
]


@pytest.fixture(scope="module")
def columns(mysql: MysqlEngine) -> list[tuple[str, str, Kind, Value]]:
    """What stands in the one row of the table ``t``, whose columns are c0, c1 …"""
    columns = COLUMNS + (MYSQL_COLUMNS if mysql.server.is_mysql else MARIADB_COLUMNS)
    declared = ", ".join(f"c{i} {declared}" for i, (declared, *_) in enumerate(columns))
    values = ", ".join(value for _, value, *_ in columns)
    with mysql.server.connect(mysql.database, charset="utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        cursor.execute(f"CREATE TABLE t ({declared}) ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4")
        cursor.execute(f"INSERT INTO t VALUES ({values})")
    return columns


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same to the last bit, NaN and the sign of zero included."""
    return type(one) is type(other) and repr(one) == repr(other)


def equal(one: Result, other: Result) -> bool:
    return one.columns == other.columns and all(
        same(a, b) for pair in zip(one.rows, other.rows, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_a_value_of_each_type_arrives_in_canonical_form(
    maria: Source, accepts: frozenset[Shape], columns: list[tuple[str, str, Kind, Value]]
) -> None:
    for i, (declared, _, kind, value) in enumerate(columns):
        result = read(maria, f"SELECT c{i} FROM t", accepts=accepts)
        assert result.kinds == [kind], declared
        if declared == "JSON":
            assert result.rows[0][0] in {'{"a":  [1, 1.50, null]}', '{"a": [1, 1.50, null]}', '{"a": [1, 1.5, null]}'}
        else:
            assert same(result.rows[0][0], value), declared
        assert result.shape is (Shape.ENCODED if accepts is BOTH else Shape.DECODED)


@pytest.mark.parametrize(("expression", "kind", "value"), EXPRESSIONS, ids=[e[0][:50] for e in EXPRESSIONS])
def test_an_expression_arrives_in_canonical_form(
    maria: Source, accepts: frozenset[Shape], expression: str, kind: Kind, value: Value
) -> None:
    result = read(maria, f"SELECT {expression} AS v", accepts=accepts)
    assert result.kinds == [kind]
    assert same(result.rows[0][0], value)


@pytest.mark.usefixtures("columns")
def test_both_shapes_and_both_protocols_give_the_same_table(maria: Source, columns: list[tuple[object, ...]]) -> None:
    # Columns that the text protocol would round go over the binary one, and all others with them.
    plain = ", ".join(f"c{i}" for i, (declared, *_) in enumerate(columns) if "FLOAT" not in str(declared))
    texts, binaries = (
        [read(maria, f"SELECT {what} FROM t", accepts=accepts) for accepts in (DECODED, BOTH)]
        for what in (plain.replace("c29,", ""), plain.replace("c29,", "") + ", PI()")
    )
    assert equal(*texts)
    assert equal(*binaries)
    assert [row[:-1] for row in binaries[0].rows] == texts[0].rows
    assert all(binaries[0].rows[0][i] is not None for i in range(len(binaries[0].columns)))


def test_a_row_of_nulls_arrives_as_one(maria: Source, accepts: frozenset[Shape], mysql: MysqlEngine) -> None:
    names = ", ".join(f"c{i}" for i in range(20))
    mysql.watch("DROP TABLE IF EXISTS nulls")
    mysql.watch(f"CREATE TABLE nulls ({', '.join(f'c{i} INT' for i in range(20))}, f FLOAT)")
    mysql.watch(f"INSERT INTO nulls ({names}) VALUES ({', '.join(['NULL'] * 20)}), ({', '.join(map(str, range(20)))})")
    for sql in (f"SELECT {names} FROM nulls", "SELECT * FROM nulls"):
        rows = read(maria, sql, accepts=accepts).rows
        assert [row[:20] for row in rows] == [(None,) * 20, tuple(range(20))]


def test_description_tells_the_same_columns_without_running(
    maria: Source, columns: list[tuple[str, str, Kind, Value]]
) -> None:
    described = maria.describe(parse("SELECT * FROM t WHERE sleep(60) = ?", "mysql"))
    assert described is not None
    assert [column.kind for column in described] == [kind for _, _, kind, _ in columns]


@pytest.mark.parametrize(
    ("declared", "bounds"),
    [
        ("DECIMAL(10,2)", (10, 2)),
        ("DECIMAL(10,2) UNSIGNED", (10, 2)),
        ("DECIMAL(10)", (10, 0)),
        ("DECIMAL(5,5)", (5, 5)),
        ("DECIMAL(1,0) UNSIGNED", (1, 0)),
        ("DECIMAL(65,30)", (65, 30)),
        ("BIGINT UNSIGNED", (20, 0)),
    ],
)
def test_the_bounds_of_a_numeric_hold_its_values(
    mysql: MysqlEngine, maria: Source, declared: str, bounds: tuple[int, int]
) -> None:
    mysql.watch("DROP TABLE IF EXISTS bounded")
    mysql.watch(f"CREATE TABLE bounded (v {declared})")
    assert read(maria, "SELECT v FROM bounded").columns == [Column("v", NUMERIC, *bounds)]
    summed = read(maria, "SELECT SUM(v) AS v FROM bounded").columns[0]
    assert summed.precision is not None
    assert summed.precision >= bounds[0]
    assert summed.scale == bounds[1]


# -- dates ------------------------------------------------------------------------------------------------------------

ZEROS = [
    ("DATE", "0000-00-00"),
    ("DATE", "2024-00-10"),
    ("DATE", "2024-10-00"),
    ("DATETIME", "0000-00-00 00:00:00"),
    ("DATETIME(6)", "2024-00-00 10:00:00.500000"),
    ("TIMESTAMP NULL", "0000-00-00 00:00:00"),
]


@pytest.fixture
def dates(mysql: MysqlEngine) -> Iterator[MysqlEngine]:
    """A table of dates, as a server without strict modes lets them in."""
    yield mysql
    mysql.watch("DROP TABLE IF EXISTS dates")


def _dated(mysql: MysqlEngine, declared: str, value: str) -> None:
    mysql.watch(f"CREATE TABLE dates (i INT, d {declared}, f FLOAT)")
    with mysql.server.connect(mysql.database) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        cursor.execute("INSERT INTO dates VALUES (1, '2024-02-29', 0.1), (2, NULL, 0.2), (3, %s, 0.3)", (value,))


@pytest.mark.parametrize(("declared", "value"), ZEROS)
def test_a_zero_date_fails_the_query_or_becomes_null(
    dates: MysqlEngine, maria: Source, accepts: frozenset[Shape], declared: str, value: str
) -> None:
    _dated(dates, declared, value)
    lenient = opened(dates, zero_dates="null")
    for sql in ("SELECT i, d FROM dates ORDER BY i", "SELECT i, d, f FROM dates ORDER BY i"):
        with pytest.raises(ValueNotRepresentable, match=f'column "d" cannot hold "{value}": .*zero_dates = "null"'):
            read(maria, sql, accepts=accepts)
        rows = read(lenient, sql, accepts=accepts).rows
        assert [(row[0], row[1] is None) for row in rows] == [(1, False), (2, True), (3, True)]
    lenient.close()


@pytest.mark.parametrize(
    ("declared", "value"),
    [("DATE", "0000-05-01"), ("DATE", "2023-02-31"), ("DATETIME", "2023-02-29 10:00:00"), ("DATE", "2023-04-31")],
)
def test_a_day_that_does_not_exist_fails_the_query(
    dates: MysqlEngine, accepts: frozenset[Shape], declared: str, value: str
) -> None:
    _dated(dates, declared, value)
    lenient = opened(dates, zero_dates="null")
    for sql in ("SELECT d FROM dates", "SELECT d, f FROM dates"):
        with pytest.raises(ValueNotRepresentable, match=f'column "d" cannot hold "{value}": there is no such day'):
            read(lenient, sql, accepts=accepts)
    lenient.close()


# -- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**24 - 10, 2**24 - 5, 2**24 - 4, 2**24 - 1, 2**24, 20 * 2**20, 2**25 - 10])
def test_rows_that_take_several_packets_arrive_whole(
    mysql: MysqlEngine, maria: Source, accepts: frozenset[Shape], size: int
) -> None:
    # The payload of a packet is 2^24 - 1 bytes at most; a row of just that goes on in an empty one.
    sql = "SELECT n, REPEAT('x', ?) AS big, 'end' AS e FROM digits, (SELECT 7 AS n) q WHERE d < 2"
    result = read(maria, sql, [size], accepts=accepts)
    assert [(n, len(str(big)), e) for n, big, e in result.rows] == [(7, size, "end")] * 2
    over_binary = read(maria, sql.replace("'end'", "PI()"), [size], accepts=accepts)
    assert [(n, len(str(big)), e) for n, big, e in over_binary.rows] == [(7, size, math.pi)] * 2


# -- text -------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(*[st.none() | st.text("a\\\t\n\r\0N.é🐎'\"", max_size=9), st.none() | st.binary(max_size=5)]),
        min_size=1,
        max_size=20,
    )
)
def test_any_text_and_any_bytes_come_through(
    mysql: MysqlEngine, maria: Source, accepts: frozenset[Shape], rows: list[tuple[str | None, bytes | None]]
) -> None:
    selects = " UNION ALL ".join(["SELECT ? AS i, ? AS t, UNHEX(?) AS b"] * len(rows))
    args: list[str | int | None] = []
    for i, (text, data) in enumerate(rows):
        args += [i, text, None if data is None else data.hex()]
    result = read(maria, f"{selects} ORDER BY i", args, accepts=accepts)
    expected = [(i, text, None if data is None else "\\x" + data.hex()) for i, (text, data) in enumerate(rows)]
    assert result.rows == expected


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1 AS a, 2 AS a, 3 AS A", ["a", "a", "A"]),
        ("SELECT 1, 'x y'", ["1", "x y"]),
        ("SELECT 1 AS `naïve ``quoted`` 漢字; --`", ["naïve `quoted` 漢字; --"]),
        (f"SELECT 1 AS `{'x' * 64}`", ["x" * 64]),
        ("SELECT d.*, n.n + 1 AS m FROM digits d, numbers n LIMIT 1", ["d", "m"]),
    ],
)
def test_column_names_pass_as_they_are(maria: Source, accepts: frozenset[Shape], sql: str, names: list[str]) -> None:
    assert read(maria, sql, accepts=accepts).names == names


@pytest.mark.parametrize("sql", ["SELECT ?, n + ? FROM numbers LIMIT 1", "SELECT f AS a, ? FROM (SELECT PI() AS f) q"])
def test_column_names_do_not_hold_the_arguments(maria: Source, accepts: frozenset[Shape], sql: str) -> None:
    args = ["secret", 7] if sql.count("?") == 2 else ["secret"]
    described = maria.describe(parse(sql, "mysql"))
    assert described is not None
    assert read(maria, sql, args, accepts=accepts).names == [column.name for column in described]


def test_invisible_columns_are_not_shown_unless_asked_for(
    mysql: MysqlEngine, maria: Source, accepts: frozenset[Shape]
) -> None:
    mysql.watch("CREATE TABLE IF NOT EXISTS shy (a INT, b INT INVISIBLE)")
    assert read(maria, "SELECT * FROM shy", accepts=accepts).names == ["a"]
    assert read(maria, "SELECT b FROM shy", accepts=accepts).names == ["b"]


def test_an_empty_result_has_columns_and_no_rows(maria: Source, accepts: frozenset[Shape]) -> None:
    result = read(maria, "SELECT 1 AS a, now() AS b FROM digits WHERE false", accepts=accepts)
    assert (result.names, result.rows) == (["a", "b"], [])


@pytest.mark.parametrize("sql", ["SHOW TABLES", "EXPLAIN SELECT * FROM digits", "SHOW WARNINGS", "DESCRIBE digits"])
def test_what_only_shows_something_is_a_query_too(maria: Source, accepts: frozenset[Shape], sql: str) -> None:
    described = maria.describe(parse(sql, "mysql"))
    result = read(maria, sql, accepts=accepts)
    assert described is None or [column.name for column in described] == result.names


def test_the_order_of_rows_is_the_querys(maria: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT a.n * 10 + b.d AS g FROM numbers a, digits b ORDER BY ((a.n * 10 + b.d) * 7919) % 20011"
    result = read(maria, sql, accepts=accepts)
    assert [row[0] for row in result.rows] == sorted(range(10_000), key=lambda g: g * 7919 % 20011)
