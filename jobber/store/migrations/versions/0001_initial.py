"""Jobs, lanes, workers, and what decides which job is next."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from jobber.store.migrations.steps import BUSY, HOT, KEY, Steps, needed

revision = "0001"
down_revision = None

EPOCH_MS = {
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS BIGINT)",
}


def upgrade() -> None:
    steps = Steps(op.get_bind())
    _jobs(steps)
    _lanes(steps)
    _people(steps)
    _dispatch(steps)


def _run_columns(steps: Steps) -> list[sa.Column[Any]]:
    return [
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        *(needed(name, steps.name) for name in ("job_id", "task", "queue", "db")),
        needed("results", steps.label),
        needed("result_table", steps.name),
        needed("args", steps.text),
        needed("priority", sa.SmallInteger()),
        needed("retries", sa.Integer()),
        needed("ttl", sa.BigInteger()),
        needed("timeout", sa.BigInteger()),
        sa.Column("eta", sa.BigInteger()),
        needed("tags", steps.text),
        needed("state", steps.name),
        needed("attempt", sa.Integer()),
        needed("failures", sa.Integer()),
        needed("rescues", sa.Integer()),
        needed("cancel_requested", sa.Boolean()),
        needed("worker", steps.label),
        needed("rows_so_far", sa.BigInteger()),
        needed("bytes_so_far", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        needed("columns", steps.text),
        needed("error", steps.text),
        needed("error_code", steps.name),
        needed("created_at", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("expires_at", sa.BigInteger()),
    ]


def _jobs(steps: Steps) -> None:
    steps.table(
        "jobber_jobs",
        *_run_columns(steps),
        needed("lane", sa.BigInteger()),
        sa.Column("ord", sa.BigInteger()),
        sa.Column("due", sa.BigInteger()),
        needed("ended_attempt", sa.Integer()),
        needed("ended_as", steps.name),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_jobs"),
        sa.UniqueConstraint("job_id", name="uq_jobber_jobs_job_id"),
        postgresql_with=BUSY,
    )
    steps.index("jobber_jobs", "lane", "ord")
    steps.index("jobber_jobs", "queue", "ord")
    steps.index("jobber_jobs", "due")
    steps.table(
        "jobber_finished_jobs",
        *_run_columns(steps),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_finished_jobs"),
    )
    steps.index("jobber_finished_jobs", "job_id", "run")
    steps.index("jobber_finished_jobs", "finished_at")


def _lanes(steps: Steps) -> None:
    key = ("queue", "task", "db", "tenant", "job_group")
    steps.table(
        "jobber_lanes",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        *(needed(name, steps.name) for name in key),
        needed("suspect", sa.Boolean()),
        needed("head", sa.BigInteger()),
        needed("version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_lanes"),
        sa.UniqueConstraint(*key, "suspect", name="uq_jobber_lanes_queue_task_db_tenant_job_group_suspect"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    steps.table(
        "jobber_running",
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        needed("attempt", sa.Integer()),
        needed("worker", sa.BigInteger()),
        needed("lane", sa.BigInteger()),
        needed("phase", steps.name),
        needed("rows", sa.BigInteger()),
        needed("bytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_running"),
        postgresql_with=HOT,
    )


def _people(steps: Steps) -> None:
    steps.table(
        "jobber_workers",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        needed("name", steps.label),
        needed("queues", steps.text),
        needed("slots", sa.Integer()),
        needed("registered_at", sa.BigInteger()),
        needed("seen_at", sa.BigInteger()),
        needed("lease_until", sa.BigInteger()),
        needed("dead", sa.Boolean()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_workers"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    steps.table(
        "jobber_leaders",
        needed("role", steps.name),
        needed("holder", steps.label),
        needed("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("role", name="pk_jobber_leaders"),
        postgresql_with=HOT,
    )


def _dispatch(steps: Steps) -> None:
    steps.table(
        "jobber_gates",
        needed("kind", steps.name),
        needed("name", steps.name),
        needed("running_limit", sa.Integer()),
        needed("paused", sa.Boolean()),
        needed("reason", steps.text),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_jobber_gates"),
    )
    steps.table(
        "jobber_dispatch",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        needed("gates_version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_dispatch"),
        postgresql_with=HOT,
    )
    steps.row("jobber_dispatch", id=1, gates_version=1)
    steps.table(
        "jobber_counters",
        needed("name", steps.name),
        needed("value", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_jobber_counters"),
    )
    # Not from 1: ledgers of results may remember the runs of an earlier state database.
    dialect = op.get_bind().dialect
    first = op.get_bind().execute(sa.text(f"SELECT {EPOCH_MS[dialect.name]}")).scalar_one()
    steps.row("jobber_counters", name="run", value=first)
    if dialect.name == "postgresql":
        op.execute(sa.schema.CreateSequence(sa.Sequence("jobber_run_seq", start=first, data_type=sa.BigInteger())))
