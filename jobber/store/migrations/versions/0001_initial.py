"""The whole schema of the first release."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql, sqlite

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
NAME_MAX = 150
#: Binary, and 'a' is not 'a ': by whether it is MariaDB.
COLLATION = {True: "utf8mb4_nopad_bin", False: "utf8mb4_0900_bin"}
INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_row_format": "DYNAMIC",
    "mysql_default_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
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
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS BIGINT)",
}


def upgrade() -> None:
    steps = _Steps(op.get_bind())
    _jobs(steps)
    _lanes(steps)
    _people(steps)
    _dispatch(steps)


class _Steps:
    """Makes what is missing: on MySQL each step commits by itself, and an earlier attempt may have died half-way."""

    def __init__(self, bind: sa.Connection) -> None:
        self._bind = bind
        self._done: set[str] = set()
        mysql_only: dict[str, Any] = {"charset": "utf8mb4"}
        if bind.dialect.name == "mysql":
            mysql_only["collation"] = COLLATION[bool(getattr(bind.dialect, "is_mariadb", False))]
            inspector = sa.inspect(bind)
            tables = [name for name in inspector.get_table_names() if name.startswith("jobber_")]
            self._done = {*tables, *(str(index["name"]) for table in tables for index in inspector.get_indexes(table))}
        self.name = (
            sa.Text()
            .with_variant(postgresql.TEXT(collation="C"), "postgresql")
            .with_variant(mysql.VARCHAR(NAME_MAX, **mysql_only), "mysql")
        )
        self.text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
        self.label = self.text.with_variant(postgresql.TEXT(collation="C"), "postgresql")

    def table(self, name: str, *parts: Any, **options: Any) -> None:
        if name not in self._done:
            op.create_table(name, *parts, **INNODB, **options)

    def index(self, table: str, *columns: str) -> None:
        name = f"ix_{table}_{'_'.join(columns)}"
        if name not in self._done:
            op.create_index(name, table, list(columns))

    def row(self, table: str, **values: Any) -> None:
        named = sa.table(table, *(sa.column(name) for name in values))
        if not self._bind.execute(sa.select(sa.literal(1)).select_from(named)).first():
            op.bulk_insert(named, [values])


def _needed(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _run_columns(steps: _Steps) -> list[sa.Column[Any]]:
    return [
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        *(_needed(name, steps.name) for name in ("job_id", "task", "queue", "db")),
        _needed("results", steps.label),
        _needed("result_table", steps.name),
        _needed("args", steps.text),
        _needed("priority", sa.SmallInteger()),
        _needed("retries", sa.Integer()),
        _needed("ttl", sa.BigInteger()),
        _needed("timeout", sa.BigInteger()),
        sa.Column("eta", sa.BigInteger()),
        _needed("tags", steps.text),
        _needed("state", steps.name),
        _needed("attempt", sa.Integer()),
        _needed("failures", sa.Integer()),
        _needed("rescues", sa.Integer()),
        _needed("cancel_requested", sa.Boolean()),
        _needed("worker", steps.label),
        _needed("rows_so_far", sa.BigInteger()),
        _needed("bytes_so_far", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        _needed("columns", steps.text),
        _needed("error", steps.text),
        _needed("error_code", steps.name),
        _needed("created_at", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("expires_at", sa.BigInteger()),
    ]


def _jobs(steps: _Steps) -> None:
    steps.table(
        "jobber_jobs",
        *_run_columns(steps),
        _needed("lane", sa.BigInteger()),
        sa.Column("ord", sa.BigInteger()),
        sa.Column("due", sa.BigInteger()),
        _needed("ended_attempt", sa.Integer()),
        _needed("ended_as", steps.name),
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


def _lanes(steps: _Steps) -> None:
    key = ("queue", "task", "db", "tenant", "job_group")
    steps.table(
        "jobber_lanes",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        *(_needed(name, steps.name) for name in key),
        _needed("suspect", sa.Boolean()),
        _needed("head", sa.BigInteger()),
        _needed("version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_lanes"),
        sa.UniqueConstraint(*key, "suspect", name="uq_jobber_lanes_queue_task_db_tenant_job_group_suspect"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    steps.table(
        "jobber_running",
        sa.Column("run", KEY, autoincrement=False, nullable=False),
        _needed("attempt", sa.Integer()),
        _needed("worker", sa.BigInteger()),
        _needed("lane", sa.BigInteger()),
        _needed("phase", steps.name),
        _needed("rows", sa.BigInteger()),
        _needed("bytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run", name="pk_jobber_running"),
        postgresql_with=HOT,
    )


def _people(steps: _Steps) -> None:
    steps.table(
        "jobber_workers",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        _needed("name", steps.label),
        _needed("queues", steps.text),
        _needed("slots", sa.Integer()),
        _needed("registered_at", sa.BigInteger()),
        _needed("seen_at", sa.BigInteger()),
        _needed("lease_until", sa.BigInteger()),
        _needed("dead", sa.Boolean()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_workers"),
        postgresql_with=HOT,
        sqlite_autoincrement=True,
    )
    steps.table(
        "jobber_leaders",
        _needed("role", steps.name),
        _needed("holder", steps.label),
        _needed("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("role", name="pk_jobber_leaders"),
        postgresql_with=HOT,
    )


def _dispatch(steps: _Steps) -> None:
    steps.table(
        "jobber_gates",
        _needed("kind", steps.name),
        _needed("name", steps.name),
        _needed("running_limit", sa.Integer()),
        _needed("paused", sa.Boolean()),
        _needed("reason", steps.text),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_jobber_gates"),
    )
    steps.table(
        "jobber_dispatch",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        _needed("gates_version", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobber_dispatch"),
        postgresql_with=HOT,
    )
    steps.row("jobber_dispatch", id=1, gates_version=1)
    steps.table(
        "jobber_counters",
        _needed("name", steps.name),
        _needed("value", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_jobber_counters"),
    )
    # Not from 1: ledgers of results may remember the runs of an earlier state database.
    dialect = op.get_bind().dialect
    first = op.get_bind().execute(sa.text(f"SELECT {EPOCH_MS[dialect.name]}")).scalar_one()
    steps.row("jobber_counters", name="run", value=first)
    if dialect.name == "postgresql":
        op.execute(sa.schema.CreateSequence(sa.Sequence("jobber_run_seq", start=first, data_type=sa.BigInteger())))
