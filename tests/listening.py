"""Who hears of jobs: a consumer of the exchange as anybody would write one with kombu, and a receiver of webhooks."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kombu


@dataclass(frozen=True)
class Message:
    """What the broker brought."""

    id: str
    key: str
    body: dict[str, Any]

    @property
    def job_id(self) -> str:
        return str(self.body["job"]["job_id"])

    @property
    def state(self) -> str:
        return str(self.body["job"]["state"])


class Consumer:
    """A durable queue bound to the exchange, and a thread that empties it, however often the broker goes away.

    Parameters:
        keys: routing keys that are bound.
    """

    def __init__(self, url: str, name: str, keys: str = "#") -> None:
        self._url = url
        self._queue = kombu.Queue(name, kombu.Exchange("jobber.events", "topic", durable=True), keys, durable=True)
        self._messages: list[Message] = []
        self._over = threading.Event()
        with kombu.Connection(url) as connection:
            self._queue(connection.default_channel).declare()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def messages(self) -> list[Message]:
        """Return what came, without what came before: doubles are known by their ID."""
        return list({message.id: message for message in reversed(self._messages)}.values())[::-1]

    def states(self) -> dict[str, list[str]]:
        """Return the states that each job was said to be in, in order."""
        found: dict[str, list[str]] = defaultdict(list)
        for message in self.messages():
            if "job" in message.body:
                found[message.job_id].append(message.state)
        return found

    def close(self) -> None:
        """Stop; the queue stays."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with (
                    kombu.Connection(self._url) as connection,
                    connection.Consumer(self._queue, callbacks=[self._take]),
                ):
                    while not self._over.is_set():
                        try:
                            connection.drain_events(timeout=0.2)
                        except TimeoutError:
                            continue
            except Exception:  # noqa: BLE001  # the broker is away
                time.sleep(0.2)

    def _take(self, body: Any, message: Any) -> None:
        key = message.delivery_info["routing_key"]
        self._messages.append(Message(message.properties["message_id"], key, body))
        message.ack()


@dataclass(frozen=True)
class Call:
    """A request that a receiver of webhooks got."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server that answers each path as the test says, by default 204."""

    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.calls.append(Call(time.time(), self.path, headers, body))
                receiver.answers.get(self.path, status(204))(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def to(self, path: str) -> list[Call]:
        """Return the calls of a path."""
        return [call for call in self.calls if call.path == path]

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return what answers with a status."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def in_turn(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return what answers with each of these, one after another, and then as the last."""
    left = list(answers)

    def answer(request: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer
