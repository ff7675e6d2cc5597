"""What an error of MySQL or MariaDB means. The one place that decides, for sources, results and state.

https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html, the client's own (2000 and on) at
https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html, MariaDB's own (1900 to 1999, 3000 and on) at
https://mariadb.com/kb/en/mariadb-error-code-reference/
"""

from __future__ import annotations

from enum import Enum, auto


class Meaning(Enum):
    """What to do about an error."""

    CONFLICT = auto()  # another transaction was in the way; nothing of this one is done: do it again
    LOST = auto()  # the connection is gone, killed or never came about
    UNAVAILABLE = auto()  # the server cannot, or does not want to, serve now: too many connections, full, read-only
    TIMED_OUT = auto()  # the statement ran longer than its limit
    INTERRUPTED = auto()  # KILL QUERY
    REFUSED = auto()  # the statement is wrong, or the right to it is missing: the same again ends the same
    FAILED = auto()  # it failed on the data, or in the engine


#: Deadlock, lock wait timeout, NOWAIT, and a row that changed since it was read.
_CONFLICT = frozenset({1213, 1205, 3572, 1020})
#: 0 is PyMySQL's own, of a connection that is closed already; 2055 has the reason in its text; 1053 and 1927 say that
#: the server stops, or that somebody killed the connection; 4031 that it was idle for too long.
_LOST = frozenset({0, 1053, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2002, 2003, 2005, 2006, 2013, 2014, 2055})
_LOST_TOO = frozenset({3169, 4031})
#: Too many connections, logins, resource limits, disk, memory, table full, host blocked, read-only server, no such
#: database, client too old for the server's authentication, TLS.
_UNAVAILABLE = frozenset(
    {1021, 1037, 1038, 1040, 1041, 1044, 1045, 1049, 1114, 1129, 1130, 1203, 1226, 1251, 1290, 1698, 1836, 2026, 2059}
    | {2061, 3118, 3159, 3955, 4151}
)
_TIMED_OUT = frozenset({1969, 3024})
_INTERRUPTED = frozenset({1317})
#: SQLSTATE classes of what is wrong with a statement: syntax or access rule, feature not supported, invalid
#: transaction state (a write in a read-only transaction), with check option.
_REFUSED_CLASSES = ("42", "0A", "25", "44")
#: Of those that have no SQLSTATE of their own: collations that do not mix, unknown character set, collation and
#: variable, no such storage engine, unknown system variable, --secure-file-priv, view's definer, unsupported feature.
_REFUSED = frozenset({1115, 1193, 1235, 1238, 1267, 1270, 1271, 1273, 1286, 1356, 1449})


def meaning(error: BaseException) -> Meaning:
    """Classify an error of PyMySQL's.

    Parameters:
        error: ``error.args[0]`` is the number; ``error.sqlstate``, where a ``Connection`` read it, the SQLSTATE.
    """
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if code in _CONFLICT:
        return Meaning.CONFLICT
    if code in _LOST or code in _LOST_TOO:
        return Meaning.LOST
    if code in _UNAVAILABLE:
        return Meaning.UNAVAILABLE
    if code in _TIMED_OUT:
        return Meaning.TIMED_OUT
    if code in _INTERRUPTED:
        return Meaning.INTERRUPTED
    state: str = getattr(error, "sqlstate", "")
    return Meaning.REFUSED if code in _REFUSED or state.startswith(_REFUSED_CLASSES) else Meaning.FAILED


def words(error: BaseException) -> str:
    """Return the server's own words with its error number; none for errors that may name hosts and accounts."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]).strip() if len(error.args) > 1 else ""
    if not code or not text or meaning(error) in (Meaning.LOST, Meaning.UNAVAILABLE):
        return f"error {code}" if code else "the connection is gone"
    return f"{text} (error {code})"
