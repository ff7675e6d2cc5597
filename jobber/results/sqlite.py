"""Results in SQLite: a folder with one file per result, each holding one table of the same name.

One file with many tables gets slow with their number (every connection reads the whole schema); a file of its own is
published by a rename, dropped by an unlink, and a reader keeps the version that it opened.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import ROW_PLACE, Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import ConfigError, ResultsFailed, ResultsGone, ResultsUnavailable
from jobber.results import naming, notes
from jobber.results import sqlite_ledger as ledger
from jobber.results.base import Claim, Published, Target
from jobber.results.sqlite_errors import translated
from jobber.results.sqlite_writer import Writer, flush, quoted
from jobber.sources.base import Shape


class SqliteResults:
    """A results folder; ``jobber.results.base.ResultsBackend``.

    Parameters:
        settings: ``[results.NAME]``; the path of its URL is the folder.
    """

    engine = "sqlite"
    accepts = frozenset({Shape.DECODED, Shape.COPIED})

    def __init__(self, settings: ResultsSettings) -> None:
        naming.check_template(settings)
        self.name = settings.name
        path = make_url(settings.url).database
        if not path or path == ":memory:":
            raise ConfigError(f"url of [results.{settings.name}] must name a folder: sqlite:///path/to/folder")
        self.folder = Path(path)
        self.ledger = ledger.Ledger(self.folder)
        self._template = settings.results_table

    # -- the protocol -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the folder and the ledger if they are not there, or bring an older ledger up to date."""
        with translated(self.name), self.ledger.transaction():
            pass

    def table_name(self, job_id: str) -> str:
        """Return the name of the result table of ``job_id``; file systems and SQLite may fold case."""
        return naming.table_name(self._template, job_id, folds_case=True)

    @contextmanager
    def begin(self, target: Target, columns: Sequence[Column], cancellation: Cancellation) -> Iterator[Writer]:
        """Register the attempt in the ledger; leaving without ``publish`` discards it."""
        if not columns:
            raise ResultsFailed("the query gives no columns, so there is no table to make", retryable=False)
        writer = Writer(self, target, columns, cancellation)
        with translated(self.name), self.ledger.transaction(durable=True) as connection:
            entry = self.settle(connection, target.table)
            if entry is not None:
                if (entry.claim_run, entry.claim_attempt) >= (target.run, target.attempt):
                    raise ledger.fenced(target)
                if entry.job_id != target.job_id and entry.run is not None:
                    raise ResultsFailed(
                        f'"{target.table}" in the folder of [results.{self.name}] holds the result of job '
                        f'"{entry.job_id}"; the names of the two jobs\' tables are the same',
                        retryable=False,
                    )
                self._drop_staging(entry)
            noted = notes.note(target.run, target.attempt, columns)
            ledger.claim(connection, target, staging=writer.staging, columns=noted)
        try:
            with translated(self.name):
                writer.open()
            yield writer
        finally:
            writer.close()

    def ping(self) -> None:
        """Raise ResultsUnavailable unless the folder, or the nearest one above that is there, can be written to."""
        there = next(
            path for path in (self.folder.absolute(), *self.folder.absolute().parents) if os.path.lexists(path)
        )
        if not os.path.isdir(there) or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise ResultsUnavailable(f"the folder of [results.{self.name}] cannot be used: it cannot be written to")

    def fence(self, table: str, run: int, attempt: int) -> Published | None:
        """Make sure that no attempt up to (run, attempt) publishes to ``table`` any more; drops its staging file."""
        with translated(self.name), self.ledger.transaction() as connection:
            entry = self.settle(connection, table)
            if entry is None or (entry.claim_run, entry.claim_attempt) <= (run, attempt):
                if entry is not None:
                    self._drop_staging(entry)
                ledger.claim(connection, Target(table, "", run, attempt, 0))
            # Under the ledger's lock nobody takes the file's place.
            if entry is None or (entry.run, entry.attempt) != (run, attempt) or not self._is_whole(entry):
                return None
            return notes.published(run, attempt, entry.rows or 0, entry.columns)

    def drop(self, table: str, run: int) -> bool:
        """Drop the published result of ``run``; False if the ledger holds none of that run any more."""
        with translated(self.name), self.ledger.transaction() as connection:
            entry = self.settle(connection, table)
            if entry is None or entry.run != run:
                return False
            self._unpublish(connection, table)
            return True

    def rows(self, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int) -> list[Row]:
        """Return rows of the published result of ``run`` in the order of its query, in canonical form."""
        with translated(self.name):
            page = self._page(table, run, columns, offset=offset, limit=limit)
            if page is None:
                # A crash may have kept the ledger from learning of the file.
                with self.ledger.transaction() as connection:
                    self.settle(connection, table)
                page = self._page(table, run, columns, offset=offset, limit=limit)
        if page is None:
            raise ResultsGone(
                f'the result "{table}" is not in [results.{self.name}] any more: expired, purged, replaced by a newer '
                "run, or removed by hand"
            )
        return page

    def expire(self, limit: int = 100) -> list[str]:
        """Drop results whose time is over, by this machine's clock; readers keep what they have open."""
        with translated(self.name), self.ledger.transaction() as connection:
            for table in ledger.loading(connection):
                self.settle(connection, table)
            tables = ledger.expired(connection, limit)
            for table in tables:
                self._unpublish(connection, table)
            ledger.forget_idle(connection)
            return tables

    def abandoned(self, older_than: float) -> list[Claim]:
        """Return the attempts that may still publish and began more than ``older_than`` seconds ago."""
        with translated(self.name), self.ledger.transaction() as connection:
            for table in ledger.loading(connection):
                self.settle(connection, table)
            return ledger.abandoned(connection, older_than)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    # -- for the writer -----------------------------------------------------------------------------------------------

    def file(self, table: str) -> Path:
        """Return the file of a result."""
        return self.folder / f"{table}.db"

    def settle(self, connection: sqlite3.Connection, table: str) -> ledger.Entry | None:
        """Return the ledger's row, after catching up with a publication that a crash cut short.

        Only the claim's holder writes a file with the claim's marker to that name, and only inside a transaction like
        the one this runs in; so where the file bears the marker and the ledger does not say so, that one was lost.
        """
        entry = ledger.entry(connection, table)
        if entry is None or entry.staging is None:
            return entry
        claim = (entry.claim_run, entry.claim_attempt)
        if (entry.run, entry.attempt) == claim or ledger.read_marker(self.file(table)) != ledger.marker(*claim):
            return entry
        with closing(self._reader(self.file(table))) as reader:
            rows = _count(reader, table)
        ledger.set_published(connection, table, rows)
        return ledger.entry(connection, table)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _drop_staging(self, entry: ledger.Entry) -> None:
        if entry.staging is not None:
            (self.folder / entry.staging).unlink(missing_ok=True)

    def _is_whole(self, entry: ledger.Entry) -> bool:
        """Say whether the published file is there, and has as many rows as the ledger says."""
        file = self.file(entry.table)
        if ledger.read_marker(file) != ledger.marker(entry.run or 0, entry.attempt or 0):
            return False
        with closing(self._reader(file)) as reader:
            return _count(reader, entry.table) == entry.rows

    def _unpublish(self, connection: sqlite3.Connection, table: str) -> None:
        self.file(table).unlink(missing_ok=True)
        flush(self.folder)
        ledger.set_unpublished(connection, table)

    def _reader(self, file: Path) -> sqlite3.Connection:
        # A published file never changes, it is only replaced; so no locks are needed.
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)

    def _page(self, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int) -> list[Row] | None:
        """Return a page, or None if the file that stands there is not of that run, or the ledger does not say so."""
        file = self.file(table)
        if not os.path.lexists(file):
            return None
        with closing(self._reader(file)) as reader:
            # The version that was opened, whatever takes its place meanwhile; SQLite reads it at the first statement.
            (version,) = reader.execute("PRAGMA user_version").fetchone()
            entry = self.ledger.read(table)
            if entry is None or entry.run != run or version != ledger.marker(run, entry.attempt or 0):
                return None
            if entry.expired:
                return None  # the janitor may take a while to come
            if _count(reader, table) != entry.rows:
                return None  # somebody changed the file
            # With the table's name before it, an unknown column is an error and not a string
            # (https://sqlite.org/quirks.html#double_quoted_string_literals_are_accepted).
            names = ", ".join(f"{quoted(table)}.{quoted(column.name)}" for column in columns)
            page: list[Row] = reader.execute(
                f"SELECT {names} FROM {quoted(table)} WHERE {ROW_PLACE} > ? ORDER BY {ROW_PLACE} LIMIT ?",  # noqa: S608
                [offset, limit],
            ).fetchall()
        booleans = [n for n, column in enumerate(columns) if column.kind is Kind.BOOLEAN]
        return [_with_booleans(row, booleans) for row in page] if booleans else page


def _count(reader: sqlite3.Connection, table: str) -> int:
    # Rows are only ever appended, so places are counted from 1 without gaps; the last one is found without a scan.
    (last,) = reader.execute(f"SELECT max({ROW_PLACE}) FROM {quoted(table)}").fetchone()  # noqa: S608
    return last or 0


def _with_booleans(row: Row, positions: Sequence[int]) -> Row:
    values = list(row)
    for position in positions:
        value = values[position]
        values[position] = None if value is None else bool(value)
    return tuple(values)
