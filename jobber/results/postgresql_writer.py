"""One attempt's rows on their way into PostgreSQL.

The first megabyte is held back: a result that is no larger is created, filled and published in a single transaction.
A larger one is loaded into staging tables while it arrives, and published in a transaction that finds all of its rows
in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.errors import AttemptError, ResultsFailed, ResultsUnavailable
from jobber.results import notes, readers
from jobber.results import postgresql_ledger as ledger
from jobber.results import postgresql_small as small
from jobber.results.aside import aside
from jobber.results.base import Target
from jobber.results.copytext import CopyText
from jobber.results.naming import staging_name
from jobber.results.postgresql_errors import check_count, copy_error, translated
from jobber.results.postgresql_load import Load
from jobber.results.postgresql_plain import fits
from jobber.results.postgresql_waiting import heard
from jobber.sources.base import Chunk

if TYPE_CHECKING:
    from jobber.results.postgresql import PostgresResults
    from jobber.results.postgresql_pool import Connection

#: Bytes of a result that is held back to be published in a single transaction.
SMALL = 1024 * 1024
#: From here on a transaction waits for readers no longer than others may queue behind it.
BRIEFLY = SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{round(readers.WAIT * 1000)}ms"))
#: Where a template is gone: with its table, or in a session that never had a temporary one.
_NO_TEMPLATE = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
#: How long the server waits for the COMMIT while nobody can read the table.
COMMIT_TIMEOUT = "5s"


class Writer:
    """Writes the rows of one attempt; ``jobber.results.base.ResultsWriter``."""

    def __init__(
        self, backend: PostgresResults, target: Target, columns: Sequence[Column], cancellation: Cancellation
    ) -> None:
        self.rows = 0
        self.staging = staging_name(target)
        self._backend = backend
        self._target = target
        self._columns = columns
        self._encoder = CopyText(columns)
        self._cancellation = cancellation
        self._load = Load(backend, target, columns, self.staging, cancellation)
        self._pending: list[tuple[bytes, int]] = []
        self._pending_bytes = 0
        self._registered = False
        self._staged: str | None = None  # the staging table that holds all rows, committed
        self._committing = False  # a COMMIT was sent, and perhaps not answered
        self._published = False

    def register(self, connection: Connection) -> None:
        """List the attempt in the ledger, once: from here on tables of its may be committed.

        Parameters:
            connection: outside of a transaction.

        Raises:
            Fenced, ResultsFailed: as ``PostgresResults.register``.
        """
        if not self._registered:
            self._backend.register(connection, self._target, self.staging)
            self._registered = True

    def write_chunk(self, chunk: Chunk) -> None:
        """Append encoded rows."""
        self._append(chunk.data, chunk.rows)

    def write_batch(self, batch: Sequence[Row]) -> None:
        """Append decoded rows."""
        if batch:
            self._append(self._encoder.encode(batch), len(batch))

    def _append(self, data: bytes, rows: int) -> None:
        self._pending.append((data, rows))
        self._pending_bytes += len(data)
        self.rows += rows
        if self._pending_bytes >= SMALL or self._load.begun:
            self._send()

    def publish(self) -> int:
        """Make the rows the job's result in one step and return their number."""
        patience = self._backend.patience(f'the old result "{self._target.table}"', "the new one cannot take its place")
        while not self._published:
            try:
                self._cancellation.check()
                if self._load.begun:
                    self._stage()
                with self._connection() as connection:
                    self._publish(connection)
            except psycopg.errors.LockNotAvailable as exc:
                # Next time no more than the swap is left to do.
                self._stage()
                patience.pause(exc)
            except AttemptError as error:
                if isinstance(error, ResultsUnavailable):
                    self._load.release()
                if not self._committing or not self._was_published(error):
                    raise
                self._published = True
            else:
                self._published = True
        return self.rows

    def close(self) -> None:
        """Throw away what is not published, as far as the database can be reached."""
        if self._published:
            self._load.release()
        else:
            aside(self._cancellation, self._discard)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _discard(self) -> None:
        # What cannot be cleaned up now stands in the ledger, for the next attempt or the janitor.
        with suppress(AttemptError, psycopg.Error):
            self._load.release()
            if self._registered:
                self._backend.give_up(self._target, self.staging, drop=self._load.committed)

    def _was_published(self, error: AttemptError) -> bool:
        """Ask what became of a COMMIT without an answer; ResultsUnavailable if this has none either."""
        known: list[bool] = []

        def ask() -> None:
            with suppress(AttemptError):
                known.append(self._backend.is_published(self._target))

        aside(self._cancellation, ask)
        if not known:
            raise ResultsUnavailable(
                f'results database "{self._backend.name}" does not say whether "{self._target.table}" was published'
            ) from error
        return known[0]

    def _send(self) -> None:
        if not self._registered:
            with self._backend.ready(self._cancellation) as connection, heard(self._cancellation, connection):
                self.register(connection)
        pending, self._pending = self._pending, []
        for data, rows in pending or [(b"", 0)]:
            self._load.add(data, rows)

    def _stage(self) -> None:
        """See that all rows stand in one committed staging table."""
        if self._staged is None:
            if self._pending or not self._load.begun:
                self._send()
            self._staged = self._load.finish()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend the connection that loaded, if it lives: no crash of the server has come between."""
        if self._load.connection is None:
            with self._backend.connections.connection(self._cancellation) as connection:
                yield connection
        else:
            with translated(self._backend.name):
                yield self._load.connection

    def _publish(self, connection: Connection) -> None:
        """Publish in one transaction: fill if nothing is staged, compare, swap. LockNotAvailable while it is read."""
        try:
            with heard(self._cancellation, connection):
                complete = self._publish_first(connection)
                if not complete:
                    self.register(connection)
                    complete = self._publish_staged(connection)
            if complete:
                self._commit(connection)
        except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as exc:
            raise ResultsFailed(
                f'"{self._target.table}" exists in results database "{self._backend.name}" already and was not made by '
                "jobber; rename or remove it, or change results_table",
                retryable=False,
            ) from exc
        finally:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                # Once the attempt must stop, nothing is asked of the server: the connection is closed as it is.
                with suppress(AttemptError, psycopg.Error), heard(self._cancellation, connection):
                    self._backend.roll_back(connection)

    def _publish_first(self, connection: Connection) -> bool:
        """Do all but commit for a small result of an attempt that is not registered; False if the ledger forbids it."""
        if self._registered or self._committing:
            return False
        pieces = [data for data, _ in self._pending]
        template = None
        if fits(self._columns, pieces):
            template = self._backend.templates.find(connection, self._columns)
        staging = self._backend.identifier(self.staging)
        # The ledger comes behind the COPY, whose data the server may have to wait for: a worker that hangs then keeps
        # nobody from the table's entry or its name.
        script = SQL("BEGIN; {}; COPY {} FROM STDIN; {}{}; {}").format(
            self._load.create(self.staging, template),
            staging,
            self._load.indexes(self.staging),
            self._entry(ledger.PUBLISH_FIRST),
            self._rename(staging),
        )
        counts, error = small.run(connection, script, pieces)
        if counts.get("INSERT") == 0:
            self._backend.roll_back(connection)
            return False
        if template is not None and isinstance(error, _NO_TEMPLATE):
            self._backend.templates.forget(connection)
            self._backend.roll_back(connection)
            return self._publish_first(connection)
        if error is not None and "COPY" not in counts:
            before = itertools.accumulate((rows for _, rows in self._pending), initial=0)
            placed = [(rows, data) for rows, (data, _) in zip(before, self._pending, strict=False)]
            raise copy_error(error, self._backend.name, self.staging, self._columns, placed) from error
        if error is not None:
            raise error
        check_count(self._backend.name, counts["COPY"], self.rows)
        return True

    def _publish_staged(self, connection: Connection) -> bool:
        """Do all but commit for any result; False if an earlier call committed it."""
        swap = self._prepare(connection)
        if swap is not None:
            connection.execute(swap)
        return swap is not None

    def _prepare(self, connection: Connection) -> Composed | None:
        """Begin the publishing transaction; return what is left to do in it, None if an earlier call published."""
        if self._staged is None:
            connection.execute(SQL("BEGIN; ") + self._load.create(self.staging))
            copy = self._load.copy(connection, self.staging)
            for data, rows in self._pending:
                copy.write(data, rows)
            copy.finish()
            if self._target.index:
                connection.execute(self._load.indexes(self.staging))
        else:
            connection.execute("BEGIN")
        entry = self._backend.entry(connection, self._target.table)
        if entry is not None and entry.published(self._target.run, self._target.attempt):
            return None  # its answer was lost
        if entry is None or not entry.may_publish(self._target, self.staging):
            raise ledger.fenced(self._target)
        if self._staged is not None and connection is not self._load.connection:
            self._check_whole(connection)
        return self._swap(connection, replace=entry.run is not None)

    def _commit(self, connection: Connection) -> None:
        """Commit: a cancel before is heard, and one from then on only ends the wait; ``publish`` asks what happened."""
        with heard(self._cancellation, connection):
            self._committing = True
            connection.execute("COMMIT")

    def _swap(self, connection: Connection, *, replace: bool) -> Composed:
        staging = self._backend.identifier(self._staged or self.staging)
        table = self._backend.identifier(self._target.table)
        steps: list[Composable] = []
        if self._staged is not None:
            # Only autovacuum (or a backup) can be here, and autovacuum yields to whoever waits for a second.
            steps.append(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(staging))
        if replace and self._backend.exists(connection, self._target.table):
            # This lock lets readers in and keeps autovacuum out (waits until it yields); then only readers are left to
            # keep the next one from being granted.
            steps.append(SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(table))
            steps.append(BRIEFLY)
            steps.append(SQL("DROP TABLE {}").format(table))
        return SQL("; ").join([*steps, self._entry(ledger.PUBLISHED), self._rename(staging)])

    def _entry(self, statement: SQL) -> Composed:
        """Return the statement that lists the result in the ledger."""
        target = self._target
        facts = {"table": target.table, "job_id": target.job_id, "run": target.run, "attempt": target.attempt}
        noted = notes.note(target.run, target.attempt, self._columns)
        facts |= {"rows": self.rows, "columns": noted, "ttl": target.ttl}
        return self._backend.sql(statement, **{key: Literal(value) for key, value in facts.items()})

    def _rename(self, staging: Identifier) -> Composed:
        """Return the last statements before the COMMIT."""
        # COMMIT is sent on its own, when the attempt is known to go on; a worker that hangs before that keeps readers
        # out for no longer than this.
        return SQL("ALTER TABLE {} RENAME TO {}; SET LOCAL idle_in_transaction_session_timeout = {}").format(
            staging, Identifier(self._target.table), Literal(COMMIT_TIMEOUT)
        )

    def _check_whole(self, connection: Connection) -> None:
        """A crash of the server empties UNLOGGED tables and may lose commits that were not flushed."""
        staging = self._backend.identifier(self._staged or self.staging)
        if connection.execute(SQL("SELECT count(*) FROM {}").format(staging)).fetchone() != (self.rows,):
            raise ResultsFailed(f'results database "{self._backend.name}" lost rows of the attempt in a crash')
