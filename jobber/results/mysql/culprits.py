"""Which value of a load the server did not take, and why: the same words whatever way the rows went.

The server tells the row, sometimes the column and seldom the value; for JSON it tells neither. The rows are still here,
so they are asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice

from pymysql import err

from jobber.columns import Column, Kind, result_type
from jobber.errors import ValueNotRepresentable
from jobber.mysql import Connection, number
from jobber.results.copytext import unfit
from jobber.results.mysql.encoded import NULL, Piece, decoded, lines

_ROW = re.compile(r"at row (\d+)\.?$")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?")
_NUMBER = re.compile(r"[+-]?(\d*)\.?(\d*)(?:[eE][+-]?\d+)?")
_BOUNDS = re.compile(r"\((\d+),(\d+)\)")
_NO_NUMBER = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})
_TOO_DEEP = frozenset({3157})
#: Documents, and bytes of them, that the server is asked about in one statement.
_DOCUMENTS, _BYTES = 500, 1_000_000


def culprit(
    connection: Connection, columns: Sequence[Column], pieces: Sequence[Piece], messages: Sequence[str]
) -> ValueNotRepresentable | None:
    """Return the error that names column and value, None if no value is at fault.

    Parameters:
        pieces: the rows of the statement.
        messages: what the server said of them, the first first.
    """
    for message in messages:
        found = _ROW.search(message)
        row = _row(pieces, int(found[1])) if found else None
        if row is not None:
            named = _misfit(columns, row) or _named(columns, row, message)
            if named is not None:
                return named
    for piece in pieces:
        for line in lines(piece.data):
            named = _misfit(columns, line)
            if named is not None:
                return named
    return _document(connection, columns, pieces)


def _row(pieces: Sequence[Piece], number: int) -> bytes | None:
    """Return a row by its number, counted from 1."""
    for piece in pieces:
        if number <= piece.rows:
            return lines(piece.data)[number - 1]
        number -= piece.rows
    return None


def _misfit(columns: Sequence[Column], row: bytes) -> ValueNotRepresentable | None:
    for column, field in zip(columns, row.split(b"\t"), strict=False):
        text = decoded(field)
        if text is not None and column.kind is Kind.TIMESTAMP:
            text = text.replace("+00", "")
        why = None if text is None else _reason(column, text)
        if why is not None:
            return unfit(column, text, why)
    return None


def _named(columns: Sequence[Column], row: bytes, message: str) -> ValueNotRepresentable | None:
    """Return the error for the value of the column that the message names."""
    fields = dict(zip(columns, row.split(b"\t"), strict=False))
    named = [
        column
        for column in fields
        if f"'{column.name}' at row" in message or f"`{column.name.replace('`', '``')}` at row" in message
    ]
    if not named:
        return None
    column = max(named, key=lambda column: len(column.name))
    return unfit(column, decoded(fields[column]), message)


def _reason(column: Column, text: str) -> str | None:
    """Return why MySQL's column cannot hold a value, None if it can, as far as one can tell here."""
    if column.kind in (Kind.NUMERIC, Kind.FLOAT) and text.lower() in _NO_NUMBER:
        return f"{'DECIMAL' if column.kind is Kind.NUMERIC else 'DOUBLE'} has neither NaN nor infinity"
    check = _CHECKS.get(column.kind)
    return None if check is None else check(column, text)


def _integer(_column: Column, text: str) -> str | None:
    with suppress(ValueError):
        return None if -(1 << 63) <= int(text) < 1 << 63 else "BIGINT ends at 64 bits"
    return "it is no integer"


def _day(_column: Column, text: str) -> str | None:
    fits = _DAY.fullmatch(text) and _is_date(text)
    return None if fits else "DATE holds days of the years 1 to 9999"


def _time(_column: Column, text: str) -> str | None:
    fits = _TIME.fullmatch(text) and _is_date(text[:19])
    return None if fits else "DATETIME(6) holds times of the years 1 to 9999"


def _digits(column: Column, text: str) -> str | None:
    declared = result_type("mysql", column)
    bounds = _BOUNDS.search(declared)
    found = _NUMBER.fullmatch(text)
    if bounds is None or found is None or not (found[1] or found[2]):
        return "it is no number"
    digits, fraction = int(bounds[1]), int(bounds[2])
    if len(found[1].lstrip("0")) > digits - fraction or len(found[2].rstrip("0")) > fraction:
        return f"{declared} holds {digits - fraction} digits before the point and {fraction} after it"
    return None


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


_CHECKS: Mapping[Kind, Callable[[Column, str], str | None]] = {
    Kind.INTEGER: _integer,
    Kind.NUMERIC: _digits,
    Kind.DATE: _day,
    Kind.TIMESTAMP: _time,
}


def _document(
    connection: Connection, columns: Sequence[Column], pieces: Sequence[Piece]
) -> ValueNotRepresentable | None:
    """Return the error for the first JSON document that the server does not take; it is asked for each."""
    documents = _documents(columns, pieces)
    while batch := list(_batch(documents)):
        if _all_valid(connection, [text for _, text in batch]):
            continue
        for column, text in batch:
            if not _all_valid(connection, [text]):
                return unfit(column, text, "the server does not take it as JSON, or it is nested too deep")
    return None


def _all_valid(connection: Connection, documents: Sequence[str]) -> bool:
    asked = " AND ".join(["JSON_VALID(%s)"] * len(documents))
    try:
        [(valid,)] = connection.rows(f"SELECT {asked}", documents)
    except err.Error as exc:
        # MySQL does not call a document that is too deep invalid, but fails.
        if number(exc) in _TOO_DEEP:
            return False
        raise
    return bool(valid)


def _documents(columns: Sequence[Column], pieces: Sequence[Piece]) -> Iterator[tuple[Column, str]]:
    positions = [(n, column) for n, column in enumerate(columns) if column.kind is Kind.JSON]
    if not positions:
        return
    for piece in pieces:
        for line in lines(piece.data):
            fields = line.split(b"\t")
            for n, column in positions:
                if n < len(fields) and fields[n] != NULL:
                    yield column, decoded(fields[n]) or ""


def _batch(documents: Iterator[tuple[Column, str]]) -> Iterator[tuple[Column, str]]:
    size = 0
    for column, text in islice(documents, _DOCUMENTS):
        yield column, text
        size += len(text)
        if size > _BYTES:
            return
