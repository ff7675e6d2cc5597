"""One attempt's rows on their way into a file of their own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row, result_type
from jobber.errors import AttemptError, ResultsFailed
from jobber.results import sqlite_ledger as ledger
from jobber.results.base import Target
from jobber.results.naming import staging_name
from jobber.results.sqlite_errors import translated
from jobber.results.sqlite_values import Values
from jobber.sources.base import Chunk, Place

if TYPE_CHECKING:
    from jobber.results.sqlite import SqliteResults

_PREPARER = SQLiteDialect().identifier_preparer

# A staging file that is not whole is thrown away, so nothing protects it while it is written; it is flushed once, at
# the end.
_UNPROTECTED = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE"


class Writer:
    """Writes the rows of one attempt; ``jobber.results.base.ResultsWriter``."""

    def __init__(
        self, backend: SqliteResults, target: Target, columns: Sequence[Column], cancellation: Cancellation
    ) -> None:
        self.rows = 0
        self.staging = f"{staging_name(target)}.db"
        self._backend = backend
        self._target = target
        self._columns = columns
        self._cancellation = cancellation
        self._values = Values(columns)
        self._file: Path = backend.folder / self.staging
        self._insert = f"INSERT INTO {quoted(target.table)} VALUES ({','.join('?' * len(columns))})"  # noqa: S608
        self._connection: sqlite3.Connection | None = None
        self._published = False

    def open(self) -> None:
        """Create the staging file, under the ledger's lock: whoever overtakes this attempt finds it, or is found."""
        with self._backend.ledger.transaction() as connection:
            self._check_claim(connection)
            self._file.touch(exist_ok=False)
        self._connection = self._connect()
        self._connection.execute(f"PRAGMA application_id = {ledger.APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {ledger.marker(self._target.run, self._target.attempt)}")
        columns = ", ".join(f"{quoted(c.name)} {result_type('sqlite', c)}" for c in self._columns)
        self._connection.execute(f"CREATE TABLE {quoted(self._target.table)} ({columns})")
        self._connection.execute("BEGIN")

    def write_chunk(self, chunk: Chunk) -> None:
        """Refuse: this backend does not accept encoded rows."""
        raise ResultsFailed(f"results in SQLite take decoded rows only, not {chunk.rows} encoded ones", retryable=False)

    def write_batch(self, batch: Sequence[Row]) -> None:
        """Append decoded rows."""
        self._values.check(batch)
        with translated(self._backend.name):
            if self._connection is None:
                raise ResultsFailed(f'the staging file of "{self._target.table}" is closed already')
            try:
                with self._cancellation.interruptible(self._connection.interrupt):
                    self._connection.executemany(self._insert, batch)
            except (OverflowError, UnicodeEncodeError, sqlite3.DataError) as exc:
                culprit = self._values.culprit(batch)
                if culprit is None:
                    raise
                raise culprit from exc
        self.rows += len(batch)

    def write_copy(self, copy: Callable[[Place], int]) -> None:
        """Let a SQLite source write its rows into the staging file."""
        with translated(self._backend.name):
            self._close_file()
        self.rows += copy(Place(str(self._file.absolute()), self._target.table))
        with translated(self._backend.name):
            if not self._file.exists():  # dropped by whoever overtook this attempt
                with self._backend.ledger.transaction() as connection:
                    self._check_claim(connection)
            self._connection = self._connect()
            self._connection.execute("BEGIN")

    def publish(self) -> int:
        """Make the rows the job's result in one step and return their number."""
        if self._published:
            return self.rows
        with translated(self._backend.name):
            self._flush()
            self._cancellation.check()
            self._swap()
        self._published = True
        return self.rows

    def close(self) -> None:
        """Throw away what is not published."""
        with suppress(sqlite3.Error):
            self._close_file()
        if not self._published:
            # What cannot be cleaned up now stands in the ledger, for the next attempt.
            with (
                suppress(AttemptError),
                translated(self._backend.name),
                self._backend.ledger.transaction() as connection,
            ):
                self._backend.settle(connection, self._target.table)
                self._file.unlink(missing_ok=True)
                ledger.give_up(connection, self._target, self.staging)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._file.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.executescript(_UNPROTECTED)
        return connection

    def _close_file(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _flush(self) -> None:
        """Commit the staging file and see it on the disk."""
        if self._connection is None:
            return  # by an earlier call
        with self._cancellation.interruptible(self._connection.interrupt):
            for number, column in enumerate(self._target.index, 1):
                name = quoted(f"{self._target.table}_{number}")
                self._connection.execute(f"CREATE INDEX {name} ON {quoted(self._target.table)} ({quoted(column)})")
            self._connection.execute("COMMIT")
        self._close_file()
        with suppress(FileNotFoundError):  # dropped by whoever overtook this attempt, as the ledger will say
            flush(self._file)

    def _swap(self) -> None:
        with self._backend.ledger.transaction() as connection:
            entry = self._backend.settle(connection, self._target.table)
            if entry is not None and (entry.run, entry.attempt) == (self._target.run, self._target.attempt):
                return  # an earlier call did it
            self._check_claim(connection)
            published = self._backend.file(self._target.table)
            if entry is not None and entry.run is None and os.path.lexists(published):
                raise ResultsFailed(
                    f'"{published.name}" exists in the folder of [results.{self._backend.name}] already and was not '
                    "made by jobber; rename or remove it, or change results_table",
                    retryable=False,
                )
            self._file.replace(published)
            flush(self._backend.folder)
            ledger.set_published(connection, self._target.table, self.rows)

    def _check_claim(self, connection: sqlite3.Connection) -> None:
        entry = ledger.entry(connection, self._target.table)
        mine = (self._target.run, self._target.attempt, self.staging)
        if entry is None or (entry.claim_run, entry.claim_attempt, entry.staging) != mine:
            raise ledger.fenced(self._target)


def flush(path: Path) -> None:
    """See that a file's contents, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def quoted(name: str) -> str:
    """Return an identifier, quoted by the dialect."""
    return _PREPARER.quote_identifier(name)
