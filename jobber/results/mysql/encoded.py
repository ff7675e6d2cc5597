"""COPY text as MySQL takes it: what LOAD DATA reads otherwise than COPY, and what the server would change unsaid.

https://dev.mysql.com/doc/refman/8.4/en/load-data.html, "Field and Line Handling";
https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from jobber.columns import Column, Kind
from jobber.errors import ResultsFailed, ValueNotRepresentable
from jobber.results.copytext import unfit

NULL = b"\\N"
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"0": b"\0"}
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
#: How PostgreSQL says of a time that it is UTC.
UTC = b"+00"
#: More digits after the point than DECIMAL has. Zeros at the end lose nothing, and yet the server notes that it cuts.
_LONG_FRACTION = re.compile(rb"\.\d{31}")
#: Digits enough for a number in JSON that a double might not hold.
_LONG_NUMBER = re.compile(rb"[\d.]{16}|\d[eE][+-]?\d\d")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_JSON_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
#: Bytes by which a row in the protocol is longer than its values, and a statement than its rows.
_OVERHEAD = 4096


class Piece(NamedTuple):
    """Whole rows on their way to the server."""

    data: bytes
    rows: int
    #: Whether booleans are ``t`` and ``f``, and times may say that they are UTC, as PostgreSQL writes them.
    foreign: bool


def lines(data: bytes) -> list[bytes]:
    """Return the rows of a piece; no value holds a newline of its own."""
    return data[:-1].split(b"\n")


def decoded(field: bytes) -> str | None:
    """Return the text of a field; bytes that are no text are shown escaped."""
    if field == NULL:
        return None
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), field).decode(errors="backslashreplace")


def rewrite(data: bytes, changes: Mapping[int, Callable[[bytes], bytes]]) -> bytes:
    """Return the rows with some of their columns changed, value by value, NULL excepted."""
    rows = []
    for line in lines(data):
        fields = line.split(b"\t")
        for position, change in changes.items():
            if position < len(fields) and fields[position] != NULL:
                fields[position] = change(fields[position])
        rows.append(b"\t".join(fields))
    return b"\n".join(rows) + b"\n"


class Encoded:
    """Checks and mends the encoded rows of one result; a piece without anything unusual costs a few searches.

    Parameters:
        columns: of the result, in order.
        exact_json: whether the server keeps JSON as text (MariaDB), else numbers as MySQL has them.
        largest: bytes that the server takes, and gives, in one piece (``max_allowed_packet``).
    """

    def __init__(self, columns: Sequence[Column], *, exact_json: bool, largest: int) -> None:
        self._columns = columns
        self._largest = largest
        self._dates = self._positions(Kind.DATE, Kind.TIMESTAMP)
        self._times = bool(self._positions(Kind.TIMESTAMP))
        self._decimals = self._positions(Kind.NUMERIC)
        self._documents = [] if exact_json else self._positions(Kind.JSON)
        self._mend_foreign = {
            **dict.fromkeys(self._positions(Kind.BOOLEAN), _boolean),
            **dict.fromkeys(self._positions(Kind.TIMESTAMP), _without_zone),
        }

    def checked(self, piece: Piece) -> Piece:
        """Return the rows as LOAD DATA reads them.

        Raises:
            ValueNotRepresentable: the server would change a value without a word, or could never give it back.
        """
        data = piece.data
        if piece.foreign:
            if b"\\f" in data or b"\\v" in data:
                data = _ESCAPED.sub(_raw, data)
            self._check_text(data)
        if self._dates and b"0000-" in data:
            self._check(data, self._dates, _year_zero, "the years of MySQL's dates are 1 to 9999")
        if self._decimals and _LONG_FRACTION.search(data):
            data = rewrite(data, dict.fromkeys(self._decimals, _without_zeros))
        if self._documents and _LONG_NUMBER.search(data):
            self._check(
                data, self._documents, _inexact, "MySQL keeps numbers in JSON as doubles, which would round one"
            )
        if len(data) > self._largest - _OVERHEAD:
            self._check_size(data)
        return piece._replace(data=data)

    def may_name_zones(self, piece: Piece) -> bool:
        """Whether timestamps among the rows may say that they are UTC."""
        # Looking for one byte takes next to nothing; for more, as long as the server needs to drop them.
        return piece.foreign and self._times and UTC[:1] in piece.data

    def literals(self, piece: Piece) -> Iterator[tuple[bytes, Piece]]:
        """Yield checked rows as VALUES of INSERT statements, each shorter than the server takes, beside themselves."""
        data = piece.data
        if piece.foreign and self._mend_foreign:
            data = rewrite(data, self._mend_foreign)
        for part in _parts(data):
            yield from self._literal(part)

    def too_large(self, line: bytes, why: str) -> ValueNotRepresentable:
        """Return the error of a row that the server takes in no form, naming its largest value."""
        fields = line.split(b"\t")
        column, field = max(zip(self._columns, fields, strict=False), key=lambda pair: len(pair[1]))
        return unfit(
            column,
            (field[:1000].decode(errors="ignore")),
            f"{why} of {len(line)} bytes is more than the server takes in one piece; raise its max_allowed_packet "
            f"(now {self._largest})",
        )

    # -- steps --------------------------------------------------------------------------------------------------------

    def _positions(self, *kinds: Kind) -> list[int]:
        return [position for position, column in enumerate(self._columns) if column.kind in kinds]

    def _check_text(self, data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            self._check(data, range(len(self._columns)), _not_text, "it is not text in UTF-8")
            raise ResultsFailed("the rows hold bytes that are no text", retryable=False) from exc

    def _check(self, data: bytes, positions: Sequence[int], is_bad: Callable[[bytes], object], why: str) -> None:
        for line in lines(data):
            fields = line.split(b"\t")
            for position in positions:
                if position < len(fields) and is_bad(fields[position]):
                    raise unfit(self._columns[position], decoded(fields[position]), why)

    def _check_size(self, data: bytes) -> None:
        for line in lines(data):
            if len(line) > self._largest - _OVERHEAD:
                raise self.too_large(line, "a row")

    def _literal(self, part: bytes) -> Iterator[tuple[bytes, Piece]]:
        text = part[:-1].replace(b"'", b"''").replace(b"\t", b"','").replace(b"\n", b"'),('")
        text = (b"('" + text + b"')").replace(b"'\\N'", b"NULL")
        rows = part.count(b"\n")
        if len(text) <= self._largest - 16 * _OVERHEAD:
            yield text, Piece(part, rows, foreign=False)
        elif rows == 1:
            raise self.too_large(part, "an INSERT of a row")
        else:
            middle = part.find(b"\n", len(part) // 2) + 1
            middle = middle if middle < len(part) else part.rfind(b"\n", 0, len(part) - 1) + 1
            yield from self._literal(part[:middle])
            yield from self._literal(part[middle:])


#: Bytes of rows in one INSERT.
_PART = 512 * 1024


def _parts(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", min(start + _PART, len(data) - 1)) + 1
        yield data[start:end]
        start = end


def _raw(found: re.Match[bytes]) -> bytes:
    return {b"f": b"\f", b"v": b"\v"}.get(found[1], found[0])


def _boolean(field: bytes) -> bytes:
    return {b"t": b"1", b"f": b"0"}.get(field, field)


def _without_zone(field: bytes) -> bytes:
    return field.replace(UTC, b"")


def _year_zero(field: bytes) -> bool:
    return field.startswith(b"0000-")


def _without_zeros(field: bytes) -> bytes:
    return field.rstrip(b"0").rstrip(b".") if b"." in field else field


def _not_text(field: bytes) -> bool:
    return field.decode(errors="backslashreplace").encode() != field


def _inexact(field: bytes) -> bool:
    """Whether a document holds a number that is neither an integer of 64 bits nor what a double prints as."""
    if not _LONG_NUMBER.search(field):
        return False
    text = _JSON_STRING.sub("", decoded(field) or "")
    for found in _JSON_NUMBER.finditer(text):
        if found[1] is None and found[2] is None and -(1 << 63) <= int(found[0]) < 1 << 64:
            continue
        if Decimal(found[0]) != Decimal(repr(float(found[0]))):
            return True
    return False
