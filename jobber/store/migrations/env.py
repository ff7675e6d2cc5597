"""Run by Alembic; the connection and its transaction come from ``jobber.store.migrations.upgrade``."""

from __future__ import annotations

from alembic import context

from jobber.store.migrations import VERSION_TABLE
from jobber.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite's DDL is transactional once its driver is kept from committing by itself; engines/sqlite.py sees to that.
    # MySQL's commits by itself.
    transactional_ddl=connection.dialect.name != "mysql",
)
with context.begin_transaction():
    context.run_migrations()
