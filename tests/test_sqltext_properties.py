"""Placeholders in any text: properties, the engines themselves as oracles, and time."""

from __future__ import annotations

import sqlite3
import struct
import time
from contextlib import suppress

import psycopg
import pymysql
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql.constants import COMMAND

from jobber.errors import TaskFileError
from jobber.mysql import Connection, connect
from jobber.sqllexer import dialect, tokens
from jobber.sqltext import Placeholder, Statement, parse
from tests.servers import MariaDB, Postgres

ENGINES = ["postgresql", "sqlite", "duckdb", "mysql", "mysql+ansi_quotes", "mysql+no_backslash_escapes"]

# Pieces that hold no placeholder, whatever stands beside them once blanks part them.
_INERT_COMMON = ["1", "'?:x$1'", "'it''s'", '"a:b?$1"', "-- ?:x$1 '\n", "/* ?:x$1 ' */", "(1)", "x", ",", "+", "'\\'"]
_INERT = {
    "postgresql": [*_INERT_COMMON, "a$1", "E'\\':x'", "$$:x ' $1$$", "$t$ $$ :x $t$", "x::int", "a[1:n]", "? ", "?|"],
    "sqlite": [*_INERT_COMMON, "[a'?:x]", "`?:x`", "a$1", "j->'$.x'"],
    "mysql": [piece for piece in _INERT_COMMON if piece != "'\\'"]
    + ["`?:x`", "'\\'?:x'", '"\\"?:x"', "# ?:x '\n", "a$1", "j->'$.x'", "@x", "/*!50000 x */", "--1", "N'?'", "--\n"],
}


@st.composite
def _mixtures(draw: st.DrawFn, positional: bool) -> tuple[str, str, list[str | int]]:
    engine = draw(st.sampled_from(sorted(_INERT)))
    pieces: list[str | int] = draw(
        st.lists(st.one_of(st.sampled_from(_INERT[engine]), st.integers(0, 2)), min_size=1, max_size=12)
    )
    texts = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        elif not positional:
            texts.append(f":p{piece}")
        else:
            texts.append(f"${piece + 1}" if engine == "postgresql" else "?")
    return engine, "SELECT " + " ".join(texts) + " x", pieces


@settings(deadline=None)  # other tests run beside these
@given(_mixtures(positional=False))
def test_named_placeholders_are_found_in_any_surroundings(mixture: tuple[str, str, list[str | int]]) -> None:
    engine, sql, pieces = mixture
    statement = parse(sql, engine)
    expected = [f"p{piece}" for piece in pieces if isinstance(piece, int)]
    assert [statement.names[p.index] for p in statement.pieces if isinstance(p, Placeholder)] == expected
    assert statement.render(lambda index: f":{statement.names[index]}") == statement.sql == sql


@settings(deadline=None)  # other tests run beside these
@given(_mixtures(positional=True))
def test_positional_placeholders_are_found_in_any_surroundings(mixture: tuple[str, str, list[str | int]]) -> None:
    engine, sql, pieces = mixture
    used = [piece for piece in pieces if isinstance(piece, int)]
    if engine == "postgresql" and set(used) != set(range(len(set(used)))):
        with pytest.raises(TaskFileError, match="without gaps"):
            parse(sql, engine)
        return
    statement = parse(sql, engine)
    found = [p.index for p in statement.pieces if isinstance(p, Placeholder)]
    assert found == (used if engine == "postgresql" else list(range(len(used))))


@settings(deadline=None)  # other tests run beside these
@given(st.text(alphabet="ab'\"`$:?;-/*![]()#\\\n E1ä", max_size=40), st.sampled_from(ENGINES))
def test_tokens_cover_any_text_without_a_gap_or_say_what_is_open(sql: str, engine: str) -> None:
    at, line = 0, None
    try:
        for token in tokens(sql, dialect(engine)):
            assert token.start == at < token.end
            at = token.end
    except TaskFileError as error:
        line = error.details["line"]
    assert at == len(sql) if line is None else line == sql.count("\n", 0, at) + 1


