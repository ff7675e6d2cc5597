"""Tenants, rates, backlog caps, dependencies, schedules, reuse, tags, events and notifications."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from jobber.store.migrations.steps import BUSY, HOT, KEY, Steps, needed

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    steps = Steps(op.get_bind())
    for table in ("jobber_jobs", "jobber_finished_jobs"):
        steps.column(table, needed("tenant", steps.name, default=""))
        steps.column(table, needed("version", steps.name, default=""))
        steps.column(table, needed("fingerprint", sa.BigInteger(), default="0"))
        steps.column(table, sa.Column("depends_on", steps.text))
        steps.column(table, needed("depends_policy", steps.name, default=""))
        steps.column(table, needed("schedule", steps.name, default=""))
        steps.column(table, sa.Column("callback_url", steps.text))
        steps.column(table, sa.Column("reused", steps.text))
        steps.column(table, sa.Column("snapshot_at", sa.BigInteger()))
    steps.column("jobber_jobs", sa.Column("ready_at", sa.BigInteger()))
    steps.column("jobber_jobs", sa.Column("paused", steps.text))
    op.execute("UPDATE jobber_jobs SET ready_at = due WHERE due IS NOT NULL")
    steps.index("jobber_jobs", "state", "run")
    for column in ("task", "queue", "state", "fingerprint"):
        steps.index("jobber_finished_jobs", column, "run")
    steps.column("jobber_groups", sa.Column("callback_url", steps.text))
    steps.column("jobber_running", sa.Column("total", sa.BigInteger()))
    steps.column("jobber_running", needed("total_basis", steps.name, default=""))
    steps.column("jobber_workers", sa.Column("memory", sa.BigInteger()))
    steps.column("jobber_gates", needed("pending_limit", sa.Integer(), default="0"))
    steps.column("jobber_dispatch", needed("turn", sa.BigInteger(), default="0"))
    _claims(steps)
    _waiting(steps)
    _schedules(steps)
    _telling(steps)


def _claims(steps: Steps) -> None:
    steps.table(
        "jobber_rates",
        needed("db", steps.name),
        needed("pace", sa.BigInteger()),
        needed("next_at", sa.BigInteger()),
        needed("slowed_until", sa.BigInteger()),
        needed("slowed_for", steps.text),
        sa.Column("short_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("db", name="pk_jobber_rates"),
        postgresql_with=HOT,
    )
    steps.table(
        "jobber_tenants",
        needed("tenant", steps.name),
        needed("served", sa.BigInteger()),
        sa.PrimaryKeyConstraint("tenant", name="pk_jobber_tenants"),
        postgresql_with=HOT,
    )


def _waiting(steps: Steps) -> None:
    steps.table(
        "jobber_tags",
        needed("name", steps.name),
        needed("value", steps.name),
        _run("run"),
        sa.PrimaryKeyConstraint("name", "value", "run", name="pk_jobber_tags"),
    )
    steps.index("jobber_tags", "run")
    steps.table(
        "jobber_dependencies",
        _run("child"),
        _run("parent"),
        needed("parent_id", steps.name),
        needed("policy", steps.name),
        sa.PrimaryKeyConstraint("child", "parent", name="pk_jobber_dependencies"),
    )
    steps.index("jobber_dependencies", "parent")
    steps.table(
        "jobber_flights",
        _run("fingerprint"),
        sa.Column("run", sa.BigInteger()),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_jobber_flights"),
    )
    steps.index("jobber_flights", "run")
    steps.table(
        "jobber_backlogs",
        needed("kind", steps.name),
        needed("name", steps.name),
        needed("cap", sa.Integer()),
        needed("free", sa.Integer()),
        needed("counted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_jobber_backlogs"),
        postgresql_with=HOT,
    )
    steps.table(
        "jobber_requests",
        needed("idempotency_key", steps.name),
        needed("digest", steps.name),
        needed("answer", steps.text),
        needed("created_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("idempotency_key", name="pk_jobber_requests"),
    )
    steps.index("jobber_requests", "created_at")


def _schedules(steps: Steps) -> None:
    steps.table(
        "jobber_schedules",
        needed("schedule_id", steps.name),
        needed("source", steps.name),
        needed("task", steps.name),
        needed("request", steps.text),
        needed("cron", steps.name),
        needed("interval_s", sa.BigInteger()),
        needed("timezone", steps.name),
        needed("max_runs", sa.Integer()),
        sa.Column("start_at", sa.BigInteger()),
        sa.Column("end_at", sa.BigInteger()),
        needed("overlap", steps.name),
        needed("missed", steps.name),
        needed("jitter", sa.Integer()),
        sa.Column("paused", steps.text),
        sa.Column("next_at", sa.BigInteger()),
        needed("runs", sa.Integer()),
        sa.Column("last_at", sa.BigInteger()),
        needed("last_job_id", steps.name),
        sa.Column("last_error", steps.text),
        needed("created_at", sa.BigInteger()),
        needed("updated_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("schedule_id", name="pk_jobber_schedules"),
    )
    steps.index("jobber_schedules", "next_at")
    steps.table(
        "jobber_fires",
        needed("schedule_id", steps.name),
        _run("fire_at"),
        needed("outcome", steps.name),
        needed("job_id", steps.name),
        sa.Column("reason", steps.text),
        needed("created_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("schedule_id", "fire_at", name="pk_jobber_fires"),
    )
    steps.index("jobber_fires", "created_at")


def _telling(steps: Steps) -> None:
    steps.table(
        "jobber_events",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        needed("run", sa.BigInteger()),
        needed("at", sa.BigInteger()),
        needed("event", steps.name),
        needed("attempt", sa.Integer()),
        needed("level", steps.name),
        needed("worker", steps.label),
        needed("message", steps.text),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_events"),
        sqlite_autoincrement=True,
    )
    steps.index("jobber_events", "run")
    steps.table(
        "jobber_outbox",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        needed("event", steps.name),
        needed("at", sa.BigInteger()),
        sa.Column("ended_group", steps.text),
        *_of_a_run(steps),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_outbox"),
        sqlite_autoincrement=True,
        postgresql_with=BUSY,
    )
    steps.table(
        "jobber_webhooks",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        needed("run", sa.BigInteger()),
        needed("is_group", sa.Boolean()),
        needed("event", steps.name),
        needed("at", sa.BigInteger()),
        needed("url", steps.text),
        needed("host", steps.name),
        needed("tries", sa.Integer()),
        needed("next_at", sa.BigInteger()),
        needed("error", steps.text),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_webhooks"),
        sqlite_autoincrement=True,
    )
    steps.index("jobber_webhooks", "next_at")
    steps.index("jobber_webhooks", "run")
    steps.table(
        "jobber_versions",
        needed("version", steps.name),
        needed("sql", steps.text),
        needed("seen_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("version", name="pk_jobber_versions"),
    )


def _run(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False)


def _of_a_run(steps: Steps) -> list[sa.Column[Any]]:
    """Return the columns of a run, any of them empty, in the order of the schema."""
    big, small, flag = sa.BigInteger(), sa.Integer(), sa.Boolean()
    return [
        sa.Column("run", KEY),
        *(sa.Column(name, steps.name) for name in ("job_id", "task", "queue", "db")),
        sa.Column("results", steps.label),
        sa.Column("result_table", steps.name),
        sa.Column("args", steps.text),
        sa.Column("priority", sa.SmallInteger()),
        sa.Column("retries", small),
        *(sa.Column(name, big) for name in ("ttl", "timeout", "eta")),
        sa.Column("tags", steps.text),
        sa.Column("replicas", steps.text),
        sa.Column("reroutes", small, server_default="0"),
        sa.Column("group_id", steps.name, server_default=sa.text("''")),
        sa.Column("group_run", big),
        sa.Column("group_limit", small, server_default="0"),
        sa.Column("tenant", steps.name, server_default=sa.text("''")),
        sa.Column("version", steps.name, server_default=sa.text("''")),
        sa.Column("fingerprint", big, server_default="0"),
        sa.Column("depends_on", steps.text),
        sa.Column("depends_policy", steps.name, server_default=sa.text("''")),
        sa.Column("schedule", steps.name, server_default=sa.text("''")),
        sa.Column("callback_url", steps.text),
        sa.Column("reused", steps.text),
        sa.Column("state", steps.name),
        *(sa.Column(name, small) for name in ("attempt", "failures", "rescues")),
        sa.Column("cancel_requested", flag),
        sa.Column("worker", steps.label),
        *(sa.Column(name, big) for name in ("rows_so_far", "bytes_so_far", "rows")),
        sa.Column("columns", steps.text),
        sa.Column("error", steps.text),
        sa.Column("error_code", steps.name),
        *(sa.Column(name, big) for name in ("created_at", "started_at", "snapshot_at", "finished_at", "expires_at")),
    ]
