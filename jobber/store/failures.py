"""What an error of the state database means: try again, unavailable, or a mistake of ours. The one place that decides.

Messages for people hold no statement, no parameter and no address; the driver's error is chained for the log.
"""

from __future__ import annotations

import re
import sqlite3
from enum import Enum, auto

import psycopg
import pymysql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobber import mysql
from jobber.errors import InvalidRequest, JobberError, StateUnavailable

#: PostgreSQL: serialization failure, deadlock, lock_timeout, and a transaction that idled so long that the server ended
#: it. Nothing was written: doing it all again is right. And what who reads a sequence is told at the moment at which
#: another instance, which starts, has raised it (``runs``): that the sequence's old file is empty. And a prepared
#: statement that is gone: it is prepared anew.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = frozenset({"40001", "40P01", "55P03", "25P03", "26000", "XX001"})
#: Tables or columns that are not there: nobody migrated yet, or somebody is at it (MySQL commits each step).
_NOT_MIGRATED = frozenset({"42P01", "42703"})
#: Classes that say that the server cannot serve now: connection, resources, operator intervention, system; and a
#: statement against a server that became read-only.
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58")
_UNAVAILABLE = frozenset({"25006", "28000", "28P01", "3D000"})

_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

#: MySQL and MariaDB: missing rights, a transaction that may only read, and a binary log of the wrong format. Time may
#: cure them here, where every statement is jobber's own.
_MYSQL_UNAVAILABLE = {
    **dict.fromkeys((1142, 1143, 1227), "its account has not all the rights that it needs"),
    1792: "the server is read-only",
    1665: "its binary log must have the format ROW or MIXED",
}
_MYSQL_NOT_MIGRATED = frozenset({1146, 1054})
_SQLITE_NOT_MIGRATED = ("no such table", "no such column", "has no column named")
_MYSQL_TOO_LONG = 1153
_NO_ANSWER = ": no answer in time"


class Cause(Enum):
    """What to do about an error."""

    CONFLICT = auto()  # another transaction was in the way: run this one again
    CONNECTION = auto()  # the connection is gone: a new one may work
    SILENCE = auto()  # no answer came in time: asking again would take as long
    UNAVAILABLE = auto()  # the server refuses: time may cure it
    MISTAKE = auto()  # the statement itself is wrong


class Contended(SQLAlchemyError):
    """Stands for work that lost every race."""


class CommitFailed(Exception):
    """Raised where COMMIT itself failed, so that the outcome is not known."""

    def __init__(self, error: SQLAlchemyError) -> None:
        super().__init__()
        self.error = error


def cause(error: SQLAlchemyError) -> Cause:
    """Classify an error of SQLAlchemy or of the driver below it."""
    if isinstance(error, Contended):
        return Cause.CONFLICT
    if isinstance(error, PoolTimeout):
        return Cause.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return Cause.MISTAKE
    return Cause.SILENCE if _is_silence(error.orig) else _of_driver(error)


def _of_driver(error: DBAPIError) -> Cause:
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig)
    if isinstance(error.orig, pymysql.Error):
        return _of_mysql(error.orig)
    return _of_postgresql(getattr(error.orig, "sqlstate", None), lost=error.connection_invalidated)


def _is_silence(error: BaseException | None) -> bool:
    """Whether a driver gave up waiting, or the system did: that is a TimeoutError, too."""
    # What the caller was handling (a source that timed out) is in the chain, too, and is not the state database's.
    while error is not None and not isinstance(error, JobberError):
        if isinstance(error, TimeoutError | psycopg.errors.ConnectionTimeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_sqlite(error: sqlite3.Error) -> Cause:
    # The extended code holds the primary one in its low byte.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY:
        return Cause.CONFLICT
    return Cause.UNAVAILABLE if isinstance(error, sqlite3.OperationalError) else Cause.MISTAKE


def _of_postgresql(state: str | None, *, lost: bool) -> Cause:
    if state in _CONFLICTS:
        return Cause.CONFLICT
    # psycopg gives no SQLSTATE where the server did not answer.
    if lost or state is None:
        return Cause.CONNECTION
    if state.startswith(_UNAVAILABLE_CLASSES) or state in _UNAVAILABLE or state in _NOT_MIGRATED:
        return Cause.UNAVAILABLE
    return Cause.MISTAKE


def _of_mysql(error: pymysql.Error) -> Cause:
    code = mysql.number(error)
    if code in _MYSQL_UNAVAILABLE or code in _MYSQL_NOT_MIGRATED:
        return Cause.UNAVAILABLE
    return _CAUSES.get(mysql.meaning(error), Cause.MISTAKE)


_CAUSES = {
    mysql.Meaning.CONFLICT: Cause.CONFLICT,
    mysql.Meaning.LOST: Cause.CONNECTION,
    mysql.Meaning.UNAVAILABLE: Cause.UNAVAILABLE,
    mysql.Meaning.TIMED_OUT: Cause.UNAVAILABLE,
    mysql.Meaning.INTERRUPTED: Cause.UNAVAILABLE,
}


def lost_by_mysql(error: BaseException) -> bool:
    """Whether an error of PyMySQL means that its connection is of no more use."""
    return isinstance(error, pymysql.Error) and (_is_silence(error) or _of_mysql(error) is Cause.CONNECTION)


def translated(error: SQLAlchemyError) -> JobberError:
    """Return the error of jobber to raise for ``error`` once trying again is over."""
    kind = cause(error)
    driver = getattr(error, "orig", None)
    code = mysql.number(driver) if isinstance(driver, pymysql.Error) else None
    if kind is Cause.CONFLICT:
        return StateUnavailable("the state database is too busy: a lock was not to be had in time", retry_after=2)
    if code == _MYSQL_TOO_LONG:
        return InvalidRequest(
            "this is larger than the state database takes in one statement; send less at a time, or raise "
            "max_allowed_packet there"
        )
    if kind is Cause.MISTAKE:
        return JobberError(f"the state database refused a statement ({type(driver or error).__name__})")
    missing = code in _MYSQL_NOT_MIGRATED or getattr(driver, "sqlstate", None) in _NOT_MIGRATED
    if missing or any(words in str(driver) for words in _SQLITE_NOT_MIGRATED):
        return StateUnavailable("the state database does not have this version's tables yet")
    if code in _MYSQL_UNAVAILABLE:
        return StateUnavailable(f"the state database cannot be used: {_refusal(driver)}")
    return StateUnavailable(f"the state database cannot be reached or does not answer{_reason(driver)}")


def unanswered() -> StateUnavailable:
    """Return the error of a state database that says nothing at all."""
    return StateUnavailable(f"the state database cannot be reached or does not answer{_NO_ANSWER}")


def _refusal(error: pymysql.Error) -> str:
    """Say what a server of MySQL's does not let us do; its own words name account and host after that."""
    denied = re.match(r"([A-Z, ]+) command denied", str(error.args[1]))
    return f"its account may not {denied[1]} there" if denied else _MYSQL_UNAVAILABLE[mysql.number(error)]


def _reason(driver: object) -> str:
    """Return the driver's words without the address that libpq puts before them."""
    if isinstance(driver, BaseException) and _is_silence(driver):
        return _NO_ANSWER
    if isinstance(driver, pymysql.Error):
        return f": {mysql.plain(driver)}"
    words = str(driver or "").partition("\n")[0].rpartition("failed: ")[2].strip()
    return f": {words}" if words else ""
