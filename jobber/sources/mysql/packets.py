"""Row packets cut into fields, many at a time, without an object per packet.

A packet is a length of three bytes, a number of one, and the payload; one of 16 MB less a byte goes on in the next
(https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html). ``rowforms`` knows what a payload
holds. The packets' numbers are not looked at: TCP neither loses nor swaps any.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pymysql import err
from pymysql.constants import CR, SERVER_STATUS

from jobber.mysql import Connection
from jobber.mysql.protocol import Packet
from jobber.sources.base import DAWDLING

#: Stands for NULL among the fields and is known by its identity: a text may be equal to it. It is COPY's own NULL.
NULL = b"\\N"

#: Appends the fields of the row at ``data[at:end]`` with ``take`` and returns how many are NULL.
CutRow = Callable[[bytes, int, int, Callable[[bytes], None]], int]

#: Bytes asked of the socket at a time.
_PIECE = 128 * 1024
#: The size of a packet that goes on in the next one, and that of what stands in front of every packet.
PART, HEAD = 0xFFFFFF, 4
_head = struct.Struct("<I").unpack_from
#: First byte of an error, and of the packet that ends the rows, which is shorter than any row that begins like it.
ERROR, END, END_SIZE = 0xFF, 0xFE, 9


class Fields(NamedTuple):
    """Rows as one list of their fields.

    Parameters:
        flat: the fields of all rows, row by row, as the text protocol sends them.
        nulls: how many of them are ``NULL``.
    """

    flat: list[bytes]
    nulls: int


class Rows(Protocol):
    """Takes rows as they come."""

    #: Bytes of packets that were taken.
    size: int

    def take(self, data: bytes, at: int) -> int:
        """Take the whole rows that begin at ``data[at]`` (see ``row_end``) and return where the last one ends."""
        ...

    def take_long(self, payload: bytes) -> None:
        """Take one row that is too long to come with others."""
        ...


class RowFields:
    """Rows cut into their fields.

    Parameters:
        cut: takes a row apart.
    """

    def __init__(self, cut: CutRow) -> None:
        self.size = 0
        self.fields = Fields([], 0)
        self._cut = cut

    def take(self, data: bytes, at: int) -> int:
        """Cut the rows that are there (see ``Rows``)."""
        flat, nulls = self.fields
        cut, take, begin = self._cut, flat.append, at
        while (end := row_end(data, at)) is not None:
            nulls += cut(data, at + HEAD, end, take)
            at = end
        self.fields = Fields(flat, nulls)
        self.size += at - begin
        return at

    def take_long(self, payload: bytes) -> None:
        """Cut a single row (see ``Rows``)."""
        flat, nulls = self.fields
        self.fields = Fields(flat, nulls + self._cut(payload, 0, len(payload), flat.append))
        self.size += len(payload)


class RowPackets:
    """The rows of one answer, after the definitions of its columns.

    Parameters:
        connection: nothing of the rows has been read from it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._data = b""
        self._at = 0
        #: Whether the server has sent its last word about this answer.
        self.ended = False
        #: How many warnings it has about it then.
        self.warnings = 0

    def read(self, rows: Rows, most: int) -> bool:
        """Give the next rows to ``rows``; False after the last.

        Parameters:
            most: bytes after which no further row is begun, about.

        Raises:
            err.Error: the server's own, or the connection is gone, or what came are no rows.
        """
        began = time.monotonic()
        while not self.ended:
            try:
                self._at = rows.take(self._data, self._at)
                missing = self._missing()
            except (IndexError, struct.error):
                raise torn() from None
            if self.ended or rows.size >= most or (rows.size and time.monotonic() - began > DAWDLING):
                break
            if missing <= _PIECE:
                self._data, self._at = self._data[self._at :] + self._connection.receive(_PIECE), 0
            elif rows.size:
                break  # it travels alone
            else:
                try:
                    rows.take_long(self._long_payload())
                except (IndexError, struct.error):
                    raise torn() from None
                break
        return rows.size > 0

    def _missing(self) -> int:
        """Return how many bytes the next row still needs, as far as is known; note the end of the rows."""
        data, at = self._data, self._at
        if len(data) - at < HEAD:
            return 0
        size: int = _head(data, at)[0] & 0xFFFFFF
        end = at + HEAD + size
        if size == PART:
            return PART
        if end <= len(data):
            self._finish(data[at + HEAD : end], more=end < len(data))
        return end - len(data)

    def _long_payload(self) -> bytes:
        """Return the payload of the next packet, with all that continues it, read to the byte."""
        rest, parts = self._data[self._at :], []
        while True:
            if len(rest) < HEAD:
                rest += self._connection.receive_all(HEAD - len(rest))
            size = _head(rest)[0] & 0xFFFFFF
            part, rest = rest[HEAD : HEAD + size], rest[HEAD + size :]
            parts.append(part)
            if len(part) < size:
                parts.append(self._connection.receive_all(size - len(part)))
            if size < PART:
                break
        self._data, self._at = rest, 0
        return b"".join(parts)

    def _finish(self, payload: bytes, *, more: bool) -> None:
        self.ended = True
        packet = Packet(payload, "utf8")
        packet.check_error()
        self.warnings, status = struct.unpack_from("<HH", payload, 1)
        # One statement has one answer: only CALL has more, and jobber does not run it.
        if more or status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS:
            raise torn()


def row_end(data: bytes, at: int) -> int | None:
    """Return where the row whose packet begins at ``data[at]`` ends; None if it is not all there, or is no row."""
    if at + HEAD > len(data):
        return None
    size: int = _head(data, at)[0] & 0xFFFFFF
    end = at + HEAD + size
    if end > len(data) or size == PART:
        return None
    first = data[at + HEAD]
    return None if first >= END and (first == ERROR or size < END_SIZE) else end


def torn() -> err.OperationalError:
    """Return the error for packets that are not what the protocol says; the connection cannot be used any longer."""
    return err.OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the server sent rows that cannot be read")
