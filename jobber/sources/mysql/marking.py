"""Rows of the text protocol as COPY text without a bytes object per field.

What stands between the values of packets, lengths and heads, is overwritten with bytes that no text in UTF-8 has; one
pass over the whole then makes tabs and newlines of these, or leaves them out. So a field costs two looks at the buffer.
Where the marks do not come out even, some value has such a byte, is no text, and the general way (``values``) says so.
"""

from __future__ import annotations

import struct

from jobber.columns import Column, Kind
from jobber.mysql.protocol import LENGTHS, NULL, SHORT
from jobber.sources.base import Chunk
from jobber.sources.mysql.packets import END, END_SIZE, ERROR, HEAD, PART, RowFields, torn
from jobber.sources.mysql.rowforms import text_row
from jobber.sources.mysql.values import DAY, Values, is_text

#: In front of the first field of a row and of any other, of such ones that are NULL, and what is to be left out. The
#: protocol itself writes ``_FIELD_NULL`` for a NULL.
_ROW, _FIELD, _ROW_NULL, _FIELD_NULL, _GONE = 0xFD, 0xFE, 0xFC, 0xFB, 0xFF
_MARKS, _LEFT_OUT = bytes([_ROW, _FIELD, _ROW_NULL, _FIELD_NULL, _GONE]), bytes([_GONE])
_HEAD_GONE = _LEFT_OUT * HEAD
_NULLS = {_ROW: _ROW_NULL, _FIELD: _FIELD_NULL}
_MEANING = bytes.maketrans(bytes([_ROW, _FIELD]), b"\n\t")
#: In this order: what is written for a NULL has a backslash, too.
_WRITTEN = (
    (b"\\", b"\\\\"),
    (b"\n", b"\\n"),
    (b"\r", b"\\r"),
    (b"\t", b"\\t"),
    (bytes([_ROW_NULL]), b"\n\\N"),
    (bytes([_FIELD_NULL]), b"\t\\N"),
)
#: The size of what is no length: it leads out of any row.
_UNKNOWN = 1 << 24
#: Days that are kept because they have been looked at.
_DAYS = 16_384
_head = struct.Struct("<I").unpack_from


class Marking:
    """What the rows of one answer have in common.

    Parameters:
        values: converts what cannot be marked, and refuses what is no value.
    """

    def __init__(self, values: Values) -> None:
        self.values = values
        #: Of each column the mark in front of it, and itself if it has days, some of which do not exist.
        self.places = tuple(
            (_FIELD if i else _ROW, column if column.kind in {Kind.DATE, Kind.TIMESTAMP} else None)
            for i, column in enumerate(values.columns)
        )
        #: Days that exist, as text.
        self.days: set[bytes] = set()

    def is_null(self, moment: bytes, column: Column) -> bool:
        """Tell whether a date or timestamp becomes NULL. Raises ValueNotRepresentable if there is no such day."""
        if len(moment) < DAY:
            raise torn()
        if self.values.day(moment, column) is not moment:
            return True
        if len(self.days) < _DAYS:
            self.days.add(moment[:DAY])
        return False


class MarkedRows:
    """Rows that are marked as they come (``packets.Rows``), and then become one chunk."""

    def __init__(self, marking: Marking) -> None:
        self.size = 0
        self._marking = marking
        self._rows = 0
        self._gone = 0  # marks of bytes to be left out
        self._packets: list[tuple[bytes, int]] = []
        self._marked: list[bytes | bytearray] = []
        self._long = b""

    def take(self, data: bytes, at: int) -> int:
        """Mark the rows that are there (see ``packets.Rows``)."""
        places, days, is_null = self._marking.places, self._marking.days, self._marking.is_null
        marked, begin, stop = bytearray(data), at, len(data)
        rows = gone = 0
        while at + HEAD <= stop:
            size = _head(data, at)[0] & 0xFFFFFF
            end = at + HEAD + size
            if end > stop or size == PART:
                break
            first = data[at + HEAD]
            if first >= END and (first == ERROR or size < END_SIZE):
                break
            marked[at : at + HEAD] = _HEAD_GONE
            at += HEAD
            for mark, dated in places:
                length = data[at]
                if length <= SHORT:
                    if dated and data[at + 1 : at + 11] not in days and is_null(data[at + 1 : end][:length], dated):
                        marked[at : at + 1 + length] = bytes([_NULLS[mark]]) + _LEFT_OUT * length
                        gone += length
                    else:
                        marked[at] = mark
                    at += length + 1
                elif length == NULL:
                    marked[at] = _NULLS[mark]
                    at += 1
                else:
                    marked[at] = mark
                    size = LENGTHS.get(length, _UNKNOWN)
                    marked[at + 1 : at + 1 + size] = _LEFT_OUT * size
                    gone += size
                    at += 1 + size + int.from_bytes(data[at + 1 : at + 1 + size], "little")
            if at != end:
                raise torn()
            rows += 1
        if rows:
            self._rows += rows
            self._gone += gone + rows * HEAD
            self._packets.append((data, begin))
            self._marked.append(marked[begin:at])
            self.size += at - begin
        return at

    def take_long(self, payload: bytes) -> None:
        """Keep a single row for the general way."""
        self._long = payload
        self.size += len(payload)

    def chunk(self) -> Chunk:
        """Return all rows as COPY text. Raises ValueNotRepresentable."""
        text = b"".join(self._marked)
        # One mark for each field; a value that has such a byte makes them more.
        expected = self._rows * len(self._marking.places) + self._gone
        if not self._long and len(text) - len(text.translate(None, _MARKS)) == expected:
            for found, written in _WRITTEN:
                if found in text:
                    text = text.replace(found, written)
            text = text.translate(_MEANING, _LEFT_OUT)
            if is_text(text):
                return Chunk(b"".join((memoryview(text)[1:], b"\n")), self._rows)
        return self._cut()

    def _cut(self) -> Chunk:
        """Go the general way, which finds the value that is no text."""
        rows = RowFields(text_row(len(self._marking.places)))
        for data, at in self._packets:
            rows.take(data, at)
        if self._long:
            rows.take_long(self._long)
        return self._marking.values.encoded(rows.fields)
