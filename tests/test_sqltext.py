"""Placeholders are found where the engine would find them, and nowhere else."""

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

from jobber.errors import BadArguments, TaskFileError
from jobber.mysql import Connection, connect
from jobber.sqllexer import dialect, tokens
from jobber.sqltext import Placeholder, Statement, parse
from tests.servers import MariaDB, Postgres


def marked(sql: str, engine: str) -> str:
    """The SQL with each placeholder as <its index>."""
    return parse(sql, engine).render(lambda index: f"<{index}>")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT $1", "SELECT <0>"),
        ("SELECT $2, $1, $2", "SELECT <1>, <0>, <1>"),
        ("SELECT :b, :a, :b", "SELECT <0>, <1>, <0>"),
        ("SELECT :a::int, CAST(:b AS int)", "SELECT <0>::int, CAST(<1> AS int)"),
        ("SELECT f(x := :a, y => :b)", "SELECT f(x := <0>, y => <1>)"),
        ("SELECT '$1 :x' || $1", "SELECT '$1 :x' || <0>"),
        ("SELECT 'it''s :x', :a", "SELECT 'it''s :x', <0>"),
        ('SELECT ":x""$1", $1', 'SELECT ":x""$1", <0>'),
        (r"SELECT 'a\', $1", r"SELECT 'a\', <0>"),
        (r"SELECT E'a\' $1 ', $1", r"SELECT E'a\' $1 ', <0>"),
        ("SELECT E'a'\n  'b\\' :x', :a", "SELECT E'a'\n  'b\\' :x', <0>"),
        ("SELECT name'x', :a", "SELECT name'x', <0>"),
        ("SELECT $$ $1 :x ' $$, $1", "SELECT $$ $1 :x ' $$, <0>"),
        ("SELECT $a$ $b$ $1 $a$, $1", "SELECT $a$ $b$ $1 $a$, <0>"),
        ("SELECT $größe$ :x $größe$, :a", "SELECT $größe$ :x $größe$, <0>"),
        ("SELECT a$1, b$$, $1", "SELECT a$1, b$$, <0>"),
        ("SELECT ä$1, $1", "SELECT ä$1, <0>"),
        ("SELECT /* :x /* $1 */ ' */ $1", "SELECT /* :x /* $1 */ ' */ <0>"),
        ("SELECT -- it's :x\n $1", "SELECT -- it's :x\n <0>"),
        ("SELECT a[1:2], a[1:n], a[lo:hi], b[$1:$2]", "SELECT a[1:2], a[1:n], a[lo:hi], b[<0>:<1>]"),
        ("SELECT a[:n], a[f(:m)], ARRAY[:n, :k]", "SELECT a[<0>], a[f(<1>)], ARRAY[<0>, <2>]"),
        ("SELECT a[x - :n], ARRAY[NOT :k]", "SELECT a[x - <0>], ARRAY[NOT <1>]"),
        ("SELECT a[1 :hi], a[(1):hi], :x", "SELECT a[1 :hi], a[(1):hi], <0>"),
        ("SELECT CASE WHEN a THEN:n END LIMIT:k", "SELECT CASE WHEN a THEN<0> END LIMIT<1>"),
        ("SELECT j ? 'a', j ?| :k, j @> :j, j #> '{a}', j #>> :p, j @? '$.a'",
         "SELECT j ? 'a', j ?| <0>, j @> <1>, j #> '{a}', j #>> <2>, j @? '$.a'"),
        ("SELECT :größe", "SELECT <0>"),
        ("SELECT '10:30'::time, 5 % $1", "SELECT '10:30'::time, 5 % <0>"),
        ("SELECT a\u00a0$1", "SELECT a\u00a0$1"),
    ],
)  # fmt: skip
def test_postgresql_placeholders_are_found_between_everything_that_only_looks_like_one(sql: str, expected: str) -> None:
    assert marked(sql, "postgresql") == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ?, ?", "SELECT <0>, <1>"),
        ("SELECT '?', \"?\", `?`, [?], ?", "SELECT '?', \"?\", `?`, [?], <0>"),
        ("SELECT [it's], `a``?`, ?", "SELECT [it's], `a``?`, <0>"),
        ("SELECT :a -- ?\n, :b /* ? /* */", "SELECT <0> -- ?\n, <1>"),
        ("SELECT x'ab', ?", "SELECT x'ab', <0>"),
        (r"SELECT '\', ?", r"SELECT '\', <0>"),
        ("SELECT j -> '$.a', ?", "SELECT j -> '$.a', <0>"),
        ("SELECT a$1, ?", "SELECT a$1, <0>"),
        ("SELECT CASE WHEN 1 THEN:a END", "SELECT CASE WHEN 1 THEN<0> END"),
    ],
)
def test_sqlite_placeholders_are_found_between_everything_that_only_looks_like_one(sql: str, expected: str) -> None:
    assert marked(sql, "sqlite") == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ?, ?", "SELECT <0>, <1>"),
        ("SELECT :b, :a, :b", "SELECT <0>, <1>, <0>"),
        ("SELECT '?', \"?\", `?`, ?", "SELECT '?', \"?\", `?`, <0>"),
        (r"SELECT 'it\'s ?', ?", r"SELECT 'it\'s ?', <0>"),
        (r'SELECT "say \"?\"", ?', r'SELECT "say \"?\"", <0>'),
        (r"SELECT '\\', ?", r"SELECT '\\', <0>"),
        ("SELECT 'it''s ?', \"a\"\"?\", `b``?`, ?", "SELECT 'it''s ?', \"a\"\"?\", `b``?`, <0>"),
        (r"SELECT `a\`, ?", r"SELECT `a\`, <0>"),
        ("SELECT N'?', _utf8mb4'?', x'3f', b'1', ?", "SELECT N'?', _utf8mb4'?', x'3f', b'1', <0>"),
        ("SELECT 1 # it's ?\n, ?", "SELECT 1 # it's ?\n, <0>"),
        ("SELECT 1 -- it's ?\n, ?", "SELECT 1 -- it's ?\n, <0>"),
        ("SELECT 1 --\n, ?--", "SELECT 1 --\n, <0>"),
        ("SELECT 5--?, 1--1", "SELECT 5--<0>, 1--1"),
        ("SELECT 1 /* ? /* it's */, ?", "SELECT 1 /* ? /* it's */, <0>"),
        ("SELECT /*+ MAX_EXECUTION_TIME(1) */ ?", "SELECT /*+ MAX_EXECUTION_TIME(1) */ <0>"),
        ("SELECT /*!50000 STRAIGHT_JOIN */ ?", "SELECT /*!50000 STRAIGHT_JOIN */ <0>"),
        ("SELECT ? FROM t /*!50000 FORCE INDEX (a) */", "SELECT <0> FROM t /*!50000 FORCE INDEX (a) */"),
        ("SELECT ? /*M!100100 , 1 */", "SELECT <0> /*M!100100 , 1 */"),
        ("SELECT @a := :a, @a:=:b, @@sql_mode, @'x?'", "SELECT @a := <0>, @a:=<1>, @@sql_mode, @'x?'"),
        ("SELECT j->'$.a', j->>'$.b[0]', ?", "SELECT j->'$.a', j->>'$.b[0]', <0>"),
        ("SELECT a$1, $a, ?", "SELECT a$1, $a, <0>"),
        ("SELECT CASE WHEN 1 THEN:a END, {d '2024-01-01'}", "SELECT CASE WHEN 1 THEN<0> END, {d '2024-01-01'}"),
        ("SELECT 5 % ? LIKE '10%'", "SELECT 5 % <0> LIKE '10%'"),
    ],
)  # fmt: skip
def test_mysql_placeholders_are_found_between_everything_that_only_looks_like_one(sql: str, expected: str) -> None:
    assert marked(sql, "mysql") == marked(sql, "mariadb") == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT {'a': :n}, {a:b}, doc:key, xs[1:n], ?", None),
        ("SELECT {'a': :n}, {a:b}, doc:key, xs[1:n]", "SELECT {'a': <0>}, {a:b}, doc:key, xs[1:n]"),
        ("SELECT $$ ? $$, ?", "SELECT $$ ? $$, <0>"),
    ],
)
def test_other_engines_may_use_a_colon_after_an_operand(sql: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TaskFileError, match="mixes"):
            parse(sql, "duckdb")
    else:
        assert marked(sql, "duckdb") == expected


