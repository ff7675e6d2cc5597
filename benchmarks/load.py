"""A load generator that costs little: requests are bytes made before, connections stay open, its process is its own."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_own = multiprocessing.get_context("spawn")


def post(path: str, body: Any) -> bytes:
    """Return a request."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def get(path: str) -> bytes:
    """Return a request."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


class Line:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = bytearray()
        self._whole = 0  # bytes of the answer, 0 while its head is not there

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Take what has arrived; return status and body if that is the whole answer."""
        some = self.socket.recv(1 << 18)
        if not some:
            raise ConnectionError("the server closed the connection")
        self._got += some
        if not self._whole and (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._got[:end]).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            self._whole, self._body = end + 4 + int(length), end + 4
        if not self._whole or len(self._got) < self._whole:
            return None
        status, body = int(self._got[9:12]), bytes(self._got[self._body :])
        self._got.clear()
        self._whole = 0
        return status, body

    def ask(self, request: bytes) -> bytes:
        """Return the body of the answer; raise if it is no success."""
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        status, body = answer
        if status != 200:
            raise RuntimeError(f"{status}: {body[:500].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close it."""
        self.socket.close()


@dataclass(slots=True)
class Answers:
    """What came back.

    Parameters:
        seconds: between the first and the last moment that count.
        good: answers of status 200 in them.
        others: those of other statuses, by status, and one of them.
    """

    seconds: float
    good: int
    others: Counter[int] = field(default_factory=Counter)
    example: str = ""

    @property
    def rate(self) -> float:
        """Good answers a second; raises if there were others."""
        if self.others or not self.good:
            raise RuntimeError(f"{self.good} accepted, other answers: {dict(self.others)} {self.example}")
        return self.good / self.seconds


def _drive(port: int, requests: Sequence[bytes], connections: int, warm: float, seconds: float, hold: Any) -> Answers:
    """Keep one request under way on each connection; what comes back in the first ``warm`` seconds does not count."""
    lines = [Line(port) for _ in range(connections)]
    chooser = selectors.DefaultSelector()
    endless = itertools.cycle(requests)
    for line in lines:
        chooser.register(line.socket, selectors.EVENT_READ, line)
        line.send(next(endless))
    found = Answers(seconds, 0)
    begin = time.perf_counter() + warm
    end = begin + seconds
    idle: list[Line] = []
    while (now := time.perf_counter()) < end:
        if idle and not hold.is_set():
            for line in idle:
                line.send(next(endless))
            idle.clear()
        for key, _ in chooser.select(0.005 if idle else 0.2):
            if (answer := key.data.receive()) is None:
                continue
            if answer[0] != 200:
                found.others[answer[0]] += 1
                found.example = answer[1][:300].decode(errors="replace")
            elif now >= begin:
                found.good += 1
            if hold is not None and hold.is_set():
                idle.append(key.data)
            else:
                key.data.send(next(endless))
    for line in lines:
        line.close()
    return found


def _child(pipe: Any, *arguments: Any) -> None:
    pipe.send(_drive(*arguments))


class Driver:
    """A running load generator; ``hold`` keeps it from sending, ``answers`` waits for its end."""

    def __init__(
        self, port: int, requests: Sequence[bytes], *, connections: int, seconds: float, warm: float = 0.5
    ) -> None:
        self.hold = _own.Event()
        self._pipe, other = _own.Pipe()
        self._process = _own.Process(
            target=_child, args=(other, port, requests, connections, warm, seconds, self.hold), daemon=True
        )
        self._process.start()
        other.close()

    def answers(self) -> Answers:
        """Wait for the end and return what came back."""
        try:
            found: Answers = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the load generator failed; see above") from None
        finally:
            self.close()
        return found

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


@contextmanager
def driven(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Iterator[Driver]:
    """Send requests for at most ``seconds`` while the body runs."""
    driver = Driver(port, requests, connections=connections, seconds=seconds, warm=0)
    try:
        yield driver
    finally:
        driver.close()
