"""The one place where what PostgreSQL and its driver report becomes jobber's errors."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
from psycopg.pq import DiagnosticField

from jobber.errors import AttemptError, QueryFailed, SourceOverloaded, SourceUnavailable, TimedOut
from jobber.sources.base import SLOW_CONNECT, TOO_MANY

QUERY_CANCELED = "57014"
_READ_ONLY = "25006"
_TOO_MANY_CONNECTIONS = "53300"
#: The same before a connection stands, where libpq has no SQLSTATE to give; of PostgreSQL and of pgbouncer.
_NO_MORE = re.compile(r"too many (clients|connections)|connection slots are reserved|no more connections allowed")
#: What COPY answers to a statement that it cannot wrap (EXPLAIN, SHOW, CALL …).
NOT_FOR_COPY = frozenset({"42601", "0A000"})

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE_CLASSES = frozenset({"08", "28"})
_UNAVAILABLE = frozenset({"57P01", "57P02", "57P03", "57P05", _TOO_MANY_CONNECTIONS, "3D000", "25P03"})
#: Classes of errors that the same statement on the same schema meets again.
_FINAL_CLASSES = frozenset(
    {"0A", "20", "21", "22", "23", "25", "26", "2B", "2D", "2F", "34", "39", "3B", "3F", "42", "44", "54"}
)


class ServerError(Exception):
    """Raised inside this package for an error that the server reported.

    Parameters:
        fields: gives the error's fields by their codes.
        sql: the text that was sent; the server's position counts its characters.
    """

    def __init__(self, fields: Callable[[DiagnosticField], bytes | None], sql: str = "") -> None:
        def field(which: DiagnosticField) -> str:
            return (fields(which) or b"").decode("utf-8", "replace")

        self.sqlstate = field(DiagnosticField.SQLSTATE)
        self.primary = field(DiagnosticField.MESSAGE_PRIMARY) or "the server gave no reason"
        self.detail = field(DiagnosticField.MESSAGE_DETAIL)
        self.hint = field(DiagnosticField.MESSAGE_HINT)
        position = field(DiagnosticField.STATEMENT_POSITION)
        self.line = sql.count("\n", 0, int(position) - 1) + 1 if position and sql else None
        super().__init__(self.primary)

    def words(self) -> str:
        """Return the server's own words."""
        text = self.primary if self.line is None else f"{self.primary} (line {self.line} of the query)"
        for more in (self.detail, self.hint):
            if more:
                text = f"{text.rstrip('.')}. {more}"
        return text


def translate(error: psycopg.Error | ServerError, source: str, *, timeout: float = 0) -> AttemptError:
    """Return the error of jobber that ``error`` stands for.

    Parameters:
        error: what the server or the driver reported.
        source: name of the database in the config.
        timeout: the time limit of the query, seconds; 0 if it had none.
    """
    if isinstance(error, psycopg.Error):
        return _unreachable(error, source)
    state, words = error.sqlstate, error.words()
    if state in _UNAVAILABLE or state[:2] in _UNAVAILABLE_CLASSES:
        message = f"the database {source} is not available: {words}"
        if state == _TOO_MANY_CONNECTIONS:
            return SourceOverloaded(message, reason=TOO_MANY, sqlstate=state)
        return SourceUnavailable(message, sqlstate=state)
    if state == QUERY_CANCELED:
        # The server tells a time limit from an administrator's cancel in words only, and translates them.
        if "statement timeout" in words or (timeout and "user request" not in words):
            limit = f" ({timeout:g} s)" if timeout else ""
            return TimedOut(f"the query ran longer than its time limit{limit} on {source}", sqlstate=state)
        return QueryFailed(f"{source}: {words}", retryable=False, sqlstate=state)
    if state == _READ_ONLY:
        # Of a write inside a WITH the server says that it cannot execute SELECT.
        words = f"{words}; jobber only reads its sources"
    return QueryFailed(f"{source}: {words}", retryable=state[:2] not in _FINAL_CLASSES, sqlstate=state)


def _unreachable(error: psycopg.Error, source: str) -> SourceUnavailable:
    message = f"the database {source} cannot be reached: {_reason(error)}"
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return SourceOverloaded(message, reason=SLOW_CONNECT)
    return SourceOverloaded(message, reason=TOO_MANY) if _NO_MORE.search(message) else SourceUnavailable(message)


def _reason(error: psycopg.Error) -> str:
    """Return why a connection failed or broke, without the address: that is the operator's, in the config."""
    text = str(error).strip()
    if found := re.search(r"(?:FATAL|ERROR|PANIC):\s+(.*)", text):
        return found[1]
    if found := re.search(r".*\bfailed: (.*)", text):
        return found[1]
    return text.splitlines()[0] if text else type(error).__name__
