"""Arguments reach MySQL and MariaDB as what they are, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.columns import Kind
from jobber.errors import BadArguments
from jobber.jobs import Scalar
from jobber.sources.base import Shape, Source
from tests.servers import MariaDB
from tests.sources.engines import MysqlEngine, opened
from tests.sources.reading import read

HOSTILE = [
    "'", "''", "\\", "\\'", "%", "%s", "%%", "$1", "$$", ":name", "?", "--", "-- ", "/* x", "*/", "/*!", ";", "#",
    "'; DROP TABLE t; --", "\n", "\t", "\r\n", '"', "`", "é🐎", "\\N", "\\.", "", " ", "NULL", "a\0b", "\x1a",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(mariadb: MariaDB) -> Iterator[MysqlEngine]:
    name = mariadb.new_database()
    yield MysqlEngine(mariadb, name)
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def source(engine: MysqlEngine) -> Iterator[Source]:
    source = opened(engine)
    yield source
    source.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_arrives_as_it_is(source: Source, accepts: frozenset[Shape], text: str) -> None:
    rows = read(source, "SELECT ?, CHAR_LENGTH(?), '10%' LIKE '1%'", [text, text], accepts=accepts).rows
    assert rows == [(text, len(text), 1)]


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_arrives_as_it_is(source: Source, accepts: frozenset[Shape], text: str) -> None:
    assert read(source, "SELECT :t, PI() > 3, :t", {"t": text}, accepts=accepts).rows == [(text, 1, text)]


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (5, Kind.INTEGER, 5),
        (-5, Kind.INTEGER, -5),
        (2**63 - 1, Kind.INTEGER, 2**63 - 1),
        (-(2**63), Kind.INTEGER, -(2**63)),
        (2**64 - 1, Kind.NUMERIC, str(2**64 - 1)),
        (10**30, Kind.NUMERIC, "1" + "0" * 30),
        (Decimal("0.10"), Kind.NUMERIC, "0.10"),
        (Decimal("-12345678901234567890.123456789"), Kind.NUMERIC, "-12345678901234567890.123456789"),
        (Decimal("1E+3"), Kind.INTEGER, 1000),
        (10**65 - 1, Kind.NUMERIC, "9" * 65),
        (Decimal("0." + "1" * 40), Kind.NUMERIC, "0." + "1" * 40),
        # What has more digits than a DECIMAL stays exact as a double, or is refused.
        (10**65, Kind.FLOAT, 1e65),
        (Decimal("-1E+100"), Kind.FLOAT, -1e100),
        (Decimal("1.5E-100"), Kind.FLOAT, 1.5e-100),
        (True, Kind.INTEGER, 1),
        (False, Kind.INTEGER, 0),
        ("x", Kind.TEXT, "x"),
        (None, Kind.TEXT, None),
    ],
)
def test_an_argument_keeps_its_type_and_its_digits(
    source: Source, accepts: frozenset[Shape], value: Scalar, kind: Kind, shown: object
) -> None:
    result = read(source, "SELECT ?", [value], accepts=accepts)
    assert (result.kinds, result.rows) == ([kind], [(shown,)])


def test_arguments_stand_where_the_server_takes_them(source: Source, accepts: frozenset[Shape]) -> None:
    sql = "SELECT n-? FROM numbers WHERE n IN (?, ?) AND n LIKE ? ORDER BY n LIMIT ? OFFSET ?"
    assert read(source, sql, [-1, 10, 20, "%0", 1, 1], accepts=accepts).rows == [(21,)]


@pytest.mark.parametrize(("sql", "args"), [("SELECT ?", []), ("SELECT 1", [1]), ("SELECT :a", ["x"])])
def test_too_few_or_too_many_arguments_are_refused(source: Source, sql: str, args: list[Scalar]) -> None:
    with pytest.raises(BadArguments):
        read(source, sql, args)


@pytest.mark.parametrize(
    "value", [10**79 + 7, 10**400, *map(Decimal, ["1E+400", "-1E+400", "1E-400", "0." + "1" * 65, "NaN", "Infinity"])]
)
def test_a_number_that_the_server_would_replace_by_another_is_refused(source: Source, value: Scalar) -> None:
    with pytest.raises(BadArguments, match="argument 2 is a number that MySQL cannot hold"):
        read(source, "SELECT ?, ?", [1, value])


def test_half_of_a_surrogate_pair_is_refused(source: Source) -> None:
    with pytest.raises(BadArguments, match="argument 2 holds half of a surrogate pair"):
        read(source, "SELECT ?, ?", ["x", "\ud800"])


@given(text=st.text("ab'\"\\`%_#-/*?:;\n\r\t\0 é🐎", max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_literal_in_the_query_is_read_as_the_server_reads_it(source: Source, text: str) -> None:
    """jobber's lexer and the server's agree on where strings end, whatever is in them."""
    escaped = text.replace("\\", "\\\\").replace("\0", "\\0")
    single, double = escaped.replace("'", "''"), escaped.replace('"', '\\"')
    sql = f"SELECT '{single}' AS a, \"{double}\" AS b, ? AS c"
    assert read(source, sql, ["x"]).rows == [(text, text, "x")]
