"""One attempt's rows on their way into MySQL or MariaDB.

The first megabyte is held back, so that a small result occupies a connection no longer than it must. Then the staging
table is made and filled, and a RENAME puts it in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pymysql import err

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.errors import AttemptError, Fenced, ResultsFailed, ResultsUnavailable
from jobber.mysql import number
from jobber.results.aside import aside
from jobber.results.base import Target
from jobber.results.copytext import CopyText
from jobber.results.mysql import ledger, tables
from jobber.results.mysql.encoded import Piece
from jobber.results.mysql.errors import Held, translated
from jobber.results.mysql.load import Load
from jobber.results.mysql.pool import heard
from jobber.results.naming import staging_name
from jobber.sources.base import Chunk

if TYPE_CHECKING:
    from jobber.mysql import Connection
    from jobber.results.mysql.backend import MysqlResults
    from jobber.results.mysql.ledger import Entry

#: Bytes of a result that are held back until it is published.
SMALL = 1024 * 1024


class Writer:
    """Writes the rows of one attempt; ``jobber.results.base.ResultsWriter``."""

    def __init__(
        self, backend: MysqlResults, target: Target, columns: Sequence[Column], cancellation: Cancellation
    ) -> None:
        self.rows = 0
        self.staging = staging_name(target)
        self._backend = backend
        self._target = target
        self._encoder = CopyText(columns, booleans=("0", "1"), nul=True)
        self._cancellation = cancellation
        self._load = Load(backend, target, columns, self.staging, cancellation)
        self._pending: list[Piece] = []
        self._pending_bytes = 0
        self._staged = False
        self._renaming = False  # a RENAME was sent, and perhaps not answered
        self._published = False

    def write_chunk(self, chunk: Chunk) -> None:
        """Append encoded rows."""
        if chunk.rows or chunk.data:
            self._append(Piece(chunk.data, chunk.rows, foreign=True))

    def write_batch(self, batch: Sequence[Row]) -> None:
        """Append decoded rows."""
        if batch:
            self._append(Piece(self._encoder.encode(batch), len(batch), foreign=False))

    def publish(self) -> int:
        """Make the rows the job's result in one step and return their number."""
        patience = self._backend.patience(f'the old result "{self._target.table}"', "the new one cannot take its place")
        while not self._published:
            try:
                self._cancellation.check()
                self._stage()
                self._swap()
            except Held as exc:
                self._renaming = False
                patience.pause(exc)
            except AttemptError as error:
                if not self._renaming or not self._was_published(error):
                    raise self._overtaken(error) or error from error
                self._published = True
            else:
                self._published = True
        return self.rows

    def close(self) -> None:
        """Throw away what is not published, as far as the database can be reached."""
        self._load.release(keep=self._published)
        if not self._published:
            aside(self._cancellation, self._discard)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _append(self, piece: Piece) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece.data)
        self.rows += piece.rows
        if self._pending_bytes >= SMALL or self._load.begun:
            try:
                self._send()
            except ResultsUnavailable as error:
                raise self._overtaken(error) or error from error

    def _send(self) -> None:
        pending, self._pending = self._pending, []
        for piece in pending or [Piece(b"", 0, foreign=False)]:
            self._load.add(piece)

    def _stage(self) -> None:
        """See that all rows stand in the staging table."""
        if not self._staged:
            if self._pending or not self._load.begun:
                self._send()
            self._load.finish()
            self._staged = True

    def _swap(self) -> None:
        """Put the staging table in its place, if the ledger still names this attempt. Raises Held while it is read."""
        connection = self._load.connection
        if connection is None or not connection.open:
            raise ResultsUnavailable(f'the connection to results database "{self._backend.name}" broke')
        table, trash = self._target.table, tables.trash_name(self.staging)
        with translated(self._backend.name), heard(self._cancellation, connection):
            with self._backend.locks.held(connection, table):
                entry = ledger.read(connection, table)
                if entry is None or not entry.may_publish(self._target, self.staging):
                    raise ledger.fenced(self._target)
                leftovers, standing = entry.leftovers, tables.comment(connection, table)
                if standing is not None:
                    self._check_ours(entry, standing)
                    leftovers = (*leftovers, trash)
                self._rename(connection, replace=standing is not None)
                ledger.set_published(connection, table, self.rows, leftovers)
            # The lock is not needed to drop what nobody else knows; who fails to, or dies, leaves it to the janitor.
            if standing is not None:
                self._backend.drop_leftovers(connection, table, trash)

    def _check_ours(self, entry: Entry, standing: str) -> None:
        if standing != entry.published:
            raise self._stranger()

    def _rename(self, connection: Connection, *, replace: bool) -> None:
        table, trash = self._target.table, tables.trash_name(self.staging)
        steps = [(table, trash)] if replace else []
        self._renaming = True
        try:
            another = self._backend.connections.another
            tables.rename(connection, *steps, (self.staging, table), another=another)
        except err.Error as exc:
            if number(exc) == tables.EXISTS:
                raise self._stranger() from exc
            raise
        except Held:
            # One that was ended in the very moment in which it got its turn may have been done.
            marker = tables.marker(self._target.run, self._target.attempt, self.staging)
            if tables.comment(connection, table) != marker:
                raise

    def _stranger(self) -> ResultsFailed:
        return ResultsFailed(
            f'"{self._target.table}" exists in results database "{self._backend.name}" already and was not made by '
            "jobber; rename or remove it, or change results_table",
            retryable=False,
        )

    # -- after a failure ----------------------------------------------------------------------------------------------

    def _discard(self) -> None:
        # What cannot be cleaned up now stands in the ledger, for the next attempt or the janitor.
        with suppress(AttemptError):
            self._backend.give_up(self._target, self.staging, self._load.identity)

    def _entry(self) -> tuple[bool, Entry | None]:
        """Ask for the ledger's row, once the attempt's own connection does nothing any more; say whether it came."""
        known: list[Entry | None] = []

        def ask() -> None:
            with suppress(AttemptError):
                known.append(self._backend.settled(self._target.table, self._load.identity))

        self._load.release(keep=False)
        aside(self._cancellation, ask)
        return bool(known), known[0] if known else None

    def _was_published(self, error: AttemptError) -> bool:
        """Ask what became of a RENAME without an answer; ResultsUnavailable if this has none either."""
        answered, entry = self._entry()
        if not answered:
            raise ResultsUnavailable(
                f'results database "{self._backend.name}" does not say whether "{self._target.table}" was published'
            ) from error
        return entry is not None and entry.origin == self.staging

    def _overtaken(self, error: AttemptError) -> Fenced | None:
        """Return why the connection broke, if whoever overtook the attempt ended it."""
        if not isinstance(error, ResultsUnavailable) or self._cancellation.reason is not None:
            return None
        answered, entry = self._entry()
        overtaken = answered and (entry is None or not entry.may_publish(self._target, self.staging))
        return ledger.fenced(self._target) if overtaken else None
