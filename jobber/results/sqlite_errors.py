"""The one place where errors of sqlite3 and the operating system become jobber's, for results in a folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from jobber.errors import ResultsFailed, ResultsUnavailable

#: Primary result codes (https://sqlite.org/rescode.html) that another try may cure: locked by others for too long.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn errors of sqlite3 and the operating system from the body into jobber's; no path reaches a message.

    Parameters:
        name: of the results database, as the config calls it.

    Raises:
        ResultsUnavailable: other processes kept the ledger locked.
        ResultsFailed: the folder cannot be written to: full, read-only, no rights, not a folder.
    """
    try:
        yield
    except sqlite3.Error as exc:
        code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _BUSY:
            raise ResultsUnavailable(f'results database "{name}" is busy: {exc}') from exc
        final = isinstance(exc, sqlite3.OperationalError) and code == sqlite3.SQLITE_ERROR
        raise ResultsFailed(f"the folder of [results.{name}] refused: {exc}", retryable=not final) from exc
    except OSError as exc:
        raise ResultsFailed(f"the folder of [results.{name}] refused: {exc.strerror or type(exc).__name__}") from exc