@pytest.mark.parametrize(
    ("sql", "engine", "message", "line"),
    [
        ("SELECT 1;\nSELECT 2", "postgresql", "another begins after the semicolon", 2),
        ("\n\nSELECT 'x\n\n", "postgresql", "the ' quote that opens here is never closed", 3),
        ('SELECT "x', "sqlite", 'the " quote', 1),
        ("SELECT `x", "sqlite", "the ` quote", 1),
        ("SELECT [x", "sqlite", r"the \[ quote", 1),
        ("SELECT 1\n/* x /* */", "postgresql", r"the /\* comment", 2),
        ("SELECT /* x", "sqlite", r"the /\* comment", 1),
        ("SELECT E'x\\'", "postgresql", "the E' string", 1),
        ("SELECT\n$a$ x $b$", "postgresql", r"the dollar quote \$a\$", 2),
        ("SELECT :a,\n$1", "postgresql", r"mixes named \(:a\) and positional", 2),
        ("SELECT ?,\n:a", "sqlite", r"mixes named \(:a\) and positional", 1),
        ("SELECT $1,\n\n$3", "postgresql", r"\$3 but not \$2", 3),
        ("SELECT $0", "postgresql", "numbered from", 1),
        ("SELECT $65536", "postgresql", "numbered from", 1),
        ("SELECT $" + "9" * 10_000, "postgresql", "numbered from", 1),
        ("SELECT ?1", "sqlite", r"\?1 is not a placeholder that jobber binds on sqlite; write \?, or :name", 1),
        ("SELECT\n$1", "sqlite", r"\$1 is not a placeholder", 2),
        ("SELECT a=@x", "sqlite", "@x is not a placeholder", 1),
        ("SELECT :1", "sqlite", ":1 is not a placeholder", 1),
        ("SELECT $$", "sqlite", r"\$\$ is not a placeholder", 1),
        ("SELECT $1", "duckdb", r"\$1 is not a placeholder", 1),
        ("SELECT\n$1", "mysql", r"\$1 is not a placeholder that jobber binds on mysql; write \?, or :name", 2),
        ("SELECT 'x\\'", "mysql", "the ' quote", 1),
        ('SELECT "x\\"', "mysql", 'the " quote', 1),
        ("SELECT `x", "mysql", "the ` quote", 1),
        ("SELECT 1\n/*! x", "mysql", r"the /\*! comment", 2),
        ("SELECT 1\n/*!50000 , ? */", "mysql", r"write quotes, placeholders and comments outside of it", 2),
        ("SELECT /*! 'x' */ 1", "mysql", r"code to some servers and not to others", 1),
        ("", "sqlite", "no SQL", 1),
        (" -- only a comment\n;", "postgresql", "no SQL", 1),
        ("; SELECT 1", "postgresql", "begins with a semicolon", 1),
    ],
)
def test_a_statement_that_cannot_work_is_refused_with_the_line(sql: str, engine: str, message: str, line: int) -> None:
    with pytest.raises(TaskFileError, match=message) as caught:
        parse(sql, engine)
    assert caught.value.details["line"] == line


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("  SELECT 1 ;; \n", "SELECT 1"),
        ("SELECT 1; -- done; really", "SELECT 1"),
        ("SELECT 1 -- done;", "SELECT 1"),
        ("SELECT 1 /* a; b */;", "SELECT 1"),
        ("/*+ hint */ SELECT ';';", "/*+ hint */ SELECT ';'"),
        ("SELECT $1 -- x", "SELECT $1"),
    ],
)
def test_what_follows_the_statement_is_dropped_so_that_it_fits_into_parentheses(sql: str, kept: str) -> None:
    statement = parse(sql, "postgresql")
    assert statement.sql == kept
    assert statement.render(lambda index: f"${index + 1}") == kept


