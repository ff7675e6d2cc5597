"""Tables of results on MySQL and MariaDB: made, named, marked and dropped.

Every table that jobber makes says in its COMMENT which attempt made it. The comment goes along with a RENAME, so what
stands under a name tells by itself whose it is, whatever a crash kept the ledger from learning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pymysql import err
from sqlalchemy.dialects.mysql.base import MySQLDialect

from jobber.columns import ROW_PLACE, Column, Kind, result_type
from jobber.mysql import Connection, number
from jobber.results.mysql.brief import Another, run_briefly

# With another paramstyle the percent signs of a name would be doubled.
_PREPARER = MySQLDialect(paramstyle="named").identifier_preparer

NO_SUCH_TABLE = frozenset({1146, 1051})
EXISTS = 1050
#: Characters of a LONGTEXT that an index holds: 764 bytes, which every key of InnoDB may have.
_INDEXED = 191
_OPTIONS = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin ROW_FORMAT=DYNAMIC"
_COMMENT = re.compile(r"COMMENT='(jobber run=\d+ attempt=\d+ \w+)'")


def quoted(name: str) -> str:
    """Return an identifier, quoted by the dialect."""
    return _PREPARER.quote_identifier(name)


def marker(run: int, attempt: int, staging: str) -> str:
    """Return the comment of the table of an attempt; ``staging`` is never used twice."""
    return f"jobber run={run} attempt={attempt} {staging}"


def trash_name(staging: str) -> str:
    """Return the name that the old result gets when the attempt's staging table takes its place."""
    return f"{staging}_old"


def create(connection: Connection, table: str, columns: Sequence[Column], comment: str) -> None:
    """Make an empty table.

    The order of the rows is kept in a column that no ``SELECT *`` shows
    (https://dev.mysql.com/doc/refman/8.4/en/invisible-columns.html, https://mariadb.com/kb/en/invisible-columns/).
    """
    place = f"{quoted(ROW_PLACE)} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY"
    parts = [place, *(f"{quoted(c.name)} {result_type('mysql', c)} NULL" for c in columns)]
    connection.run(f"CREATE TABLE {quoted(table)} ({', '.join(parts)}) {_OPTIONS} COMMENT='{comment}'")


def index(connection: Connection, table: str, columns: Sequence[Column], names: Sequence[str]) -> None:
    """Index a filled table, a column each."""
    long = {c.name for c in columns if c.kind in (Kind.TEXT, Kind.BINARY)}
    # JSON is LONGTEXT on MariaDB; MySQL says itself that it cannot be indexed.
    long |= {c.name for c in columns if c.kind is Kind.JSON and connection.is_mariadb}
    added = [f"ADD INDEX ({quoted(name)}{f'({_INDEXED})' if name in long else ''})" for name in names]
    connection.run(f"ALTER TABLE {quoted(table)} {', '.join(added)}")


def close_gap(connection: Connection, table: str) -> None:
    """Let the next row have the next number: a bulk insert reserves more than it uses.

    https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html
    """
    connection.run(f"ALTER TABLE {quoted(table)} AUTO_INCREMENT = 1")


def comment(connection: Connection, table: str) -> str | None:
    """Return the marker of a table, "" if jobber did not make it, None if there is nothing of that name."""
    try:
        [row] = connection.rows(f"SHOW CREATE TABLE {quoted(table)}")
    except err.Error as exc:
        if number(exc) in NO_SUCH_TABLE:
            return None
        raise
    # The options stand in the last line, and names of columns may hold anything.
    found = _COMMENT.search(str(row[1]).rpartition("\n")[2])
    return found[1] if found else ""


def rename(connection: Connection, *pairs: tuple[str, str], another: Another) -> None:
    """Rename tables in one step. Raises Held while one of them is in use; it may have been done all the same."""
    (first, to), *others = pairs
    more = "".join(f", {quoted(old)} TO {quoted(new)}" for old, new in others)
    run_briefly(connection, f"RENAME TABLE {quoted(first)}", f" TO {quoted(to)}{more}", another=another)


def drop(connection: Connection, table: str, *, another: Another | None = None) -> None:
    """Drop a table, if it is there. Raises Held while it is in use; it may have been done all the same.

    Parameters:
        another: of a published table, which others want to read.
    """
    run_briefly(connection, f"DROP TABLE IF EXISTS {quoted(table)}", another=another)


def count(connection: Connection, table: str) -> int:
    """Return the number of rows."""
    [(rows,)] = connection.rows(f"SELECT COUNT(*) FROM {quoted(table)}")  # noqa: S608
    return int(rows)
