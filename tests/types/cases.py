"""Every scalar type of each source, a value of it, and what stands for it in each results database.

``text`` is the value's canonical form (``jobber.columns``); an engine that holds something else says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: In the place of a value: the job must fail, naming the column and the value.
FAILS: Any = object()
#: In the place of a value: as ``text`` says.
SAME: Any = object()


@dataclass(frozen=True)
class Case:
    """A value and what becomes of it.

    Parameters:
        sql: PostgreSQL and SQLite: an expression. MariaDB: the literal that is put into a column.
        kind: of the result's column, numeric with its bounds.
        text: canonical form.
        pg, lite, my: what the results database holds where that is something else, or FAILS.
        shown: a part of the value that a failure must show; ``text`` if not given.
        type: MariaDB: of the column.
        mariadb_only: MySQL does not have the type, or not this value.
    """

    sql: str
    kind: str
    text: str | None
    pg: Any = SAME
    lite: Any = SAME
    my: Any = SAME
    shown: str | None = None
    type: str = ""
    mariadb_only: bool = False

    def held(self, engine: str) -> Any:
        """Return what the results database holds."""
        value = {"postgresql": self.pg, "sqlite": self.lite, "mysql": self.my}[engine]
        return self.text if value is SAME else value

    def __str__(self) -> str:
        return f"{self.type} {self.sql}"[:60].strip()


_TRAPS = "tab\there\nline\r\\ back \\. end\x1a\b\f\v'\"`"

POSTGRESQL = [
    Case("32767::smallint", "integer", "32767"),
    Case("(-2147483648)::integer", "integer", "-2147483648"),
    Case("(-9223372036854775808)::bigint", "integer", "-9223372036854775808"),
    Case("4294967295::oid", "integer", "4294967295"),
    Case("7::positive", "integer", "7"),
    Case("1.50::numeric(10,2)", "numeric(10,2)", "1.50"),
    Case("12345678901234567890.1234567890123456789::numeric", "numeric", "12345678901234567890.1234567890123456789"),
    Case("0.000000000000000000000000000001::numeric", "numeric", "0.000000000000000000000000000001"),
    Case("(1.5::numeric(40,35))::numeric", "numeric", "1.5" + "0" * 34),
    Case("99999999999999999999999999999999999::numeric", "numeric", "9" * 35),
    Case("1e40::numeric", "numeric", "1" + "0" * 40, my=FAILS),
    Case("1e-31::numeric", "numeric", "0." + "0" * 30 + "1", my=FAILS),
    Case("(1e-31)::numeric(40,35)", "numeric(40,35)", "0." + "0" * 30 + "10000", my=FAILS),
    Case("12345::numeric(3,-2)", "numeric(5,0)", "12300"),
    Case("0.00012::numeric(2,5)", "numeric(5,5)", "0.00012"),
    Case("'NaN'::numeric", "numeric", "NaN", my=FAILS),
    Case("'-Infinity'::numeric", "numeric", "-Infinity", my=FAILS),
    Case("'NaN'::numeric(10,2)", "numeric(10,2)", "NaN", my=FAILS),
    Case("0.1::real", "float", "0.1"),
    Case("1.17549435e-38::real", "float", "0." + "0" * 37 + "11754944"),
    Case("0.1::float8 + 0.2::float8", "float", "0.30000000000000004"),
    Case("1.7976931348623157e308::float8", "float", "17976931348623157" + "0" * 292),
    Case("5e-324::float8", "float", "0." + "0" * 323 + "5"),
    Case("'NaN'::float8", "float", "NaN", lite=FAILS, my=FAILS, shown="nan"),
    Case("'Infinity'::float8", "float", "Infinity", my=FAILS, shown="inf"),
    Case("'-Infinity'::real", "float", "-Infinity", my=FAILS, shown="inf"),
    Case("true", "boolean", "true"),
    Case("false", "boolean", "false"),
    Case("date '2024-02-29'", "date", "2024-02-29"),
    Case("date '0001-01-01'", "date", "0001-01-01"),
    Case("date '9999-12-31'", "date", "9999-12-31"),
    Case("date '0044-03-15 BC'", "date", "0044-03-15 BC", lite=FAILS, my=FAILS),
    Case("date '12345-01-01'", "date", "12345-01-01", lite=FAILS, my=FAILS),
    Case("date 'infinity'", "date", "infinity", lite=FAILS, my=FAILS),
    Case("timestamp '2024-02-29 23:59:59.123456'", "timestamp", "2024-02-29 23:59:59.123456"),
    Case("timestamp '0001-01-01 00:00:00'", "timestamp", "0001-01-01 00:00:00"),
    Case("timestamp '9999-12-31 23:59:59.999999'", "timestamp", "9999-12-31 23:59:59.999999"),
    Case("timestamp '0001-01-01 00:00:00.5 BC'", "timestamp", "0001-01-01 00:00:00.5 BC", lite=FAILS, my=FAILS),
    Case("timestamp '12345-01-01 00:00:00'", "timestamp", "12345-01-01 00:00:00", lite=FAILS, my=FAILS),
    Case("timestamp '-infinity'", "timestamp", "-infinity", lite=FAILS, my=FAILS),
    Case("timestamptz '2024-07-01 12:00:00+05:30'", "timestamp", "2024-07-01 06:30:00"),
    Case("timestamptz '2024-07-01 12:00:00.25+05:30'", "timestamp", "2024-07-01 06:30:00.25"),
    Case("timestamptz '0044-03-15 12:00:00+00 BC'", "timestamp", "0044-03-15 12:00:00 BC", lite=FAILS, my=FAILS),
    Case("timestamptz 'infinity'", "timestamp", "infinity", lite=FAILS, my=FAILS),
    Case("time '23:59:59.999999'", "text", "23:59:59.999999"),
    Case("timetz '12:00:00+02'", "text", "12:00:00+02"),
    Case("interval '1 year 2 mons 3 days 04:05:06'", "text", "1 year 2 mons 3 days 04:05:06"),
    Case("""'{"a": [1, 2.50, "x\\ty"]}'::jsonb""", "json", '{"a": [1, 2.50, "x\\ty"]}'),
    Case("'[1,  2]'::json", "json", "[1,  2]", pg="[1, 2]"),
    Case("""'"\\\\u00e9 \\\\\\\\ \\""'::json""".replace("\\\\", "\\"), "json", '"\\u00e9 \\\\ \\""', pg='"é \\\\ \\""'),
    Case("'\\x00ff5c'::bytea", "binary", "\\x00ff5c"),
    Case("''::bytea", "binary", "\\x"),
    Case("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "text", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    Case("'192.168.0.1/24'::inet", "text", "192.168.0.1/24"),
    Case("'10.0.0.0/8'::cidr", "text", "10.0.0.0/8"),
    Case("'08:00:2b:01:02:03'::macaddr", "text", "08:00:2b:01:02:03"),
    Case("'08:00:2b:01:02:03:04:05'::macaddr8", "text", "08:00:2b:01:02:03:04:05"),
    Case("B'10110'", "text", "10110"),
    Case("B'101'::varbit(8)", "text", "101"),
    Case("'{1,NULL,3}'::int[]", "text", "{1,NULL,3}"),
    Case("ARRAY['a,b', 'c\"d', E'back\\\\slash']", "text", '{"a,b","c\\"d","back\\\\slash"}'),
    Case("'1 2 3'::int2vector", "text", "1 2 3"),
    Case("'4 5'::oidvector", "text", "4 5"),
    Case("int4range(1, 10)", "text", "[1,10)"),
    Case("int8range(1, 10)", "text", "[1,10)"),
    Case("numrange(1.5, NULL)", "text", "[1.5,)"),
    Case("daterange('2024-01-01', '2024-02-01')", "text", "[2024-01-01,2024-02-01)"),
    Case("tsrange('2024-01-01 00:00', NULL)", "text", '["2024-01-01 00:00:00",)'),
    Case("tstzrange('2024-01-01 00:00+01', NULL)", "text", '["2023-12-31 23:00:00+00",)'),
    Case("'{[1,3),[5,7)}'::int4multirange", "text", "{[1,3),[5,7)}"),
    Case("'{[1,3)}'::int8multirange", "text", "{[1,3)}"),
    Case("'{[1.5,3)}'::nummultirange", "text", "{[1.5,3)}"),
    Case("'{[2024-01-01,2024-02-01)}'::datemultirange", "text", "{[2024-01-01,2024-02-01)}"),
    Case("'{}'::tsmultirange", "text", "{}"),
    Case("'{}'::tstzmultirange", "text", "{}"),
    Case("(ROW(1, 'a b')::pair)", "text", '(1,"a b")'),
    Case("'sad'::mood", "text", "sad"),
    Case("'$1,234.50'::money", "text", "$1,234.50"),
    Case("point '(1.5,-2)'", "text", "(1.5,-2)"),
    Case("line '{1,-2,3}'", "text", "{1,-2,3}"),
    Case("lseg '[(0,0),(1,1)]'", "text", "[(0,0),(1,1)]"),
    Case("box '((1,1),(0,0))'", "text", "(1,1),(0,0)"),
    Case("path '((0,0),(1,1))'", "text", "((0,0),(1,1))"),
    Case("polygon '((0,0),(1,1),(1,0))'", "text", "((0,0),(1,1),(1,0))"),
    Case("circle '<(0,0),2>'", "text", "<(0,0),2>"),
    Case("'fat & rat'::tsquery", "text", "'fat' & 'rat'"),
    Case("'fat:2 rat'::tsvector", "text", "'fat':2 'rat'"),
    Case("'$.a[*] ? (@ > 1)'::jsonpath", "text", '$."a"[*]?(@ > 1)'),
    Case("'<a>1</a>'::xml", "text", "<a>1</a>"),
    Case("'16/B374D848'::pg_lsn", "text", "16/B374D848"),
    Case("'10:20:10,14'::pg_snapshot", "text", "10:20:10,14"),
    Case("'10:20:10,14'::txid_snapshot", "text", "10:20:10,14"),
    Case("'123'::xid", "text", "123"),
    Case("'123'::xid8", "text", "123"),
    Case("'7'::cid", "text", "7"),
    Case("'(0,1)'::tid", "text", "(0,1)"),
    Case("'pg_class'::regclass", "text", "pg_class"),
    Case("'integer'::regtype", "text", "integer"),
    Case("'now'::regproc", "text", "now"),
    Case("'now()'::regprocedure", "text", "now()"),
    Case("'|/'::regoper", "text", "|/"),
    Case("'+(integer,integer)'::regoperator", "text", "+(integer,integer)"),
    Case("'pg_catalog'::regnamespace", "text", "pg_catalog"),
    Case("'postgres'::regrole", "text", "postgres"),
    Case("'english'::regconfig", "text", "english"),
    Case("'simple'::regdictionary", "text", "simple"),
    Case("'\"C\"'::regcollation", "text", '"C"'),
    Case("makeaclitem(10, 10, 'SELECT', false)", "text", "postgres=r/postgres"),
    Case("'portal'::refcursor", "text", "portal"),
    Case("'x'::\"char\"", "text", "x"),
    Case("'abc'::char(5)", "text", "abc  "),
    Case("'abc  '::varchar(9)", "text", "abc  "),
    Case("'pg_class'::name", "text", "pg_class"),
    Case("''", "text", ""),
    Case("'\\N'", "text", "\\N"),
    Case("'NULL'", "text", "NULL"),
    Case("'NaN'", "text", "NaN"),
    Case("E'tab\\there\\nline\\r\\\\ back \\\\. end\\x1a\\b\\f\\x0b''\"`'", "text", _TRAPS),
    Case("E'\\\\f\\\\v\\\\b\\\\0\\\\Z\\\\'", "text", "\\f\\v\\b\\0\\Z\\"),
    Case("'ünïcode 😀 \u200b'", "text", "ünïcode 😀 \u200b"),
    Case("repeat('ü0123456789', 1000000)", "text", "ü0123456789" * 1_000_000),
    Case("NULL::numeric", "numeric", None),
    Case("NULL::date", "date", None),
    Case("NULL::boolean", "boolean", None),
    Case("NULL::jsonb", "json", None),
    Case("NULL::timestamptz", "timestamp", None),
    Case("NULL", "text", None),
]

#: Types in PostgreSQL's catalogue that no query gives a value of: internal, or made by ANALYZE for itself.
NEVER_SEEN = {
    *("gtsvector", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
    *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
}

SQLITE = [
    Case("9223372036854775807", "integer", "9223372036854775807"),
    Case("1.5", "float", "1.5"),
    Case("9e999", "float", "Infinity", my=FAILS, shown="inf"),
    Case("'text'", "text", "text"),
    Case("'ünïcode 😀'", "text", "ünïcode 😀"),
    Case("'\\N'", "text", "\\N"),
    Case("'a' || char(0) || 'b'", "text", "a\0b", pg=FAILS, shown="a"),
    Case("'tab' || char(9, 10, 13, 92, 26, 8, 12, 11) || 'x'", "text", "tab\t\n\r\\\x1a\b\f\vx"),
    Case("x'00ff'", "binary", "\\x00ff"),
    Case("NULL", "text", None),
    Case("(SELECT flag FROM declared)", "boolean", "true"),
    Case("(SELECT day FROM declared)", "date", "2024-02-29"),
    Case("(SELECT moment FROM declared)", "timestamp", "2024-02-29 10:00:00.5"),
    Case("(SELECT price FROM declared)", "numeric(10,2)", "12.5", pg="12.50"),
    Case("(SELECT document FROM declared)", "json", '{"a":1}', pg='{"a": 1}'),
]


def _my(type_: str, sql: str, kind: str, text: str | None, **more: Any) -> Case:
    return Case(sql, kind, text, type=type_, **more)


_NINES = "9" * 35 + "." + "9" * 30

MARIADB = [
    _my("TINYINT", "-128", "integer", "-128"),
    _my("TINYINT UNSIGNED", "255", "integer", "255"),
    _my("TINYINT(1)", "5", "integer", "5"),
    _my("BOOLEAN", "TRUE", "integer", "1"),
    _my("SMALLINT", "-32768", "integer", "-32768"),
    _my("MEDIUMINT UNSIGNED", "16777215", "integer", "16777215"),
    _my("INT", "-2147483648", "integer", "-2147483648"),
    _my("INT UNSIGNED", "4294967295", "integer", "4294967295"),
    _my("INT(7) ZEROFILL", "42", "integer", "42"),
    _my("BIGINT", "-9223372036854775808", "integer", "-9223372036854775808"),
    _my("BIGINT UNSIGNED", "18446744073709551615", "numeric(20,0)", "18446744073709551615"),
    _my("BIGINT UNSIGNED ZEROFILL", "42", "numeric(20,0)", "42"),
    _my("BIGINT UNSIGNED", "0", "numeric(20,0)", "0"),
    _my("DECIMAL(65,30)", _NINES, "numeric(65,30)", _NINES),
    _my("DECIMAL(65,30)", f"-{_NINES}", "numeric(65,30)", f"-{_NINES}"),
    _my("DECIMAL(65,0)", "9" * 65, "numeric(65,0)", "9" * 65),
    _my("DECIMAL(30,30)", "0." + "0" * 29 + "1", "numeric(30,30)", "0." + "0" * 29 + "1"),
    _my("DECIMAL(10,2)", "-0.01", "numeric(10,2)", "-0.01"),
    _my("DECIMAL(5,2) UNSIGNED", "999.99", "numeric(5,2)", "999.99"),
    _my("DECIMAL(8,2) ZEROFILL", "4.5", "numeric(8,2)", "4.50"),
    _my("DECIMAL", "7", "numeric(10,0)", "7"),
    _my("DECIMAL(65,38)", "0.5", "numeric(65,38)", "0.5" + "0" * 37, mariadb_only=True),
    _my("DECIMAL(65,38)", "1e-38", "numeric(65,38)", "0." + "0" * 37 + "1", my=FAILS, mariadb_only=True),
    _my("FLOAT", "0.1", "float", "0.1"),
    _my("FLOAT", "16777216", "float", "16777216"),
    _my("FLOAT", "1.2345679", "float", "1.2345679"),
    _my("FLOAT", "3.4028235e38", "float", "34028235" + "0" * 31),
    _my("FLOAT(7,3)", "1234.567", "float", "1234.567"),
    _my("DOUBLE", "0.1e0 + 0.2e0", "float", "0.30000000000000004"),
    _my("DOUBLE", "1.7976931348623157e308", "float", "17976931348623157" + "0" * 292),
    _my("DOUBLE", "2.2250738585072014e-308", "float", "0." + "0" * 307 + "22250738585072014"),
    _my("DOUBLE", "-123456789.123456789", "float", "-123456789.12345679"),
    _my("DOUBLE(10,2)", "12.3", "float", "12.3"),
    _my("BIT(1)", "b'1'", "text", "1"),
    _my("BIT(3)", "b'101'", "text", "101"),
    _my("BIT(10)", "b'1'", "text", "0000000001"),
    _my("BIT(64)", "b'" + "10" * 32 + "'", "text", "10" * 32),
    _my("DATE", "'2024-02-29'", "date", "2024-02-29"),
    _my("DATE", "'0001-01-01'", "date", "0001-01-01"),
    _my("DATE", "'9999-12-31'", "date", "9999-12-31"),
    _my("DATE", "'0000-00-00'", "date", "0000-00-00", pg=FAILS, lite=FAILS, my=FAILS),
    _my("DATE", "'2024-00-10'", "date", "2024-00-10", pg=FAILS, lite=FAILS, my=FAILS),
    _my("DATE", "'2024-01-00'", "date", "2024-01-00", pg=FAILS, lite=FAILS, my=FAILS),
    _my("DATE", "'0000-05-06'", "date", "0000-05-06", pg=FAILS, lite=FAILS, my=FAILS),
    _my("DATETIME", "'2024-02-29 23:59:59'", "timestamp", "2024-02-29 23:59:59"),
    _my("DATETIME(6)", "'9999-12-31 23:59:59.999999'", "timestamp", "9999-12-31 23:59:59.999999"),
    _my("DATETIME(6)", "'2024-02-29 10:00:00.5'", "timestamp", "2024-02-29 10:00:00.5"),
    _my("DATETIME(3)", "'2024-02-29 10:00:00'", "timestamp", "2024-02-29 10:00:00"),
    _my("DATETIME(2)", "'0000-00-00 00:00:00'", "timestamp", "0000-00-00", pg=FAILS, lite=FAILS, my=FAILS),
    _my("DATETIME", "'2024-00-10 12:00:00'", "timestamp", "2024-00-10", pg=FAILS, lite=FAILS, my=FAILS),
    # The session that inserts is five and a half hours ahead of UTC.
    _my("TIMESTAMP(6) NULL", "'2024-07-01 12:00:00.25'", "timestamp", "2024-07-01 06:30:00.25"),
    _my("TIMESTAMP NULL", "'0000-00-00 00:00:00'", "timestamp", "0000-00-00", pg=FAILS, lite=FAILS, my=FAILS),
    _my("TIME", "'838:59:59'", "text", "838:59:59"),
    _my("TIME(6)", "'-838:59:58.999999'", "text", "-838:59:58.999999"),
    _my("TIME(3)", "'00:00:01.5'", "text", "00:00:01.500"),
    _my("YEAR", "2155", "integer", "2155"),
    _my("YEAR", "0", "integer", "0"),
    _my("CHAR(5)", "'abc'", "text", "abc"),
    _my("CHAR(5) CHARACTER SET latin1", "'éÿ€'", "text", "éÿ€"),
    _my("VARCHAR(9)", "'abc  '", "text", "abc  "),
    _my("VARCHAR(9) CHARACTER SET utf8mb3", "'ünïcode'", "text", "ünïcode"),
    _my("VARCHAR(9) CHARACTER SET utf16", "'x😀'", "text", "x😀"),
    _my("VARCHAR(9) CHARACTER SET ascii", "'\\\\N'", "text", "\\N"),
    _my("TINYTEXT", "'NULL'", "text", "NULL"),
    _my("TEXT CHARACTER SET cp1251", "'Привет'", "text", "Привет"),
    _my("MEDIUMTEXT", "''", "text", ""),
    _my("LONGTEXT", "'tab\\there\\nline\\r\\\\ back \\\\. end\\Z\\b\f\v\\'\"`'", "text", _TRAPS),
    _my("TEXT", "'a\\0b'", "text", "a\0b", pg=FAILS, shown="a"),
    _my("TEXT", "'ünïcode 😀 \u200b'", "text", "ünïcode 😀 \u200b"),
    _my("LONGTEXT", "repeat('ü0123456789', 1000000)", "text", "ü0123456789" * 1_000_000),
    _my("BINARY(4)", "'ab'", "binary", "\\x61620000"),
    _my("VARBINARY(9)", "x'00ff5c09'", "binary", "\\x00ff5c09"),
    _my("TINYBLOB", "''", "binary", "\\x"),
    _my("BLOB", "'text'", "binary", "\\x74657874"),
    _my("MEDIUMBLOB", "x'0a0d'", "binary", "\\x0a0d"),
    _my("LONGBLOB", "x'5c4e'", "binary", "\\x5c4e"),
    _my("ENUM('a','b,c','é')", "'b,c'", "text", "b,c"),
    _my("ENUM('a','é') CHARACTER SET latin1", "'é'", "text", "é"),
    _my("SET('x','y','z')", "'x,z'", "text", "x,z"),
    _my("JSON", """'{"a": [1, 2.5, "x\\\\ty"]}'""", "json", '{"a": [1, 2.5, "x\\ty"]}'),
    _my("JSON", "'[]'", "json", "[]"),
    _my(
        "UUID",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "text",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        mariadb_only=True,
    ),
    _my("INET6", "'2001:db8::1'", "text", "2001:db8::1", mariadb_only=True),
    _my("INET4", "'10.0.0.1'", "text", "10.0.0.1", mariadb_only=True),
    _my("POINT", "ST_GeomFromText('POINT(1.5 -2)')", "text", "POINT(1.5 -2)"),
    _my("POINT", "ST_GeomFromText('POINT(1.5 -2)', 3857)", "text", "SRID=3857;POINT(1.5 -2)"),
    _my("LINESTRING", "ST_GeomFromText('LINESTRING(0 0,1 1.25)')", "text", "LINESTRING(0 0,1 1.25)"),
    _my(
        "POLYGON",
        "ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))')",
        "text",
        "POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))",
    ),
    _my("MULTILINESTRING", "ST_GeomFromText('MULTILINESTRING((0 0,1 1))')", "text", "MULTILINESTRING((0 0,1 1))"),
    _my(
        "MULTIPOLYGON",
        "ST_GeomFromText('MULTIPOLYGON(((0 0,4 0,4 4,0 0)))')",
        "text",
        "MULTIPOLYGON(((0 0,4 0,4 4,0 0)))",
    ),
    _my("GEOMETRY", "ST_GeomFromText('POINT(0 0)')", "text", "POINT(0 0)"),
    _my("BIGINT UNSIGNED", "NULL", "numeric(20,0)", None),
    _my("JSON", "NULL", "json", None),
    _my("FLOAT", "NULL", "float", None),
    _my("BIT(3)", "NULL", "text", None),
    _my("POINT", "NULL", "text", None),
    _my("DATETIME(6)", "NULL", "timestamp", None),
    _my("TIME", "NULL", "text", None),
]
