"""SQLite as a source: dynamic types that are never changed silently, and a file that is only read."""

from __future__ import annotations

import sqlite3 as driver
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings
from jobber.errors import (
    BadArguments,
    Cancelled,
    ConfigError,
    QueryFailed,
    SourceUnavailable,
    TimedOut,
    ValueNotRepresentable,
)
from jobber.jobs import Scalar
from jobber.sources import open_source
from jobber.sources.base import Query, SchemaChanged, Source
from jobber.sqltext import Statement, parse
from tests.sources.reading import DECODED, Value, query, read

Fill = Callable[..., Source]
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"


@pytest.mark.parametrize(
    ("declared", "stored", "kind", "value"),
    [
        ("INTEGER", 2**63 - 1, Kind.INTEGER, 2**63 - 1),
        ("INTEGER", -(2**63), Kind.INTEGER, -(2**63)),
        ("BIGINT", "12", Kind.INTEGER, 12),
        ("INTEGER", "abc", Kind.TEXT, "abc"),
        ("INTEGER", 1.5, Kind.FLOAT, 1.5),
        ("INTEGER", b"\x00\xff", Kind.TEXT, r"\x00ff"),
        ("INTEGER", None, Kind.INTEGER, None),
        ("REAL", 0.1, Kind.FLOAT, 0.1),
        ("DOUBLE PRECISION", float("inf"), Kind.FLOAT, float("inf")),
        ("REAL", "x", Kind.TEXT, "x"),
        ("DECIMAL(10,2)", 1.25, Kind.NUMERIC, "1.25"),
        ("DECIMAL(10,2)", 7, Kind.NUMERIC, "7"),
        ("DECIMAL(10,2)", "about 7", Kind.TEXT, "about 7"),
        ("NUMERIC", 1e20, Kind.NUMERIC, "100000000000000000000"),
        ("DECIMAL_TEXT(30,3)", "12345678901234567890.123", Kind.NUMERIC, "12345678901234567890.123"),
        ("DECIMAL_TEXT", "1.50", Kind.NUMERIC, "1.50"),
        ("DECIMAL_TEXT", "007", Kind.TEXT, "007"),
        ("BOOLEAN", 1, Kind.BOOLEAN, True),
        ("BOOL", 0, Kind.BOOLEAN, False),
        ("BOOLEAN", 2, Kind.INTEGER, 2),
        ("BOOLEAN", "yes", Kind.TEXT, "yes"),
        ("DATE", "2024-02-29", Kind.DATE, "2024-02-29"),
        ("DATE", "2023-02-29", Kind.TEXT, "2023-02-29"),
        ("DATE", "2024-01-01 10:00:00", Kind.TEXT, "2024-01-01 10:00:00"),
        ("DATE", 19000, Kind.TEXT, "19000"),
        ("DATETIME", "2024-01-01 10:00:00", Kind.TIMESTAMP, "2024-01-01 10:00:00"),
        ("TIMESTAMP", "2024-01-01T10:00:00.500Z", Kind.TIMESTAMP, "2024-01-01 10:00:00.5"),
        ("TIMESTAMP", "2024-01-01 10:00+05:30", Kind.TIMESTAMP, "2024-01-01 04:30:00"),
        ("TIMESTAMP", "2024-01-01 10:00:00.1234567", Kind.TEXT, "2024-01-01 10:00:00.1234567"),
        ("TIMESTAMP", "2024-01-01 25:00:00", Kind.TEXT, "2024-01-01 25:00:00"),
        ("TIMESTAMP", "0001-01-01 00:00:00+05:00", Kind.TEXT, "0001-01-01 00:00:00+05:00"),
        ("TIMESTAMP", "2024-01-01", Kind.TEXT, "2024-01-01"),
        ("TIMESTAMP", 1704103200, Kind.TEXT, "1704103200"),
        ("JSON_TEXT", '{"a":  1.50}', Kind.JSON, '{"a":  1.50}'),
        ("JSON", "5", Kind.JSON, "5"),
        ("JSON", "{broken", Kind.TEXT, "{broken"),
        ("JSON", "[NaN]", Kind.TEXT, "[NaN]"),
        ("BLOB", b"", Kind.BINARY, r"\x"),
        ("BLOB", b"\xde\xad", Kind.BINARY, r"\xdead"),
        ("BLOB", "text", Kind.TEXT, "text"),
        ("TEXT", "žluťoučký 🐎\t\n\\N", Kind.TEXT, "žluťoučký 🐎\t\n\\N"),
        ("TEXT", "nul \0 inside", Kind.TEXT, "nul \0 inside"),
        ("VARCHAR(2)", "longer", Kind.TEXT, "longer"),
        ("TEXT", b"\x01", Kind.TEXT, r"\x01"),
        ("", 5, Kind.INTEGER, 5),
        ("", 0.5, Kind.FLOAT, 0.5),
        ("", "x", Kind.TEXT, "x"),
        ("", b"x", Kind.BINARY, r"\x78"),
        ("", None, Kind.TEXT, None),
        ("TEXT", "x" * 10_000_000, Kind.TEXT, "x" * 10_000_000),
    ],
)
def test_a_value_arrives_in_canonical_form(
    sqlite: Fill, declared: str, stored: object, kind: Kind, value: Value
) -> None:
    source = sqlite(f"CREATE TABLE t (v {declared})", rows=("INSERT INTO t VALUES (?)", [(stored,)]))
    result = read(source, "SELECT v FROM t")
    assert result.kinds == [kind]
    assert result.rows == [(value,)]
    assert type(result.rows[0][0]) is type(value)


