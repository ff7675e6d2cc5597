"""What is special about how a query fails on PostgreSQL."""

from __future__ import annotations

import pytest

from jobber.config import DatabaseSettings
from jobber.errors import AttemptError, QueryFailed, SourceOverloaded, SourceUnavailable, ValueNotRepresentable
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sqltext import Statement, parse
from tests.servers import Postgres
from tests.sources.reading import read


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT\n  1,\n  nothing", r'column "nothing" does not exist \(line 3 of the query\)'),
        ("SELEC 1", r'syntax error at or near "SELEC" \(line 1 of the query\)'),
        ("SELECT * FROM nowhere", r'relation "nowhere" does not exist'),
        ("SELECT lenth('x')", r"No function matches .*You might need to add explicit type casts"),
        ("SELECT", "no columns"),
        ("SELECT $1", None),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
    ],
)
def test_a_refused_statement_is_told_in_the_engines_words(
    pg: Source, accepts: frozenset[Shape], sql: str, words: str | None
) -> None:
    statement = Statement(sql, (sql,), 0)
    if words is None:
        assert pg.describe(parse(sql, "postgresql")) is not None
        return
    with pytest.raises(QueryFailed, match=words) as failed:
        pg.describe(statement)
    assert not failed.value.retryable


@pytest.mark.parametrize(
    ("raised", "error", "retryable"),
    [
        ("40001", QueryFailed, True),
        ("40P01", QueryFailed, True),
        ("55P03", QueryFailed, True),
        ("53200", QueryFailed, True),
        ("22012", QueryFailed, False),
        ("42501", QueryFailed, False),
        ("0A000", QueryFailed, False),
        ("25006", QueryFailed, False),
        ("08006", SourceUnavailable, True),
        ("57P01", SourceUnavailable, True),
        ("57P03", SourceUnavailable, True),
        ("53300", SourceOverloaded, True),
    ],
)
def test_the_state_of_an_error_decides_whether_it_may_pass(
    pg: Source, postgres: Postgres, database: str, raised: str, error: type[AttemptError], retryable: bool
) -> None:
    postgres.execute(
        "CREATE OR REPLACE FUNCTION fail(state text) RETURNS int LANGUAGE plpgsql STABLE AS "
        "$$ BEGIN RAISE EXCEPTION 'alas' USING ERRCODE = state, DETAIL = 'the detail', HINT = 'the hint'; END $$",
        database,
    )
    with pytest.raises(error, match=r"alas\. the detail\. the hint") as failed:
        read(pg, "SELECT fail($1)", [raised])
    assert failed.value.retryable is retryable
    assert type(failed.value) is error


def test_bytes_that_are_no_text_fail_the_query(postgres: Postgres, accepts: frozenset[Shape]) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    source = open_source(DatabaseSettings(name="x", url=postgres.url("ascii"), engine="postgresql"))
    try:
        with pytest.raises(QueryFailed, match='invalid byte sequence for encoding "UTF8": 0xe9') as failed:
            read(source, r"SELECT 1 AS good, convert_from('\x636166e9', 'SQL_ASCII') AS bad", accepts=accepts)
        assert not failed.value.retryable
    finally:
        source.close()
        postgres.drop_database("ascii")


def test_a_query_that_moves_its_own_time_zone_fails_instead_of_shifting_times(pg: Source) -> None:
    with pytest.raises(ValueNotRepresentable, match="column later"):
        read(pg, "SELECT set_config('TimeZone', 'Asia/Kolkata', true), 1 AS a, now() AS later")
