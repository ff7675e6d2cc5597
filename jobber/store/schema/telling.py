"""The tables of what is to be told: events, and notifications that are owed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, PrimaryKeyConstraint, Table

from jobber.store.schema.base import BUSY, KEY, LABEL, NAME, TEXT, metadata, run_columns

#: What happened to a run that neither its own row nor those of its attempts tell.
events = Table(
    "jobber_events",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("run", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("event", NAME, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("level", NAME, nullable=False),
    Column("worker", LABEL, nullable=False),
    Column("message", TEXT, nullable=False),
    PrimaryKeyConstraint("id"),
    Index(None, "run"),
    sqlite_autoincrement=True,
)


def _of_a_run() -> list[Column[Any]]:
    """The columns of a run, any of them empty."""
    found = run_columns()
    for column in found:
        column.primary_key, column.nullable = False, True
    return found


#: Changes of state that the broker has not been told of: each with the run as it was then, or with the group.
outbox = Table(
    "jobber_outbox",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("event", NAME, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("ended_group", TEXT),  # JSON: its row; NULL if it is a job's
    *_of_a_run(),
    PrimaryKeyConstraint("id"),
    sqlite_autoincrement=True,
    postgresql_with=BUSY,
)

#: Calls that are owed to the URLs of finished jobs and groups.
webhooks = Table(
    "jobber_webhooks",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("run", BigInteger, nullable=False),  # of the job or the group
    Column("is_group", Boolean, nullable=False),
    Column("event", NAME, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("url", TEXT, nullable=False),
    Column("host", NAME, nullable=False),  # of the URL, as far as it fits
    Column("tries", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("error", TEXT, nullable=False),  # of the newest try
    PrimaryKeyConstraint("id"),
    Index(None, "next_at"),
    Index(None, "run"),
    sqlite_autoincrement=True,
)

#: The SQL of tasks by its version, to show what a run has run after its file was changed.
versions = Table(
    "jobber_versions",
    metadata,
    Column("version", NAME),  # SHA-256 of the SQL
    Column("sql", TEXT, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # when a process last loaded it
    PrimaryKeyConstraint("version"),
)
