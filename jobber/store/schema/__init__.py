"""The tables of the state store. The migrations make them; a test holds both to each other.

Names begin with ``jobber_``, so that the state can share a database with anything.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Sequence, Table

from jobber.store.schema.base import NAME, RUN_COLUMNS, metadata
from jobber.store.schema.claims import dispatch, gates, lanes, leaders, rates, running, tenants, workers
from jobber.store.schema.jobs import (
    attempts,
    backlogs,
    dependencies,
    finished_jobs,
    flights,
    groups,
    jobs,
    requests,
    tags,
)
from jobber.store.schema.schedules import fires, schedules
from jobber.store.schema.telling import events, outbox, versions, webhooks

__all__ = [
    "EMPTY",
    "ORD_STEP",
    "RUN_COLUMNS",
    "attempts",
    "backlogs",
    "counters",
    "dependencies",
    "dispatch",
    "events",
    "finished_jobs",
    "fires",
    "flights",
    "gates",
    "groups",
    "jobs",
    "lanes",
    "leaders",
    "metadata",
    "order",
    "outbox",
    "rates",
    "requests",
    "run_sequence",
    "running",
    "schedules",
    "tags",
    "tenants",
    "versions",
    "webhooks",
    "workers",
]

#: Lower bound of an empty lane: greater than any ``ord``, and still a signed 64-bit integer.
EMPTY = 2**62
#: ``ord = (10 - priority) * ORD_STEP + run``: priority first, then age. Runs are numbered from the milliseconds since
#: the epoch on: 10**15 of them last for 30,000 years, and 10 * 10**15 is well below EMPTY.
ORD_STEP = 10**15

#: Numbers runs where the engine has no sequences.
counters = Table(
    "jobber_counters",
    metadata,
    Column("name", NAME, nullable=False),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

#: Numbers runs where the engine has sequences; no metadata, because SQLite has none.
run_sequence: Sequence = Sequence("jobber_run_seq", data_type=BigInteger)


def order(priority: int, run: int) -> int:
    """Return the ``ord`` of a ready job: strict priority first, then age."""
    return (10 - priority) * ORD_STEP + run
