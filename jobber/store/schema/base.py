"""What the tables of the state store are made of.

Text that is compared (job IDs, names) is compared byte for byte. Times are BIGINT microseconds since the epoch by the
database's own clock.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, SmallInteger, Text, text
from sqlalchemy.dialects import mysql, postgresql, sqlite

from jobber.jobs import NAME_MAX

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes a 64-bit rowid of INTEGER PRIMARY KEY only.
KEY = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
# Compared byte for byte: SQLite's default collation is BINARY, that of the others depends on the database. MySQL and
# MariaDB have collations of different names for it, and the migration picks one.
NAME = (
    Text()
    .with_variant(postgresql.TEXT(collation="C"), "postgresql")
    .with_variant(mysql.VARCHAR(NAME_MAX, charset="utf8mb4"), "mysql")
)
# Of any length, in no index. MySQL's TEXT ends at 64 KiB.
TEXT = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql")
LABEL = TEXT.with_variant(postgresql.TEXT(collation="C"), "postgresql")

#: Storage of small tables whose rows change all the time: room in each page keeps updates HOT
#: (https://www.postgresql.org/docs/current/storage-hot.html), and dead rows go before they are many.
HOT = {
    "fillfactor": 40,
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_cost_delay": 0,
}
#: Storage of the live jobs: many come and go, and a claim walks their index.
BUSY = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": 0,
}


def run_columns() -> list[Column[Any]]:
    """The columns of a run, live or finished."""
    return [
        Column("run", KEY, autoincrement=False),
        Column("job_id", NAME, nullable=False),
        Column("task", NAME, nullable=False),
        Column("queue", NAME, nullable=False),
        Column("db", NAME, nullable=False),
        Column("results", LABEL, nullable=False),
        Column("result_table", NAME, nullable=False),
        Column("args", TEXT, nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("retries", Integer, nullable=False),
        Column("ttl", BigInteger, nullable=False),
        Column("timeout", BigInteger, nullable=False),
        Column("eta", BigInteger),
        Column("tags", TEXT, nullable=False),
        Column("replicas", TEXT),  # JSON list, NULL is an empty one
        Column("reroutes", Integer, nullable=False, server_default="0"),
        Column("group_id", NAME, nullable=False, server_default=text("''")),
        Column("group_run", BigInteger),
        Column("group_limit", Integer, nullable=False, server_default="0"),
        Column("tenant", NAME, nullable=False, server_default=text("''")),  # whose limits it counts against
        Column("version", NAME, nullable=False, server_default=text("''")),  # SHA-256 of the task's SQL
        Column("fingerprint", BigInteger, nullable=False, server_default="0"),  # of task, version and args
        Column("depends_on", TEXT),  # JSON list of job IDs, NULL is an empty one
        Column("depends_policy", NAME, nullable=False, server_default=text("''")),
        Column("schedule", NAME, nullable=False, server_default=text("''")),  # that made it
        Column("callback_url", TEXT),
        Column("reused", TEXT),  # JSON: whose result it is, if it is that of another run
        Column("state", NAME, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("failures", Integer, nullable=False),
        Column("rescues", Integer, nullable=False),
        Column("cancel_requested", Boolean, nullable=False),
        Column("worker", LABEL, nullable=False),
        Column("rows_so_far", BigInteger, nullable=False),
        Column("bytes_so_far", BigInteger, nullable=False),
        Column("rows", BigInteger),
        Column("columns", TEXT, nullable=False),
        Column("error", TEXT, nullable=False),
        Column("error_code", NAME, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("started_at", BigInteger),
        Column("snapshot_at", BigInteger),  # when its query began to read
        Column("finished_at", BigInteger),
        Column("expires_at", BigInteger),
    ]


RUN_COLUMNS = tuple(column.name for column in run_columns())
