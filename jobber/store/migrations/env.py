"""Run by Alembic; the connection and its transaction come from ``jobber.store.migrations.upgrade``."""

from __future__ import annotations

from alembic import context

from jobber.store.migrations import VERSION_TABLE
from jobber.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite's DDL is transactional once its driver is kept from committing by itself; engine.py sees to that.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
