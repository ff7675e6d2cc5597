"""The tables of what is to be told: events, and notifications that are owed."""

from __future__ import annotations

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

#: Changes of state that the broker has not been told of: each with the run as it was then.
outbox = Table(
    "jobber_outbox",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("event", NAME, nullable=False),
    Column("at", BigInteger, nullable=False),
    *(column for column in run_columns() if column.name != "run"),
    Column("run", BigInteger, nullable=False),
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
    Column("tries", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("error", TEXT, nullable=False),  # of the newest try
    PrimaryKeyConstraint("id"),
    Index(None, "next_at"),
    sqlite_autoincrement=True,
)
