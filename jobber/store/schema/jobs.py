"""The tables of jobs and groups: the live ones, the finished ones, and what they wait for."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, Table, UniqueConstraint

from jobber.store.schema.base import BUSY, HOT, KEY, LABEL, NAME, TEXT, metadata, run_columns

#: Runs that are not over: PENDING, STARTED, RETRY. One row per job ID.
jobs = Table(
    "jobber_jobs",
    metadata,
    *run_columns(),
    Column("lane", BigInteger, nullable=False),
    Column("ord", BigInteger),  # place in its lane while ready, else NULL
    Column("due", BigInteger),  # when it becomes ready while only time holds it, else NULL
    Column("ready_at", BigInteger),  # not before, whatever else holds it: its start time, or that of its next attempt
    Column("paused", TEXT),  # why it is paused, NULL if it is not
    Column("ended_attempt", Integer, nullable=False),  # the newest attempt that ended without ending the run …
    Column("ended_as", NAME, nullable=False),  # … and how (``Ending``)
    PrimaryKeyConstraint("run"),
    UniqueConstraint("job_id"),
    # Whole indexes, not partial ones: NULLs cost little, the existence of any job in a lane can be asked, and no query
    # has to repeat a condition to be allowed to use them.
    Index(None, "lane", "ord"),
    Index(None, "queue", "ord"),
    Index(None, "due"),
    Index(None, "group_run"),
    Index(None, "state", "run"),
    postgresql_with=BUSY,
)

#: The history: runs that are over.
finished_jobs = Table(
    "jobber_finished_jobs",
    metadata,
    *run_columns(),
    PrimaryKeyConstraint("run"),
    Index(None, "job_id", "run"),
    Index(None, "finished_at"),
    Index(None, "group_run"),
    Index(None, "task", "run"),
    Index(None, "queue", "run"),
    Index(None, "state", "run"),
    Index(None, "fingerprint", "run"),
)

#: Tags of runs, live or finished, to find them by.
tags = Table(
    "jobber_tags",
    metadata,
    Column("name", NAME),
    Column("value", NAME),
    Column("run", BigInteger, autoincrement=False),
    PrimaryKeyConstraint("name", "value", "run"),
    Index(None, "run"),
)

#: What waiting runs wait for: a row for each parent that is not finished.
dependencies = Table(
    "jobber_dependencies",
    metadata,
    Column("child", BigInteger, autoincrement=False),
    Column("parent", BigInteger, autoincrement=False),
    Column("parent_id", NAME, nullable=False),  # its job ID
    Column("policy", NAME, nullable=False),  # what its end means for the child (``Policy``)
    PrimaryKeyConstraint("child", "parent"),
    Index(None, "parent"),
)

#: The run that equal jobs share, by a hash of all in which they do not differ; the row may outlive it.
flights = Table(
    "jobber_flights",
    metadata,
    Column("fingerprint", BigInteger, autoincrement=False),
    Column("run", BigInteger),
    PrimaryKeyConstraint("fingerprint"),
    Index(None, "run"),
)

#: What the caps on jobs that wait still allow.
backlogs = Table(
    "jobber_backlogs",
    metadata,
    Column("kind", NAME),
    Column("name", NAME),
    Column("cap", Integer, nullable=False),  # that ``free`` is about
    Column("free", Integer, nullable=False),  # jobs that may come before they are counted again
    Column("counted_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
    postgresql_with=HOT,
)

#: Answers to requests with an Idempotency-Key.
requests = Table(
    "jobber_requests",
    metadata,
    Column("idempotency_key", NAME),
    Column("digest", NAME, nullable=False),  # of the request
    Column("answer", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("idempotency_key"),
    Index(None, "created_at"),
)

#: Runs of groups, live or finished. Whoever ends a job of one counts it here in the same transaction; the row's lock
#: puts those who do so at the same time in a row, and the last of them makes the callback ready.
groups = Table(
    "jobber_groups",
    metadata,
    Column("run", KEY, autoincrement=False),
    Column("group_id", NAME, nullable=False),
    Column("live_id", NAME),  # the group's ID while it is not finished, else NULL: one live group per ID
    Column("size", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("callback_run", BigInteger),
    Column("callback_url", TEXT),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    PrimaryKeyConstraint("run"),
    UniqueConstraint("live_id"),
    Index(None, "group_id", "run"),
    Index(None, "finished_at"),
    postgresql_with=BUSY,
)


#: Attempts that ended without ending their run. The newest attempt of a run stands in the run's own row.
attempts = Table(
    "jobber_attempts",
    metadata,
    Column("run", BigInteger, autoincrement=False),
    Column("number", Integer, autoincrement=False),
    Column("ending", NAME, nullable=False),
    Column("worker", LABEL, nullable=False),
    Column("db", NAME, nullable=False),
    Column("error", TEXT, nullable=False),
    Column("error_code", NAME, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("run", "number"),
)
