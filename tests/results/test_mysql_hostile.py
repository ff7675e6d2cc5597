"""A server that asks for files: not a byte of one is ever sent to it.

https://dev.mysql.com/doc/refman/8.4/en/load-data-local-security.html
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobber.columns import Row
from jobber.config import ResultsSettings
from jobber.errors import AttemptError
from jobber.results import open_results
from jobber.results.base import ResultsBackend
from tests.results.conftest import BULKY, ONE, MysqlLab, read, target, write

#: Open a backend through a proxy that asks for a file once it sees this.
Through = Callable[[bytes], tuple["Tamperer", ResultsBackend]]

SECRET = b"hunter2 is the password of everything"


class Tamperer:
    """A proxy before a real server, which answers the first statement with ``needle`` in it by asking for a file."""

    def __init__(self, server_port: int, needle: bytes, path: str) -> None:
        self.needle = needle
        self.path = path
        #: What clients sent after they were asked.
        self.sent = b""
        self.asked = False
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for opened in self._open:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            asked = False
            while data := client.recv(65536):
                if asked:
                    self.sent += data
                elif self.needle in data:
                    asked = self.asked = True
                    wanted = b"\xfb" + self.path.encode()
                    client.sendall(len(wanted).to_bytes(3, "little") + b"\x01" + wanted)
                else:
                    server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return str(path)


@pytest.fixture
def open_through(my: MysqlLab, secret: str) -> Iterator[Through]:
    opened: list[tuple[Tamperer, ResultsBackend]] = []

    def through(needle: bytes) -> tuple[Tamperer, ResultsBackend]:
        tamperer = Tamperer(my.server.port, needle, secret)
        url = f"mysql+pymysql://root@127.0.0.1:{tamperer.port}/{my.database}?init_command=DO 42&ssl_disabled=true"
        opened.append((tamperer, open_results(ResultsSettings(name="main", url=url, engine="mysql"))))
        return opened[-1]

    yield through
    for tamperer, backend in opened:
        backend.close()
        tamperer.close()


@pytest.mark.parametrize("rows", [ONE, BULKY], ids=["small", "bulky"])
@pytest.mark.parametrize(
    "needle",
    [b"LOAD DATA", b"DO 42", b"SET SESSION", b"GET_LOCK", b"CREATE TABLE", b"START TRANSACTION", b"RENAME"],
)
def test_a_server_that_asks_for_a_file_gets_nothing_and_the_attempt_fails(
    open_through: Through, needle: bytes, rows: list[Row]
) -> None:
    tamperer, backend = open_through(needle)
    with pytest.raises(AttemptError) as caught:
        write(backend, target(), rows)
    assert tamperer.asked
    assert SECRET not in tamperer.sent
    # No more than a goodbye on that connection.
    assert len(tamperer.sent) <= 5
    assert "secret" not in caught.value.message


def test_a_server_that_asks_for_a_file_while_rows_are_read_gets_nothing(my: MysqlLab, open_through: Through) -> None:
    write(my.backend, target(), ONE)
    tamperer, backend = open_through(b"SELECT `id`")
    with pytest.raises(AttemptError):
        read(backend)
    assert tamperer.asked
    assert len(tamperer.sent) <= 5
