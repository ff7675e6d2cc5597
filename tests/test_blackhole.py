"""The proxy that stands in for a broken network does what the tests that use it rely on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.blackhole import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that sends back whatever it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo_all, args=[server], daemon=True).start()
        with Proxy(server.getsockname()[1]) as proxy:
            yield proxy
        server.shutdown(socket.SHUT_RDWR)


def _echo_all(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # shut down
        while True:
            threading.Thread(target=_echo, args=[server.accept()[0]], daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client:
        try:
            while data := client.recv(100):
                client.sendall(data)
        except ConnectionResetError:
            pass


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_it_passes_everything_on_and_the_end_too(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_a_black_hole_takes_everything_and_says_nothing_until_the_network_is_back(proxy: Proxy) -> None:
    with connected(proxy) as old:
        old.sendall(b"a")
        assert old.recv(100) == b"a"
        proxy.swallow()
        with connected(proxy) as new:
            for client in (old, new):
                client.sendall(b"b")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(100)
            proxy.forward()
            for client in (old, new):
                client.settimeout(5)
                assert client.recv(100) == b"b"


@pytest.mark.parametrize("swallowing", [False, True])
def test_what_is_dropped_is_reset_and_the_next_one_is_welcome(proxy: Proxy, swallowing: bool) -> None:
    with connected(proxy) as client:
        client.sendall(b"a")
        assert client.recv(100) == b"a"
        if swallowing:
            proxy.swallow()
            client.sendall(b"b")
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    proxy.forward()
    with connected(proxy) as client:
        client.sendall(b"c")
        assert client.recv(100) == b"c"


def test_what_is_refused_is_reset_and_the_next_one_refused(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"a")
        assert client.recv(100) == b"a"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.forward()
    connected(proxy).close()
