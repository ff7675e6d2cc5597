"""The proxy that stands in for a broken network does what the tests that use it rely on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
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


def test_a_delay_is_one_of_the_way_and_not_of_each_piece() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo_all, args=[server], daemon=True).start()
        with Proxy(server.getsockname()[1], delay=0.1) as proxy, connected(proxy) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began, answer = time.monotonic(), b""
            for _ in range(5):
                client.sendall(b"a")
                time.sleep(0.01)
            while len(answer) < 5:
                answer += client.recv(100)
            took = time.monotonic() - began
        server.shutdown(socket.SHUT_RDWR)
    assert 0.2 <= took < 0.5


def test_round_trips_are_counted(proxy: Proxy) -> None:
    with connected(proxy) as client:
        for said in (b"a", b"b", b"c"):
            client.sendall(said)
            assert client.recv(100) == said
    assert proxy.round_trips == 3
