"""Rows on their way into one table: by LOAD DATA LOCAL, or by INSERT where the server forbids that.

Both send the same text for each value and so end the same. The server stores a wrong value and only warns: LOAD DATA
LOCAL does so even in strict mode (https://dev.mysql.com/doc/refman/8.4/en/load-data.html, "IGNORE"), and a cut fraction
is no more than a note to either. So any warning, note or missing row is a failure.
"""

from __future__ import annotations

import secrets
import select
import ssl
from collections.abc import Sequence
from typing import Protocol

from pymysql import err
from pymysql.constants import CR
from pymysql.protocol import OKPacketWrapper

from jobber.columns import Column, Kind
from jobber.errors import AttemptError, ResultsFailed, ValueNotRepresentable
from jobber.mysql import Connection, number
from jobber.results.mysql.culprits import culprit
from jobber.results.mysql.encoded import UTC, Encoded, Piece
from jobber.results.mysql.errors import translate
from jobber.results.mysql.tables import quoted

#: LOAD DATA LOCAL is switched off on the server, on the client, by a proxy or in a sandbox.
_FORBIDDEN = frozenset({1148, 2000, 2068, 3948, 3950, 4166})
#: What the server says of a value that its column does not take: out of range, cut, wrong, too long, not JSON.
_VALUES = frozenset({1264, 1265, 1292, 1300, 1366, 1367, 1406, 1411, 3140, 3141, 3151, 3156, 3157, 3819, 4025, 4078})
#: Bytes of a packet: a socket that is ready to send has room for them, and every ``max_allowed_packet`` is larger.
_PACKET = 16 * 1024
_MESSAGES = 20


class LoadForbidden(Exception):
    """Raised when the server does not take LOAD DATA LOCAL; no row was sent."""


class Feed(Protocol):
    """One transaction's worth of rows."""

    def write(self, piece: Piece) -> None:
        """Send rows that were checked (``Encoded.checked``). Raises as ``finish``, and PyMySQL's errors."""
        ...

    def finish(self) -> None:
        """See that the server stored every row as it is.

        Raises:
            ValueNotRepresentable: it did not, for the sake of a value.
            ResultsFailed, ResultsUnavailable: it did not, for another reason.
        """
        ...


class LoadData:
    """Rows in one ``LOAD DATA LOCAL INFILE``, sent as packets of the statement's own; there is no file.

    Parameters:
        name: of the results database, as the config calls it.
        zones: whether timestamps may name their zone, which the server drops: that takes it a while for each.

    Raises:
        LoadForbidden: see there.
    """

    def __init__(
        self, connection: Connection, table: str, columns: Sequence[Column], name: str, *, zones: bool
    ) -> None:
        self._connection = connection
        self._columns = columns
        self._name = name
        self._pieces: list[Piece] = []
        self._poll = _poll(connection)
        offered = secrets.token_hex(8)
        try:
            connection.start_load(_load_statement(offered, table, columns, zones=zones), offered)
        except err.Error as exc:
            if number(exc) in _FORBIDDEN:
                raise LoadForbidden from exc
            raise

    def write(self, piece: Piece) -> None:
        """Send rows, while the server stores earlier ones."""
        self._pieces.append(piece)
        for start in range(0, len(piece.data), _PACKET):
            self._wait_for_room()
            self._connection.write_packet(piece.data[start : start + _PACKET])

    def finish(self) -> None:
        """End the data and see that the server stored every row as it is."""
        self._connection.write_packet(b"")
        expected = sum(piece.rows for piece in self._pieces)
        try:
            answer = OKPacketWrapper(self._connection.packet())
        except err.Error as exc:
            raise explained(self._connection, exc, self._name, self._columns, self._pieces) from exc
        if answer.warning_count or answer.affected_rows != expected:
            raise complaint(self._connection, self._name, self._columns, self._pieces, (answer.affected_rows, expected))

    def _wait_for_room(self) -> None:
        """Wait until the socket takes a packet, unless the server says something: it has no more ear for rows then.

        A connection that was killed may stay open on the server's side (seen on MariaDB 10.11), and who only sends
        would wait for it until TCP gives up.
        """
        if self._poll is not None and any(event & select.POLLIN for _, event in self._poll.poll()):
            self._connection.packet()
            raise err.OperationalError(CR.CR_SERVER_LOST, "the server ended the load")


