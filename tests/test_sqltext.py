"""Placeholders are found where the engine would find them, and nowhere else."""

from __future__ import annotations

import pytest

from jobber.errors import BadArguments, TaskFileError
from jobber.sqltext import parse


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


def test_brackets_quote_names_on_sql_server() -> None:
    assert marked("SELECT [it's ?], ?", "mssql") == "SELECT [it's ?], <0>"
