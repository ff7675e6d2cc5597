"""One connection to ClickHouse while a job holds it: the steps of a query, each of them cancellable.

What waits, waits in the socket. Another thread ends it: with the protocol's Cancel, which the server looks for while a
query runs, then with ``KILL QUERY`` over a second connection, at last by breaking this one off. That alone would not
do: a server that has no rows to send does not notice. A session that this happened to is closed.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.protocol import ServerPacketTypes

from jobber.cancellation import Cancellation
from jobber.errors import SourceUnavailable
from jobber.sources.clickhouse.failures import BROKEN, too_long, translate

# The driver writes addresses and tracebacks to it, of errors that it raises besides.
logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)

#: Seconds after which the next way to end a query is tried; and for the end of what is left of one.
_CANCEL_PATIENCE, _KILL_PATIENCE, _DREGS_PATIENCE = 0.3, 0.9, 1.0
#: Rows that the server puts into one block: the driver decodes a block at a time.
_BLOCK_ROWS = 8192
#: What a profile may have set to ``break``: to give the first part of a result as if it were all.
_OVERFLOWS = ("timeout", "read", "group_by", "sort", "result", "set", "join", "distinct", "transfer")


class Session:
    """A connection. One thread uses it; only what ends a query comes from others.

    Parameters:
        client: connected; nothing is under way on it.
        source: name of the database, for messages.
        another: opens a second connection to the same server.
    """

    def __init__(self, client: Client, source: str, another: Callable[[], Client]) -> None:
        # A user may be read-only already: then to set the same again is refused, and under 1 to set anything at all.
        found = client.execute("SELECT value FROM system.settings WHERE name = 'readonly'")
        self._readonly = int(found[0][0]) if found else 0
        self.version: tuple[int, ...] = client.connection.server_info.version_tuple()
        self._client = client
        self._connection: Any = client.connection
        self._source = source
        self._another = another
        self._query_id = ""
        self._running = False
        self._spoilt = False
        self._broken_off = False
        self._over = threading.Event()
        self._timeout, self._deadline = 0.0, math.inf
        self.idle_since = 0.0

    # -- one query ------------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, cancellation: Cancellation) -> Iterator[None]:
        """While the body waits for the server, a pulled ``cancellation`` ends it; errors become jobber's."""
        self._over = threading.Event()
        try:
            with cancellation.interruptible(self._interrupt):
                try:
                    yield
                finally:
                    self._over.set()
        except BROKEN as error:
            self._spoilt = True
            if isinstance(error, TimeoutError) and time.monotonic() >= self._deadline:
                raise too_long(self._source, self._timeout) from error
            raise translate(error, self._source, timeout=self._timeout) from error

    def begin(self, cancellation: Cancellation) -> None:
        """Find out whether the server is still there; SourceUnavailable if it is not."""
        if not self.idle_since:
            return
        with self.guard(cancellation):
            if not self._connection.ping():
                raise SourceUnavailable(f"the connection to the database {self._source} broke")

    def limit(self, seconds: float) -> None:
        """Begin to count the time of what runs from here on; 0 is no limit.

        The server is told the same limit, but looks at it between blocks only, and takes whole seconds.
        """
        self._timeout = seconds
        self._deadline = time.monotonic() + seconds if seconds else math.inf

    def start(self, sql: str) -> None:
        """Send a query."""
        self._query_id = f"jobber-{uuid.uuid4()}"
        self._client.make_query_settings(self._settings())
        self._running = True
        self._wait_for_server()
        self._connection.send_query(sql, query_id=self._query_id)
        self._connection.send_external_tables(None)

    def receive(self) -> Any | None:
        """Return the next block of the query, the first of which has no rows; None after the last."""
        while True:
            self._wait_for_server()
            packet = self._connection.receive_packet()
            if packet.type == ServerPacketTypes.DATA:
                return packet.block
            if packet.type in {ServerPacketTypes.EXCEPTION, ServerPacketTypes.END_OF_STREAM}:
                self._running = False
                if packet.exception is not None:
                    raise packet.exception
                return None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a short answer."""
        self.start(sql)
        found: list[tuple[Any, ...]] = []
        while (block := self.receive()) is not None:
            found += block.get_rows()
        return found

    def _settings(self) -> Mapping[str, Any]:
        if self._readonly == 1:
            return {}
        settings: dict[str, Any] = {f"{what}_overflow_mode": "throw" for what in _OVERFLOWS}
        settings["max_block_size"] = _BLOCK_ROWS
        if self._readonly == 0:
            settings["readonly"] = 2  # reads, and settings of the query's own
        if self._timeout:
            settings["max_execution_time"] = math.ceil(self._timeout)
        return settings

    def _wait_for_server(self) -> None:
        """Let the socket wait until the deadline and no longer."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.socket.settimeout(None if left == math.inf else left)

    # -- its end --------------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """Say whether another job may have the session."""
        self.limit(0)
        self.idle_since = time.monotonic()
        return not (self._running or self._spoilt)

    def end(self) -> None:
        """Make sure that no query runs on, and close the connection."""
        if self._running and not self._broken_off and not self._drained():
            self._kill()
        with suppress(*BROKEN):
            self._client.disconnect()

    def _drained(self) -> bool:
        """Cancel the query and throw away what it still sends; False if it does not end."""
        self._deadline = time.monotonic() + _DREGS_PATIENCE
        with suppress(*BROKEN):
            self._connection.send_cancel()
            while self.receive() is not None:
                pass
        return not self._running

    def _interrupt(self) -> None:
        self._spoilt = True
        threading.Thread(target=self._stop, args=[self._over], name="jobber-interrupt", daemon=True).start()

    def _stop(self, over: threading.Event) -> None:
        # TLS takes no writing beside reading.
        steps = [] if self._connection.secure_socket else [(self._connection.send_cancel, _CANCEL_PATIENCE)]
        # The second connection may hang as the first does.
        kill = threading.Thread(target=self._kill, name="jobber-kill", daemon=True)
        steps += [(kill.start, _KILL_PATIENCE), (self._break_off, 0)]
        for step, patience in steps:
            with suppress(Exception):  # the next step is for that
                step()
            if over.wait(patience):
                return

    def _kill(self) -> None:
        with suppress(*BROKEN):
            client = self._another()
            try:
                client.execute(f"KILL QUERY WHERE query_id = '{self._query_id}' ASYNC")
            finally:
                client.disconnect()

    def _break_off(self) -> None:
        self._broken_off = True
        self._connection.socket.shutdown(socket.SHUT_RDWR)
