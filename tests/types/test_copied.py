"""SQLite copies rows into SQLite itself: the file is the one that the general path makes, whatever the values are."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings, ResultsSettings
from jobber.errors import AttemptError, QueryFailed, ValueNotRepresentable
from jobber.results import open_results
from jobber.results.sqlite import SqliteResults
from jobber.sources import open_source, sqlite_beside
from jobber.sources.base import GaveWay, Place, Query, Shape, Source
from jobber.sources.kinds import INTEGER_MAX, INTEGER_MIN
from jobber.sqltext import parse
from tests.types.labs import Shaped, publish

_MOMENTS = [
    "2024-02-29",
    "2023-02-29",
    "0000-01-01",
    "0001-01-01",
    "9999-12-31",
    "2024-02-29 23:59:59",
    "now",
    "12:30",
    "2024-01-01 24:00:00",
    "2024-01-01 10:00:00.5",
    "2024-01-01T10:00:00Z",
    "2024-01-01 ",
    "2024-01-01,2024-01-02",
    "2024-01-01 10:00:00,2024-01-01 10:00:00",
    "2024-01-01\0",
    "2024-13-01",
    "2024-00-01",
    "2024-04-31",
    "2024-01-00",
    "2024-01-01 23:60:00",
    "2024-01-01 23:59:60",
    "2024-01-01 19:59:59",
    "２０２４-01-01",
    "2024/01/01",
    "2024",
    "-001-01-01",
]
_NUMBERS = [
    0,
    1,
    -1,
    2,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    12.5,
    -12.25,
    0.1 + 0.2,
    1e-5,
    1e-320,
    5e-324,
    1e15,
    1e16,
    1e300,
    math.inf,
    -math.inf,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    INTEGER_MAX,
    INTEGER_MAX - 1,
    INTEGER_MIN,
    9.99,
    2.0**63,
    -(2.0**63),
    999.995,
    1.239,
    123456.78,
    -0.01,
    0.001,
    99999.99,
    100000.0,
]
_TEXTS = [
    "",
    "a",
    "é",
    "😀",
    "a\0b",
    "\0",
    "1",
    "1.50",
    "-12.5",
    "007",
    "NaN",
    "Infinity",
    "1e5",
    "{}",
    "[1",
    "\\N",
    "x" * 300,
]


class _Broken:
    """Stands for text that is no UTF-8, which no driver writes."""

    def __repr__(self) -> str:
        return "broken"


_BROKEN = _Broken()
_TYPES = [
    "INTEGER",
    "BIGINT",
    "REAL",
    "DECIMAL(7,2)",
    "DECIMAL(18,6)",
    "NUMERIC(5,0)",
    "NUMERIC",
    "DECIMAL_TEXT",
    "BOOLEAN",
    "DATE",
    "TIMESTAMP",
    "TEXT",
    "TEXT COLLATE RTRIM",
    "VARCHAR(9) COLLATE NOCASE",
    "JSON_TEXT",
    "JSON",
]
_ANY = (
    st.none()
    | st.sampled_from([*_MOMENTS, *_NUMBERS, *_TEXTS, b"", b"\xff", b"2024-01-01", _BROKEN])
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False)
    | st.decimals(-99999, 99999, places=2).map(float)
    | st.datetimes().map(lambda moment: str(moment.replace(microsecond=0)))
)
#: What a column of a type mostly holds, so that whole tables pass.
_USUAL: dict[str, st.SearchStrategy[Any]] = {
    "INTEGER": st.integers(INTEGER_MIN, INTEGER_MAX),
    "REAL": st.floats(allow_nan=False),
    "DECIMAL(7,2)": st.decimals(Decimal("-99999.99"), Decimal("99999.99"), places=2).map(float),
    "DECIMAL(18,6)": st.decimals(Decimal("-999999999"), Decimal("999999999"), places=6).map(float),
    "DECIMAL_TEXT": st.decimals(-99999, 99999, places=3).map(str),
    "BOOLEAN": st.booleans(),
    "DATE": st.dates().map(str),
    "TIMESTAMP": st.datetimes().map(lambda moment: str(moment).rstrip("0") if moment.microsecond else str(moment)),
    "TEXT": st.text(st.characters(exclude_categories=["Cs"])),
}
#: Sizes of a source from which on the proofs run beside the copy: always, and never.
_WORTH = [0, 1 << 40]
_QUERIES = [
    "SELECT * FROM t ORDER BY n DESC",
    "SELECT * FROM t",
    "SELECT * FROM (SELECT * FROM t LIMIT 5)",
    "SELECT * FROM t UNION ALL SELECT * FROM t",
    "SELECT DISTINCT * FROM t ORDER BY abs(n)",
    "SELECT * FROM t a JOIN t b ON a.n = b.n ORDER BY b.n",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source") / "source.db"


@pytest.fixture(scope="module")
def source(file: Path) -> Source:
    return open_source(DatabaseSettings(name="src", url=f"sqlite:///{file}", engine="sqlite"))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteResults]:
    url = f"sqlite:///{tmp_path_factory.mktemp('results')}"
    backend = open_results(ResultsSettings(name="out", url=url, engine="sqlite"))
    assert isinstance(backend, SqliteResults)
    backend.prepare()
    yield backend
    backend.close()


def fill(file: Path, types: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Make the table ``t``; ``_BROKEN`` becomes text that is no UTF-8."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("DROP TABLE IF EXISTS t")
        columns = ", ".join(f"c{n} {declared}" for n, declared in enumerate(types))
        connection.execute(f"CREATE TABLE t (n INTEGER PRIMARY KEY, {columns})")
        for row in rows:
            places = ", ".join("CAST(x'e9' AS TEXT)" if value is _BROKEN else "?" for value in row)
            connection.execute(f"INSERT INTO t VALUES (NULL, {places})", [v for v in row if v is not _BROKEN])
        connection.commit()


def outcome(source: Source, shape: Shape, backend: SqliteResults, sql: str) -> tuple[Any, ...]:
    """Return all that there is to see of a result, or of the error."""
    try:
        result = publish(Shaped(source, shape), backend, sql)
    except AttemptError as error:
        return type(error), error.message, error.retryable
    with closing(sqlite3.connect(backend.file(result.table))) as connection:
        schema = connection.execute("SELECT * FROM sqlite_master").fetchall()
        shown = ", ".join(f'typeof("{c.name}"), quote("{c.name}")' for c in result.columns)
        rows = connection.execute(f'SELECT rowid, {shown} FROM "{result.table}" ORDER BY rowid').fetchall()
    return result.rows, tuple(result.columns), schema, rows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_both_ways_give_the_same_table(data: st.DataObject, file: Path, source: Source, backend: SqliteResults) -> None:
    types = data.draw(st.lists(st.sampled_from(_TYPES), min_size=1, max_size=4))
    odd = data.draw(st.booleans())
    values = [_USUAL.get(kind, st.nothing()) | st.none() | (_ANY if odd else st.nothing()) for kind in types]
    rows = data.draw(st.lists(st.tuples(*values), max_size=8))
    fill(file, types, rows)
    sql = data.draw(st.sampled_from(_QUERIES))
    general = outcome(source, Shape.DECODED, backend, sql)
    for worth in _WORTH:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_beside, "WORTH", worth)
            assert outcome(source, Shape.COPIED, backend, sql) == general


@pytest.mark.parametrize("declared", _TYPES)
@pytest.mark.parametrize("value", [*_MOMENTS, *_NUMBERS, *_TEXTS, b"", b"\xff", _BROKEN, None], ids=repr)
def test_both_ways_give_the_same_value(
    declared: str, value: object, file: Path, source: Source, backend: SqliteResults
) -> None:
    fill(file, [declared], [(value,)])
    general = outcome(source, Shape.DECODED, backend, _QUERIES[1])
    for worth in _WORTH:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_beside, "WORTH", worth)
            assert outcome(source, Shape.COPIED, backend, _QUERIES[1]) == general


USUAL = [
    ("INTEGER", -5),
    ("REAL", 1.5),
    ("DECIMAL(7,2)", 12.25),
    ("DECIMAL(7,2)", -12.5),
    ("DECIMAL(7,2)", 7),
    ("DECIMAL_TEXT", "1.50"),
    ("BOOLEAN", 1),
    ("DATE", "2024-02-29"),
    ("TIMESTAMP", "2024-02-29 10:00:00"),
    ("TIMESTAMP", "2024-02-29 10:00:00.5"),
    ("TEXT", "é"),
    ("JSON", '{"a": 1}'),
]


@pytest.mark.parametrize(("declared", "value"), USUAL)
def test_usual_values_are_copied(
    declared: str, value: object, file: Path, source: Source, backend: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(file, [declared], [(value,), (None,)])
    monkeypatch.setattr(GaveWay, "__init__", lambda *_: pytest.fail("the copy gave way"))
    shaped = Shaped(source, Shape.COPIED)
    publish(shaped, backend, "SELECT * FROM t ORDER BY n")
    assert shaped.gave is Shape.COPIED


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM t WHERE last_insert_rowid() = 0",
        "SELECT n FROM t WHERE n > 0 AND changes() + total_changes() = 0",
        "SELECT n FROM t WHERE (SELECT count(*) FROM pragma_table_list) > 0",
        "SELECT c0, (SELECT n FROM t AS u ORDER BY random() LIMIT 1) AS n FROM t",
        "WITH jobber_query AS (SELECT n FROM t) SELECT n FROM jobber_query",
        "SELECT n FROM t ORDER BY n LIMIT 1 -- the end",
    ],
)
def test_a_query_sees_what_it_always_sees(sql: str, file: Path, source: Source, backend: SqliteResults) -> None:
    fill(file, ["TEXT"], [("a",)])
    assert outcome(source, Shape.COPIED, backend, sql) == outcome(source, Shape.DECODED, backend, sql)


def test_a_query_reads_no_staging_table_and_writes_nothing(file: Path, source: Source, backend: SqliteResults) -> None:
    fill(file, ["TEXT"], [("a",)])
    table = backend.table_name("myjob")
    before = file.read_bytes()
    for sql in (f'SELECT n FROM t UNION ALL SELECT n FROM "{table}"', f'SELECT n FROM jobber_staging."{table}"'):
        with pytest.raises(QueryFailed, match="no such table"):
            publish(Shaped(source, Shape.COPIED), backend, sql)
    with pytest.raises(QueryFailed):
        publish(Shaped(source, Shape.COPIED), backend, "SELECT n FROM t) INSERT INTO t VALUES (5) --")
    assert file.read_bytes() == before


def test_late_text_that_is_not_utf8_fails_in_the_usual_words(
    file: Path, source: Source, backend: SqliteResults
) -> None:
    fill(file, ["TEXT"], [*[("fine",)] * 3000, (_BROKEN,)])
    with pytest.raises(ValueNotRepresentable, match="column c0: the value"):
        publish(Shaped(source, Shape.COPIED), backend, "SELECT * FROM t ORDER BY n")


def test_columns_that_change_places_meanwhile_are_told_by_the_general_way(
    tmp_path: Path, backend: SqliteResults
) -> None:
    file = tmp_path / "changing.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as owner:
        owner.execute("CREATE TABLE t (a TEXT, b TEXT)")
        owner.execute("INSERT INTO t VALUES ('A', 'B')")
        owner.execute("CREATE VIEW v AS SELECT a, b FROM t")
        source = open_source(DatabaseSettings(name="source", url=f"sqlite:///{file}", engine="sqlite"))
        staging = tmp_path / "staging.db"
        with closing(sqlite3.connect(staging)) as other:
            other.execute("CREATE TABLE r (a TEXT, b TEXT)")
        query = Query(parse("SELECT * FROM v", "sqlite"), [])
        accepts = frozenset({Shape.COPIED, Shape.DECODED})
        with source.read(query, accepts, timeout=20, cancellation=Cancellation()) as stream:
            assert stream.shape is Shape.COPIED
            owner.execute("DROP VIEW v")
            owner.execute("CREATE VIEW v AS SELECT b, a FROM t")
            with pytest.raises(GaveWay):
                stream.copy(Place(str(staging), "r"), 0, lambda _rows, _size: None)  # type: ignore[attr-defined]
