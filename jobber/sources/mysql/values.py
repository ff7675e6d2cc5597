"""Fields of rows as COPY text, or as rows in canonical form; the same values either way."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

from jobber.columns import Column, Kind, Row
from jobber.errors import ValueNotRepresentable
from jobber.sources.base import Chunk
from jobber.sources.mysql.packets import NULL, Fields
from jobber.sources.mysql.types import Field

#: What a day that does not exist has: a zero in its month or day, no year, or a day that only long months have.
_SUSPECT = (b"-00", b"0000-", b"-02-3", b"-02-29", b"-04-31", b"-06-31", b"-09-31", b"-11-31")
#: Bytes of a moment that say its day.
DAY = len("YYYY-MM-DD")
_SHOWN = 100


class Values:
    """Turns the fields of one answer into what travels on.

    Parameters:
        fields: its columns.
        zero_dates: ``null`` makes dates with a zero in them NULL; ``fail`` fails.
    """

    def __init__(self, fields: Sequence[Field], zero_dates: str) -> None:
        self.columns = tuple(field.column for field in fields)
        self._fields = fields
        self._zero_dates = zero_dates
        self._dated = [i for i, column in enumerate(self.columns) if column.kind in {Kind.DATE, Kind.TIMESTAMP}]
        self._formed = [(i, field) for i, field in enumerate(fields) if field.form is not None]
        #: Whether what the text protocol sends is the text of every column already.
        self.plain = all(field.form is None for field in fields)
        self._free = [i for i, field in enumerate(fields) if field.free]
        self._decoders = [_decoder(field) for field in fields]

    def encoded(self, fields: Fields) -> Chunk:
        """Return rows as COPY text.

        Raises:
            ValueNotRepresentable: a value that its column cannot hold; it names both.
        """
        flat, nulls = fields
        width = len(self._fields)
        nulls += self._check_dates(flat)
        self._give_form(flat)
        for i, field in self._formed:
            if field.column.kind is Kind.BINARY:
                flat[i::width] = [_escaped(value) for value in flat[i::width]]
        rows = len(flat) // width
        data = _joined(flat, width)
        expected = (rows * (width - 1), rows, nulls)
        if (data.count(b"\t"), data.count(b"\n"), data.count(b"\\")) != expected or b"\r" in data:
            for i in self._free:
                flat[i::width] = [_escaped(value) for value in flat[i::width]]
            data = _joined(flat, width)
        if self._free and not is_text(data):
            for i in self._free:
                for value in flat[i::width]:
                    if not is_text(value):
                        raise _unfit(self.columns[i], value, "it is not text in UTF-8")
        return Chunk(data, rows)

    def decoded(self, fields: Fields) -> list[Row]:
        """Return rows in canonical form (see ``encoded``)."""
        flat, nulls = fields
        width = len(self._fields)
        nulls += self._check_dates(flat)
        self._give_form(flat)
        columns: list[Sequence[Any]] = []
        for i, decode in enumerate(self._decoders):
            values = flat[i::width]
            try:
                if nulls:
                    columns.append([None if value is NULL else decode(value) for value in values])
                else:
                    columns.append(list(map(decode, values)))
            except UnicodeDecodeError:
                wrong = next(value for value in values if not is_text(value))
                raise _unfit(self.columns[i], wrong, "it is not text in UTF-8") from None
        return list(zip(*columns, strict=True))

    def _give_form(self, flat: list[bytes]) -> None:
        width = len(self._fields)
        for i, field in self._formed:
            form = field.form
            assert form is not None  # that is why it is in the list  # noqa: S101
            shaped = []
            for value in flat[i::width]:
                try:
                    shaped.append(NULL if value is NULL else form(value))
                except ValueError as error:
                    raise _unfit(field.column, value, str(error)) from error
            flat[i::width] = shaped

    def _check_dates(self, flat: list[bytes]) -> int:
        """Fail over days that do not exist, or make them NULL; return how many became that."""
        width, made = len(self._fields), 0
        for i in self._dated:
            values = flat[i::width]
            together = b"\n".join(values)
            if any(suspect in together for suspect in _SUSPECT):
                checked = [value if value is NULL else self.day(value, self.columns[i]) for value in values]
                made += sum(value is NULL for value in checked) - sum(value is NULL for value in values)
                flat[i::width] = checked
        return made

    def day(self, value: bytes, column: Column) -> bytes:
        """Return a date or timestamp, or ``NULL`` for one with zeros. Raises ValueNotRepresentable."""
        day = value[:DAY].decode("ascii", "replace")
        if b"00" in (value[5:7], value[8:10]):
            if self._zero_dates == "null":
                return NULL
            raise _unfit(column, value, 'a date with zeros; zero_dates = "null" in its section makes such ones NULL')
        try:
            datetime.date.fromisoformat(day)
        except ValueError:
            raise _unfit(column, value, "there is no such day in the years 1 to 9999") from None
        return value


def _decoder(field: Field) -> Callable[[bytes], Any]:
    match field.column.kind:
        case Kind.INTEGER:
            return int
        case Kind.FLOAT:
            return float
        case Kind.TIMESTAMP if field.fraction:
            return _moment
        case _:
            return bytes.decode


def _moment(value: bytes) -> str:
    return value.rstrip(b"0").rstrip(b".").decode() if b"." in value else value.decode()


def _joined(flat: list[bytes], width: int) -> bytes:
    rows = zip(*[iter(flat)] * width, strict=True)
    return b"\n".join(map(b"\t".join, rows)) + b"\n"


def _escaped(value: bytes) -> bytes:
    if value is NULL:
        return value
    return value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")


def is_text(value: bytes) -> bool:
    """Tell whether bytes are UTF-8."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unfit(column: Column, value: bytes, why: str) -> ValueNotRepresentable:
    shown = value[:_SHOWN].decode("utf-8", "backslashreplace").replace("\0", "\\0")
    shown += "…" if len(value) > _SHOWN else ""
    return ValueNotRepresentable(f'column "{column.name}" cannot hold "{shown}": {why}', column=column.name)