@pytest.mark.parametrize(
    ("early", "late", "kind", "shown"),
    [
        (1, 2, Kind.INTEGER, (1, 2)),
        (None, 2, Kind.INTEGER, (None, 2)),
        (1, 2.5, Kind.FLOAT, (1.0, 2.5)),
        (2**53, 2.5, Kind.FLOAT, (float(2**53), 2.5)),
        (2**53 + 1, 2.5, Kind.NUMERIC, ("9007199254740993", "2.5")),
        (2.5, 2**53 + 1, Kind.NUMERIC, ("2.5", "9007199254740993")),
        (1, "x", Kind.TEXT, ("1", "x")),
        (0.1, "x", Kind.TEXT, ("0.1", "x")),
        (b"\x01", "x", Kind.TEXT, (r"\x01", "x")),
        ("x", b"\x01", Kind.TEXT, ("x", r"\x01")),
        (None, None, Kind.TEXT, (None, None)),
    ],
)
@pytest.mark.parametrize("rows_between", [0, 2500])
def test_a_column_widens_until_all_values_fit(
    sqlite: Fill, early: object, late: object, kind: Kind, shown: tuple[Value, Value], rows_between: int
) -> None:
    values = [(early,), *[(early,)] * rows_between, (late,)]
    result = read(sqlite("CREATE TABLE t (v)", rows=("INSERT INTO t VALUES (?)", values)), "SELECT v FROM t")
    assert result.kinds == [kind]
    assert (result.rows[0][0], result.rows[-1][0]) == shown
    assert len(result.rows) == len(values)
    assert {type(row[0]) for row in result.rows} == {type(value) for value in shown}


def test_a_late_value_asks_for_wider_columns_and_reading_again_starts_with_them(sqlite: Fill) -> None:
    rows = [(i, i) for i in range(5000)] + [("x", 1)]
    source = sqlite("CREATE TABLE t (a INTEGER, b INTEGER)", rows=("INSERT INTO t VALUES (?, ?)", rows))  # type: ignore[arg-type]
    asked = query(source, "SELECT a, b FROM t")
    with source.read(asked, DECODED, timeout=0, cancellation=Cancellation()) as stream:
        assert [column.kind for column in stream.columns] == [Kind.INTEGER, Kind.INTEGER]
        with pytest.raises(SchemaChanged) as changed:
            list(stream.batches())
    wider = [Column("a", Kind.TEXT), Column("b", Kind.INTEGER)]
    assert list(changed.value.columns) == wider
    with source.read(asked, DECODED, timeout=0, cancellation=Cancellation(), columns=wider) as stream:
        assert list(stream.columns) == wider
        first = next(iter(stream.batches()))
    assert first[0] == ("0", 0)


def test_a_decimal_outside_its_declared_bounds_is_not_rounded(sqlite: Fill) -> None:
    source = sqlite("CREATE TABLE t (v DECIMAL(5,2)); INSERT INTO t VALUES (1.25), (1.239), (123456)")
    result = read(source, "SELECT v FROM t")
    assert result.columns == [Column("v", Kind.NUMERIC)]
    assert result.rows == [("1.25",), ("1.239",), ("123456",)]


