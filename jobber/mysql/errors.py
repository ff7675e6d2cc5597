"""What an error of MySQL or MariaDB means. The one place that decides, for sources, results and state.

https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html, the client's own (2000 and on) at
https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html, MariaDB's own (1900 to 1999, 3000 and on) at
https://mariadb.com/kb/en/mariadb-error-code-reference/
"""

from __future__ import annotations

from enum import Enum, auto

from pymysql import err


class Meaning(Enum):
    """What to do about an error."""

    CONFLICT = auto()  # another transaction was in the way; nothing of this one is done: do it again
    LOST = auto()  # the connection is gone, killed or never came about
    UNAVAILABLE = auto()  # the server cannot, or does not want to, serve now: too many connections, full, read-only
    TIMED_OUT = auto()  # the statement ran longer than its limit
    INTERRUPTED = auto()  # KILL QUERY
    REFUSED = auto()  # the statement is wrong, or the right to it is missing: the same again ends the same
    FAILED = auto()  # it failed on the data, or in the engine


#: Deadlock, lock wait timeout, NOWAIT, a row or a table that changed since it was read, a transaction that a cluster
#: rolled back.
_CONFLICT = frozenset({1020, 1205, 1213, 1412, 1613, 1614, 3101, 3572})
#: 1053 and 1927 say that the server stops, or that somebody killed the connection; 4031 that it was idle for too long.
_LOST = frozenset(
    {1053, 1077, 1078, 1079, 1080, 1152, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927}
    | {2006, 2013, 2014, 2027, 2045, 2055, 3169, 4031}
)
_TIMED_OUT = frozenset({1969, 3024})
_INTERRUPTED = frozenset({1317})
#: SQLSTATE classes of what is wrong with a statement: syntax or access rule, feature not supported, invalid
#: transaction state (a write in a read-only transaction), with check option.
_REFUSED_CLASSES = ("42", "0A", "25", "44")
#: Of those that have no SQLSTATE of their own: collations that do not mix, unknown character set, collation and
#: variable, no such storage engine, unknown system variable, --secure-file-priv, view's definer, unsupported feature.
_REFUSED = frozenset({1115, 1193, 1235, 1238, 1267, 1270, 1271, 1273, 1286, 1356, 1449})

_CANNOT_CONNECT = 2003
#: The server cannot, or does not want to, serve now; in words that name no host, account or database, as its own do.
_UNAVAILABLE = {
    **dict.fromkeys((1040, 1203, 1637), "too many connections"),
    1226: "the account has used up its share",
    1044: "the account has no right to this database",
    **dict.fromkeys((1045, 1251, 1698, 1820, 1862, 2059, 2061, 3118, 3159, 3955, 4151), "access denied"),
    **dict.fromkeys((1129, 1130), "the server does not let this machine in"),
    1046: "no database is named",
    1047: "the cluster is not ready",
    1049: "there is no such database",
    **dict.fromkeys((1290, 1836, 3100), "the server is read-only"),
    **dict.fromkeys((1021, 1114), "the disk or a table is full"),
    **dict.fromkeys((3, 1023, 1026, 1030, 1180), "the server cannot use its disk"),
    **dict.fromkeys((1037, 1038, 1041, 1135, 1206), "the server has too little memory"),
    **dict.fromkeys((2002, _CANNOT_CONNECT, 2005), "it cannot be connected to"),
    2026: "TLS failed",
}
#: Of connections that are gone.
_GONE = {
    1053: "the server is stopping",
    1927: "the connection was killed",
    4031: "the connection was idle for too long",
}


def number(error: BaseException) -> int:
    """Return the error's number; 0 for what PyMySQL itself finds wrong."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def meaning(error: BaseException) -> Meaning:
    """Classify an error of PyMySQL's.

    Parameters:
        error: ``error.args[0]`` is the number; ``error.sqlstate``, where a ``Connection`` read it, the SQLSTATE.
    """
    code = number(error)
    if code in _CONFLICT:
        return Meaning.CONFLICT
    # Without a number PyMySQL found the connection closed or out of step, or its own arguments wrong.
    if code in _LOST or (not code and isinstance(error, err.InternalError | err.InterfaceError)):
        return Meaning.LOST
    if code in _UNAVAILABLE:
        return Meaning.UNAVAILABLE
    if code in _TIMED_OUT:
        return Meaning.TIMED_OUT
    if code in _INTERRUPTED:
        return Meaning.INTERRUPTED
    state: str = getattr(error, "sqlstate", None) or ""
    return Meaning.REFUSED if code in _REFUSED or state.startswith(_REFUSED_CLASSES) else Meaning.FAILED


def words(error: BaseException) -> str:
    """Return the server's own words with its error number; jobber's own for errors that name hosts and accounts."""
    code = number(error)
    return " ".join(part for part in (plain(error), f"(error {code})" if code else "") if part)


def plain(error: BaseException) -> str:
    """Return the words alone."""
    code = number(error)
    if code == _CANNOT_CONNECT:
        # PyMySQL keeps what the operating system said; its own text has the address.
        cause = getattr(error, "original_exception", None)
        return getattr(cause, "strerror", None) or "no answer"
    if meaning(error) is Meaning.LOST:
        return _GONE.get(code, "the connection broke")
    if meaning(error) is Meaning.UNAVAILABLE:
        return _UNAVAILABLE[code]
    return str(error.args[1]).strip() if len(error.args) > 1 else ""
