"""Groups of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobber.store.migrations.steps import BUSY, KEY, Steps, needed

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    steps = Steps(op.get_bind())
    for table in ("jobber_jobs", "jobber_finished_jobs"):
        steps.column(table, needed("group_id", steps.name, default=""))
        steps.column(table, sa.Column("group_run", sa.BigInteger()))
        steps.column(table, needed("group_limit", sa.Integer(), default="0"))
        steps.index(table, "group_run")
    steps.column("jobber_lanes", needed("group_limit", sa.Integer(), default="0"))
    steps.table(
        "jobber_groups",
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        needed("group_id", steps.name),
        sa.Column("live_id", steps.name),
        *(needed(name, sa.Integer()) for name in ("size", "concurrency", "succeeded", "failed", "cancelled")),
        sa.Column("callback_run", sa.BigInteger()),
        needed("created_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_groups"),
        sa.UniqueConstraint("live_id", name="uq_jobber_groups_live_id"),
        postgresql_with=BUSY,
    )
    steps.index("jobber_groups", "group_id", "run")
    steps.index("jobber_groups", "finished_at")
