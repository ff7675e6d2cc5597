"""A ``COPY … TO STDOUT`` read from the socket itself, many rows at a time.

The server sends every row as a message of its own, and libpq hands them over one by one: that takes four times the
processor time of looking for the rows in blocks of bytes (measured). So the whole exchange, from the statement to the
end of its transaction, passes by libpq, which has nothing under way meanwhile and notices nothing of it. Not where
anything lies between libpq and the socket, as TLS does.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import os
import re
import select
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import psycopg

from jobber.sources.base import DAWDLING
from jobber.sources.postgresql.failures import ServerError

#: Bytes of COPY text that travel together. Larger chunks are no faster (measured), and cost memory.
CHUNK_BYTES = 256 * 1024
_HEADER = struct.Struct("!cI")
#: What stands before a row: its kind, and its length in four bytes, the first of which is zero below 16 MB.
_BEFORE_A_ROW = re.compile(rb"d\0...", re.DOTALL)
_LENGTH_BYTES = 4


#: To a COPY, and to the statements that end the transaction.
_ANSWERS = 2
_PARSE = b"P"
#: What follows a column's name: table, number, type, size, modifier, format.
_FIELD = struct.Struct("!IhIhih")


class Description(NamedTuple):
    """What the server says of a statement.

    Parameters:
        parameters: types of the parameters, OIDs.
        fields: name, type and modifier of each column.
    """

    parameters: tuple[int, ...]
    fields: tuple[tuple[bytes, int, int], ...]


class CopyOut:
    """One COPY, and the end of the transaction that it runs in.

    Parameters:
        descriptor: of the connection's socket, which does not block.
        wait: waits until the socket is ready for one of the events of ``select.poll``, and returns those that it is.
        notice: gets the server's remarks, as functions of the codes of their fields.
    """

    def __init__(
        self, descriptor: int, wait: Callable[[int], int], notice: Callable[[Callable[[int], bytes | None]], None]
    ) -> None:
        #: Whether the server has answered everything, so that the connection is free again.
        self.over = False
        self._is_clean = True  # whether the statements that end the transaction have done so
        self._socket = descriptor
        self._wait = wait
        self._notice = notice
        self._text = ""
        self._copy_text = ""
        self._answers = _ANSWERS
        self._parameters: bytes | None = None
        self._fields: bytes | None = None
        self._begun = False
        self._error: ServerError | None = None  # the first
        self._counted: int | None = None
        self._rest = bytearray()  # bytes that came and are no whole message yet
        self._needed = 0  # bytes that it takes to go on
        self._parts: list[bytes] = []
        self._rows = self._size = 0

    def start(self, text: str, after: str) -> None:
        """Send the statement, and return when the server has taken it.

        Parameters:
            text: the COPY: one statement, which the extended protocol makes sure of.
            after: statements that end the transaction.

        Raises:
            ServerError: the server refuses it; the transaction is over.
        """
        self._text = text
        self._send(_packed(*_copy(text, after)))
        self._wait_begun()

    def send_ahead(self, before: str, statement: str, text: str, after: str) -> None:
        """Send a whole transaction, and return when it has begun; ``taken`` follows.

        An error in a statement keeps the server from running those behind it: nothing is copied unless ``statement`` is
        one whole statement, and tables that it names keep their columns until the transaction is over.

        Parameters:
            before: statements that begin the transaction.
            statement: is prepared and described, but not run.
            text, after: as in ``start``.
        """
        self._text, self._copy_text = statement, text
        self._answers = 3
        described = (_PARSE, b"\0%b\0\0\0" % statement.encode()), (b"D", b"S\0")
        self._send(_packed((b"Q", before.encode() + b"\0"), *described, *_copy(text, after)))
        while self._answers > _ANSWERS and not self.over:
            self._receive()

    def taken(self, expected: Description) -> bool:
        """Return when the server has taken the COPY that was sent ahead; False if the statement is another by now.

        Raises:
            ServerError: the server refuses a statement; the transaction is over.
        """
        while not (self._begun or self.over):
            self._receive()
        changed = self._fields is None or _described(self._parameters or b"", self._fields) != expected
        if self._parameters is not None and changed:
            return False  # whatever the COPY says: its constants may be of the wrong types
        self._wait_begun()
        return True

    @property
    def is_clean(self) -> bool:
        """Whether the connection is as it was before: outside of a transaction, with nothing left to read."""
        return self.over and self._is_clean and not self._rest

    def chunk(self) -> tuple[bytes, int]:
        """Return the next rows and their number; nothing after the last."""
        began = time.monotonic()
        while not self.over and self._size < CHUNK_BYTES:
            if not self._receive(rather_stop=bool(self._rows) and time.monotonic() - began > DAWDLING):
                break
        found = b"".join(self._parts), self._rows
        self._parts, self._rows, self._size = [], 0, 0
        return found

    def end(self) -> int:
        """Return the number of rows that the server counted; raises ServerError if the COPY failed."""
        if self._error is not None:
            raise self._error
        return self._counted or 0

    def drain(self, meanwhile: Callable[[], None]) -> None:
        """Read what is left, for nobody."""
        while not self.over:
            self._receive()
            self._parts.clear()
            meanwhile()

    # -- steps --------------------------------------------------------------------------------------------------------

    def _wait_begun(self) -> None:
        while not (self._begun or self.over):
            self._receive()
        if not self._begun:
            raise self._error or psycopg.OperationalError("the server did not begin the COPY")

    def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._socket, data) :]
            except BlockingIOError:
                # What the server says to the beginning of it waits until all is sent: that is little.
                self._wait(select.POLLOUT)
            except OSError as error:
                raise psycopg.OperationalError(f"could not send data to server: {error.strerror}") from error

    def _receive(self, *, rather_stop: bool = False) -> bool:
        """Take in what has come, or wait for it; False if nothing has and one would ``rather_stop``."""
        while True:
            try:
                data = os.read(self._socket, CHUNK_BYTES)
                break
            except BlockingIOError:
                if rather_stop:
                    return False
                self._wait(select.POLLIN)
            except OSError as error:
                raise self._error or psycopg.OperationalError(
                    f"could not receive data from server: {error.strerror}"
                ) from error
        if not data:
            raise self._error or psycopg.OperationalError("server closed the connection unexpectedly")
        self._rest += data
        if len(self._rest) >= self._needed:
            self._take_rows()
            if self._take_messages():
                self._take_rows()
                self._take_messages()
        return True

    def _take_rows(self) -> None:
        """Take the whole rows that ``_rest`` begins with, if there are nothing but rows before the last of them.

        COPY text holds no zero, one newline to a row, at its end. So bytes without their headers are rows if they have
        as many newlines as there were headers, and no zeros: any other message has a length with one, but for rows of
        16 MB and more. Such a row, of which no read holds the whole, is the first by the time that it has come.
        """
        if not self._rest.startswith(b"d\0"):
            return
        raw = bytes(self._rest)
        end = _end_of_rows(raw)
        text, rows = _BEFORE_A_ROW.subn(b"", raw[:end])
        if rows and text.count(b"\n") == rows and b"\0" not in text:
            self._parts.append(text)
            self._rows += rows
            self._size += len(text)
            del self._rest[:end]

    def _take_messages(self) -> bool:
        """Take the whole messages that ``_rest`` begins with, one by one; True if the last of them begins the rows."""
        at, kind = 0, b""
        self._needed = 0
        while len(self._rest) - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest, at)
            stop = at + 1 + length
            if stop > len(self._rest):
                self._needed = stop - at
                break
            self._take(kind, bytes(self._rest[at + _HEADER.size : stop]))
            at = stop
            if kind == b"H":
                break
        del self._rest[:at]
        return kind == b"H"

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"d":
            self._parts.append(body)
            self._rows += 1
            self._size += len(body)
        elif kind == b"H":
            self._begun = True
        elif kind == b"t":
            self._parameters, self._text = body, self._copy_text
        elif kind == b"T" and self._parameters is not None and not self._begun:
            self._fields = body
        elif kind == b"E":
            # An error behind the COPY says nothing against its rows, but a connection that it ended has no rest.
            self._is_clean = self._is_clean and self._answers > 1
            if self._answers > 1 or self._counted is None:
                self._error = self._error or ServerError(_fields(body), self._text)
        elif kind == b"N":
            self._notice(_fields(body))
        elif kind == b"C" and body.startswith(b"COPY "):
            self._counted = int(body[5:-1])
        elif kind == b"Z":
            self._answers -= 1
            self.over = not self._answers
            self._is_clean = self._is_clean and (body == b"I" or not self.over)


def _packed(*messages: tuple[bytes, bytes]) -> bytes:
    return b"".join(_HEADER.pack(kind, len(body) + _LENGTH_BYTES) + body for kind, body in messages)


def _copy(text: str, after: str) -> tuple[tuple[bytes, bytes], ...]:
    parse, bind, execute = b"\0%b\0\0\0" % text.encode(), b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\0"
    return (_PARSE, parse), (b"B", bind), (b"E", execute), (b"S", b""), (b"Q", after.encode() + b"\0")


def _described(parameters: bytes, fields: bytes) -> Description:
    found = []
    at = 2  # behind the number of columns
    while at < len(fields):
        end = fields.index(b"\0", at)
        _, _, type_oid, _, modifier, _ = _FIELD.unpack_from(fields, end + 1)
        found.append((fields[at:end], type_oid, modifier))
        at = end + 1 + _FIELD.size
    return Description(struct.unpack(f"!{len(parameters) // 4}I", parameters[2:]), tuple(found))


def _end_of_rows(raw: bytes) -> int:
    """Return where the last whole row of ``raw`` ends, if it holds nothing but rows from its beginning on."""
    end = len(raw)
    while True:
        end = raw.rfind(b"\n", 0, end) + 1
        # Lengths may look like a newline.
        header = raw.rfind(b"d\0", max(0, end - _HEADER.size), end)
        if header < 0:
            return end
        end = header


def _fields(body: bytes) -> Callable[[int], bytes | None]:
    """Return the fields of an error or a notice by their codes."""
    return {part[0]: part[1:] for part in body.split(b"\0") if part}.get
