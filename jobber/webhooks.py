"""Calls to the ``callback_url`` of jobs and groups that have ended, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

What is owed stands in the state database (``store.webhooks``). Every worker process makes calls; each takes those that
it makes for a while, so that two make the same one only where one of them died over it, or could not write down that it
was made: receivers know it by its ``webhook-id``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import jobber
from jobber import notifications
from jobber.aside import call_aside
from jobber.config import Settings
from jobber.errors import StateUnavailable
from jobber.store import Store
from jobber.store.events import Level
from jobber.store.webhooks import Call, host_of

log = logging.getLogger(__name__)

#: Seconds between a call that failed and the next, each stretched by up to a quarter: 28 to 35 hours in all.
PAUSES = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
#: Seconds that a call may take, from the name server to the status.
TIMEOUT = 15.0
#: Seconds for which a call is taken: nobody else makes it before.
_LEASE = 60.0
#: Seconds between two looks for calls that are due.
_TICK = 0.5
#: Seconds that calls are owed for where there is no secret to sign them with, and between two looks for those.
KEYLESS, _KEYLESS_TICK = 172_800.0, 60.0
#: Seconds after which the log says that calls wait for a secret, and how often.
_LATE, _REMINDER = 60.0, 3600.0
#: Calls that one process makes at a time, and those of them that may go to one host: one that hangs holds up no other.
_AT_ONCE, _TO_ONE_HOST = 8, 3


def signature(key: bytes, call_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature``."""
    signed = hmac.digest(key, f"{call_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a call.

    Parameters:
        problem: why it failed, for people; empty if it did not.
        final: whether to try again is pointless.
        pause: seconds that the receiver asks to be left alone, 0 if it does not say.
    """

    problem: str = ""
    final: bool = False
    pause: float = 0.0


class Caller:
    """Makes the calls that are due. Every worker process runs one.

    Parameters:
        pauses: seconds after each call that failed; with one more the call is given up.
        keyless: seconds after which a call is given up that nobody has made and that cannot be signed.
    """

    def __init__(
        self, *, settings: Settings, store: Store, pauses: Sequence[float] = PAUSES, keyless: float = KEYLESS
    ) -> None:
        self._settings = settings
        self._store = store
        self._pauses = pauses
        self._keyless = keyless
        self._reminded = float("-inf")
        self._key = settings.webhooks.key
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()  # calls under way by host
        self._free = threading.Event()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook")

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()
        self._free.set()

    def run(self) -> None:
        """Make calls, until stopped; in a thread of its own."""
        if self._key:
            while not self._over.is_set():
                self._free.clear()
                self._work(self._take)
                self._free.wait(_TICK)
        while not self._over.wait(_KEYLESS_TICK):
            self._work(self._give_up)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _work(self, step: Callable[[], bool]) -> None:
        """Do a step again and again, while there is more to do."""
        try:
            while not self._over.is_set() and step():
                continue
        except StateUnavailable as error:
            log.log(logging.WARNING if self._key else logging.DEBUG, "webhooks wait: %s", error)
        except Exception:
            log.exception("the webhooks stumbled; they go on")

    def _give_up(self) -> bool:
        """Give calls up that nobody could sign for long; False if there are no more of them.

        Until then an instance with a secret may make them: another one, or this one once it is configured again.
        """
        calls = self._store.calls.take(_AT_ONCE, lease=_LEASE, overdue=self._keyless)
        for call in calls:
            self._settle(call, Reply("there is no [webhooks] secret to sign it with", final=True))
        reminds = not calls and time.monotonic() - self._reminded >= _REMINDER
        if reminds and (waiting := self._store.calls.overdue(_LATE)):
            self._reminded = time.monotonic()
            what = "webhooks that wait for a [webhooks] secret to sign them with: %d; each is given up after %g days"
            log.warning(what, waiting, self._keyless / 86_400)
        return bool(calls)

    def _take(self) -> bool:
        """Take the next call, for a thread that is free; False if there is none of either."""
        with self._lock:
            full = [host for host, count in self._busy.items() if count >= _TO_ONE_HOST]
            if self._busy.total() >= _AT_ONCE:
                return False
        if not self._store.calls.due():
            return False
        calls = self._store.calls.take(1, lease=_LEASE, without=full)
        for call in calls:
            with self._lock:
                self._busy[call.host] += 1
            self._threads.submit(self._make, call)
        return bool(calls)

    def _make(self, call: Call) -> None:
        """Make a call, and write down what came of it."""
        try:
            self._settle(call, self._reply(call))
        except StateUnavailable as error:
            log.warning("the webhook of run %d to %s is made once more: %s", call.run, call.host, error)
        except Exception:
            log.exception("the webhook of run %d to %s stumbled", call.run, call.host)
            with suppress(StateUnavailable):  # it counts as a try, or it would come again every minute for ever
                self._settle(call, Reply("jobber could not make the call; its log says why"))
        finally:
            with self._lock:
                self._busy[call.host] -= 1
                if not self._busy[call.host]:
                    del self._busy[call.host]
            self._free.set()

    def _reply(self, call: Call) -> Reply:
        if call.job is not None:
            message = notifications.of_job(self._settings, call.event, call.at, call.job)
        elif call.group is not None:
            message = notifications.of_group(self._settings, call.event, call.at, call.group)
        else:
            return Reply("what it would tell of was purged, or is older than the history", final=True)
        # The setting may have changed since the URL was accepted.
        if refusal := self._settings.webhooks.refusal(host_of(call.url)):
            return Reply(refusal, final=True)
        body, call_id, timestamp = notifications.encoded(message), f"msg_{call.run}_{call.id}", int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": f"jobber/{jobber.__version__}",
            "webhook-id": call_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, call_id, timestamp, body),
        }
        return post(call.url, body, headers)

    def _settle(self, call: Call, reply: Reply) -> None:
        if not reply.problem:
            self._store.calls.made(call)
        elif not reply.final and call.tries <= len(self._pauses):
            pause = max(self._pauses[call.tries - 1], reply.pause) * random.uniform(1.0, 1.25)  # noqa: S311
            log.info("webhook of run %d to %s: %s; again in %.0f s", call.run, call.host, reply.problem, pause)
            self._store.calls.failed(call, reply.problem, pause=pause)
        else:
            what = f"the call to {call.host} was given up (try {call.tries}): {reply.problem}"
            log.warning("webhook of run %d: %s", call.run, what)
            self._store.events.add(call.run, "webhook", what, Level.ERROR)
            self._store.calls.made(call)


def post(url: str, body: bytes, headers: dict[str, str], *, timeout: float = TIMEOUT) -> Reply:
    """Send a body to a URL; follow nothing, read no more than the status and the headers.

    Parameters:
        timeout: seconds for all of it.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    # The port always: without one, http.client takes the end of an IPv6 address for it.
    connection = (
        http.client.HTTPSConnection(host, parts.port or http.client.HTTPS_PORT, context=tls)
        if tls is not None
        else http.client.HTTPConnection(host, parts.port or http.client.HTTP_PORT)
    )
    deadline, late, watch = time.monotonic() + timeout, threading.Event(), None
    try:
        connection.sock = sock = _connected(host, connection.port, deadline)
        sock.settimeout(_left(deadline))
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            connection.sock = sock
        # The socket's own limit is for each packet: one that comes now and then would never end.
        watch = threading.Timer(_left(deadline), _cut, [sock, late])
        watch.daemon = True
        watch.start()
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
    except TimeoutError:
        return Reply(f"no answer within {timeout:g} s")
    except (OSError, http.client.HTTPException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return Reply(f"no answer within {timeout:g} s" if late.is_set() else why)
    except UnicodeError:
        return Reply("no name server could know such a host")  # an empty label, or one that is too long
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()
    if late.is_set():  # which looks like the end of its headers
        return Reply(f"no answer within {timeout:g} s")
    if response.status < HTTPStatus.OK or response.status >= HTTPStatus.MULTIPLE_CHOICES:
        pause = _asked(response.getheader("retry-after", ""))
        return Reply(f"status {response.status}", final=response.status == HTTPStatus.GONE, pause=pause)
    return Reply()


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that answers; each gets its share of the time that is left."""
    *others, last = call_aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), _left(deadline))
    for number, (*kind, _, address) in enumerate(others):
        with suppress(OSError):
            return _socket(kind, address, _left(deadline) / (len(others) + 1 - number))
    *kind, _, address = last
    return _socket(kind, address, _left(deadline))


def _socket(kind: Sequence[int], address: Any, limit: float) -> socket.socket:
    """Return a socket that is connected to an address, within so many seconds."""
    sock = socket.socket(*kind)
    try:
        sock.settimeout(limit)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    """Return the seconds until a deadline; a moment where it is over, for 0 would mean something else to a socket."""
    return max(0.001, deadline - time.monotonic())


def _asked(said: str) -> float:
    """Return the pause that a ``Retry-After`` asks for, in seconds or until a time: our own longest at most.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if said.isascii() and said.isdigit():
        pause = float(said)
    else:
        try:
            then = parsedate_to_datetime(said)
        except (ValueError, OverflowError):
            return 0.0
        pause = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time()
    return min(max(pause, 0.0), PAUSES[-1])


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that takes too long, whatever its thread waits for, and say so."""
    late.set()
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of SSLSocket would take the TLS from under its thread