@settings(deadline=None)  # other tests run beside these
@given(st.text(alphabet="ab'\"`$:?;-/*![]()#\\\n E1ä", max_size=40), st.sampled_from(ENGINES))
def test_any_text_is_parsed_or_refused_and_never_changed(sql: str, engine: str) -> None:
    try:
        statement = parse(sql, engine)
    except TaskFileError:
        return
    assert statement.sql in sql
    assert parse(statement.sql, engine) == statement
    again = statement.render(lambda _: "\0")
    assert again.count("\0") == sum(isinstance(piece, Placeholder) for piece in statement.pieces)


# -- the engines themselves as oracles --------------------------------------------------------------------------------

_ORACLE = [
    'SELECT $1::int, \'x $2\', $$ $3 $$, "a$1" FROM (SELECT 1 AS "a$1") t',
    "SELECT (ARRAY[1,2,3])[1:2], (ARRAY[1,2,3])[$1:$2]",
    r"SELECT E'\' $2', '\', $1::text /* $3 /* $4 */ */",
    "SELECT E'a'\n'\\' $2', $1::text",
    "SELECT '{\"a\":1}'::jsonb ? 'a', $1::text -- $2",
    "SELECT $1::int AS a$2",
]


@pytest.mark.parametrize("sql", _ORACLE)
def test_postgresql_counts_the_same_placeholders(postgres: Postgres, sql: str) -> None:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        connection.pgconn.prepare(b"s", sql.encode())
        described = connection.pgconn.describe_prepared(b"s")
        assert described.nparams == parse(sql, "postgresql").count


_SCRAPS = [
    *("1", "'a'", "'it''s $1'", "$1", "$2", '"x$1"', "-- $3\n", "/* $1 */", "/* /* $2 */ */", "*/", "/*", "'", '"'),
    *("(", ")", ",", "+", "E'a\\' $2'", "E'a'\n'\\' $1'", "$$ $1 $$", "$t$ $$ $1 $t$", "a$1", "::text", "--", "\n"),
    *("[", "]", "e'\\'", "$$", "é$1", "U&'a'", "||", ";", "AS q", "ARRAY[1,2]", "[1:2]", "[$1:$2]", "n'x'", "\r"),
]


def _counted(postgres: psycopg.Connection, sql: str) -> int | None:
    """Placeholders as PostgreSQL counts them; None if it is no sentence of SQL."""
    if postgres.pgconn.prepare(b"", sql.encode()).status != psycopg.pq.ExecStatus.COMMAND_OK:
        return None
    return postgres.pgconn.describe_prepared(b"").nparams