def test_columns_are_described_without_running(sqlite: Fill) -> None:
    source = sqlite("CREATE TABLE t (a INTEGER, b DECIMAL(8,3), c TIMESTAMP, d)")
    described = source.describe(parse("SELECT a, a, b, c, d, 1 + ? AS e, '' AS \"\" FROM t WHERE a > ?", "sqlite"))
    assert described == (
        Column("a", Kind.INTEGER),
        Column("a", Kind.INTEGER),
        Column("b", Kind.NUMERIC, 8, 3),
        Column("c", Kind.TIMESTAMP),
        *(Column(name, Kind.TEXT) for name in ("d", "e", "")),
    )
    began = time.monotonic()
    assert source.describe(parse(ENDLESS.format("count(*)"), "sqlite")) is not None
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("sql", ["SELECT nothing", "SELEC 1", "SELECT * FROM nowhere", "SELECT ("])
def test_a_wrong_statement_is_refused_in_the_engines_words(sqlite: Fill, sql: str) -> None:
    source = sqlite("CREATE TABLE t (a)")
    for attempt in (
        lambda: source.describe(Statement(sql, (sql,), 0)),
        lambda: read(source, sql),
    ):
        with pytest.raises(QueryFailed, match=r"no such|syntax error|incomplete input") as failed:
            attempt()
        assert not failed.value.retryable


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1 AS a, 2 AS a, 3 AS A", ["a", "a", "A"]),
        ('SELECT 1 AS "", 2 AS \'it\'\'s\', 3 AS "漢字 ""q"""', ["", "it's", '漢字 "q"']),
        (f'SELECT 1 AS "{"x" * 300}"', ["x" * 300]),
        ("SELECT 1+1", ["1+1"]),
    ],
)
def test_column_names_pass_as_they_are(sqlite: Fill, sql: str, names: list[str]) -> None:
    assert read(sqlite(), sql).names == names


def test_text_that_is_not_utf8_fails_with_column_and_value(sqlite: Fill) -> None:
    source = sqlite("CREATE TABLE t (id, bad TEXT); INSERT INTO t VALUES (1, CAST(x'636166e9' AS TEXT))")
    with pytest.raises(ValueNotRepresentable, match="column bad: the value 'caf") as failed:
        read(source, "SELECT id, bad FROM t")
    assert failed.value.details["column"] == "bad"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((text, text) for text in ("'", "\\", "%", "$1", "?", ":a", "a\0b", "--", "; DROP TABLE t", "é🐎", "")),
        (5, 5),
        (-(2**63), -(2**63)),
        (Decimal("1.5"), 1.5),
        (Decimal("0.1"), 0.1),
        (True, 1),
        (None, None),
    ],
)
def test_an_argument_arrives_as_it_is(sqlite: Fill, value: Scalar, shown: Value) -> None:
    source = sqlite()
    assert read(source, "SELECT ?, typeof(?)", [value, value]).rows[0][0] == shown
    assert read(source, "SELECT :v, :v", {"v": value}).rows == [(shown, shown)]


@pytest.mark.parametrize("value", [2**63, Decimal("12345678901234567890.5"), "\ud800"])
def test_an_argument_that_sqlite_would_change_is_refused(sqlite: Fill, value: Scalar) -> None:
    with pytest.raises(BadArguments, match="argument 1"):
        read(sqlite(), "SELECT ?", [value])


WRITES = [
    "INSERT INTO t VALUES (2)",
    "INSERT INTO t VALUES (2) RETURNING a",
    "UPDATE t SET a = 2",
    "DELETE FROM t",
    "REPLACE INTO t VALUES (2)",
    "DROP TABLE t",
    "CREATE TABLE u (a)",
    "CREATE TEMP TABLE u (a)",
    "CREATE TEMP VIEW jobber_query AS SELECT 1",
    "CREATE INDEX i ON t (a)",
    "ALTER TABLE t ADD COLUMN b",
    "UPDATE sqlite_master SET sql = 'x'",
    "UPDATE sqlite_schema SET sql = 'x' RETURNING 1",
    "ATTACH '{folder}/other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{folder}/other.db'",
    "REINDEX",
    "ANALYZE",
    "COMMIT",
    "ROLLBACK",
    "END",
    "BEGIN IMMEDIATE",
    "SAVEPOINT s",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = WAL",
    "PRAGMA user_version = 5",
    "PRAGMA temp_store_directory = '{folder}'",
    "PRAGMA wal_checkpoint",
    "PRAGMA incremental_vacuum",
    "SELECT load_extension('x')",
    "SELECT * FROM pragma_journal_mode('wal')",
    "SELECT 1; INSERT INTO t VALUES (2)",
    "EXPLAIN INSERT INTO t VALUES (2)",
    "CREATE VIRTUAL TABLE temp.v USING fts5(x)",
]


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written_and_no_other_file_opened(sqlite: Fill, sqlite_file: Path, tmp_path: Path, sql: str) -> None:
    source = sqlite("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    before = sqlite_file.read_bytes()
    text = sql.format(folder=tmp_path)
    with (
        pytest.raises(QueryFailed) as failed,
        source.read(Query(Statement(text, (text,), 0), []), DECODED, timeout=5, cancellation=Cancellation()) as stream,
    ):
        list(stream.batches())
    assert not failed.value.retryable
    assert sqlite_file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [sqlite_file.name]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM f WHERE f MATCH 'hello'",
        "SELECT value FROM json_each('[1]')",
        "SELECT name FROM pragma_table_info('t')",
        "PRAGMA table_info(t)",
        "SELECT count(*) FROM sqlite_schema",
        "SELECT row_number() OVER (ORDER BY a) FROM t",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1) SELECT x FROM c",
        "VALUES (1)",
    ],
)
def test_all_ways_of_reading_work(sqlite: Fill, sql: str) -> None:
    source = sqlite("CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIRTUAL TABLE f USING fts5(x);"
                    "INSERT INTO f VALUES ('hello world')")  # fmt: skip
    assert len(read(source, sql).rows) == 1