class Inserts:
    """Rows in INSERT statements of many rows each.

    Parameters:
        encoded: knows how long a statement may be.
        name: of the results database, as the config calls it.
    """

    def __init__(
        self, connection: Connection, table: str, columns: Sequence[Column], encoded: Encoded, name: str
    ) -> None:
        self._connection = connection
        self._columns = columns
        self._encoded = encoded
        self._name = name
        names = ", ".join(quoted(column.name) for column in columns)
        self._head = f"INSERT INTO {quoted(table)} ({names}) VALUES ".encode()  # noqa: S608
        self._stored = self._expected = 0

    def write(self, piece: Piece) -> None:
        """Send rows; those of each statement are stored when this returns."""
        self._expected += piece.rows
        for values, part in self._encoded.literals(piece):
            with self._connection.cursor() as cursor:
                try:
                    cursor.execute(self._head + values)
                except err.Error as exc:
                    raise explained(self._connection, exc, self._name, self._columns, [part]) from exc
                self._stored += cursor.rowcount
                if cursor.warning_count:
                    raise complaint(self._connection, self._name, self._columns, [part], (0, 0))

    def finish(self) -> None:
        """See that the server stored every row."""
        if self._stored != self._expected:
            raise _lost(self._name, self._stored, self._expected)


def _poll(connection: Connection) -> select.poll | None:
    """Return what tells when a connection takes or gives data; None for TLS, which has data of its own."""
    if connection.sock is None or isinstance(connection.sock, ssl.SSLSocket):
        return None
    poll = select.poll()
    poll.register(connection.sock.fileno(), select.POLLIN | select.POLLOUT)
    return poll


def explained(
    connection: Connection, exc: err.Error, name: str, columns: Sequence[Column], pieces: Sequence[Piece]
) -> AttemptError:
    """Return jobber's error for a refusal, which names column and value where values are at fault."""
    if number(exc) in _VALUES:
        named = culprit(connection, columns, pieces, [str(exc.args[1])])
        return named or ValueNotRepresentable(f'results database "{name}" refused a value: {exc.args[1]}')
    return translate(exc, name)


def complaint(
    connection: Connection,
    name: str,
    columns: Sequence[Column],
    pieces: Sequence[Piece],
    counts: tuple[int, int],
) -> AttemptError:
    """Return the error for rows that the server stored otherwise than they were sent, or not at all.

    Parameters:
        counts: rows stored and sent.
    """
    said = connection.rows(f"SHOW WARNINGS LIMIT {_MESSAGES}")
    messages = [str(message) for _, number, message in said if int(number) in _VALUES]
    # A server may keep no messages (max_error_count).
    named = culprit(connection, columns, pieces, messages) if messages or not said else None
    if named is not None:
        return named
    if messages:
        return ValueNotRepresentable(f'results database "{name}" would change a value: {messages[0]}')
    if counts[0] != counts[1]:
        return _lost(name, *counts)
    what = str(said[0][2]) if said else "it gave warnings"
    return ResultsFailed(f'results database "{name}" did not take the rows as they are: {what}', retryable=False)


def _lost(name: str, stored: int, sent: int) -> ResultsFailed:
    return ResultsFailed(f'results database "{name}" stored {stored} rows of {sent}', retryable=False)


def _load_statement(offered: str, table: str, columns: Sequence[Column], *, zones: bool) -> str:
    """Return the statement; booleans and UTC timestamps as PostgreSQL writes them are read on the server."""
    fields, changes = [], []
    for place, column in enumerate(columns):
        name, variable = quoted(column.name), f"@v{place}"
        if column.kind is Kind.BOOLEAN:
            changes.append(f"{name} = CASE {variable} WHEN 't' THEN 1 WHEN 'f' THEN 0 ELSE {variable} END")
        elif column.kind is Kind.TIMESTAMP and zones:
            changes.append(f"{name} = REPLACE({variable}, '{UTC.decode()}', '')")
        else:
            variable = name
        fields.append(variable)
    statement = (
        f"LOAD DATA LOCAL INFILE '{offered}' INTO TABLE {quoted(table)} CHARACTER SET utf8mb4 "
        r"FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' LINES STARTING BY '' TERMINATED BY '\n' "
        f"({', '.join(fields)})"
    )
    return f"{statement} SET {', '.join(changes)}" if changes else statement
