"""SQL of the ledger in a results database on PostgreSQL.

``claim_run, claim_attempt`` is the newest attempt that was ever registered or fenced; ``staging`` names its staging
table while it may still publish. ``run, attempt, rows, published_at, expires_at`` describe the published result and are
NULL without one, and so does ``columns`` (``notes``). ``leftovers`` are staging tables of overtaken attempts that still
have to be dropped.
"""

from __future__ import annotations

from typing import LiteralString, NamedTuple

from psycopg.sql import SQL

from jobber.errors import Fenced
from jobber.results.base import Target


class Entry(NamedTuple):
    """A row of the ledger."""

    job_id: str
    claim_run: int
    claim_attempt: int
    staging: str | None
    run: int | None
    attempt: int | None
    rows: int | None
    columns: str | None
    expired: bool | None  # whether the result's time is over, by this database's clock
    has_leftovers: bool

    def is_free_for(self, target: Target) -> bool:
        """Whether ``PUBLISH_FIRST`` would publish an attempt's result."""
        newer = (self.claim_run, self.claim_attempt) < (target.run, target.attempt)
        return newer and self.run is None and self.staging is None and not self.has_leftovers

    def may_publish(self, target: Target, staging: str) -> bool:
        """Whether the attempt still holds the table's claim."""
        return (self.claim_run, self.claim_attempt, self.staging) == (target.run, target.attempt, staging)

    def published(self, run: int, attempt: int) -> bool:
        """Whether the attempt's result is the published one."""
        return (self.run, self.attempt) == (run, attempt)


def fenced(target: Target) -> Fenced:
    """Return the error of an attempt that was overtaken."""
    return Fenced(
        f'attempt {target.attempt} of job "{target.job_id}" was overtaken and may not publish "{target.table}"'
    )


CREATE = SQL(
    """
CREATE TABLE IF NOT EXISTS {ledger} (
    table_name text PRIMARY KEY, job_id text NOT NULL,
    claim_run bigint NOT NULL, claim_attempt bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    staging text, leftovers text[] NOT NULL DEFAULT '{{}}',
    run bigint, attempt bigint, rows bigint, columns text, published_at timestamptz, expires_at timestamptz
);
CREATE INDEX IF NOT EXISTS jobber_ledger_expires ON {ledger} (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobber_ledger_leftovers ON {ledger} (table_name) WHERE leftovers <> '{{}}';
CREATE INDEX IF NOT EXISTS jobber_ledger_staging ON {ledger} (claimed_at) WHERE staging IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobber_ledger_idle ON {ledger} (claimed_at) WHERE run IS NULL AND staging IS NULL
"""
)

# Ledgers of earlier versions lack columns that came later.
IS_OLD = SQL(
    """
SELECT NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass(%(name)s) AND attname = 'columns' AND NOT attisdropped
)
"""
)
UPGRADE = SQL("ALTER TABLE {ledger} ADD COLUMN IF NOT EXISTS columns text")

# An attempt that is overtaken leaves its staging table to whoever overtakes it. A job never replaces the live result of
# another job, even where their table names meet.
CLAIM = SQL(
    """
INSERT INTO {ledger} AS l (table_name, job_id, claim_run, claim_attempt, staging)
VALUES (%(table)s, %(job_id)s, %(run)s, %(attempt)s, %(staging)s)
ON CONFLICT (table_name) DO UPDATE
SET job_id = excluded.job_id, claim_run = excluded.claim_run, claim_attempt = excluded.claim_attempt,
    claimed_at = now(), staging = excluded.staging, leftovers = array_remove(l.leftovers || l.staging, NULL)
WHERE (l.claim_run, l.claim_attempt) < (excluded.claim_run, excluded.claim_attempt)
  AND (l.job_id = excluded.job_id OR l.run IS NULL)
RETURNING leftovers
"""
)

_READ: LiteralString = """
SELECT job_id, claim_run, claim_attempt, staging, run, attempt, rows, columns, expires_at <= clock_timestamp(),
    leftovers <> '{{}}'
FROM {ledger} WHERE table_name = %(table)s
"""
READ = SQL(_READ)
LOCK = SQL(_READ + "FOR UPDATE")

