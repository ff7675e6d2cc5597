"""What in a task's SQL is no mere read, told when the task is loaded.

The read-only session of a source is the wall; this only warns earlier, so it never refuses and, where it cannot be
sure, says nothing. jobber's own lexer says which words are code, not strings, comments or quoted names; only a query
with a word that may write is parsed with sqlglot, which says whether it does there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jobber.errors import TaskFileError
from jobber.sqllexer import Kind, dialect, line_of, tokens
from jobber.sqltext import Statement

if TYPE_CHECKING:
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.expressions import Expr

log = logging.getLogger(__name__)

#: Characters; what is longer is not looked at. sqlglot reads some 200 kB a second.
_LONGEST = 100_000
#: Tokens that sqlglot may look at. It needs hardly more than one step per token, but for nested ARRAY[…] and STRUCT(…)
#: their number doubles with every level.
_MOST_STEPS = 100_000

#: sqlglot's name of an engine where it is not SQLAlchemy's.
_NAMES: Mapping[str, str] = {"postgresql": "postgres", "mariadb": "mysql", "mssql": "tsql", "cockroachdb": "postgres"}

# -- what is told -----------------------------------------------------------------------------------------------------

_LEAVE_OUT = "leave it out"
_IS_READ_ONLY = "sources are read-only, so its jobs will fail; let the task only read, and write elsewhere"
_NO_QUERY = "is no query; a task is one query that reads, and begins with SELECT or WITH"
#: Words that begin a statement that is no read on any engine.
_VERBS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "IMPORT", "EXPORT"),
            *("CREATE", "ALTER", "DROP", "RENAME", "GRANT", "REVOKE", "COMMENT", "REFRESH", "REINDEX", "VACUUM"),
            *("OPTIMIZE", "REPAIR", "EXCHANGE"),
        ),
        f"writes; {_IS_READ_ONLY}",
    ),
    **dict.fromkeys(
        (
            *("SET", "DO", "USE", "BEGIN", "START", "COMMIT", "ROLLBACK", "LISTEN", "NOTIFY"),
            *("COPY", "LOAD", "ATTACH", "DETACH", "FLUSH", "KILL"),
        ),
        _NO_QUERY,
    ),
    "LOCK": "locks a table, which holds up those who write; let the task only read",
    "CALL": "runs a procedure, which may write; call it elsewhere, and let the task read what it leaves",
}
#: DuckDB's CALL runs a table function.
_NOT_ON: Mapping[str, frozenset[str]] = {"duckdb": frozenset({"CALL"})}
#: Two words, one after the other; sqlglot does not know these.
_PAIRS: Mapping[tuple[str, str], str] = {
    ("REPLACE", "INTO"): f"writes; {_IS_READ_ONLY}",
    **dict.fromkeys(
        (("INTO", "OUTFILE"), ("INTO", "DUMPFILE")),
        f"writes a file where the database is; {_LEAVE_OUT}: jobber keeps the rows, and gives them as a file, too",
    ),
}
_INSIDE = f"inside of the query writes; {_IS_READ_ONLY}"
_INTO = f"sends the rows elsewhere than to jobber; {_LEAVE_OUT}: jobber makes the table"
_LOCKS_ROWS = f"locks the rows that it reads: a read-only session refuses that, or others wait for it; {_LEAVE_OUT}"

_ADVANCES = f"changes the sequence; {_LEAVE_OUT}"
_HOLDS = f"takes a lock that others wait for, and a retry of the job, too; {_LEAVE_OUT}"
_STORES = f"writes a large object or a file; {_LEAVE_OUT}"
_ACTS = f"acts on more than this query, and a read-only session does not hold it back; {_LEAVE_OUT}"


def _locks(*kinds: str) -> Iterator[str]:
    return (
        f"pg_{tried}advisory{xact}_lock{kind}" for tried in ("", "try_") for xact in ("", "_xact") for kind in kinds
    )


#: Functions by engine that surely write or hold something.
#: https://www.postgresql.org/docs/current/functions-sequence.html, lo-funcs.html, functions-admin.html, dblink.html;
#: https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html, https://mariadb.com/kb/en/sequence-functions/;
#: https://duckdb.org/docs/stable/sql/statements/create_sequence
_FUNCTIONS: Mapping[str, Mapping[str, str]] = {
    "postgresql": {
        **dict.fromkeys(("nextval", "setval"), _ADVANCES),
        **dict.fromkeys(_locks("", "_shared"), _HOLDS),
        **dict.fromkeys(
            ("lo_creat", "lo_create", "lo_import", "lo_export", "lo_from_bytea", "lo_put", "lo_unlink", "lowrite"),
            _STORES,
        ),
        **dict.fromkeys(
            ("pg_terminate_backend", "pg_cancel_backend", "pg_notify", "pg_reload_conf", "pg_logical_emit_message"),
            _ACTS,
        ),
        "dblink_exec": _ACTS,
    },
    "mysql": {**dict.fromkeys(("nextval", "setval"), _ADVANCES), "get_lock": _HOLDS},
    "duckdb": {"nextval": _ADVANCES},
}

# -- looking ----------------------------------------------------------------------------------------------------------


def warnings(statements: Mapping[str, Statement]) -> list[tuple[int, str]]:
    """Return line, from 1, and text of all that is no mere read.

    Parameters:
        statements: of one task, by the engines that it may run on.
    """
    found: dict[tuple[int, str], list[str]] = {}
    for engine, statement in statements.items():
        for finding in _findings(statement, engine):
            found.setdefault(finding, []).append(engine)
    return [
        (line, text if len(engines) == len(statements) else f"{text} (on {', '.join(engines)})")
        for (line, text), engines in sorted(found.items())
    ]


def _findings(statement: Statement, engine: str) -> set[tuple[int, str]]:
    sql = statement.render(lambda _: " NULL ")
    if len(sql) > _LONGEST:
        return set()
    try:
        words = [
            (sql[token.start : token.end].upper(), token.start)
            for token in tokens(sql, dialect(engine))
            if token.kind not in {Kind.SPACE, Kind.COMMENT}
        ]
    except TaskFileError:  # a server's sql_mode may close a quote that is open here
        return set()
    if not words:
        return set()
    verb, begin = words[0]
    if verb in _VERBS and verb not in _NOT_ON.get(engine, ()):
        return {(line_of(sql, begin), f"{verb} {_VERBS[verb]}")}
    found = {
        (line_of(sql, start), f"{first} {second} {_PAIRS[first, second]}")
        for (first, start), (second, _) in pairwise(words)
        if (first, second) in _PAIRS
    }
    functions = _FUNCTIONS.get("mysql" if engine == "mariadb" else engine, {})
    if places := _suspicious(words, functions):
        for word, text in _judgement(sql, engine, functions):
            # What jobber takes for a string or a comment is none of these, whatever sqlglot takes it for.
            if word in places:
                found.add((line_of(sql, places[word]), text))
    return found


def _suspicious(words: Sequence[tuple[str, int]], functions: Mapping[str, str]) -> dict[str, int]:
    """Return the words that look as if they were more than the name of a column, with the place of their first."""
    places: dict[str, int] = {}
    end = ("", 0)
    for (before, _), (word, start), (after, _) in zip([end, *words], words, [*words[1:], end], strict=False):
        match word:
            case "INSERT" | "UPDATE" | "DELETE" | "MERGE" if before in {"(", ")"} or after in {"INTO", "FROM"}:
                suspicious = True
            case "UPDATE" | "SHARE" if before in {"FOR", "KEY", "IN"}:
                suspicious = True
            case "INTO" | "NEXT":
                suspicious = True
            case _:
                suspicious = after == "(" and word.lower() in functions
        if suspicious:
            places.setdefault(word, start)
    return places


def _judgement(sql: str, engine: str, functions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each finding's word and what is to be told; nothing if sqlglot cannot read the query, or not soon."""
    try:
        parsing = _parsing(engine)
        if parsing is None:
            return []
        rules, parser = parsing
        trees: list[Expr | None] = parser(dialect=rules).parse(rules.tokenize(sql), sql)
        return [finding for tree in trees if tree is not None for finding in _writes(tree, functions)]
    except Exception:  # whatever becomes of sqlglot, it must not keep tasks from being loaded
        log.debug("sqlglot cannot read this for %s:\n%s", engine, sql, exc_info=True)
        return []


