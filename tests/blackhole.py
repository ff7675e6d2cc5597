"""A proxy for TCP that can stand in for a network: it passes, refuses, drops, or turns into a black hole."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from tests.servers import free_port

#: Closing a socket with this sends a reset at once, and nothing of what was waiting.
_RESET = struct.pack("ii", 1, 0)
_PIECE = 64 * 1024


class Proxy:
    """Stands between clients and a server on loopback. It passes everything on until told otherwise.

    Parameters:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self.port = free_port()
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._open = threading.Event()
        self._listener: socket.socket | None = None
        self.forward()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def forward(self) -> None:
        """Pass everything on, what was swallowed too: late, as a network does that comes back."""
        self._open.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
            threading.Thread(target=self._accept, args=[self._listener], name="proxy", daemon=True).start()

    def swallow(self) -> None:
        """Be a black hole: connections stand, new ones are taken, and no byte arrives at either end."""
        self._open.clear()

    def drop(self) -> None:
        """Reset every connection that there is, at both ends; new ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.reset()
        # Whoever waits at the hole finds its connection gone.

    def refuse(self) -> None:
        """Reset every connection, and take no new one."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # a close alone does not wake who accepts
            listener.close()
        self.drop()

    def close(self) -> None:
        """End it, and everything that goes through it."""
        self.refuse()
        self._open.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._server), 2)
                except OSError:
                    _reset(client)
                    continue
                server.settimeout(None)
                pair = _Pair(client, server, self._open)
                with self._lock:
                    if self._listener is not listener:  # refused meanwhile
                        pair.reset()
                        return
                    self._pairs = [other for other in self._pairs if other.alive] + [pair]
                pair.start()


class _Pair:
    """One connection, in two halves."""

    def __init__(self, client: socket.socket, server: socket.socket, is_open: threading.Event) -> None:
        self._ends = (client, server)
        self._is_open = is_open
        self._halves = threading.Semaphore(1)  # none is left for whoever is through last
        self._is_reset = False

    def start(self) -> None:
        """Begin to pass bytes on."""
        for ends in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pump, args=ends, name="proxy", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether anything may still go through it."""
        return any(end.fileno() >= 0 for end in self._ends)

    def reset(self) -> None:
        """End it at both ends, without a goodbye."""
        self._is_reset = True
        for end in self._ends:
            _reset(end)

    def _pump(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(_PIECE):
                self._is_open.wait()
                there.sendall(data)
            self._is_open.wait()
            if not self._is_reset:
                there.shutdown(socket.SHUT_WR)
        if not self._halves.acquire(blocking=False):
            for end in self._ends:
                end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)  # wakes who reads; else the close would wait for that
    end.close()
