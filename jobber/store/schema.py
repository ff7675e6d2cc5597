"""The tables of the state store. The migrations make them; a test holds both to each other.

Names begin with ``jobber_``, so that the state can share a database with anything. Text that is compared (job IDs,
names) is compared byte for byte. Times are BIGINT microseconds since the epoch by the database's own clock.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

#: Lower bound of an empty lane: greater than any ``ord``, and still a signed 64-bit integer.
EMPTY = 2**62
#: ``ord = (10 - priority) * ORD_STEP + run``: priority first, then age. Runs are numbered from the milliseconds since
#: the epoch on: 10**15 of them last for 30,000 years, and 10 * 10**15 is well below EMPTY.
ORD_STEP = 10**15

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes a 64-bit rowid of INTEGER PRIMARY KEY only.
_KEY = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
#: Characters that a name may have: on MySQL a key has at most 3,072 bytes, and five names are a lane's
#: (https://dev.mysql.com/doc/refman/8.4/en/innodb-limits.html).
NAME_MAX = 150
# Compared byte for byte: SQLite's default collation is BINARY, that of the others depends on the database. MySQL and
# MariaDB have collations of different names for it, and the migration picks one.
_NAME = (
    Text()
    .with_variant(postgresql.TEXT(collation="C"), "postgresql")
    .with_variant(mysql.VARCHAR(NAME_MAX, charset="utf8mb4"), "mysql")
)
# Of any length, in no index. MySQL's TEXT ends at 64 KiB.
_TEXT = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql")
_LABEL = _TEXT.with_variant(postgresql.TEXT(collation="C"), "postgresql")

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


def _run_columns() -> list[Column[Any]]:
    """The columns of a run, live or finished."""
    return [
        Column("run", _KEY, autoincrement=False),
        Column("job_id", _NAME, nullable=False),
        Column("task", _NAME, nullable=False),
        Column("queue", _NAME, nullable=False),
        Column("db", _NAME, nullable=False),
        Column("results", _LABEL, nullable=False),
        Column("result_table", _NAME, nullable=False),
        Column("args", _TEXT, nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("retries", Integer, nullable=False),
        Column("ttl", BigInteger, nullable=False),
        Column("timeout", BigInteger, nullable=False),
        Column("eta", BigInteger),
        Column("tags", _TEXT, nullable=False),
        Column("replicas", _TEXT),  # JSON list, NULL is an empty one
        Column("reroutes", Integer, nullable=False, server_default="0"),
        Column("group_id", _NAME, nullable=False, server_default=text("''")),
        Column("group_run", BigInteger),
        Column("group_limit", Integer, nullable=False, server_default="0"),
        Column("state", _NAME, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("failures", Integer, nullable=False),
        Column("rescues", Integer, nullable=False),
        Column("cancel_requested", Boolean, nullable=False),
        Column("worker", _LABEL, nullable=False),
        Column("rows_so_far", BigInteger, nullable=False),
        Column("bytes_so_far", BigInteger, nullable=False),
        Column("rows", BigInteger),
        Column("columns", _TEXT, nullable=False),
        Column("error", _TEXT, nullable=False),
        Column("error_code", _NAME, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("started_at", BigInteger),
        Column("finished_at", BigInteger),
        Column("expires_at", BigInteger),
    ]


RUN_COLUMNS = tuple(column.name for column in _run_columns())

#: Runs that are not over: PENDING, STARTED, RETRY. One row per job ID.
jobs = Table(
    "jobber_jobs",
    metadata,
    *_run_columns(),
    Column("lane", BigInteger, nullable=False),
    Column("ord", BigInteger),  # place in its lane while ready, else NULL
    Column("due", BigInteger),  # when it becomes ready while delayed, else NULL
    Column("ended_attempt", Integer, nullable=False),  # the newest attempt that ended without ending the run …
    Column("ended_as", _NAME, nullable=False),  # … and how (``Ending``)
    PrimaryKeyConstraint("run"),
    UniqueConstraint("job_id"),
    # Whole indexes, not partial ones: NULLs cost little, the existence of any job in a lane can be asked, and no query
    # has to repeat a condition to be allowed to use them.
    Index(None, "lane", "ord"),
    Index(None, "queue", "ord"),
    Index(None, "due"),
    Index(None, "group_run"),
    postgresql_with=BUSY,
)

#: The history: runs that are over.
finished_jobs = Table(
    "jobber_finished_jobs",
    metadata,
    *_run_columns(),
    PrimaryKeyConstraint("run"),
    Index(None, "job_id", "run"),
    Index(None, "finished_at"),
    Index(None, "group_run"),
)

#: Runs of groups, live or finished. Whoever ends a job of one counts it here in the same transaction; the row's lock
#: puts those who do so at the same time in a row, and the last of them makes the callback ready.
groups = Table(
    "jobber_groups",
    metadata,
    Column("run", _KEY, autoincrement=False),
    Column("group_id", _NAME, nullable=False),
    Column("live_id", _NAME),  # the group's ID while it is not finished, else NULL: one live group per ID
    Column("size", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("callback_run", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    PrimaryKeyConstraint("run"),
    UniqueConstraint("live_id"),
    Index(None, "group_id", "run"),
    Index(None, "finished_at"),
    postgresql_with=BUSY,
)

#: One combination of all that can hold a job back. Its jobs are free or blocked together.
lanes = Table(
    "jobber_lanes",
    metadata,
    Column("id", _KEY, autoincrement=True),
    Column("queue", _NAME, nullable=False),
    Column("task", _NAME, nullable=False),
    Column("db", _NAME, nullable=False),
    Column("tenant", _NAME, nullable=False),  # "" until tenants have limits
    Column("job_group", _NAME, nullable=False),  # run of the group, "" where it has no limit
    Column("group_limit", Integer, nullable=False, server_default="0"),  # the same for all lanes of a group
    Column("suspect", Boolean, nullable=False),  # jobs whose worker died; no worker runs two of them at a time
    Column("head", BigInteger, nullable=False),  # lower bound of its smallest ord
    Column("version", BigInteger, nullable=False),  # bumped by whoever makes a job of it ready
    PrimaryKeyConstraint("id"),
    UniqueConstraint("queue", "task", "db", "tenant", "job_group", "suspect"),
    postgresql_with=HOT,
    sqlite_autoincrement=True,  # an ID is never used twice: caches and fencing rely on it
)

#: The attempts that hold slots. Limits count these rows; counters would drift.
running = Table(
    "jobber_running",
    metadata,
    Column("run", _KEY, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", BigInteger, nullable=False),
    Column("lane", BigInteger, nullable=False),
    Column("phase", _NAME, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("run"),
    postgresql_with=HOT,
)

#: Attempts that ended without ending their run. The newest attempt of a run stands in the run's own row.
attempts = Table(
    "jobber_attempts",
    metadata,
    Column("run", BigInteger, autoincrement=False),
    Column("number", Integer, autoincrement=False),
    Column("ending", _NAME, nullable=False),
    Column("worker", _LABEL, nullable=False),
    Column("db", _NAME, nullable=False),
    Column("error", _TEXT, nullable=False),
    Column("error_code", _NAME, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("run", "number"),
)

workers = Table(
    "jobber_workers",
    metadata,
    Column("id", _KEY, autoincrement=True),
    Column("name", _LABEL, nullable=False),
    Column("queues", _TEXT, nullable=False),  # JSON list
    Column("slots", Integer, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),  # covers all of its attempts: one update renews them
    Column("dead", Boolean, nullable=False),  # declared dead: it can renew nothing any more
    PrimaryKeyConstraint("id"),
    postgresql_with=HOT,
    sqlite_autoincrement=True,
)

gates = Table(
    "jobber_gates",
    metadata,
    Column("kind", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("running_limit", Integer, nullable=False),  # 0 is none
    Column("paused", Boolean, nullable=False),
    Column("reason", _TEXT, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
)

#: One row. Whoever claims locks it first; whoever changes a gate bumps its version.
dispatch = Table(
    "jobber_dispatch",
    metadata,
    Column("id", SmallInteger, autoincrement=False),
    Column("gates_version", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    postgresql_with=HOT,
)

leaders = Table(
    "jobber_leaders",
    metadata,
    Column("role", _NAME, nullable=False),
    Column("holder", _LABEL, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    PrimaryKeyConstraint("role"),
    postgresql_with=HOT,
)

#: Numbers runs where the engine has no sequences.
counters = Table(
    "jobber_counters",
    metadata,
    Column("name", _NAME, nullable=False),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

#: Numbers runs where the engine has sequences; no metadata, because SQLite has none.
run_sequence: Sequence = Sequence("jobber_run_seq", data_type=BigInteger)


def order(priority: int, run: int) -> int:
    """Return the ``ord`` of a ready job: strict priority first, then age."""
    return (10 - priority) * ORD_STEP + run