def test_postgresql_takes_nothing_that_is_refused_and_counts_alike_in_any_soup(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:

        @settings(deadline=None, max_examples=1000)
        @given(st.lists(st.sampled_from(_SCRAPS), min_size=1, max_size=6), st.sampled_from(["", " "]))
        def check(scraps: list[str], joint: str) -> None:
            sql = "SELECT " + joint.join(scraps)
            refusal, statement = None, None
            try:
                statement = parse(sql, "postgresql")
            except TaskFileError as error:
                refusal = error.message
            if statement is not None:
                assert _counted(connection, statement.sql) in {None, statement.count}
            # PostgreSQL takes numbers with gaps where it can guess the types; here they are a mistake.
            elif "without gaps" not in str(refusal):
                assert _counted(connection, sql) is None

        check()


def _prepared(connection: Connection, sql: str) -> int | None:
    """Placeholders as the server counts them; None if it is no sentence of SQL."""
    connection.send(COMMAND.COM_STMT_PREPARE, sql.encode())
    try:
        answer = connection.packet().get_all_data()
    except pymysql.err.Error:
        return None
    statement, columns, placeholders = struct.unpack_from("<xIHH", answer)
    connection.definitions(placeholders)
    connection.definitions(columns)
    connection.send(COMMAND.COM_STMT_CLOSE, struct.pack("<I", statement))
    found: int = placeholders
    return found


_MYSQL_SCRAPS = [
    *("1", "'a'", "'it''s ?'", "?", "? ", '"x?"', "-- ?\n", "--?", "--", "# ?\n", "#", "/* ? */", "/*", "*/", "'", '"'),
    *("(", ")", ",", "+", r"'a\' ?'", r"'\\'", r'"a\" ?"', r"'\'", "`", "`?`", "`a``?`", "a$1", "@x", "@'?'", "@x:="),
    *("_utf8mb4'?'", "n'?'", "x'3f'", "é?", ";", "AS q", "/*! 1 */", "/*!99999 1 */", "/*!", "\\", "\0", "\x7f"),
    *("->'$.a'", "\n", "\r", "1--?", "1 -- ?\n+?", "?#?\n+?"),
]  # fmt: skip


def test_mysql_takes_nothing_that_is_refused_and_counts_alike_in_any_soup(mariadb: MariaDB) -> None:
    with connect(mariadb.url(""), connect_timeout=10) as connection:

        @settings(deadline=None, max_examples=1500)
        @given(st.lists(st.sampled_from(_MYSQL_SCRAPS), min_size=1, max_size=6), st.sampled_from(["", " "]))
        def check(scraps: list[str], joint: str) -> None:
            sql = "SELECT " + joint.join(scraps)
            refusal, statement = None, None
            try:
                statement = parse(sql, "mysql")
            except TaskFileError as error:
                refusal = error.message
            if statement is not None:
                occurrences = sum(isinstance(piece, Placeholder) for piece in statement.pieces)
                assert _prepared(connection, statement.sql) in {None, occurrences}
            # What is code to some servers only is refused on all; the server closes no comment at the end of a text,
            # and overlooks some of what stands behind a semicolon.
            elif "/*" not in str(refusal) and "/*" not in sql and "after the semicolon" not in str(refusal):
                assert _prepared(connection, sql) is None

        check()


@settings(deadline=None)  # other tests run beside these
@given(_mixtures(positional=True))
def test_sqlite_counts_the_same_placeholders(mixture: tuple[str, str, list[str | int]]) -> None:
    """What SQLite accepts it must accept with as many values as were counted."""
    engine, sql, _ = mixture
    if engine != "sqlite":
        return
    statement: Statement = parse(sql, engine)
    with sqlite3.connect(":memory:") as connection:
        try:
            connection.execute("EXPLAIN " + statement.sql, [1] * statement.count)
        except sqlite3.OperationalError:
            pass  # not a sentence of SQL; a ProgrammingError would be about the count
        finally:
            connection.rollback()
    connection.close()


@pytest.mark.parametrize(
    "piece",
    [
        "SELECT a, 'it''s' || \"b\" FROM t WHERE x = :p AND y[1:2] -- c'\n",
        "''''''''", "'x' ", "E'\\\\' ", "E'a' \n\n", "$$a$$ ", "/* x */ ", "((((", "[[[[:p",
        "a", "1", " ", "\n", "-", "::::", ":p ", "--\n", "$a ", '"" ', r"'\\' ", "/*!1*/ ", "#\n",
    ],
)  # fmt: skip
def test_a_hundred_kilobytes_take_a_fraction_of_a_second(piece: str) -> None:
    sql = "SELECT " + piece * (100_000 // len(piece))
    started = time.process_time()
    parse(sql, "postgresql")
    with suppress(TaskFileError):  # as long as it is fast
        parse(sql, "mysql")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("opening", ["'", "'a''", '"', "$a$", "$a$ $b$ ", "/*", "/* /*", "E'\\", "E'a' \n"])
def test_a_hundred_kilobytes_of_unclosed_quotes_are_refused_as_fast(opening: str) -> None:
    sql = "SELECT " + opening * (100_000 // len(opening)) + "'x"
    started = time.process_time()
    with pytest.raises(TaskFileError, match=r"never closed|mixes"):
        parse(sql, "postgresql")
    assert time.process_time() - started < 2
