"""The ledger of a results folder: ``jobber_ledger.db`` beside the result files, and the truth about them.

A result file says in its header which attempt wrote it (``user_version``). Publishing renames the file and then changes
the ledger; a crash between the two leaves a file that the ledger does not know yet, and whoever looks next believes the
header, because only the holder of a claim renames, and only inside a write transaction of the ledger.
https://sqlite.org/fileformat2.html#the_database_header
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobber.errors import Fenced
from jobber.results.base import LEDGER, Claim, Target

#: ``application_id`` of a result file: "jobr".
APPLICATION = 0x6A6F6272
#: Milliseconds that a process waits for another one's change of the ledger.
BUSY_TIMEOUT = 10_000

# Names are compared as file systems may compare them; times are Julian days. "claim" and "staging" as on PostgreSQL:
# the newest attempt that was ever registered or fenced, and its staging file while it may still publish. "columns" are
# notes of the columns (``notes``).
_CREATE = """
CREATE TABLE IF NOT EXISTS jobber_ledger (
    table_name TEXT PRIMARY KEY COLLATE NOCASE, job_id TEXT NOT NULL,
    claim_run INTEGER NOT NULL, claim_attempt INTEGER NOT NULL, claim_ttl INTEGER NOT NULL DEFAULT 0,
    claim_columns TEXT, claimed_at REAL NOT NULL, staging TEXT,
    run INTEGER, attempt INTEGER, rows INTEGER, columns TEXT, published_at REAL, expires_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobber_ledger_expires ON jobber_ledger (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobber_ledger_staging ON jobber_ledger (table_name) WHERE staging IS NOT NULL;
"""
#: What ledgers of earlier versions lack.
_LATER = ("claim_columns", "columns")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger."""

    table: str
    job_id: str
    claim_run: int
    claim_attempt: int
    staging: str | None
    run: int | None
    attempt: int | None
    rows: int | None
    columns: str | None
    expired: int | None  # whether the result's time is over, by this machine's clock


def marker(run: int, attempt: int) -> int:
    """Return the ``user_version`` of the file of an attempt; those of neighbouring attempts and runs differ."""
    return (run << 8 | attempt & 0xFF) & 0x7FFFFFFF


def read_marker(file: Path) -> int | None:
    """Return the marker of a result file; None if there is no file, or one that jobber did not make."""
    try:
        with file.open("rb") as opened:
            header = opened.read(72)
    except FileNotFoundError:
        return None
    if len(header) < 72 or struct.unpack(">I", header[68:72])[0] != APPLICATION:
        return None
    version: int = struct.unpack(">I", header[60:64])[0]
    return version


class Ledger:
    """One connection per process, for one thread at a time; SQLite has one writer anyway."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"{LEDGER}.db"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._identity: tuple[int, int, int] | None = None  # process, device, inode

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the body as the only writer; it is committed if the body ends well.

        Parameters:
            durable: whether the commit must have reached the disk when this returns.
        """
        with self._lock:
            connection = self._opened()
            # In WAL mode NORMAL survives a crash of the process but not a power cut (https://sqlite.org/pragma.html).
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def read(self, table: str) -> Entry | None:
        """Return the row of a table as it was last committed."""
        with self._lock:
            return entry(self._opened(), table)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _opened(self) -> sqlite3.Connection:
        # A connection must not cross a fork, nor outlive a folder that somebody removed.
        if self._connection is not None and self._identity == self._identify():
            return self._connection
        if self._connection is not None and self._identity is not None:
            if self._identity[0] == os.getpid():
                self._connection.close()
            else:
                self._inherited = self._connection  # closing it here would drop the parent's locks
        self._folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._file, timeout=BUSY_TIMEOUT / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            _turn_on_wal(connection)
            connection.executescript(_CREATE)
            _upgrade(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, self._identify()
        return connection

    def _identify(self) -> tuple[int, int, int] | None:
        with suppress(FileNotFoundError):
            stat = self._file.stat()
            return os.getpid(), stat.st_dev, stat.st_ino
        return None


def _turn_on_wal(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode; several who open a new one at once collide, and SQLite asks no busy handler here."""
    deadline = time.monotonic() + BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _upgrade(connection: sqlite3.Connection) -> None:
    """Add what a ledger of an earlier version lacks; of several processes one does."""
    if not _missing(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for column in _missing(connection):
            connection.execute(f"ALTER TABLE jobber_ledger ADD COLUMN {column} TEXT")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _missing(connection: sqlite3.Connection) -> list[str]:
    there = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('jobber_ledger')")}
    return [column for column in _LATER if column not in there]


# -- steps inside a transaction ---------------------------------------------------------------------------------------


def entry(connection: sqlite3.Connection, table: str) -> Entry | None:
    """Return the row of a table."""
    row = connection.execute(
        "SELECT table_name, job_id, claim_run, claim_attempt, staging, run, attempt, rows, columns, "
        "expires_at <= julianday('now') FROM jobber_ledger WHERE table_name = ?",
        [table],
    ).fetchone()
    return None if row is None else Entry(*row)


def claim(
    connection: sqlite3.Connection, target: Target, *, staging: str | None = None, columns: str | None = None
) -> None:
    """Make ``target`` the newest attempt of its table; without ``staging`` it may not publish either.

    Parameters:
        columns: the note of its columns.
    """
    connection.execute(
        "INSERT INTO jobber_ledger "
        "(table_name, job_id, claim_run, claim_attempt, claim_ttl, staging, claim_columns, claimed_at) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, julianday('now')) ON CONFLICT (table_name) DO UPDATE SET "
        "job_id = iif(?2 = '', job_id, ?2), claim_run = ?3, claim_attempt = ?4, claim_ttl = ?5, staging = ?6, "
        "claim_columns = ?7, claimed_at = excluded.claimed_at",
        [target.table, target.job_id, target.run, target.attempt, target.ttl, staging, columns],
    )


def set_published(connection: sqlite3.Connection, table: str, rows: int) -> None:
    """Say that the file of the table is the one of the claim."""
    connection.execute(
        "UPDATE jobber_ledger SET run = claim_run, attempt = claim_attempt, rows = ?, staging = NULL, "
        "columns = claim_columns, published_at = julianday('now'), "
        "expires_at = iif(claim_ttl > 0, julianday('now') + claim_ttl / 86400.0, NULL) WHERE table_name = ?",
        [rows, table],
    )


def set_unpublished(connection: sqlite3.Connection, table: str) -> None:
    """Say that the table has no file."""
    connection.execute(
        "UPDATE jobber_ledger SET run = NULL, attempt = NULL, rows = NULL, columns = NULL, published_at = NULL, "
        "expires_at = NULL, claimed_at = julianday('now') WHERE table_name = ?",
        [table],
    )


def give_up(connection: sqlite3.Connection, target: Target, staging: str) -> None:
    """Forget a claim: the same attempt may begin once more, an older one may not."""
    connection.execute(
        "UPDATE jobber_ledger SET claim_attempt = claim_attempt - 1, staging = NULL "
        "WHERE table_name = ? AND claim_run = ? AND claim_attempt = ? AND staging = ?",
        [target.table, target.run, target.attempt, staging],
    )


def expired(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Return the tables whose time is over by this machine's clock, the oldest first."""
    found = connection.execute(
        "SELECT table_name FROM jobber_ledger WHERE expires_at <= julianday('now') ORDER BY expires_at LIMIT ?", [limit]
    )
    return [table for (table,) in found]


def loading(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that an attempt may still publish to."""
    return [t for (t,) in connection.execute("SELECT table_name FROM jobber_ledger WHERE staging IS NOT NULL")]


def abandoned(connection: sqlite3.Connection, older_than: float) -> list[Claim]:
    """Return the attempts that may still publish and began more than ``older_than`` seconds ago."""
    found = connection.execute(
        "SELECT table_name, claim_run, claim_attempt FROM jobber_ledger "
        "WHERE staging IS NOT NULL AND claimed_at < julianday('now') - ? / 86400.0 ORDER BY claimed_at",
        [older_than],
    )
    return [Claim(*row) for row in found]


def forget_idle(connection: sqlite3.Connection) -> None:
    """Forget tables without result or attempt; their rows only say whom to fence off, for a day."""
    connection.execute(
        "DELETE FROM jobber_ledger WHERE run IS NULL AND staging IS NULL AND claimed_at < julianday('now') - 1"
    )


def fenced(target: Target) -> Fenced:
    """Return the error of an attempt that was overtaken."""
    return Fenced(
        f'attempt {target.attempt} of job "{target.job_id}" was overtaken and may not publish "{target.table}"'
    )
