"""The tables of schedules."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, Table

from jobber.store.schema.base import NAME, TEXT, metadata

#: Recurring jobs.
schedules = Table(
    "jobber_schedules",
    metadata,
    Column("schedule_id", NAME),
    Column("source", NAME, nullable=False),  # "api", or "tag": the task's file says it
    Column("task", NAME, nullable=False),
    Column("request", TEXT, nullable=False),  # JSON: the other fields of its jobs
    Column("cron", NAME, nullable=False),  # "" where there is an interval
    Column("interval_s", BigInteger, nullable=False),  # 0 where there is a cron expression
    Column("timezone", NAME, nullable=False),
    Column("max_runs", Integer, nullable=False),  # 0 is no limit
    Column("start_at", BigInteger),
    Column("end_at", BigInteger),
    Column("overlap", NAME, nullable=False),
    Column("missed", NAME, nullable=False),
    Column("jitter", Integer, nullable=False),  # seconds
    Column("paused", TEXT),  # why it is paused, NULL if it is not
    Column("next_at", BigInteger),  # the next fire time; NULL once there is none
    Column("runs", Integer, nullable=False),
    Column("last_at", BigInteger),
    Column("last_job_id", NAME, nullable=False),
    Column("last_error", TEXT),  # why its newest fire made no job, NULL if it made one
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("schedule_id"),
    Index(None, "next_at"),
)

#: Fire times that are dealt with: who inserts the row fires.
fires = Table(
    "jobber_fires",
    metadata,
    Column("schedule_id", NAME),
    Column("fire_at", BigInteger, autoincrement=False),
    Column("outcome", NAME, nullable=False),  # "fired", "run", "skipped", "missed" or "failed"
    Column("job_id", NAME, nullable=False),  # "" where there is none
    Column("reason", TEXT),  # why there is none
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("schedule_id", "fire_at"),
    Index(None, "created_at"),
)
