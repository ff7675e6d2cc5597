"""The general path over SQLAlchemy, tried with DuckDB; and which source an engine gets."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings
from jobber.errors import BadArguments, Cancelled, ConfigError, QueryFailed, SourceUnavailable, TimedOut
from jobber.jobs import Scalar
from jobber.sources import open_source
from jobber.sources.base import Query, SchemaChanged, Source
from jobber.sources.generic import GenericSource
from jobber.sqltext import Statement, parse
from tests.sources.reading import DECODED, Value, query, read


@pytest.fixture
def duck_file(tmp_path: Path) -> Path:
    path = tmp_path / "source.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)")
        connection.execute("CREATE SEQUENCE numbers")
    return path


@pytest.fixture
def duck(duck_file: Path) -> Iterator[Source]:
    source = open_source(DatabaseSettings(name="reports", url=f"duckdb:///{duck_file}", engine="duckdb"))
    yield source
    source.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Source]:
    """A database that the general path knows nothing of: SQLite through its SQLAlchemy dialect."""
    sqlite3.connect(tmp_path / "plain.db").close()
    source = GenericSource(DatabaseSettings(name="plain", url=f"sqlite:///{tmp_path}/plain.db", engine="other"))
    yield source
    source.close()


@pytest.mark.parametrize(
    ("expression", "column", "value"),
    [
        ("(-128)::TINYINT", Column("v", Kind.INTEGER), -128),
        ("9223372036854775807::BIGINT", Column("v", Kind.INTEGER), 2**63 - 1),
        ("4294967295::UINTEGER", Column("v", Kind.INTEGER), 4294967295),
        ("18446744073709551615::UBIGINT", Column("v", Kind.NUMERIC, 20, 0), "18446744073709551615"),
        ("(-170141183460469231731687303715884105727)::HUGEINT", Column("v", Kind.NUMERIC, 39, 0), str(1 - 2**127)),
        ("1.50::DECIMAL(10,2)", Column("v", Kind.NUMERIC, 10, 2), "1.50"),
        ("0.1::DOUBLE", Column("v", Kind.FLOAT), 0.1),
        ("'nan'::DOUBLE", Column("v", Kind.FLOAT), math.nan),
        ("'-inf'::DOUBLE", Column("v", Kind.FLOAT), -math.inf),
        ("0.5::FLOAT", Column("v", Kind.FLOAT), 0.5),
        ("true", Column("v", Kind.BOOLEAN), True),
        ("DATE '2024-02-29'", Column("v", Kind.DATE), "2024-02-29"),
        ("DATE '0044-03-15 (BC)'", Column("v", Kind.DATE), "0044-03-15 BC"),
        ("DATE '12345-01-01'", Column("v", Kind.DATE), "12345-01-01"),
        ("DATE 'infinity'", Column("v", Kind.DATE), "infinity"),
        ("TIMESTAMP '2024-01-01 10:00:00.500'", Column("v", Kind.TIMESTAMP), "2024-01-01 10:00:00.5"),
        ("TIMESTAMP '0044-03-15 (BC) 12:00:00'", Column("v", Kind.TIMESTAMP), "0044-03-15 12:00:00 BC"),
        ("TIMESTAMP '-infinity'", Column("v", Kind.TIMESTAMP), "-infinity"),
        ("TIMESTAMPTZ '2024-01-01 10:00:00+05:30'", Column("v", Kind.TIMESTAMP), "2024-01-01 04:30:00"),
        ("'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS", Column("v", Kind.TEXT), "2020-01-01 00:00:00.123456789"),
        ("'{\"a\": 1.50}'::JSON", Column("v", Kind.JSON), '{"a": 1.50}'),
        (r"'\xDE\x00'::BLOB", Column("v", Kind.BINARY), r"\xde00"),
        ("'žluťoučký 🐎'", Column("v", Kind.TEXT), "žluťoučký 🐎"),
        ("repeat('x', 10000000)", Column("v", Kind.TEXT), "x" * 10_000_000),
        ("[1, NULL, 3]", Column("v", Kind.TEXT), "[1, NULL, 3]"),
        ("{'a': 1, 'b': 'x'}", Column("v", Kind.TEXT), "{'a': 1, 'b': x}"),
        ("MAP {1: 2}", Column("v", Kind.TEXT), "{1=2}"),
        ("INTERVAL '1 year 2 months 3 days'", Column("v", Kind.TEXT), "1 year 2 months 3 days"),
        ("TIME '10:00:00.5'", Column("v", Kind.TEXT), "10:00:00.5"),
        ("'101'::BIT", Column("v", Kind.TEXT), "101"),
        ("'a'::ENUM('a', 'b')", Column("v", Kind.TEXT), "a"),
        (
            "'7c9e6679-7425-40de-944b-e07fc1f90ae7'::UUID",
            Column("v", Kind.TEXT),
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        ),
        ("NULL::INTEGER", Column("v", Kind.INTEGER), None),
    ],
)
def test_a_value_of_duckdb_arrives_in_canonical_form(
    duck: Source, expression: str, column: Column, value: Value
) -> None:
    result = read(duck, f"SELECT {expression} AS v")
    assert result.columns == [column]
    assert repr(result.rows) == repr([(value,)])
    assert duck.describe(parse(f"SELECT {expression} AS v", "duckdb")) == (column,)


def test_column_names_pass_as_they_are(duck: Source) -> None:
    assert read(duck, 'SELECT 1 AS a, 2 AS a, 3 AS "A", 4 AS "漢字 ""q"" :x" -- end').names == [
        "a",
        "a",
        "A",
        '漢字 "q" :x',
    ]


@pytest.mark.parametrize(
    "text", ["'", "\\", "\\:x", ":x", "::", "%", "%s", "%(a)s", "$1", "?", "--", "é🐎", "", "'; DROP TABLE t; --"]
)
def test_texts_arrive_as_they_are_as_arguments_and_as_literals(duck: Source, plain: Source, text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    for source in (duck, plain):
        assert read(source, "SELECT ?", [text]).rows == [(text,)]
        assert read(source, "SELECT :v, :v", {"v": text}).rows == [(text, text)]
        assert read(source, f"SELECT {quoted}").rows == [(text,)]


@pytest.mark.parametrize("value", [5, True, None, Decimal("1.5"), 2**62])
def test_arguments_of_every_json_type_are_bound(duck: Source, value: Scalar) -> None:
    expected = "true" if value is True else None if value is None else str(value)
    assert read(duck, "SELECT CAST(? AS VARCHAR)", [value]).rows == [(expected,)]


def test_too_few_arguments_are_refused(duck: Source) -> None:
    with pytest.raises(BadArguments):
        read(duck, "SELECT ?", [])


WRITES = [
    "INSERT INTO t VALUES (2)",
    "INSERT INTO t VALUES (2) RETURNING a",
    "WITH x AS (SELECT 2) INSERT INTO t SELECT * FROM x",
    "UPDATE t SET a = 2",
    "DELETE FROM t",
    "DROP TABLE t",
    "CREATE TABLE u (a INTEGER)",
    "CREATE TEMP TABLE u (a INTEGER)",
    "SELECT nextval('numbers')",
    "COPY t TO '{folder}/other.csv'",
    "EXPORT DATABASE '{folder}/other'",
    "ATTACH '{folder}/other.db'",
    "SELECT * FROM read_text('{folder}/source.duckdb')",
    "SET enable_external_access = true",
    "PRAGMA temp_directory = '{folder}/other'",
    "INSTALL httpfs",
    "SELECT 1; INSERT INTO t VALUES (2)",
    "SELECT 1) AS q; INSERT INTO t VALUES (2); SELECT * FROM (SELECT 1",
    "COMMIT; INSERT INTO t VALUES (2)",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (2)",
]


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written_and_no_other_file_opened(duck: Source, duck_file: Path, tmp_path: Path, sql: str) -> None:
    before = duck_file.read_bytes()
    text = sql.format(folder=tmp_path)
    with (
        pytest.raises(QueryFailed) as failed,
        duck.read(Query(Statement(text, (text,), 0), []), DECODED, timeout=5, cancellation=Cancellation()) as stream,
    ):
        list(stream.batches())
    assert not failed.value.retryable
    duck.close()
    assert duck_file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [duck_file.name]


def test_a_cancelled_query_ends_at_once(duck: Source) -> None:
    for delay in (0.0, 0.001, 0.01, 0.3):
        cancellation = Cancellation()
        timer = threading.Timer(delay, lambda c=cancellation: c.pull(Cancelled("stop")))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            read(duck, "SELECT count(*) FROM range(1000000) a, range(1000000) b", cancellation=cancellation)
        assert time.monotonic() - began < 2.3
        timer.join()
        assert read(duck, "SELECT 1").rows == [(1,)]


def test_a_query_that_runs_too_long_is_ended(duck: Source) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"time limit \(0\.2 s\)"):
        read(duck, "SELECT count(*) FROM range(1000000) a, range(1000000) b", timeout=0.2)
    assert time.monotonic() - began < 2.2


def test_an_error_halfway_fails_the_stream(duck: Source) -> None:
    with pytest.raises(QueryFailed, match="halfway"):
        read(duck, "SELECT CASE WHEN i = 500000 THEN error('halfway') END FROM range(1000000) t(i)")


def test_a_wrong_statement_is_refused_in_the_engines_words(duck: Source) -> None:
    with pytest.raises(QueryFailed, match="nowhere does not exist"):
        duck.describe(parse("SELECT * FROM nowhere", "duckdb"))


@pytest.mark.parametrize("sql", ["PRAGMA version", "EXPLAIN SELECT 1"])
def test_what_cannot_be_described_is_read_all_the_same(duck: Source, sql: str) -> None:
    assert duck.describe(parse(sql, "duckdb")) is None
    assert len(read(duck, sql).rows) == 1


def test_a_database_that_is_not_there_shows_at_first_use(tmp_path: Path) -> None:
    source = open_source(DatabaseSettings(name="reports", url=f"duckdb:///{tmp_path}/none.duckdb", engine="duckdb"))
    with pytest.raises(SourceUnavailable, match="the database reports cannot be reached") as failed:
        read(source, "SELECT 1")
    assert str(tmp_path) not in failed.value.message
    assert not list(tmp_path.iterdir())


def test_kinds_of_a_driver_without_types_come_from_the_values(plain: Source) -> None:
    sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) SELECT x, {} AS v FROM c"
    assert plain.describe(parse(sql.format("x"), "other")) is None
    assert read(plain, sql.format("x * 0.5")).kinds == [Kind.INTEGER, Kind.FLOAT]
    widened = read(plain, sql.format("CASE WHEN x < 4000 THEN x ELSE 'late' END"))
    assert widened.kinds == [Kind.INTEGER, Kind.TEXT]
    assert (widened.rows[0], widened.rows[-1]) == ((1, "1"), (5000, "late"))


def test_a_late_value_asks_for_wider_columns(plain: Source) -> None:
    sql = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) "
        "SELECT CASE x WHEN 5000 THEN 0.5 ELSE x END FROM c"
    )
    asked = query(plain, sql)
    with (
        plain.read(asked, DECODED, timeout=0, cancellation=Cancellation()) as stream,
        pytest.raises(SchemaChanged) as changed,
    ):
        list(stream.batches())
    assert [column.kind for column in changed.value.columns] == [Kind.FLOAT]


def test_a_statement_without_columns_is_refused_and_rolled_back(plain: Source) -> None:
    with pytest.raises(QueryFailed, match="no columns"):
        read(plain, "CREATE TABLE x (a)")


def test_a_driver_that_is_not_installed_is_a_config_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"db\.lake: there is no driver for nosuchdb"):
        open_source(DatabaseSettings(name="lake", url="nosuchdb://u:sesame@h/d", engine="nosuchdb"))
    with pytest.raises(ConfigError, match=r"db\.lake: there is no driver for oracle") as failed:
        open_source(DatabaseSettings(name="lake", url="oracle://u:sesame@h/d", engine="oracle"))
    assert "sesame" not in failed.value.message


def test_duckdb_draws_nothing_on_standard_output(duck_file: Path) -> None:
    """In a process without a script of its own it takes itself for interactive, and draws a bar after two seconds."""
    program = (
        "import sys; from tests.sources.reading import read; from jobber.config import DatabaseSettings;"
        "from jobber.sources import open_source;"
        "source = open_source(DatabaseSettings(name='d', url=sys.argv[1], engine='duckdb'));"
        "print(read(source, \"SELECT current_setting('enable_progress_bar') AS bar\").rows)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"duckdb:///{duck_file}"], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[(False,)]\n"
