"""Attempts and their errors; databases that may stand in for each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobber.store.migrations.steps import Steps, needed

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    steps = Steps(op.get_bind())
    for table in ("jobber_jobs", "jobber_finished_jobs"):
        steps.column(table, sa.Column("replicas", steps.text))
        steps.column(table, needed("reroutes", sa.Integer(), default="0"))
    steps.table(
        "jobber_attempts",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        needed("ending", steps.name),
        needed("worker", steps.label),
        needed("db", steps.name),
        needed("error", steps.text),
        needed("error_code", steps.name),
        needed("started_at", sa.BigInteger()),
        needed("ended_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run", "number", name="pk_jobber_attempts"),
    )
