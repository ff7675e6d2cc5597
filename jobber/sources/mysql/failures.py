"""The one place where what MySQL, MariaDB and their driver report becomes jobber's errors."""

from __future__ import annotations

from pymysql import err

from jobber.errors import AttemptError, QueryFailed, SourceOverloaded, SourceUnavailable, TimedOut
from jobber.mysql import Meaning, meaning, number, words
from jobber.sources.base import SLOW_CONNECT, TOO_MANY

#: Nobody listens there, or nobody answers.
_UNREACHABLE = frozenset({2002, 2003, 2005})
#: Of the server, of the account, of its threads; the account's share of connections.
_TOO_MANY = frozenset({1040, 1203, 1226, 1637})
#: SQLSTATE of errors that have none of their own: the engine's, and whatever else may pass.
_GENERAL = frozenset({None, "", "HY000", "HY001"})


def translate(error: err.Error, source: str, *, timeout: float = 0, expired: bool = False) -> AttemptError:
    """Return the error of jobber that ``error`` stands for.

    Parameters:
        error: what the server or the driver reported.
        source: name of the database in the config.
        timeout: the time limit of the query, seconds; 0 if it had none.
        expired: whether the time limit has passed, so that whatever ended the query ended it for that.
    """
    what, text, code = meaning(error), words(error), number(error)
    if expired or (what is Meaning.TIMED_OUT and timeout):
        return TimedOut(f"the query ran longer than its time limit ({timeout:g} s) on {source}", errno=code)
    match what:
        case Meaning.LOST | Meaning.UNAVAILABLE:
            why = "cannot be reached" if code in _UNREACHABLE else "is not available"
            return _unavailable(error, f"the database {source} {why}: {text}", code)
        case Meaning.TIMED_OUT:  # a limit that the query itself or the server's administrator has set
            return TimedOut(f"{source}: {text}", errno=code)
        case Meaning.CONFLICT:
            return QueryFailed(f"{source}: {text}", retryable=True, errno=code)
        case Meaning.FAILED if getattr(error, "sqlstate", None) in _GENERAL:
            return QueryFailed(f"{source}: {text}", retryable=True, errno=code)
        case _:
            return QueryFailed(f"{source}: {text}", retryable=False, errno=code)


def _unavailable(error: err.Error, message: str, code: int) -> SourceUnavailable:
    if code in _TOO_MANY:
        return SourceOverloaded(message, reason=TOO_MANY, errno=code)
    # PyMySQL keeps what the operating system said.
    if code in _UNREACHABLE and isinstance(getattr(error, "original_exception", None), TimeoutError):
        return SourceOverloaded(message, reason=SLOW_CONNECT, errno=code)
    return SourceUnavailable(message, errno=code)
