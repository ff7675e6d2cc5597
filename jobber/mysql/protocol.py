"""The packets that PyMySQL reads less of than jobber needs.

https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html and, for what MariaDB adds,
https://mariadb.com/kb/en/clientserver-protocol/
"""

from __future__ import annotations

import struct
from typing import Any

from pymysql import err
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

#: The character set number of bytes that are not text.
BINARY_CHARSET = 63

#: Flags of a column definition
#: (https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__column__definition__flags.html).
UNSIGNED, ENUM, SET = 1 << 5, 1 << 8, 1 << 11

#: Capabilities of MariaDB beyond the 32 that MySQL has. A client that knows of them does not set the first of those
#: (CLIENT_MYSQL) and sends these in the last four bytes of the handshake's filler.
CLIENT_MYSQL = 1
EXTENDED_METADATA = 1 << 3
_EXTENDED_AT = 28
#: Bytes of the handshake response in front of the account's name.
HANDSHAKE_HEAD = 32

_TYPE_NAME, _FORMAT_NAME = 0, 1

#: What a packet begins with that holds an error, or ends rows.
ERROR, END = 0xFF, 0xFE
#: The first byte of a value's length: up to this it is the length itself, then NULL, then what says how many bytes it
#: takes.
SHORT, NULL, LENGTHS = 0xFA, 0xFB, {0xFC: 2, 0xFD: 3, 0xFE: 8}
_SHORT_END = 9


class Packet(MysqlPacket):  # type: ignore[misc]  # PyMySQL has no types
    """A packet whose error carries the SQLSTATE that the server sent, as ``sqlstate``."""

    def raise_for_error(self) -> None:
        """Raise the error that the server reports."""
        data = self.get_all_data()
        try:
            super().raise_for_error()
        except err.Error as error:
            error.sqlstate = data[4:9].decode("ascii", "replace") if data[3:4] == b"#" else ""
            raise


class ColumnPacket(FieldDescriptorPacket):  # type: ignore[misc]
    """A column definition, with what MariaDB says of types that the protocol has no number for.

    Attributes:
        name: of the column.
        type_code: of ``pymysql.constants.FIELD_TYPE``.
        charsetnr: ``BINARY_CHARSET``, or that of the text.
        length: the most bytes that a value is long, in characters of a number its width.
        flags: ``UNSIGNED``, ``ENUM``, ``SET`` and others.
        scale: digits after the point; 31 of floating point means as many as it takes.
        type_name: ``uuid``, ``inet6``, ``point`` …, or empty.
        format_name: ``json``, or empty.
    """

    #: Whether the connection negotiated ``EXTENDED_METADATA``; set by the class that ``Connection`` reads with.
    extended = False

    def _parse_field_descriptor(self, encoding: str) -> None:
        # Catalog, schema, table and original table: nothing that jobber asks for.
        for _ in range(4):
            self.read_length_coded_string()
        self.name = self.read_length_coded_string().decode(encoding)
        self.read_length_coded_string()
        self.type_name = self.format_name = ""
        if self.extended:
            self._read_extended(self.read_length_coded_string() or b"")
        self.charsetnr, self.length, self.type_code, self.flags, self.scale = self.read_struct("<xHIBHBxx")

    def _read_extended(self, data: bytes) -> None:
        at = 0
        while at + 2 <= len(data):
            what, size = data[at], data[at + 1]
            text = data[at + 2 : at + 2 + size].decode("ascii", "replace")
            if what == _TYPE_NAME:
                self.type_name = text
            elif what == _FORMAT_NAME:
                self.format_name = text
            at += 2 + size


class ExtendedColumnPacket(ColumnPacket):
    """A column definition on a connection that negotiated ``EXTENDED_METADATA``."""

    extended = True


def ends_rows(packet: bytes) -> bool:
    """Whether a packet ends the rows of the text protocol, by an error or without one."""
    return packet[0] == ERROR or (packet[0] == END and len(packet) < _SHORT_END)


def row_of(packet: bytes) -> tuple[bytes | None, ...]:
    """Return the texts of a row of the text protocol."""
    values: list[bytes | None] = []
    at, end = 0, len(packet)
    while at < end:
        length = packet[at]
        at += 1
        if length > SHORT:
            if length == NULL:
                values.append(None)
                continue
            size = LENGTHS[length]
            length = int.from_bytes(packet[at : at + size], "little")
            at += size
        values.append(packet[at : at + length])
        at += length
    return tuple(values)


def with_extended_capabilities(payload: bytes) -> bytes:
    """Return a handshake response that asks MariaDB for ``EXTENDED_METADATA``."""
    (flags,) = struct.unpack_from("<I", payload)
    asked = struct.pack("<I", EXTENDED_METADATA)
    head = struct.pack("<I", flags & ~CLIENT_MYSQL) + payload[4:_EXTENDED_AT]
    return head + asked + payload[HANDSHAKE_HEAD:]


def packet_type(wanted: type[Any], *, extended: bool) -> type[Any]:
    """Return the class of this module that stands for one of PyMySQL's."""
    if wanted is FieldDescriptorPacket:
        return ExtendedColumnPacket if extended else ColumnPacket
    return Packet if wanted is MysqlPacket else wanted