def test_literal_sql_is_escaped_and_placeholders_are_not() -> None:
    statement = parse("SELECT 5 % :a LIKE '10%'", "postgresql")
    assert statement.render(lambda _: "%s", lambda sql: sql.replace("%", "%%")) == "SELECT 5 %% %s LIKE '10%%'"


def test_values_are_bound_once_per_distinct_placeholder() -> None:
    assert parse("SELECT :b, :a, :b", "postgresql").bind({"a": 1, "b": 2}) == [2, 1]
    assert parse("SELECT $2, $1, $2", "postgresql").bind([1, "x"]) == [1, "x"]
    assert parse("SELECT 1", "sqlite").bind([]) == []
    assert parse("SELECT 1", "sqlite").bind({}) == []


@pytest.mark.parametrize(
    ("sql", "args", "message"),
    [
        ("SELECT ?, ?", [1], "2 placeholders, but 1 arg came"),
        ("SELECT ?", [], "1 placeholder, but 0 args came"),
        ("SELECT ?", {}, "1 placeholder, but 0 args came"),
        ("SELECT ?", {"a": 1}, "1 placeholder by position; send args as a list"),
        ("SELECT 1", {"a": 1}, "takes no arguments, but 1 came"),
        ("SELECT 1", [1, 2], "0 placeholders, but 2 args came"),
        ("SELECT :a", [1], r"named placeholders \(:a\); send args as an object"),
        ("SELECT :a", [], "1 placeholder, but 0 args came"),
        ("SELECT :a, :b", {"a": 1, "c": 2}, "no value for :b; no placeholder for :c"),
        ("SELECT :a", {}, "no value for :a"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(sql: str, args: list[int] | dict[str, int], message: str) -> None:
    with pytest.raises(BadArguments, match=message):
        parse(sql, "sqlite").bind(args)  # type: ignore[arg-type]


ENGINES = ["postgresql", "sqlite", "duckdb", "mysql", "mysql+ansi_quotes", "mysql+no_backslash_escapes"]

# -- properties -------------------------------------------------------------------------------------------------------

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
            # What is code to some servers only is refused on all; the server closes no comment at the end of a text.
            elif "/*" not in str(refusal) and "/*" not in sql:
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


def test_brackets_quote_names_on_sql_server() -> None:
    assert marked("SELECT [it's ?], ?", "mssql") == "SELECT [it's ?], <0>"