# Given up, not overtaken: the same attempt may begin once more, an older one may not.
GIVE_UP = SQL(
    """
UPDATE {ledger}
SET claim_attempt = claim_attempt - 1, staging = NULL,
    leftovers = CASE WHEN %(dropped)s THEN leftovers ELSE leftovers || staging END
WHERE table_name = %(table)s AND claim_run = %(run)s AND claim_attempt = %(attempt)s AND staging = %(staging)s
"""
)

FENCE = SQL(
    """
INSERT INTO {ledger} AS l (table_name, job_id, claim_run, claim_attempt)
VALUES (%(table)s, '', %(run)s, %(attempt)s)
ON CONFLICT (table_name) DO UPDATE
SET claim_run = excluded.claim_run, claim_attempt = excluded.claim_attempt, claimed_at = now(),
    staging = NULL, leftovers = array_remove(l.leftovers || l.staging, NULL)
WHERE (l.claim_run, l.claim_attempt) <= (excluded.claim_run, excluded.claim_attempt)
RETURNING leftovers
"""
)

ABANDONED = SQL(
    """
SELECT table_name, claim_run, claim_attempt FROM {ledger}
WHERE staging IS NOT NULL AND claimed_at < now() - make_interval(secs => %(older_than)s) ORDER BY claimed_at
"""
)

FORGET_LEFTOVERS = SQL(
    """
UPDATE {ledger}
SET leftovers = ARRAY(SELECT name FROM unnest(leftovers) AS name WHERE name <> ALL (%(dropped)s))
WHERE table_name = %(table)s
"""
)
LEFTOVERS = SQL("SELECT table_name, leftovers FROM {ledger} WHERE leftovers <> '{{}}' LIMIT %(limit)s")

UNPUBLISH = SQL(
    """
UPDATE {ledger}
SET run = NULL, attempt = NULL, rows = NULL, columns = NULL, published_at = NULL, expires_at = NULL, claimed_at = now()
WHERE table_name = {table}
"""
)
EXPIRED = SQL("SELECT table_name, run FROM {ledger} WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s")
# What is neither a result nor an attempt only remembers whom to fence off; a day is longer than any of them sleeps.
FORGET_IDLE = SQL(
    """
DELETE FROM {ledger}
WHERE run IS NULL AND staging IS NULL AND leftovers = '{{}}' AND claimed_at < now() - interval '1 day'
"""
)

PUBLISHED = SQL(
    """
UPDATE {ledger}
SET staging = NULL, run = claim_run, attempt = claim_attempt, rows = {rows}, columns = {columns},
    published_at = clock_timestamp(),
    expires_at = CASE WHEN {ttl} > 0 THEN clock_timestamp() + make_interval(secs => {ttl}) END
WHERE table_name = {table}
"""
)

# Registers and publishes in one, where no result stands and nothing of another attempt has to be dropped.
PUBLISH_FIRST = SQL(
    """
INSERT INTO {ledger} AS l
    (table_name, job_id, claim_run, claim_attempt, run, attempt, rows, columns, published_at, expires_at)
VALUES ({table}, {job_id}, {run}, {attempt}, {run}, {attempt}, {rows}, {columns}, clock_timestamp(),
    CASE WHEN {ttl} > 0 THEN clock_timestamp() + make_interval(secs => {ttl}) END)
ON CONFLICT (table_name) DO UPDATE
SET job_id = excluded.job_id, claim_run = excluded.claim_run, claim_attempt = excluded.claim_attempt,
    claimed_at = now(), run = excluded.run, attempt = excluded.attempt, rows = excluded.rows,
    columns = excluded.columns, published_at = excluded.published_at, expires_at = excluded.expires_at
WHERE (l.claim_run, l.claim_attempt) < (excluded.claim_run, excluded.claim_attempt)
  AND l.run IS NULL AND l.staging IS NULL AND l.leftovers = '{{}}'
"""
)
# Waits for a transaction that has inserted the table's row and is not over: nobody sees that row before.
AWAIT = SQL(
    """
INSERT INTO {ledger} (table_name, job_id, claim_run, claim_attempt) VALUES (%(table)s, '', 0, 0)
ON CONFLICT (table_name) DO NOTHING
"""
)
