"""A proxy for TCP that can stand in for a network: it passes, refuses, drops, or turns into a black hole."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from tests.servers import free_port

#: Closing a socket with this sends a reset at once, and nothing of what was waiting.
_RESET = struct.pack("ii", 1, 0)
_PIECE = 64 * 1024


class Proxy:
    """Stands between clients and a server on loopback. It passes everything on until told otherwise.

    Parameters:
        port: of the server.
        delay: seconds that everything takes, each way.
    """

    def __init__(self, port: int, *, delay: float = 0) -> None:
        self._server = port
        self.delay = delay
        #: How often a client has spoken since it last heard something, over all connections.
        self.round_trips = 0
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

    def pass_on(self, since: float, *, asks: bool) -> None:
        """Wait until what came at ``since`` may go on.

        Parameters:
            asks: whether it is the first that a client says since it last heard something.
        """
        self._open.wait()
        if self.delay:
            time.sleep(max(0, since + self.delay - time.monotonic()))
        with self._lock:
            self.round_trips += asks

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
                for end in (client, server):  # pieces wait for nobody to have heard of the ones before
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair = _Pair(client, server, self)
                with self._lock:
                    if self._listener is not listener:  # refused meanwhile
                        pair.reset()
                        return
                    self._pairs = [other for other in self._pairs if other.alive] + [pair]
                pair.start()


class _Pair:
    """One connection, in two halves."""

    def __init__(self, client: socket.socket, server: socket.socket, proxy: Proxy) -> None:
        self._ends = (client, server)
        self._reading = {end: threading.Lock() for end in self._ends}
        self._proxy = proxy
        self._asked = False
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
        """End it at both ends, without a goodbye. Whoever looks after this sees it."""
        self._is_reset = True
        for end in self._ends:
            _reset(end, self._reading[end])

    def _pump(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            pieces = _now(here, self._reading[here])
            for came_at, data in _late(pieces) if self._proxy.delay else pieces:
                self._proxy.pass_on(came_at, asks=bool(data) and here is self._ends[0] and not self._asked)
                self._asked = here is self._ends[0]
                if data:
                    there.sendall(data)
                elif not self._is_reset:
                    there.shutdown(socket.SHUT_WR)
        if not self._halves.acquire(blocking=False):
            for end in self._ends:
                end.close()


_Pieces = Iterator[tuple[float, bytes]]


def _now(here: socket.socket, reading: threading.Lock) -> _Pieces:
    """Yield what comes from somewhere, and when it came; nothing at its end."""
    data = b"?"
    while data:
        with reading:
            data = here.recv(_PIECE)
        yield time.monotonic(), data


def _late(pieces: _Pieces) -> _Pieces:
    """Yield the same, but take all in at once: what comes while something else is on its way takes no longer."""
    came: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                came.put(piece)
        came.put((time.monotonic(), b""))

    threading.Thread(target=take, name="proxy", daemon=True).start()
    data = b"?"
    while data:
        came_at, data = came.get()
        yield came_at, data


def _reset(end: socket.socket, reading: threading.Lock | None = None) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)  # wakes who reads: the kernel closes nothing under a reader
    with reading or contextlib.nullcontext():
        end.close()
