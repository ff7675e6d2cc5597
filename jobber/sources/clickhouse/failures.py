"""The one place where what ClickHouse and its driver report becomes jobber's errors."""

from __future__ import annotations

import re

from clickhouse_driver import errors

from jobber.errors import AttemptError, QueryFailed, SourceOverloaded, SourceUnavailable, TimedOut
from jobber.sources.base import SLOW_CONNECT, TOO_MANY

#: What the driver and Python raise where the connection is of no use any more.
BROKEN = (errors.Error, OSError, EOFError)

#: What may pass by waiting (https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp): too many
#: queries, no memory, no quota left, a server behind this one that is down, and the like.
_PASSING = frozenset({32, 198, 201, 202, 209, 210, 225, 236, 241, 243, 279, 286, 369, 425, 439, 473, 499, 745, 999})
#: Too many queries at a time; a server that is overloaded.
_TOO_MANY = frozenset({202, 745})
_TIMEOUT_EXCEEDED = 159
_PREFIX = re.compile(r"(?:Code: \d+\. )?(?:DB::(?:NetException|Exception): )+")


def words(error: BaseException) -> str:
    """Return what a server or a driver says, without its stack, and without the address that it connects to."""
    if isinstance(error, errors.ServerException):
        text: str = error.message
        return _PREFIX.sub("", text.partition("Stack trace:")[0], count=1).strip().rstrip(".")
    text = getattr(error, "message", None) or str(error)
    text = re.sub(r"\s*\([^()]*:\d+\)$", "", text)
    return text[:1].lower() + text[1:] if text else type(error).__name__


def translate(error: BaseException, source: str, *, timeout: float = 0, connecting: bool = False) -> AttemptError:
    """Return the error of jobber that ``error`` stands for.

    Parameters:
        source: name of the database in the config.
        timeout: the time limit of the query, seconds; 0 if it had none.
        connecting: no query runs yet.
    """
    if not isinstance(error, errors.ServerException):
        why = "cannot be reached" if connecting else "is not available"
        message = f"the database {source} {why}: {words(error)}"
        slow = connecting and isinstance(error, errors.SocketTimeoutError | TimeoutError)
        return SourceOverloaded(message, reason=SLOW_CONNECT) if slow else SourceUnavailable(message)
    if error.code in _TOO_MANY:
        message = f"the database {source} is not available: {words(error)}"
        return SourceOverloaded(message, reason=TOO_MANY, errno=error.code)
    if connecting:
        return SourceUnavailable(f"the database {source} is not available: {words(error)}", errno=error.code)
    if error.code == _TIMEOUT_EXCEEDED:  # without ``timeout`` a limit of the query itself or the server's administrator
        return too_long(source, timeout) if timeout else TimedOut(f"{source}: {words(error)}", errno=error.code)
    return QueryFailed(f"{source}: {words(error)}", retryable=error.code in _PASSING, errno=error.code)


def too_long(source: str, timeout: float) -> TimedOut:
    """Return the error of a query that has reached its time limit, in seconds."""
    return TimedOut(f"the query ran longer than its time limit ({timeout:g} s) on {source}")
