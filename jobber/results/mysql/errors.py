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
from jobber.mysql import Meaning, meaning, words

#: What another try cannot cure, though its SQLSTATE says nothing: too many columns, too many bytes in a row or a key,
#: rows of another width.
_FINAL = frozenset({1071, 1117, 1118, 1136, 1166, 3152})
#: MariaDB says so in words alone.
_TOO_MANY = "Too many columns"
#: Errors whose own words would tell hosts and accounts, or nothing.
_SAID = {
    1040: "it has too many connections",
    1044: "jobber's account may not use that database",
    1045: "it refused jobber's login",
    1049: "there is no such database",
    1114: "there is no room for more rows",
    1021: "its disk is full",
    1129: "it blocks this host after too many errors",
    1130: "it takes no connections from this host",
    1203: "jobber's account has too many connections",
    1226: "jobber's account has used up its limits",
    1290: "it is read-only, or forbids what was asked",
    1698: "it refused jobber's login",
    1836: "it is read-only",
    2003: "nothing answers at its address",
    2013: "the connection broke",
    2006: "the connection broke",
}
_ACCOUNT = re.compile(r"(to|for) user '.*?'@'.*?'")


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
    final = what is Meaning.REFUSED or code(exc) in _FINAL or _TOO_MANY in words(exc)
    return ResultsFailed(f'results database "{name}" refused: {_said(exc)}', retryable=not final, error=code(exc))


def code(exc: BaseException) -> int:
    """Return the number of an error; 0 if it has none."""
    return exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0


def _said(exc: err.Error) -> str:
    own = _SAID.get(code(exc))
    return f"{own} (error {code(exc)})" if own else _ACCOUNT.sub(r"\1 jobber's account", words(exc))