@cache
def _parsing(engine: str) -> tuple[Dialect, Any] | None:
    """Return rules of the engine and a parser class that gives up in time; None if sqlglot does not know it.

    Only here is sqlglot imported, which takes a twelfth of a second: most processes never need it.
    """
    from sqlglot.dialects.dialect import Dialect

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of every statement that it knows no details of
    found = Dialect.get(_NAMES.get(engine, engine))
    if found is None:
        return None
    rules = found()

    def advance(self: Any, times: int = 1) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise TimeoutError("too many steps")
        rules.parser_class._advance(self, times)

    bounded = type("Bounded", (rules.parser_class,), {"steps": 0, "_advance": advance})
    return rules, bounded


def _writes(tree: Expr, functions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    from sqlglot import expressions as exp

    for node in tree.walk():
        match node:
            case exp.Insert() | exp.Update() | exp.Delete() | exp.Merge():
                word = type(node).__name__.upper()
                yield word, f"{word} {_INSIDE}"
            case exp.Into():
                yield "INTO", f"INTO {_INTO}"
            case exp.Lock():
                word = "UPDATE" if node.args.get("update") else "SHARE"
                yield word, f"FOR {word} {_LOCKS_ROWS}"
            case exp.NextValueFor():
                yield "NEXT", f"NEXT VALUE FOR {_ADVANCES}"
            case exp.Anonymous() if _is_built_in(node) and (told := functions.get(node.name.lower())):
                yield node.name.upper(), f"{node.name.lower()}() {told}"


def _is_built_in(function: Expr) -> bool:
    """Whether it is the engine's own, not one of that name in a schema of the user's."""
    from sqlglot import expressions as exp

    parent = function.parent
    schema = ""
    if isinstance(parent, exp.Dot) and parent.expression is function:
        schema = parent.this.name
    elif isinstance(parent, exp.Table):
        schema = parent.db
    return schema.lower() in {"", "pg_catalog"}
