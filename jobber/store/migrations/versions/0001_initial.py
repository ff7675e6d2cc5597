"""The whole schema of the first release."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
HOT = {
    "fillfactor": 40,
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_cost_delay": 0,
}
BUSY = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": 0,
}
EPOCH_MS = {
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS BIGINT)",
}


def upgrade() -> None:
    _jobs()
    _lanes()
    _people()
    _dispatch()


def _needed(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _run_columns() -> list[sa.Column[Any]]:
    names = ("job_id", "task", "queue", "db", "results", "result_table")
    return [
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        *(_needed(name, NAME) for name in names),
        _needed("args", sa.Text()),
        _needed("priority", sa.SmallInteger()),
        _needed("retries", sa.Integer()),
        _needed("ttl", sa.BigInteger()),
        _needed("timeout", sa.BigInteger()),
        sa.Column("eta", sa.BigInteger()),
        _needed("tags", sa.Text()),
        _needed("state", NAME),
        _needed("attempt", sa.Integer()),
        _needed("failures", sa.Integer()),
        _needed("rescues", sa.Integer()),
        _needed("cancel_requested", sa.Boolean()),
        _needed("worker", NAME),
        _needed("rows_so_far", sa.BigInteger()),
        _needed("bytes_so_far", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        _needed("columns", sa.Text()),
        _needed("error", sa.Text()),
        _needed("error_code", NAME),
        _needed("created_at", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("expires_at", sa.BigInteger()),
    ]


def _jobs() -> None:
    op.create_table(
        "jobber_jobs",
        *_run_columns(),
        _needed("lane", sa.BigInteger()),
        sa.Column("ord", sa.BigInteger()),
        sa.Column("due", sa.BigInteger()),
        _needed("ended_attempt", sa.Integer()),
        _needed("ended_as", NAME),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_jobs"),
        sa.UniqueConstraint("job_id", name="uq_jobber_jobs_job_id"),
        postgresql_with=BUSY,
    )
    op.create_index("ix_jobber_jobs_lane_ord", "jobber_jobs", ["lane", "ord"])
    op.create_index("ix_jobber_jobs_queue_ord", "jobber_jobs", ["queue", "ord"])
    op.create_index("ix_jobber_jobs_due", "jobber_jobs", ["due"])
    op.create_table(
        "jobber_finished_jobs",
        *_run_columns(),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_finished_jobs"),
    )
    op.create_index("ix_jobber_finished_jobs_job_id_run", "jobber_finished_jobs", ["job_id", "run"])
    op.create_index("ix_jobber_finished_jobs_finished_at", "jobber_finished_jobs", ["finished_at"])


def _lanes() -> None:
    key = ("queue", "task", "db", "tenant", "job_group")
    op.create_table(
        "jobber_lanes",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        *(_needed(name, NAME) for name in key),
        _needed("suspect", sa.Boolean()),
        _needed("head", sa.BigInteger()),
        _needed("version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_lanes"),
        sa.UniqueConstraint(*key, "suspect", name="uq_jobber_lanes_queue_task_db_tenant_job_group_suspect"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "jobber_running",
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        _needed("attempt", sa.Integer()),
        _needed("worker", sa.BigInteger()),
        _needed("lane", sa.BigInteger()),
        _needed("phase", NAME),
        _needed("rows", sa.BigInteger()),
        _needed("bytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_running"),
        postgresql_with=HOT,
    )


def _people() -> None:
    op.create_table(
        "jobber_workers",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        _needed("name", NAME),
        _needed("queues", sa.Text()),
        _needed("slots", sa.Integer()),
        _needed("registered_at", sa.BigInteger()),
        _needed("seen_at", sa.BigInteger()),
        _needed("lease_until", sa.BigInteger()),
        _needed("dead", sa.Boolean()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_workers"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "jobber_leaders",
        _needed("role", NAME),
        _needed("holder", NAME),
        _needed("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("role", name="pk_jobber_leaders"),
        postgresql_with=HOT,
    )


def _dispatch() -> None:
    op.create_table(
        "jobber_gates",
        _needed("kind", NAME),
        _needed("name", NAME),
        _needed("running_limit", sa.Integer()),
        _needed("paused", sa.Boolean()),
        _needed("reason", sa.Text()),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_jobber_gates"),
    )
    dispatch = op.create_table(
        "jobber_dispatch",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        _needed("gates_version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_dispatch"),
        postgresql_with=HOT,
    )
    op.bulk_insert(dispatch, [{"id": 1, "gates_version": 1}])
    counters = op.create_table(
        "jobber_counters",
        _needed("name", NAME),
        _needed("value", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_jobber_counters"),
    )
    # Not from 1: ledgers of results may remember the runs of an earlier state database.
    dialect = op.get_bind().dialect
    first = op.get_bind().execute(sa.text(f"SELECT {EPOCH_MS[dialect.name]}")).scalar_one()
    op.bulk_insert(counters, [{"name": "run", "value": first}])
    if dialect.supports_sequences:
        op.execute(sa.schema.CreateSequence(sa.Sequence("jobber_run_seq", start=first, data_type=sa.BigInteger())))
