"""Row packets cut into fields, many at a time, without an object per packet.

A packet is a length of three bytes, a number of one, and the payload; one of 16 MB less a byte goes on in the next
(https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html). ``rowforms`` knows what a payload
holds. The packets' numbers are not looked at: TCP neither loses nor swaps any.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

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
#: The size of a packet that goes on in the next one.
_PART = 0xFFFFFF
_HEAD = 4
_head = struct.Struct("<I").unpack_from
#: First byte of an error, and of the packet that ends the rows, which is shorter than any row that begins like it.
_ERROR, _END, _END_SIZE = 0xFF, 0xFE, 9


class Fields(NamedTuple):
    """Rows as one list of their fields.

    Parameters:
        flat: the fields of all rows, row by row, as the text protocol sends them.
        nulls: how many of them are ``NULL``.
    """

    flat: list[bytes]
    nulls: int


class RowPackets:
    """The rows of one answer, after the definitions of its columns.

    Parameters:
        connection: nothing of the rows has been read from it.
        cut: takes a row apart.
    """

    def __init__(self, connection: Connection, cut: CutRow) -> None:
        self._connection = connection
        self._cut = cut
        self._data = b""
        self._at = 0
        #: Whether the server has sent its last word about this answer.
        self.ended = False
        #: How many warnings it has about it then.
        self.warnings = 0

    def read(self, most: int) -> Fields | None:
        """Return the next rows; None after the last.

        Parameters:
            most: bytes after which no further row is begun, about.

        Raises:
            err.Error: the server's own, or the connection is gone, or what came are no rows.
        """
        flat: list[bytes] = []
        nulls, taken, began = 0, 0, time.monotonic()
        while not self.ended and taken < most:
            before = self._at
            try:
                more, missing = self._cut_whole(flat)
            except (IndexError, struct.error):
                raise torn() from None
            nulls += more
            taken += self._at - before
            if self.ended:
                break
            if missing > _PIECE:
                payload = self._long_payload()
                nulls += self._cut(payload, 0, len(payload), flat.append)
                taken += len(payload)
            elif flat and time.monotonic() - began > DAWDLING:
                break
            elif taken < most:
                self._data, self._at = self._data[self._at :] + self._connection.receive(_PIECE), 0
        return Fields(flat, nulls) if flat else None

    def _cut_whole(self, flat: list[bytes]) -> tuple[int, int]:
        """Cut the rows that are there.

        Returns:
            how many fields are NULL, and how many bytes the next row still needs, as far as is known.
        """
        data, at, cut, take = self._data, self._at, self._cut, flat.append
        stop, nulls, missing = len(data), 0, 0
        while at + _HEAD <= stop:
            size = _head(data, at)[0] & 0xFFFFFF
            end = at + _HEAD + size
            if end > stop or size == _PART:
                missing = _PART if size == _PART else end - stop
                break
            at += _HEAD
            if data[at] >= _END and (data[at] == _ERROR or size < _END_SIZE):
                self._finish(data[at:end], more=end < stop)
                break
            nulls += cut(data, at, end, take)
            at = end
        self._at = at
        return nulls, missing

    def _long_payload(self) -> bytes:
        """Return the payload of the next packet, with all that continues it, read to the byte."""
        rest, parts = self._data[self._at :], []
        while True:
            if len(rest) < _HEAD:
                rest += self._connection.receive_all(_HEAD - len(rest))
            size = _head(rest)[0] & 0xFFFFFF
            part, rest = rest[_HEAD : _HEAD + size], rest[_HEAD + size :]
            parts.append(part)
            if len(part) < size:
                parts.append(self._connection.receive_all(size - len(part)))
            if size < _PART:
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


def torn() -> err.OperationalError:
    """Return the error for packets that are not what the protocol says; the connection cannot be used any longer."""
    return err.OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the server sent rows that cannot be read")
