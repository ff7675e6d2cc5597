"""One connection to PostgreSQL while a job holds it: the protocol's steps, each of them cancellable.

Everything that waits, waits here, in short sleeps that look whether the job was cancelled. The cancel request is sent
by the thread that waits for the query, and again until the query is gone: a request that reaches the server before
the query does is lost there. So no request can be on its way once the session is released.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import psycopg
from psycopg import Connection
from psycopg.abc import Transformer
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from jobber.cancellation import Cancellation
from jobber.columns import Row
from jobber.sources.base import DAWDLING
from jobber.sources.notices import Notices
from jobber.sources.postgresql.failures import ServerError, translate
from jobber.sources.postgresql.wire import CHUNK_BYTES, CopyOut, Description

#: Rows of a decoded batch: 500 are 15 % slower, 5,000 hold three times the memory for nothing.
BATCH_ROWS = 2000
#: Seconds: how long a wait goes without a look at the cancellation, and between two cancel requests.
_GLANCE, _REQUEST_AGAIN = 0.025, 0.2
#: Seconds that a cancelled query has to end before the connection is closed over it.
_PATIENCE = 1.5
#: libpq waits for nothing here; ``Session`` does.
_ASYNC = 1
#: A rollback takes every SET back, but not an advisory lock of the session.
_END = "ROLLBACK; SELECT pg_catalog.pg_advisory_unlock_all()"


class Session:
    """A connection with a transaction on it. One thread uses it; only the cancellation comes from others.

    Parameters:
        connection: in autocommit mode.
        source: name of the database.
        plain: whether the socket carries the protocol as it is, so that it can be spoken past libpq.
    """

    def __init__(self, connection: Connection[object], source: str, *, plain: bool) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._source = source
        self.plain = plain
        self._notices = Notices(source)
        connection.add_notice_handler(
            lambda said: self._notices.say(said.severity_nonlocalized or "", said.message_primary or "")
        )
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._interrupted = False
        self._copying = False  # by means of libpq
        self._copy_out: CopyOut | None = None  # past it, the last one if nothing was begun since
        self._given_up = False
        self._give_up_at: float | None = None  # if it has not answered by then
        self._end_by: float | None = None  # for a query that it was asked to cancel
        self._ask_again_at = 0.0
        self.idle_since = 0.0

    # -- one statement --------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, cancellation: Cancellation, timeout: float = 0) -> Iterator[None]:
        """While the body waits for the server, a pulled ``cancellation`` ends it; errors become jobber's."""
        try:
            with cancellation.interruptible(self._interrupt):
                yield
        except (psycopg.Error, ServerError) as error:
            raise translate(error, self._source, timeout=timeout) from error

    def _interrupt(self) -> None:
        self._interrupted = True

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """While the body runs, the server must have answered within ``seconds``; 0 waits for as long as it takes.

        For what takes a server no time: one that is silent then is out of reach, and no error may ever say so.
        """
        self._give_up_at = time.monotonic() + seconds if seconds else None
        yield
        self._give_up_at = None

    def script(self, text: str) -> None:
        """Run statements of jobber's own, without arguments, in one round trip."""
        self._copy_out = None
        self._pgconn.send_query(text.encode())
        self._finish(text)

    def prepare(self, text: str) -> PGresult:
        """Prepare a statement under no name and return its description; it is not run.

        The extended protocol takes one statement only, so nothing can stand behind it.
        """
        self._pgconn.send_prepare(b"", text.encode())
        self._finish(text)
        self._pgconn.send_describe_prepared(b"")
        return self._finish(text)

    def select(self, text: str, *values: bytes) -> list[tuple[str | None, ...]]:
        """Run a short query of jobber's own and return its rows as text."""
        self._pgconn.send_query_params(text.encode(), values)
        result = self._finish(text)
        return [
            tuple(
                None if (value := result.get_value(row, field)) is None else value.decode()
                for field in range(result.nfields)
            )
            for row in range(result.ntuples)
        ]

    # -- rows -----------------------------------------------------------------------------------------------------

    def start_rows(self, values: Sequence[bytes | None]) -> None:
        """Run the prepared statement; ``rows`` gives what it returns.

        The rows of one statement in chunks, not a cursor: one time limit counts for all of it, it is planned for all
        of its rows, works behind transaction pooling and takes EXPLAIN and SHOW too. TCP holds the server back.
        """
        self._pgconn.send_query_prepared(b"", list(values))
        try:
            self._pgconn.set_chunked_rows_mode(BATCH_ROWS)
        except psycopg.NotSupportedError:  # libpq before 17
            self._pgconn.set_single_row_mode()

    def rows(self, transformer: Transformer, text: str) -> list[Row] | None:
        """Return the next rows, None after the last."""
        batch: list[Row] = []
        while len(batch) < BATCH_ROWS:
            result = self._result()
            if result is None:
                return batch or None
            if result.status == ExecStatus.FATAL_ERROR:
                self._finish(text, result)
            if result.ntuples:
                transformer.set_pgresult(result)
                try:
                    batch += transformer.load_rows(0, result.ntuples, tuple)
                except ValueError as error:  # UnicodeDecodeError too
                    raise UndecodableResult(result) from error
        return batch

    def start_copy(self, text: str) -> None:
        """Run a ``COPY … TO STDOUT``; ``copy_chunk`` gives its rows. The transaction is over if that is refused."""
        if self.plain:
            self._copy_out = CopyOut(self._pgconn.socket, self._wait, self._notice)
            self._copy_out.start(text, _END)
            return
        # Not the simple protocol: that would take several statements.
        self._pgconn.send_query_params(text.encode(), None)
        result = self._result()
        if result is None or result.status != ExecStatus.COPY_OUT:
            try:
                self._finish(text, result)
            except ServerError:
                self.script(_END)
                raise
            raise psycopg.OperationalError("the server did not begin the COPY")
        self._copying = True

    def send_copy_ahead(self, begin: str, statement: str, text: str) -> bool:
        """Begin a transaction, and ask for the description of a statement and for the rows of a COPY at once.

        Returns when the transaction has begun; False, and nothing is sent, where libpq must carry it. ``copy_taken``
        follows.
        """
        if self.plain:
            self._copy_out = CopyOut(self._pgconn.socket, self._wait, self._notice)
            self._copy_out.send_ahead(begin, statement, text, _END)
        return self.plain

    def copy_taken(self, expected: Description) -> bool:
        """Say whether the statement is described as expected; ``copy_chunk`` gives the rows then."""
        return self._copy_out is not None and self._copy_out.taken(expected)

    def copy_chunk(self) -> tuple[bytes, int]:
        """Return the next rows and their number; nothing after the last."""
        if self._copy_out is not None:
            return self._copy_out.chunk()
        get, take_part = self._pgconn.get_copy_data, (parts := []).append  # type: ignore[var-annotated]
        size, began = 0, time.monotonic()
        while self._copying and size < CHUNK_BYTES:
            length, row = get(_ASYNC)  # the server sends one message per row
            if length > 0:
                take_part(row)
                size += length
            elif length == 0:
                if parts and time.monotonic() - began > DAWDLING:
                    break
                self._wait(select.POLLIN)
                self._pgconn.consume_input()
            else:
                self._copying = False
        return b"".join(parts), len(parts)

    def end_copy(self) -> int:
        """Read how the COPY ended and return the number of rows that the server counted."""
        if self._copy_out is not None:
            return self._copy_out.end()
        return self._finish("").command_tuples or 0

    def _notice(self, fields: Callable[[int], bytes | None]) -> None:
        severity, text = (
            (fields(which) or b"").decode("utf-8", "replace")
            for which in (DiagnosticField.SEVERITY_NONLOCALIZED, DiagnosticField.MESSAGE_PRIMARY)
        )
        self._notices.say(severity, text)

    # -- the end --------------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """End the transaction; False if the connection cannot serve another job and must be closed."""
        if not self._interrupted and self._copy_out is not None and self._copy_out.over:
            self.idle_since = time.monotonic()
            return self._copy_out.is_clean
        if (
            self._interrupted
            or self._copy_out is not None
            or self._pgconn.transaction_status
            not in {
                TransactionStatus.INTRANS,
                TransactionStatus.INERROR,
                TransactionStatus.IDLE,
            }
        ):
            return False
        try:
            with self.patience(_PATIENCE):
                self.script(_END)
        except (psycopg.Error, ServerError):
            return False
        self.idle_since = time.monotonic()
        return self._pgconn.transaction_status == TransactionStatus.IDLE

    def end(self) -> None:
        """Make sure that no query of this session runs on, and close it."""
        with suppress(psycopg.Error, ServerError):
            busy = self._pgconn.transaction_status == TransactionStatus.ACTIVE
            if self._copy_out is not None:
                busy = not self._copy_out.over
            if busy and not self._given_up:
                self._interrupted = True
                # What is left must be read: a server that waits to send does not look at cancel requests.
                self._drain()
        self.connection.close()

    def _drain(self) -> None:
        # The job may end long before its rows do: the time to get rid of them starts anew.
        self._give_up_at = self._end_by = None
        if self._copy_out is not None:
            self._copy_out.drain(self._pursue)
            return
        while (result := self._result()) is not None:
            while result.status == ExecStatus.COPY_OUT:
                length, _ = self._pgconn.get_copy_data(_ASYNC)
                if length < 0:
                    break
                if length == 0:
                    self._wait(select.POLLIN)
                    self._pgconn.consume_input()
                elif self._interrupted:
                    self._pursue()

    # -- waiting --------------------------------------------------------------------------------------------------

    def _finish(self, text: str, first: PGresult | None = None) -> PGresult:
        """Read all results of what was sent, after ``first``, and return the last; raise the first error."""
        last = failed = first
        while (result := self._result()) is not None:
            last = result
            if failed is None and result.status == ExecStatus.FATAL_ERROR:
                failed = result
        if failed is not None and failed.status == ExecStatus.FATAL_ERROR:
            raise ServerError(failed.error_field, text)
        if last is None:
            raise psycopg.OperationalError("the server sent no result")
        return last

    def _result(self) -> PGresult | None:
        pgconn = self._pgconn
        while pgconn.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                pgconn.consume_input()
        while pgconn.is_busy():
            self._wait(select.POLLIN)
            pgconn.consume_input()
        return pgconn.get_result()

    def _wait(self, events: int) -> int:
        """Wait until the socket is ready for one of ``events``; ask the server to cancel when the job was."""
        self._poll.modify(self._pgconn.socket, events)
        while True:
            if self._interrupted:
                self._pursue()
            elif self._give_up_at is not None and time.monotonic() > self._give_up_at:
                self._give_up("the server does not answer")
            if ready := self._poll.poll(_GLANCE * 1000):
                return ready[0][1]

    def _pursue(self) -> None:
        now = time.monotonic()
        if self._end_by is None:
            self._end_by = now + _PATIENCE
        elif now > self._end_by:
            self._give_up("the server did not end the query in time; the connection was given up")
        if now >= self._ask_again_at:
            self._ask_again_at = now + _REQUEST_AGAIN
            with suppress(psycopg.Error):  # the server is gone, or busy: whoever waits decides for how long
                self.connection.cancel_safe(timeout=_PATIENCE / 2)

    def _give_up(self, why: str) -> NoReturn:
        """Wait for this server no more, not even for the rest of its answer."""
        self._given_up = True
        raise psycopg.OperationalError(why)


class UndecodableResult(Exception):
    """Raised when a value of ``result`` is no text in UTF-8 or no time in UTC."""

    def __init__(self, result: PGresult) -> None:
        super().__init__("a value cannot be decoded")
        self.result = result
