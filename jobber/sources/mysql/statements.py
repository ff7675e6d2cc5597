"""What jobber says to a session of MySQL's, and what it may be told to say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from jobber.errors import TaskFileError
from jobber.sources.mysql.session import Session
from jobber.sqllexer import Kind, dialect, tokens
from jobber.sqltext import Statement, parse

#: Seconds that a server waits for somebody to take its rows; its own default of 60 would cut off a slow result.
_WRITE_TIMEOUT = 86_400
#: Statements that show something and may say what only when they run.
_TELLING = frozenset({"SHOW", "EXPLAIN", "DESCRIBE", "DESC", "HELP"})
#: Statements that return columns and are no queries, by their first two words.
_MAINTAINING = frozenset({"ANALYZE", "CHECK", "OPTIMIZE", "REPAIR"})
_MAINTAINED = frozenset({"TABLE", "TABLES", "VIEW", "LOCAL", "NO_WRITE_TO_BINLOG"})
#: Words of queries whose rows the optimizer counts before they become fewer; some are names elsewhere.
_CONDENSING = frozenset(
    [
        *("GROUP", "HAVING", "OFFSET", "COUNT", "SUM", "AVG", "MIN", "MAX", "GROUP_CONCAT", "ANY_VALUE"),
        *("BIT_AND", "BIT_OR", "BIT_XOR", "JSON_ARRAYAGG", "JSON_OBJECTAGG", "STD", "STDDEV", "STDDEV_POP"),
        *("STDDEV_SAMP", "VARIANCE", "VAR_POP", "VAR_SAMP", "MEDIAN"),
    ]
)

#: MySQL knows max_execution_time since the first, and transaction_read_only since the second; version 8 dropped the
#: name tx_read_only, which MariaDB keeps.
_LIMIT_SINCE, _RENAMED_SINCE = (5, 7, 8), (5, 7, 20)
_LONGEST = 2**32 - 1  # milliseconds


def begin(session: Session, timeout: float) -> Iterator[str]:
    """Yield the statements that make a session fit for a query.

    Parameters:
        session: fresh, or after a reset.
        timeout: seconds that the query may run; 0 is no limit.
    """
    connection = session.connection
    if connection.init_command:  # of the URL; a reset took it back
        yield connection.init_command
    names = f"utf8mb4 COLLATE {connection.collation}" if connection.collation else "utf8mb4"
    settings = {
        # Until the query runs, its columns tell their own character sets.
        "character_set_results": "NULL",
        "time_zone": "'+00:00'",
        "sql_mode": connection.escape(session.sql_mode),
        "net_write_timeout": str(_WRITE_TIMEOUT),
        # Somebody may have set it for all sessions, and it cuts results off without a word.
        "sql_select_limit": "18446744073709551615",
        # It cuts values off, and the warning of that may come behind more warnings than the server keeps.
        "group_concat_max_len": "GREATEST(@@group_concat_max_len, @@max_allowed_packet)",
    }
    mysql = not connection.is_mariadb
    if not mysql:
        # A warning that matters may come behind many that do not. MySQL keeps more, and asks a right for this.
        settings["max_error_count"] = "65535"
    if timeout and not mysql:
        settings["max_statement_time"] = f"{timeout:.6f}"
    elif timeout and connection.version >= _LIMIT_SINCE:
        settings["max_execution_time"] = str(min(max(int(timeout * 1000), 1), _LONGEST))
    prefix = "transaction" if mysql and connection.version >= _RENAMED_SINCE else "tx"
    # A transaction that SERIALIZABLE opens would lock all that it reads.
    settings |= {f"{prefix}_isolation": "'REPEATABLE-READ'", f"{prefix}_read_only": "1"}
    yield f"SET NAMES {names}, " + ", ".join(f"{name} = {value}" for name, value in settings.items())
    # From here on the server refuses to make it READ WRITE.
    yield "START TRANSACTION READ ONLY"


def tells(sql: str) -> bool:
    """Tell whether a statement shows something, so that it may run though it cannot be prepared."""
    return any(word in _TELLING for word in _first_words(sql, 1))


def condenses(sql: str) -> bool:
    """Tell whether a query may return far fewer rows than its tables, joined, have; in doubt it may."""
    return any(word in _CONDENSING for word in _first_words(sql, None))


def maintains(sql: str) -> bool:
    """Tell whether a statement is about the upkeep of tables; some of them MariaDB allows in a read-only session."""
    words = _first_words(sql, 2)
    return len(words) == 2 and words[0] in _MAINTAINING and words[1] in _MAINTAINED


def reads_alike(statement: Statement, sql_mode: str) -> bool:
    """Tell whether the placeholders of a statement are the same under a session's ``sql_mode`` as without it.

    ANSI_QUOTES makes names of what stands in double quotes, NO_BACKSLASH_ESCAPES makes a backslash a character like any
    other: a quote that ends elsewhere would make text of a placeholder or a placeholder of text.
    """
    modes = {mode.lower() for mode in sql_mode.split(",")} & {"ansi_quotes", "no_backslash_escapes"}
    if not modes:
        return True
    engine = "mysql+no_backslash_escapes" if "no_backslash_escapes" in modes else "mysql+ansi_quotes"
    try:
        return parse(statement.sql, engine).pieces == statement.pieces
    except TaskFileError:
        return False


def _first_words(sql: str, count: int | None) -> list[str]:
    found = (token for token in tokens(sql, dialect("mysql")) if token.kind is Kind.WORD)
    try:
        return [sql[token.start : token.end].upper() for token in islice(found, count)]
    except TaskFileError:  # the server says what is wrong with it
        return []
