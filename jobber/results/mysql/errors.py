"""The one place where errors of PyMySQL become jobber's, for results on MySQL and MariaDB.

What an error means is decided in ``jobber.mysql.errors``. Messages hold the server's own words where these name neither
host nor account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pymysql import err

from jobber.errors import AttemptError, ResultsFailed, ResultsUnavailable
from jobber.mysql import Meaning, meaning, number, words

#: What another try cannot cure, though its SQLSTATE says nothing: too many columns, too many bytes in a row or a key,
#: rows of another width.
_FINAL = frozenset({1071, 1117, 1118, 1136, 1166, 3152})
#: MariaDB says so in words alone.
_TOO_MANY = "Too many columns"
_ACCOUNT = re.compile(r"(to|for) user '.*?'@'.*?'")


LOCK_WAIT_TIMEOUT = 1205


class Held(Exception):
    """Raised when a table is in use by others, so that it cannot be renamed or dropped just now."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn errors of PyMySQL's from the body into jobber's.

    Parameters:
        name: of the results database, as the config calls it.

    Raises:
        ResultsUnavailable: the connection broke, or the server takes none.
        ResultsFailed: the server refused.
    """
    try:
        yield
    except err.Error as exc:
        raise translate(exc, name) from exc


def translate(exc: err.Error, name: str) -> AttemptError:
    """Return jobber's error for one of PyMySQL's."""
    what = meaning(exc)
    if what in (Meaning.LOST, Meaning.UNAVAILABLE):
        return ResultsUnavailable(f'results database "{name}" is not available: {_said(exc)}')
    final = what is Meaning.REFUSED or number(exc) in _FINAL or _TOO_MANY in words(exc)
    return ResultsFailed(f'results database "{name}" refused: {_said(exc)}', retryable=not final, error=number(exc))


def _said(exc: err.Error) -> str:
    if number(exc) == LOCK_WAIT_TIMEOUT:
        return f"somebody keeps its tables locked, a backup perhaps (error {number(exc)})"
    return _ACCOUNT.sub(r"\1 jobber's account", words(exc))
