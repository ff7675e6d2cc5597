"""Queries that are no mere reads are told of when they are loaded, and reads never are."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.errors import TaskFileError
from jobber.sqltext import Statement, parse
from jobber.tasks import files, lint
from tests.servers import Postgres
from tests.tasks.conftest import Loading

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ["postgresql", "mysql", "sqlite", "duckdb", "clickhouse", "mssql", "nosuchengine"]

#: By engine, what is no read and how its warning begins.
WRITES = {
    "postgresql": {
        "INSERT INTO t SELECT 1": "INSERT writes",
        "/* hint */ update t SET a = :a WHERE b = :b": "UPDATE writes",
        "DELETE FROM t RETURNING *": "DELETE writes",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE": "MERGE writes",
        "CREATE TABLE x AS SELECT 1": "CREATE writes",
        "DROP TABLE t": "DROP writes",
        "ALTER TABLE t ADD a int": "ALTER writes",
        "TRUNCATE t": "TRUNCATE writes",
        "REFRESH MATERIALIZED VIEW v": "REFRESH writes",
        "VACUUM t": "VACUUM writes",
        "GRANT SELECT ON t TO r": "GRANT writes",
        "SET work_mem = '1GB'": "SET is no query",
        "DO $$ BEGIN DELETE FROM t; END $$": "DO is no query",
        "COPY t TO '/tmp/x'": "COPY is no query",
        "BEGIN": "BEGIN is no query",
        "CALL p($1)": "CALL runs a procedure",
        "LOCK TABLE t": "LOCK locks a table",
        "WITH gone AS (DELETE FROM t WHERE a = :a RETURNING *) SELECT * FROM gone": "DELETE inside",
        "WITH x AS (SELECT 1), y AS MATERIALIZED (/* ! */ UPDATE t SET a = 1 RETURNING a) TABLE y": "UPDATE inside",
        "WITH x AS (INSERT INTO t SELECT 1 ON CONFLICT DO UPDATE SET b = 2 RETURNING 1) SELECT 1": "INSERT inside",
        "WITH x AS (MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE RETURNING 1) SELECT 1": "MERGE inside",
        "WITH x AS (SELECT 1) DELETE FROM t USING x": "DELETE inside",
        "SELECT * INTO TEMP n FROM t": "INTO sends the rows elsewhere",
        "SELECT * FROM t WHERE a = $1 FOR UPDATE SKIP LOCKED": "FOR UPDATE locks",
        "SELECT * FROM (SELECT * FROM t FOR NO KEY UPDATE OF t) q": "FOR UPDATE locks",
        "SELECT * FROM t LIMIT :n FOR KEY SHARE": "FOR SHARE locks",
        "SELECT nextval('s')": "nextval() changes the sequence",
        "SELECT * FROM pg_catalog.setval('s', 1)": "setval() changes the sequence",
        "SELECT PG_ADVISORY_LOCK(1)": "pg_advisory_lock() takes a lock",
        "SELECT 1 WHERE pg_catalog.pg_try_advisory_xact_lock_shared(1)": "pg_try_advisory_xact_lock_shared() takes",
        "SELECT lo_import('/etc/passwd')": "lo_import() writes a large object",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity": "pg_terminate_backend() acts on",
        "SELECT a ? 'b', $$ x $$, nextval('s') -- 'n": "nextval() changes",
    },
    "mysql": {
        "REPLACE INTO t VALUES (1)": "REPLACE writes",
        "INSERT INTO t SET a = ?": "INSERT writes",
        "DELETE t1 FROM t1 JOIN t2 ON t1.a = t2.a": "DELETE writes",
        "LOAD DATA INFILE 'x' INTO TABLE t": "LOAD is no query",
        "RENAME TABLE a TO b": "RENAME writes",
        "SET @a = 1": "SET is no query",
        "DO SLEEP(1)": "DO is no query",
        "CALL p()": "CALL runs a procedure",
        "LOCK TABLES t READ": "LOCK locks a table",
        "SELECT * FROM t INTO OUTFILE '/tmp/x'": "INTO OUTFILE writes a file",
        "SELECT a INTO DUMPFILE '/tmp/x' FROM t": "INTO DUMPFILE writes a file",
        "SELECT a INTO @v FROM t": "INTO sends the rows elsewhere",
        "SELECT * FROM t WHERE a = ? FOR UPDATE": "FOR UPDATE locks",
        "SELECT * FROM t LOCK IN SHARE MODE": "FOR SHARE locks",
        "SELECT 'it\\'s', GET_LOCK('a', 1)": "get_lock() takes a lock",
        "SELECT NEXTVAL(s)": "nextval() changes",
        "WITH x AS (SELECT 1 AS a) UPDATE t JOIN x USING (a) SET b = 1": "UPDATE inside",
    },
    "sqlite": {
        "INSERT OR REPLACE INTO t VALUES (?)": "INSERT writes",
        "WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x": "REPLACE INTO writes",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x": "INSERT inside",
        "ATTACH 'x' AS y": "ATTACH is no query",
        "VACUUM": "VACUUM writes",
    },
    "duckdb": {
        "CREATE TABLE t AS FROM u": "CREATE writes",
        "COPY (SELECT 1) TO 'x.csv'": "COPY is no query",
        "EXPORT DATABASE 'x'": "EXPORT writes",
        "FROM t SELECT nextval('s')": "nextval() changes",
    },
    "clickhouse": {
        "ALTER TABLE t DELETE WHERE 1": "ALTER writes",
        "OPTIMIZE TABLE t FINAL": "OPTIMIZE writes",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x": "INSERT inside",
        "SELECT * FROM t INTO OUTFILE 'x'": "INTO OUTFILE writes a file",
    },
    "mssql": {"SELECT * INTO #t FROM u": "INTO sends", "SELECT NEXT VALUE FOR s": "NEXT VALUE FOR changes"},
    "nosuchengine": {"DELETE FROM t": "DELETE writes"},
}
READS = {
    "postgresql": [
        "SELECT 'DELETE FROM t', $$ INSERT INTO t $$, $x$ FOR UPDATE $x$, E'it\\'s; UPDATE t' -- DELETE FROM t",
        "/* DELETE FROM t /* nested */ FOR UPDATE */ SELECT 1 -- nextval('s')",
        'SELECT "update", "nextval"(1), t.into, t.update FROM t',
        "SELECT delete, update AS merge FROM share WHERE replace IN (1, 2)",
        "WITH delete AS (SELECT 1 AS update) SELECT update.update FROM delete AS update",
        "SELECT replace(a, 'x', 'y'), overlay(a PLACING 'insert' FROM 1 FOR 2) FROM t",
        "SELECT a::int, b->>'delete', c ? 'update', d @> '{}', e[1:2], f #> '{a}' FROM t WHERE x = :x OR y = :y::int",
        "SELECT substring(a FROM 1 FOR 2) FROM t WHERE b = $1 LIMIT $2 OFFSET 5",
        "SELECT * FROM t OFFSET 5 ROWS FETCH NEXT 10 ROWS ONLY",
        "SELECT next value FROM t",
        "SELECT currval('s'), nextval FROM nextval",
        "SELECT mine.nextval('s'), mine.pg_advisory_lock(1)",
        "SELECT a FROM t WHERE b IN (SELECT share FROM u) AND key = 'x'",
        "EXPLAIN SELECT * FROM t",
        "SHOW server_version",
        "VALUES (1), (2)",
        "TABLE t",
        "(SELECT 1 UNION ALL SELECT 2) ORDER BY 1",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < :most) SELECT * FROM r",
        "SELECT (delete) FROM t WHERE (update) > 1",
        "SELECT get_lock('a', 1)",
    ],
    "mysql": [
        "SELECT INSERT('Quadratic', 3, 4, 'What'), REPLACE(a, 'b', 'c') FROM t",
        "SELECT `update`, t.`into`, \"FOR UPDATE\", 'it\\'s; DELETE FROM t' FROM t # FOR UPDATE",
        "SELECT @n := @n + 1 FROM t, (SELECT @n := 0) i",
        "SELECT DATE_ADD(a, INTERVAL ? DAY) FROM t WHERE b < ? LIMIT ?",
        "SELECT IS_FREE_LOCK('a'), shop.get_lock(1)",
        "SHOW TABLES",
        "DESCRIBE t",
        "ANALYZE FORMAT=JSON SELECT 1",
        "SELECT GROUP_CONCAT(a ORDER BY b SEPARATOR ' INTO OUTFILE ') FROM t",
    ],
    "sqlite": [
        'SELECT [update], [FOR UPDATE], "into", `delete` FROM t',
        "SELECT replace(a, 'b', 'c'), nextval(1) FROM t",
        "PRAGMA table_info(t)",
        "EXPLAIN QUERY PLAN SELECT 1",
    ],
    "duckdb": [
        "FROM t",
        "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) FROM t",
        "SELECT {'delete': 1}, [x + 1 for x in l] FROM t",
        "CALL pragma_version()",
        "PIVOT t ON a USING sum(b)",
        "SUMMARIZE t",
    ],
    "clickhouse": [
        "SELECT * FROM merge(currentDatabase(), '^insert')",
        "SELECT arrayMap(x -> x + 1, [1]), {day:Date} FROM t FINAL SETTINGS max_threads = 1",
        "WITH 1 AS delete SELECT delete, a.1 FROM t LIMIT 1 BY a",
        "SELECT 'a\\'b INTO OUTFILE ', 1",
    ],
    "mssql": ["SELECT TOP 5 [into], [FOR UPDATE] FROM t WITH (NOLOCK)"],
    "nosuchengine": ["SELECT * FROM t FOR UPDATE"],  # sqlglot does not know how it is meant there
}


def told(loading: Loading, sql: str, *engines: str) -> list[str]:
    """Return the warnings of a task with that SQL, without file and task."""
    loaded = loading({engine: engine for engine in engines}, a=f"-- name: x\n{sql}\n")
    return [warning.partition(": task x: ")[2] for warning in loaded.warnings]


@pytest.mark.parametrize(("engine", "sql"), [(engine, sql) for engine, by_sql in WRITES.items() for sql in by_sql])
def test_what_is_no_read_is_warned_of_and_what_to_do_is_said(loading: Loading, engine: str, sql: str) -> None:
    [warning] = told(loading, sql, engine)
    assert warning.startswith(WRITES[engine][sql])
    assert re.search(r"leave it out|let the task|begins with SELECT", warning)


@pytest.mark.parametrize(("engine", "sql"), [(engine, sql) for engine, queries in READS.items() for sql in queries])
def test_reads_are_not_warned_of(loading: Loading, engine: str, sql: str) -> None:
    assert told(loading, sql, engine) == []


def test_a_warning_says_file_line_and_task(loading: Loading) -> None:
    loaded = loading(
        a="-- name: fine\nSELECT 'FOR UPDATE' AS a\n;\n\n-- name: held\n-- Says: what\n\n"
        "SELECT *, 'FOR UPDATE'\nFROM t -- FOR UPDATE\nWHERE a = :a\n  FOR UPDATE;\n"
    )
    [warning] = loaded.warnings
    place, _, text = warning.partition(": task held: ")
    assert place == f"{loading.folder.resolve() / 'a.sql'}:11"
    assert text.startswith("FOR UPDATE locks the rows")


def test_everything_is_told_in_the_order_of_its_lines_beside_what_is_told_of_tags(loading: Loading) -> None:
    sql = "-- name: x\n-- row: one each\nWITH a AS (\n DELETE FROM t RETURNING 1\n)\nSELECT nextval('s') FROM a"
    lines = [re.search(r"a\.sql:(\d+): task x: (\w+)", warning) for warning in loading(a=sql).warnings]
    assert [(line[1], line[2]) for line in lines if line] == [("2", "row"), ("4", "DELETE"), ("6", "nextval")]


def test_what_writes_on_some_engines_only_says_on_which(loading: Loading) -> None:
    assert told(loading, "SELECT nextval('s')", "postgresql", "duckdb", "sqlite") == [
        "nextval() changes the sequence; leave it out (on postgresql, duckdb)"
    ]
    assert told(loading, "SELECT nextval('s')", "postgresql", "duckdb") == [
        "nextval() changes the sequence; leave it out"
    ]


def test_several_statements_are_refused_so_none_is_warned_of(loading: Loading) -> None:
    [problem] = loading.problems(a="-- name: x\nSELECT 1;\nDELETE FROM t")
    assert "a task is one statement" in problem


def test_no_query_of_this_repository_is_warned_of() -> None:
    texts = [file.read_text() for folder in ("queries", "tests/legacy") for file in (ROOT / folder).rglob("*.sql")]
    for page in (ROOT / "docs").glob("*.md"):
        texts += re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    queries = [query for text in texts for query in files.split(text)[0]]
    assert len(queries) > 20
    for query in queries:
        for engine in ENGINES:
            with contextlib.suppress(TaskFileError):  # its placeholders are another engine's
                assert lint.warnings({engine: parse(query.sql, engine)}) == [], query.name


def test_the_functions_that_are_told_of_are_functions_of_postgresql(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        known = {name for (name,) in connection.execute("SELECT proname FROM pg_proc")}
    assert set(lint._FUNCTIONS["postgresql"]) - known == {"dblink_exec"}  # of an extension


#: Words, quotes and brackets that make sqlglot go astray more often than letters do.
PIECES = st.sampled_from(
    [
        *(
            "SELECT",
            "WITH",
            "x AS",
            "(",
            ")",
            "INSERT INTO",
            "DELETE FROM",
            "UPDATE",
            "SET",
            "MERGE INTO",
            "FOR UPDATE",
        ),
        *("INTO", "OUTFILE", "nextval(", "get_lock(", "'", '"', "`", "[", "]", "{", "}", "$$", "--", "/*", "*/", "\n"),
        *("FROM", "t", ",", ".", "1", "CASE", "WHEN", "END", "::", "->", "@", "?", ":a", "$1", "\\", ";", "\x00", "✓"),
    ]
)


@examples(deadline=None, max_examples=300)  # other tests run beside these
@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map(" ".join)), st.sampled_from(ENGINES))
def test_any_text_is_looked_at_without_an_error(text: str, engine: str) -> None:
    for line, warning in lint.warnings({engine: Statement(text, (text,), 0)}):
        assert 1 <= line <= text.count("\n") + 1
        assert warning


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "STRUCT(" * 40 + "1" + ")" * 40,
        "SELECT " + "ARRAY[" * 40 + "1" + "]" * 40,
        "SELECT " + "(" * 50_000 + "1" + ")" * 50_000,
        "SELECT " + "1 + " * 100_000 + "1",
    ],
    ids=["struct", "array", "parentheses", "long"],
)
def test_a_query_that_sqlglot_cannot_manage_is_left_alone_soon(sql: str) -> None:
    began = time.monotonic()
    sql += " FROM t FOR UPDATE"
    assert lint.warnings({"postgresql": Statement(sql, (sql,), 0)}) == []
    assert time.monotonic() - began < 30  # a second or two; some of them would take years


def test_sqlglot_says_nothing_itself_and_is_loaded_only_where_it_is_needed(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        import jobber.cli, jobber.cli.child
        from tests.tasks.conftest import POSTGRESQL, settings
        from jobber.tasks import load
        folder = Path(sys.argv[1])
        def loaded():
            return load([folder], settings(POSTGRESQL))
        (folder / "a.sql").write_text("-- name: x\\nSELECT 'DELETE', share AS x FROM t")
        assert loaded().warnings == ()
        (folder / "a.sql").write_text("-- name: x\\nEXPLAIN DELETE FROM t")
        tasks = loaded()
        assert "sqlglot" not in sys.modules
        assert tasks.warnings == ()
        assert "sqlglot" in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
