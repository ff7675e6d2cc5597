"""The tables that a claim looks at: lanes, what runs, who works, and what holds jobs back."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    UniqueConstraint,
    text,
)

from jobber.store.schema.base import HOT, KEY, LABEL, NAME, TEXT, metadata

#: One combination of all that can hold a job back. Its jobs are free or blocked together.
lanes = Table(
    "jobber_lanes",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("queue", NAME, nullable=False),
    Column("task", NAME, nullable=False),
    Column("db", NAME, nullable=False),
    Column("tenant", NAME, nullable=False),  # "" unless a tag of jobs names their tenant
    Column("job_group", NAME, nullable=False),  # run of the group, "" where it has no limit
    Column("group_limit", Integer, nullable=False, server_default="0"),  # the same for all lanes of a group
    Column("suspect", Boolean, nullable=False),  # jobs whose worker died; no worker runs two of them at a time
    Column("head", BigInteger, nullable=False),  # lower bound of its smallest ord
    Column("version", BigInteger, nullable=False),  # bumped by whoever makes a job of it ready
    PrimaryKeyConstraint("id"),
    UniqueConstraint("queue", "task", "db", "tenant", "job_group", "suspect"),
    postgresql_with=HOT,
    sqlite_autoincrement=True,  # an ID is never used twice: caches and fencing rely on it
)

#: The attempts that hold slots. Limits count these rows; counters would drift.
running = Table(
    "jobber_running",
    metadata,
    Column("run", KEY, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", BigInteger, nullable=False),
    Column("lane", BigInteger, nullable=False),
    Column("phase", NAME, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("total", BigInteger),  # rows that are expected …
    Column("total_basis", NAME, nullable=False, server_default=text("''")),  # … and who says so: history, planner
    PrimaryKeyConstraint("run"),
    postgresql_with=HOT,
)


workers = Table(
    "jobber_workers",
    metadata,
    Column("id", KEY, autoincrement=True),
    Column("name", LABEL, nullable=False),
    Column("queues", TEXT, nullable=False),  # JSON list
    Column("slots", Integer, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),  # covers all of its attempts: one update renews them
    Column("memory", BigInteger),  # bytes that it has in use
    Column("dead", Boolean, nullable=False),  # declared dead: it can renew nothing any more
    PrimaryKeyConstraint("id"),
    postgresql_with=HOT,
    sqlite_autoincrement=True,
)

gates = Table(
    "jobber_gates",
    metadata,
    Column("kind", NAME, nullable=False),
    Column("name", NAME, nullable=False),
    Column("running_limit", Integer, nullable=False),  # 0 is none
    Column("paused", Boolean, nullable=False),
    Column("reason", TEXT, nullable=False),
    Column("pending_limit", Integer, nullable=False, server_default="0"),  # jobs that may wait; 0 is any number
    PrimaryKeyConstraint("kind", "name"),
)

#: How often jobs may start on a database, and when the next one may.
rates = Table(
    "jobber_rates",
    metadata,
    Column("db", NAME),
    Column("pace", BigInteger, nullable=False),  # microseconds between two starts, on the average
    Column("next_at", BigInteger, nullable=False),  # when the next job may start
    Column("slowed_until", BigInteger, nullable=False),  # twice that time between two starts until then …
    Column("slowed_for", TEXT, nullable=False),  # … for this reason
    Column("short_until", BigInteger),  # none may start until then: those who wait are to be woken
    PrimaryKeyConstraint("db"),
    postgresql_with=HOT,
)

#: Whose turn it is among tenants: the one that was served longest ago. There is a row of "", those who have none, if
#: and only if a lane ever had a tenant.
tenants = Table(
    "jobber_tenants",
    metadata,
    Column("tenant", NAME),
    Column("served", BigInteger, nullable=False),  # the turn in which a job of it was last started
    PrimaryKeyConstraint("tenant"),
    postgresql_with=HOT,
)

#: One row. Whoever claims locks it first; whoever changes a gate bumps its version.
dispatch = Table(
    "jobber_dispatch",
    metadata,
    Column("id", SmallInteger, autoincrement=False),
    Column("gates_version", BigInteger, nullable=False),
    Column("turn", BigInteger, nullable=False, server_default="0"),  # jobs of tenants that were started so far
    PrimaryKeyConstraint("id"),
    postgresql_with=HOT,
)

leaders = Table(
    "jobber_leaders",
    metadata,
    Column("role", NAME, nullable=False),
    Column("holder", LABEL, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    PrimaryKeyConstraint("role"),
    postgresql_with=HOT,
)
