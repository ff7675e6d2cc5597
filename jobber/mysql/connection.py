"""A connection of PyMySQL's that tells more and trusts the server less."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pymysql
from pymysql import err
from pymysql.constants import CLIENT, COMMAND, CR
from pymysql.protocol import MysqlPacket
from sqlalchemy import make_url

from jobber.mysql import protocol

#: A connection whose other end vanished breaks within about a minute instead of hours
#: (https://man7.org/linux/man-pages/man7/tcp.7.html).
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}

#: MariaDB says since this version of which type a column really is (JSON, UUID, INET6).
_EXTENDED_SINCE = (10, 5, 2)
#: MariaDB before 11 puts this in front of its version, for old clients' sake.
_DISGUISE = "5.5.5-"


class Connection(pymysql.connections.Connection):  # type: ignore[misc]  # PyMySQL has no types
    """A connection that never sends a file, whatever the server asks for.

    PyMySQL opens whatever path the server names (https://dev.mysql.com/doc/refman/8.4/en/load-data-local-security.html)
    once ``local_infile`` was agreed on; here the agreement only serves ``start_load``.
    """

    _handshaking = False
    _extended = False

    # -- what the server is --------------------------------------------------------------------------------------------

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB, else it is MySQL or something like it."""
        return "mariadb" in self.server_version.lower()

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version: ``(10, 11, 6)``."""
        text = self.server_version.removeprefix(_DISGUISE) if self.is_mariadb else self.server_version
        found = re.match(r"\d+(?:\.\d+)*", text)
        return tuple(int(part) for part in found[0].split(".")) if found else ()

    @property
    def id(self) -> int:
        """The connection's ID on the server, which ``KILL`` takes."""
        number: int = self.server_thread_id[0]
        return number

    @property
    def sock(self) -> socket.socket | None:
        """The socket underneath; None once the connection is closed."""
        sock: socket.socket | None = self._sock
        return sock

    # -- statements of jobber's own -----------------------------------------------------------------------------------

    def run(self, sql: str, values: Sequence[object] | None = None) -> int:
        """Run a statement that returns no rows; return how many rows it changed.

        Parameters:
            sql: with ``%s`` for each of ``values``; without values it is sent as it is.
        """
        with self.cursor() as cursor:
            changed: int = cursor.execute(sql, values)
            return changed

    def rows(self, sql: str, values: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return all of its rows."""
        with self.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def send(self, command: int, payload: bytes) -> None:
        """Send a command of the protocol (``pymysql.constants.COMMAND``); its answer is read with ``packet``."""
        self._execute_command(command, payload)

    def packet(self) -> MysqlPacket:
        """Read the next packet of an answer. Raises the error that the server reports."""
        return self._read_packet()

    def start_load(self, sql: str, name: str) -> None:
        """Run ``LOAD DATA LOCAL INFILE 'name' …``; the rows then go with ``write_packet``, an empty one ends them.

        Raises:
            err.OperationalError: the server asked for another file, or for none; the connection is closed.
        """
        self._execute_command(COMMAND.COM_QUERY, sql)
        packet = self._read_packet()
        data = packet.get_all_data()
        if not packet.is_load_local_packet() or data[1:] != name.encode():
            self._force_close()
            raise err.OperationalError(
                CR.CR_COMMANDS_OUT_OF_SYNC, "the server asked for something else than the rows that it was offered"
            )

    def abort(self) -> None:
        """Break the connection off at once, from any thread; whoever waits for the server learns that it is gone."""
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    # -- what PyMySQL calls -------------------------------------------------------------------------------------------

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect, and set what only an open socket can be set to."""
        super().connect(sock)
        # Agreed on with the server; from here on PyMySQL itself refuses.
        self._local_infile = False
        if self.sock is not None and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in _KEEPALIVE.items():
                if hasattr(socket, option):  # not on every system
                    self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def _get_server_information(self) -> None:
        super()._get_server_information()
        # Only a server that has capabilities beyond MySQL's leaves this one out.
        speaks_extended = not self.server_capabilities & protocol.CLIENT_MYSQL
        self._extended = speaks_extended and self.is_mariadb and self.version >= _EXTENDED_SINCE

    def _request_authentication(self) -> None:
        self._handshaking = self._extended
        super()._request_authentication()

    def write_packet(self, payload: bytes) -> None:
        """Send a packet; the first ones, which hold what the client can do, ask MariaDB for extended metadata."""
        if self._handshaking:
            payload = protocol.with_extended_capabilities(payload)
            # With TLS the first packet is the head alone, and the whole follows.
            self._handshaking = len(payload) == protocol.HANDSHAKE_HEAD
        super().write_packet(payload)

    def _read_packet(self, packet_type: type[Any] = MysqlPacket) -> Any:
        return super()._read_packet(protocol.packet_type(packet_type, extended=self._extended))


def connect(
    url: str, *, connect_timeout: float, local_infile: bool = False, read_timeout: float | None = None
) -> Connection:
    """Return an open connection in ``utf8mb4``, autocommit on.

    Parameters:
        url: SQLAlchemy URL, ``mysql+pymysql://…``; its options are PyMySQL's, and ``ssl_ca`` and the like.
        connect_timeout: seconds.
        local_infile: whether ``start_load`` will be used.
        read_timeout: seconds that the server may be silent; None is as long as the connection stands.

    Raises:
        pymysql.err.Error: as ``meaning`` classifies it.
    """
    parsed = make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    options["client_flag"] = options.get("client_flag", 0) | CLIENT.FOUND_ROWS
    return Connection(
        **{
            "read_timeout": read_timeout,
            **options,
            "charset": "utf8mb4",
            "use_unicode": True,
            "autocommit": True,
            "connect_timeout": max(1, round(connect_timeout)),
            "local_infile": local_infile,
            "program_name": "jobber",
        }
    )
