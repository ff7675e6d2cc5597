"""Loading rows into the staging table of one attempt, a bounded number of bytes in a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pymysql import err

from jobber.cancellation import Cancellation
from jobber.columns import Column
from jobber.errors import AttemptError, ResultsFailed
from jobber.results.base import Target
from jobber.results.mysql import ledger, tables
from jobber.results.mysql.encoded import Encoded, Piece
from jobber.results.mysql.errors import translated
from jobber.results.mysql.feeding import Feed, Inserts, LoadData, LoadForbidden
from jobber.results.mysql.pool import heard

if TYPE_CHECKING:
    from jobber.mysql import Connection
    from jobber.results.mysql.backend import MysqlResults

#: A connection's server, and its ID there.
Identity = tuple[tuple[object, ...], int]
#: Bytes that one statement loads. They are kept until the server has taken them, to name a value that it does not take.
SEGMENT = 8 * 1024 * 1024
#: Seconds after which it ends all the same: a backup that locks all tables waits for it, and others for the backup.
SEGMENT_SECONDS = 10.0


class Load:
    """The staging table of one attempt.

    Parameters:
        backend: where to.
        target: in whose name.
        columns: of the result.
        staging: the table's name; the ledger knows it.
        cancellation: of the attempt.
    """

    def __init__(
        self,
        backend: MysqlResults,
        target: Target,
        columns: Sequence[Column],
        staging: str,
        cancellation: Cancellation,
    ) -> None:
        self._backend = backend
        self._target = target
        self._columns = columns
        self._staging = staging
        self._cancellation = cancellation
        self._encoded: Encoded | None = None
        self._feed: Feed | None = None
        self._fed = 0  # bytes in the open statement
        self._opened = 0.0  # when it began
        self._segments = 0
        self._zones = False  # whether timestamps may name their zone
        self._error: AttemptError | None = None  # the first
        self._held = ExitStack()
        #: The one that loads; None before, and after it was given back.
        self.connection: Connection | None = None
        #: What tells it from all others, kept when it is gone.
        self.identity: Identity | None = None

    @property
    def begun(self) -> bool:
        """Whether there may be a staging table."""
        return self.identity is not None

    def add(self, piece: Piece) -> None:
        """Append rows. Raises as ``ResultsWriter.write_chunk``."""
        with self._step() as connection:
            if self._encoded is None:
                self._encoded = Encoded(self._columns, exact_json=connection.is_mariadb, largest=self._backend.largest)
            piece = self._encoded.checked(piece)
            if not self._zones and self._encoded.may_name_zones(piece):
                self._zones = True
                self._seal(connection)  # the open statement expects none
            if self._feed is None:
                self._feed = self._open(connection, self._encoded)
            self._feed.write(piece)
            self._fed += len(piece.data)
            if self._fed >= SEGMENT or time.monotonic() - self._opened >= SEGMENT_SECONDS:
                self._seal(connection)

    def finish(self) -> None:
        """Commit what was added, and index it."""
        with self._step() as connection:
            self._seal(connection)
            if self._target.index:
                tables.index(connection, self._staging, self._columns, self._target.index)

    def release(self, *, keep: bool) -> None:
        """Give the connection back.

        Parameters:
            keep: if not, it is broken off, and what is not committed is gone.
        """
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(err.Error, AttemptError), self._held:
                if keep:
                    self._backend.locks.unmark(connection, self._staging)
                else:
                    connection.abort()

    # -- steps --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self) -> Iterator[Connection]:
        if self._error is not None:
            raise self._error
        try:
            if self.connection is None:
                self.connection = self._held.enter_context(self._backend.connections.connection(self._cancellation))
                with translated(self._backend.name), heard(self._cancellation, self.connection):
                    self.identity = (self.connection.server, self.connection.id)
                    self._create(self.connection)
            with translated(self._backend.name), heard(self._cancellation, self.connection):
                yield self.connection
        except BaseException as error:
            # What was sent may be lost, so nothing may follow it.
            self._error = error if isinstance(error, AttemptError) else ResultsFailed("the load was broken off")
            if self.connection is not None:
                self.connection.abort()
            raise

    def _create(self, connection: Connection) -> None:
        """Make the staging table, under the lock: whoever overtakes this attempt later finds it."""
        with self._backend.locks.held(connection, self._target.table):
            entry = ledger.read(connection, self._target.table)
            if entry is None or not entry.may_publish(self._target, self._staging):
                raise ledger.fenced(self._target)
            self._backend.locks.mark(connection, self._staging)
            comment = tables.marker(self._target.run, self._target.attempt, self._staging)
            tables.create(connection, self._staging, self._columns, comment)

    def _open(self, connection: Connection, encoded: Encoded) -> Feed:
        if self._segments and self._backend.can_load:
            tables.close_gap(connection, self._staging)
        connection.run("START TRANSACTION")
        self._segments += 1
        self._fed = 0
        self._opened = time.monotonic()
        if self._backend.can_load:
            try:
                return LoadData(connection, self._staging, self._columns, self._backend.name, zones=self._zones)
            except LoadForbidden:
                self._backend.can_load = False
        return Inserts(connection, self._staging, self._columns, encoded, self._backend.name)

    def _seal(self, connection: Connection) -> None:
        """Commit what the open statement brought, if the server stored it all."""
        if self._feed is not None:
            self._feed.finish()
            self._feed = None
            connection.run("COMMIT")