def test_rows_are_one_snapshot_while_others_write(sqlite: Fill, sqlite_file: Path) -> None:
    source = sqlite("PRAGMA journal_mode = WAL; CREATE TABLE t (a)", rows=("INSERT INTO t VALUES (?)", [(1,)] * 9000))
    with source.read(query(source, "SELECT a FROM t"), DECODED, timeout=0, cancellation=Cancellation()) as stream:
        batches = iter(stream.batches())
        read_so_far = len(next(batches))
        writer = driver.connect(sqlite_file)
        writer.execute("UPDATE t SET a = 2")
        writer.commit()
        writer.close()
        rest = [row for batch in batches for row in batch]
    assert read_so_far + len(rest) == 9000
    assert set(rest) == {(1,)}


@pytest.mark.parametrize("columns", ["count(*)", "x", "CASE WHEN x < 5000 THEN x END"])
def test_a_cancelled_query_ends_at_once(sqlite: Fill, columns: str) -> None:
    source, cancellation = sqlite(), Cancellation()
    timer = threading.Timer(0.2, lambda: cancellation.pull(Cancelled("stop")))
    timer.start()
    began = time.monotonic()
    with (
        pytest.raises(Cancelled),
        source.read(query(source, ENDLESS.format(columns)), DECODED, timeout=0, cancellation=cancellation) as stream,
    ):
        list(stream.batches())
    assert time.monotonic() - began < 2.2


def test_a_cancel_at_any_moment_holds(sqlite: Fill) -> None:
    source = sqlite()
    for delay in range(20):
        cancellation = Cancellation()
        timer = threading.Timer(delay * 0.0001, lambda c=cancellation: c.pull(Cancelled("stop")))
        timer.start()
        with pytest.raises(Cancelled):
            read(source, ENDLESS.format("count(*)"), cancellation=cancellation)
        timer.join()


@pytest.mark.parametrize("columns", ["count(*)", "CASE WHEN x < 5000 THEN x END"])
def test_a_query_that_runs_too_long_is_ended(sqlite: Fill, columns: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"time limit \(0\.2 s\)"):
        read(sqlite(), ENDLESS.format(columns) + " WHERE x % 1000000 = 0", timeout=0.2)
    assert time.monotonic() - began < 2


def test_an_error_halfway_fails_the_stream(sqlite: Fill) -> None:
    source = sqlite()
    sql = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 10000) "
        "SELECT x, CASE x WHEN 5000 THEN abs(-9223372036854775807 - 1) END FROM c"
    )
    with pytest.raises(QueryFailed, match="integer overflow"):
        read(source, sql)


def test_a_file_that_is_not_there_shows_at_first_use_and_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    source = open_source(DatabaseSettings(name="reports", url=f"sqlite:///{missing}", engine="sqlite"))
    for attempt in (lambda: read(source, "SELECT 1"), lambda: source.describe(parse("SELECT 1", "sqlite"))):
        with pytest.raises(SourceUnavailable, match="the database reports cannot be read") as failed:
            attempt()
        assert failed.value.retryable
        assert str(tmp_path) not in failed.value.message
    assert not missing.exists()


def test_a_file_name_with_odd_characters_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "50% off #1.db"
    driver.connect(path).close()
    source = open_source(DatabaseSettings(name="x", url=f"sqlite:///{path}", engine="sqlite"))
    assert read(source, "SELECT 1").rows == [(1,)]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_no_source(url: str) -> None:
    with pytest.raises(ConfigError, match=r"db\.x: a SQLite source is a file"):
        open_source(DatabaseSettings(name="x", url=url, engine="sqlite"))
