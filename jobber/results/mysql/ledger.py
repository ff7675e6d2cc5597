"""The ledger in a results database on MySQL or MariaDB.

``claim_run, claim_attempt`` is the newest attempt that was ever registered or fenced; ``staging`` names its staging
table while it may still publish. ``run, attempt, rows, published_at, expires_at`` describe the published result and are
NULL without one; ``origin`` is what its table was called while it was staged. ``claim_columns`` and ``columns`` are the
notes of the columns of either (``jobber.results.notes``). ``leftovers`` are tables that still have to be dropped.

A row is written by one statement that commits by itself, and only by who holds the advisory lock of that table
(``locks``). So nobody waits for a transaction, and what is read under the lock stays true until it is released.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pymysql import err

from jobber.errors import Fenced
from jobber.mysql import Connection, Meaning, meaning, number
from jobber.results.base import Claim, Target
from jobber.results.mysql.brief import Another, run_briefly
from jobber.results.mysql.tables import marker

CREATE = """
CREATE TABLE IF NOT EXISTS jobber_ledger (
    table_name VARCHAR(64) NOT NULL PRIMARY KEY, job_id VARCHAR(255) NOT NULL,
    claim_run BIGINT NOT NULL, claim_attempt BIGINT NOT NULL, claim_ttl BIGINT NOT NULL,
    claim_columns MEDIUMTEXT NULL, claimed_at DATETIME(6) NOT NULL,
    staging VARCHAR(64) NULL, leftovers TEXT NULL,
    run BIGINT NULL, attempt BIGINT NULL, origin VARCHAR(64) NULL, `rows` BIGINT NULL,
    `columns` MEDIUMTEXT NULL,
    published_at DATETIME(6) NULL, expires_at DATETIME(6) NULL,
    KEY expires (expires_at), KEY staging (staging), KEY leftovers (leftovers(1)), KEY claimed (claimed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin ROW_FORMAT=DYNAMIC
"""
#: What ledgers of earlier versions lack.
_IS_CURRENT = "SELECT claim_columns, `columns` FROM jobber_ledger LIMIT 0"
_UPGRADE = "ADD COLUMN claim_columns MEDIUMTEXT NULL, ADD COLUMN `columns` MEDIUMTEXT NULL"
_NO_SUCH_COLUMN, _COLUMN_EXISTS = 1054, 1060
_ENTRY = (
    "SELECT table_name, job_id, claim_run, claim_attempt, claim_ttl, staging, leftovers, run, attempt, origin, `rows`, "
    "`columns`, expires_at <= UTC_TIMESTAMP(6) FROM jobber_ledger WHERE table_name = %s"
)
_CLAIM = (
    "UPDATE jobber_ledger SET job_id = IF(%s = '', job_id, %s), claim_run = %s, claim_attempt = %s, claim_ttl = %s, "
    "claim_columns = %s, claimed_at = UTC_TIMESTAMP(6), staging = %s, leftovers = %s WHERE table_name = %s"
)
_INSERT = (
    "INSERT INTO jobber_ledger (table_name, job_id, claim_run, claim_attempt, claim_ttl, claim_columns, claimed_at, "
    "staging) VALUES (%s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6), %s)"
)
_PUBLISHED = (
    "UPDATE jobber_ledger SET run = claim_run, attempt = claim_attempt, origin = staging, `rows` = %s, "
    "`columns` = claim_columns, leftovers = %s, staging = NULL, published_at = UTC_TIMESTAMP(6), "
    "expires_at = IF(claim_ttl > 0, UTC_TIMESTAMP(6) + INTERVAL claim_ttl SECOND, NULL) WHERE table_name = %s"
)
_UNPUBLISHED = (
    "UPDATE jobber_ledger SET run = NULL, attempt = NULL, origin = NULL, `rows` = NULL, `columns` = NULL, "
    "published_at = NULL, expires_at = NULL, claimed_at = UTC_TIMESTAMP(6) WHERE table_name = %s"
)
# Given up, not overtaken: the same attempt may begin once more, an older one may not.
_GIVE_UP = (
    "UPDATE jobber_ledger SET claim_attempt = claim_attempt - 1, staging = NULL, leftovers = %s WHERE table_name = %s"
)
_LEFTOVERS = "UPDATE jobber_ledger SET leftovers = %s WHERE table_name = %s"
_WITH_LEFTOVERS = "SELECT table_name FROM jobber_ledger WHERE leftovers IS NOT NULL LIMIT %s"
_EXPIRED = "SELECT table_name, run FROM jobber_ledger WHERE expires_at <= UTC_TIMESTAMP(6) ORDER BY expires_at LIMIT %s"
_ABANDONED = (
    "SELECT table_name, claim_run, claim_attempt FROM jobber_ledger WHERE staging IS NOT NULL "
    "AND claimed_at < UTC_TIMESTAMP(6) - INTERVAL %s MICROSECOND ORDER BY claimed_at"
)
# What is neither a result nor an attempt only remembers whom to fence off; a day is longer than any of them sleeps.
_FORGET_IDLE = (
    "DELETE FROM jobber_ledger WHERE run IS NULL AND staging IS NULL AND leftovers IS NULL "
    "AND claimed_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY"
)

#: How often, and for how long (seconds), a statement that met another is run again.
_TRIES, _PATIENCE = 10, 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger."""

    table: str
    job_id: str
    claim_run: int
    claim_attempt: int
    claim_ttl: int
    staging: str | None
    leftovers: tuple[str, ...]
    run: int | None
    attempt: int | None
    origin: str | None
    rows: int | None
    columns: str | None
    expired: int | None  # whether the result's time is over, by the server's clock

    def may_publish(self, target: Target, staging: str) -> bool:
        """Whether the attempt still holds the table's claim."""
        return (self.claim_run, self.claim_attempt, self.staging) == (target.run, target.attempt, staging)

    @property
    def claimed(self) -> str | None:
        """The marker of the table of the attempt that may still publish."""
        return None if self.staging is None else marker(self.claim_run, self.claim_attempt, self.staging)

    @property
    def published(self) -> str | None:
        """The marker of the published table."""
        if self.run is None or self.attempt is None or self.origin is None:
            return None
        return marker(self.run, self.attempt, self.origin)


def fenced(target: Target) -> Fenced:
    """Return the error of an attempt that was overtaken."""
    return Fenced(
        f'attempt {target.attempt} of job "{target.job_id}" was overtaken and may not publish "{target.table}"'
    )


# -- the table itself -------------------------------------------------------------------------------------------------


def is_current(connection: Connection) -> bool:
    """Say whether the ledger has all of its columns."""
    try:
        connection.rows(_IS_CURRENT)
    except err.Error as exc:
        if number(exc) == _NO_SUCH_COLUMN:
            return False
        raise
    return True


def upgrade(connection: Connection, another: Another) -> None:
    """Add what a ledger of an earlier version lacks. Raises Held while somebody reads it."""
    try:
        run_briefly(connection, "ALTER TABLE jobber_ledger", f" {_UPGRADE}", another=another)
    except err.Error as exc:
        if number(exc) != _COLUMN_EXISTS:  # added by another process meanwhile
            raise


# -- reading ----------------------------------------------------------------------------------------------------------


def read(connection: Connection, table: str) -> Entry | None:
    """Return the row of a table as it was last committed."""
    for row in connection.rows(_ENTRY, [table]):
        facts = list(row)
        facts[6] = tuple((row[6] or "").split())
        return Entry(*facts)
    return None


def expired(connection: Connection, limit: int) -> list[tuple[str, int]]:
    """Return tables whose time is over by the server's clock, and their runs, the oldest first."""
    return [(table, run) for table, run in connection.rows(_EXPIRED, [limit])]


def with_leftovers(connection: Connection, limit: int) -> list[str]:
    """Return tables that something was left of."""
    return [table for (table,) in connection.rows(_WITH_LEFTOVERS, [limit])]


def abandoned(connection: Connection, older_than: float) -> list[Claim]:
    """Return the attempts that may still publish and began more than ``older_than`` seconds ago."""
    return [Claim(*row) for row in connection.rows(_ABANDONED, [round(older_than * 1_000_000)])]


# -- writing, under the table's lock ----------------------------------------------------------------------------------


def claim(
    connection: Connection,
    target: Target,
    leftovers: Sequence[str],
    *,
    staging: str | None = None,
    columns: str | None = None,
) -> None:
    """Make ``target`` the newest attempt of its table; without ``staging`` it may not publish either.

    Parameters:
        columns: the note of its columns.
    """
    facts = [target.job_id, target.run, target.attempt, target.ttl, columns, staging]
    # The row of an idle table may be forgotten at any time.
    if not _write(connection, _CLAIM, target.job_id, *facts, _joined(leftovers), target.table):
        _write(connection, _INSERT, target.table, *facts)


def set_published(connection: Connection, table: str, rows: int, leftovers: Sequence[str]) -> None:
    """Say that the claim's table is the published one."""
    _write(connection, _PUBLISHED, rows, _joined(leftovers), table)


def set_unpublished(connection: Connection, table: str) -> None:
    """Say that there is no published table."""
    _write(connection, _UNPUBLISHED, table)


def give_up(connection: Connection, table: str, leftovers: Sequence[str]) -> None:
    """Forget a claim: the same attempt may begin once more, an older one may not."""
    _write(connection, _GIVE_UP, _joined(leftovers), table)


def set_leftovers(connection: Connection, table: str, leftovers: Sequence[str]) -> None:
    """Say which tables still have to be dropped."""
    _write(connection, _LEFTOVERS, _joined(leftovers), table)


def forget_idle(connection: Connection) -> None:
    """Forget tables without result or attempt after a day."""
    _write(connection, _FORGET_IDLE)


def _joined(names: Sequence[str]) -> str | None:
    return " ".join(names) or None


def _write(connection: Connection, sql: str, *values: object) -> int:
    """Run one statement that commits by itself; one that met another in the indexes is run again."""
    deadline = time.monotonic() + _PATIENCE
    for left in reversed(range(_TRIES)):
        try:
            return connection.run(sql, values)
        except err.Error as exc:
            if meaning(exc) is not Meaning.CONFLICT or not left or time.monotonic() >= deadline:
                raise
            time.sleep(0.01 * (_TRIES - left))
    raise AssertionError("unreachable")
