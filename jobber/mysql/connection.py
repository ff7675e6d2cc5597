"""A connection of PyMySQL's that tells more and trusts the server less."""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pymysql
from pymysql import err
from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants import CLIENT, COMMAND, CR
from pymysql.constants.SERVER_STATUS import SERVER_MORE_RESULTS_EXISTS
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket, OKPacketWrapper
from sqlalchemy import make_url

from jobber.mysql import protocol
from jobber.mysql.errors import number

#: A connection whose other end vanished breaks within about a minute instead of hours
#: (https://man7.org/linux/man-pages/man7/tcp.7.html).
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}

#: MariaDB says since this version of which type a column really is (JSON, UUID, INET6).
_EXTENDED_SINCE = (10, 5, 2)
#: MariaDB before 11 puts this in front of its version, for old clients' sake.
_DISGUISE = "5.5.5-"


#: Rows as a server sends them: each value is its text, None is NULL.
Texts = list[tuple[bytes | None, ...]]


class Connection(pymysql.connections.Connection):  # type: ignore[misc]  # PyMySQL has no types
    """A connection that never sends a file, whatever the server asks for.

    PyMySQL opens whatever path the server names (https://dev.mysql.com/doc/refman/8.4/en/load-data-local-security.html)
    once ``local_infile`` was agreed on; here the agreement only serves ``start_load``.
    """

    _handshaking = False
    _extended = False
    _server: tuple[object, ...] = ()

    def __init__(self, *arguments: Any, password: str | bytes = "", **options: Any) -> None:
        # PyMySQL itself would encode it as Latin-1.
        encoded = password.encode() if isinstance(password, str) else password
        try:
            super().__init__(*arguments, password=encoded, **options)
        except OSError as error:  # of a file of TLS, which the config was checked with
            raise err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "TLS cannot be set up") from error

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
    def server(self) -> tuple[object, ...]:
        """What tells this server from any other; asked for once. Behind one address there may be several."""
        if not self._server:
            self._server = self.rows("SELECT @@hostname, @@port, @@server_id")[0]
        return self._server

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

    def answers(self, sql: str | bytes) -> list[Texts]:
        """Run one or more statements of jobber's own, sent together; return the rows of each as text.

        Without a look at what the columns are, which costs more than small rows do: the caller knows. Statements may be
        several where the connection was made with ``CLIENT.MULTI_STATEMENTS``
        (https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase_sp.html).

        Raises:
            err.Error: of the first statement that failed, after which none was run.
        """
        self._execute_command(COMMAND.COM_QUERY, sql)
        self._sock.settimeout(self._read_timeout)
        found: list[Texts] = []
        more = True
        while more:
            packet, rows = protocol.Packet(self._piece(), self.encoding), []
            packet.check_error()
            if packet.is_ok_packet():
                status = OKPacketWrapper(packet).server_status
            else:
                width = packet.read_length_encoded_integer()
                for _ in range(width + 1):  # the definitions, and what ends them
                    self._piece()
                while not protocol.ends_rows(piece := self._piece()):
                    rows.append(protocol.row_of(piece))
                status = self._status(piece)
            self.server_status, more = status, bool(status & SERVER_MORE_RESULTS_EXISTS)
            found.append(rows)
        return found

    def _piece(self) -> bytes:
        """Return the next packet without its head."""
        size = int.from_bytes(self._exactly(4)[:3], "little")
        data = self._exactly(size)
        return data + self._piece() if size == MAX_PACKET_LEN else data

    def _exactly(self, size: int) -> bytes:
        # Not PyMySQL's own, which sets the time limit of the socket anew each time.
        try:
            data: bytes = self._rfile.read(size)
        except (OSError, ValueError, AttributeError) as error:  # as of ``receive``
            self._force_close()
            raise _lost() from error
        except BaseException:
            self._force_close()  # nobody knows what is still to come
            raise
        if len(data) < size:
            self._force_close()
            raise _lost()
        return data

    def _status(self, piece: bytes) -> int:
        """Return the status of the server from the packet that ends rows. Raises the error that it holds instead."""
        if piece[0] == protocol.ERROR:
            protocol.Packet(piece, self.encoding).raise_for_error()
        return int.from_bytes(piece[3:5], "little")

    def send(self, command: int, payload: bytes) -> None:
        """Send a command of the protocol (``pymysql.constants.COMMAND``); its answer is read with ``packet``."""
        self._execute_command(command, payload)

    def packet(self) -> MysqlPacket:
        """Read the next packet of an answer. Raises the error that the server reports."""
        return self._read_packet()

    def definitions(self, columns: int) -> list[protocol.ColumnPacket]:
        """Read the definitions of so many columns, and what ends them."""
        found = [self._read_packet(FieldDescriptorPacket) for _ in range(columns)]
        if columns and not self._read_packet().is_eof_packet():
            raise _out_of_step()
        return found

    def receive(self, most: int) -> bytes:
        """Return what the server has sent, waiting for at least one byte: the rows of an answer, packets and all.

        Parameters:
            most: bytes.

        Raises:
            err.OperationalError: the connection is gone.
        """
        try:
            data: bytes = self._rfile.read1(most)
        # AttributeError and ValueError: of a reader that was closed.
        except (OSError, ValueError, AttributeError) as error:
            raise _lost() from error
        if not data:
            raise _lost()
        return data

    def receive_all(self, size: int) -> bytes:
        """Return the next ``size`` bytes that the server sends (see ``receive``)."""
        data: bytes = self._read_bytes(size)
        return data

    def wait_at_most(self, seconds: float | None) -> None:
        """Say how long the server may be silent from now on; None is as long as the connection stands."""
        self._read_timeout = self._current_timeout = seconds
        if self.sock is not None:
            with suppress(OSError):  # it is broken: whoever reads next learns that
                self.sock.settimeout(seconds)

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
            raise _out_of_step()

    def abort(self) -> None:
        """Break the connection off at once, from any thread; whoever waits for the server learns that it is gone."""
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                # Not that of ssl.SSLSocket: it takes the cipher away from whoever reads, who would read on without.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    # -- what PyMySQL calls -------------------------------------------------------------------------------------------

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect, and set what only an open socket can be set to."""
        # The server learns of it from the flags already. PyMySQL refuses from the first statement on.
        self._local_infile = False
        super().connect(sock)
        if self.sock is not None and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in _KEEPALIVE.items():
                if hasattr(socket, option):  # not on every system
                    self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def autocommit(self, value: bool) -> None:
        """Set the mode, whatever the server says that it is: a greeting of MySQL's does not know of a global one."""
        self.autocommit_mode = bool(value)
        self._send_autocommit_mode()

    def _get_server_information(self) -> None:
        try:
            super()._get_server_information()
        except (err.Error, LookupError, ValueError, struct.error) as error:
            if getattr(error, "sqlstate", None) is not None or number(error) not in (0, CR.CR_SERVER_LOST):
                raise  # a server's own refusal
            silent = err.OperationalError(CR.CR_CONN_HOST_ERROR, "no greeting")
            silent.original_exception = OSError(errno.EPROTO, "it does not answer as a MySQL server does")
            raise silent from error
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

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        try:
            return super()._read_query_result(unbuffered)
        except RuntimeError as error:  # of a server that asks for a file
            self._force_close()
            raise _out_of_step() from error

    def _read_packet(self, packet_type: type[Any] = MysqlPacket) -> Any:
        return super()._read_packet(protocol.packet_type(packet_type, extended=self._extended))


def _lost() -> err.OperationalError:
    return err.OperationalError(CR.CR_SERVER_LOST, "the server ended the connection")


def _out_of_step() -> err.OperationalError:
    return err.OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the server sent something else than was asked for")


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
    flags = options.get("client_flag", 0) | CLIENT.FOUND_ROWS
    connection = Connection(
        **{
            **options,
            # A statement is one statement, whatever the URL says.
            "client_flag": flags & ~CLIENT.MULTI_STATEMENTS,
            # PyMySQL's own limit ends when the socket is open; a server that then says nothing is no server.
            "read_timeout": connect_timeout,
            "charset": "utf8mb4",
            "use_unicode": True,
            "autocommit": True,
            "connect_timeout": max(1, round(connect_timeout)),
            "local_infile": local_infile,
            "program_name": "jobber",
        }
    )
    connection.wait_at_most(options.get("read_timeout", read_timeout))
    return connection
