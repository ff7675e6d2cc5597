"""The one place where psycopg's errors become jobber's, for results on PostgreSQL.

SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html. Messages hold the server's own words, never
the connection string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from jobber.columns import Column
from jobber.errors import AttemptError, ResultsFailed, ResultsUnavailable, ValueNotRepresentable
from jobber.results.copytext import unfit

_WORDS = 400
#: Connection trouble: class 08; the server stops or starts; too many connections; no such database; login refused.
_UNAVAILABLE = re.compile(r"08|28|57P|53300|3D000")
#: Will not change by itself: bad SQL or missing rights or objects, and the engine's own limits.
_FINAL = re.compile(r"42|54|2BP01|0A000|22")


@contextmanager
def translated(name: str, *, locks: bool = False) -> Iterator[None]:
    """Turn psycopg's errors from the body into jobber's.

    Parameters:
        name: of the results database, as the config calls it.
        locks: also a lock that was not granted in time; if not, ``LockNotAvailable`` passes, for who tries again.

    Raises:
        ResultsUnavailable: the connection broke, or the server takes none.
        ResultsFailed: the server refused.
    """
    try:
        yield
    except psycopg.Error as exc:
        if isinstance(exc, psycopg.errors.LockNotAvailable) and not locks:
            raise
        raise translate(exc, name) from exc


def translate(exc: psycopg.Error, name: str) -> AttemptError:
    """Return jobber's error for one of psycopg's."""
    state = exc.sqlstate or ""
    if (not state and isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError))) or _UNAVAILABLE.match(state):
        return ResultsUnavailable(f'results database "{name}" is not available: {words(exc)}')
    return ResultsFailed(
        f'results database "{name}" refused: {words(exc)}', retryable=_FINAL.match(state) is None, sqlstate=state
    )


def words(exc: psycopg.Error) -> str:
    """Return what the server (or libpq) said, in one line without addresses."""
    if exc.diag.message_primary:
        said = "; ".join(part for part in (exc.diag.message_primary, exc.diag.message_detail) if part)
    else:
        # libpq names host, port and user before each "failed:"; what went wrong stands after the last one.
        said = re.split(r"\b(?:failed|error): (?=\S)", str(exc).replace("FATAL:  ", ""))[-1].split("\n")[0]
    return said if len(said) <= _WORDS else said[:_WORDS] + "…"


def check_count(name: str, stored: int, sent: int) -> None:
    """Raise ResultsFailed unless a COPY stored every row that it was sent."""
    if stored != sent:
        raise ResultsFailed(f'results database "{name}" stored {stored} rows of {sent}', retryable=False)


def copy_error(
    exc: psycopg.Error, name: str, staging: str, columns: Sequence[Column], pieces: Iterable[tuple[int, bytes]]
) -> AttemptError:
    """Return jobber's error for one from ``COPY … FROM STDIN``, naming column and value where values are at fault.

    PostgreSQL says in CONTEXT ``COPY table, line N, column c: "value"`` (``src/backend/commands/copyfrom.c``), in the
    language of the server; bytes that are no text are reported by the line alone.

    Parameters:
        staging: the table that was copied into.
        pieces: the latest data of this COPY, each with the number of lines before it.
    """
    state = exc.sqlstate or ""
    if not state.startswith("22") or state == "22P04":
        return translate(exc, name)
    context = re.search(rf"COPY {staging}, \S+ (\d+)(?:, \S+ (.*))?", exc.diag.context or "", re.DOTALL)
    if context is None:
        return ValueNotRepresentable(f'results database "{name}" refused a value: {words(exc)}')
    line, place = int(context[1]), context[2] or ""
    named = max((c for c in columns if place.startswith(c.name + ":")), key=lambda c: len(c.name), default=None)
    if named is not None:
        value = place.removeprefix(named.name + ":").strip().split("\n")[0].strip('"')
        return unfit(named, value, words(exc))
    found = _not_text(pieces, line, columns)
    if found is not None:
        return unfit(*found, words(exc))
    return ValueNotRepresentable(f'results database "{name}" refused a value: {words(exc)}')


def _not_text(pieces: Iterable[tuple[int, bytes]], line: int, columns: Sequence[Column]) -> tuple[Column, str] | None:
    """Return the column and value of ``line`` (counted from 1) that is not UTF-8 or holds a NUL."""
    for before, piece in pieces:
        if before < line <= before + piece.count(b"\n"):
            fields = piece.split(b"\n", line - before)[line - before - 1].split(b"\t")
            for column, field in zip(columns, fields, strict=False):
                text = field.decode(errors="backslashreplace")
                if b"\0" in field or text.encode() != field:
                    return column, text
    return None
