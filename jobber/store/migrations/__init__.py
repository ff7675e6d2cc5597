"""Brings the tables of the state store up to date, however many processes start at once."""

from __future__ import annotations

import threading

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

#: Where Alembic notes the version; its default name could be the application's own.
VERSION_TABLE = "jobber_state_version"
#: Key of the advisory lock that migrating processes queue behind: "jobber" in ASCII.
ADVISORY_LOCK = 0x6A6F62626572

# Alembic's env.py talks to module-level proxies: one run at a time in a process.
_alembic = threading.Lock()


def is_current(connection: Connection) -> bool:
    """Whether every migration has been applied."""
    script = ScriptDirectory.from_config(_config())
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return set(context.get_current_heads()) == set(script.get_heads())


def upgrade(connection: Connection) -> None:
    """Apply what is missing, inside the write transaction that ``connection`` is in.

    On SQLite that transaction (``BEGIN IMMEDIATE``) already keeps others out; on PostgreSQL an advisory lock does.
    """
    if connection.dialect.name == "postgresql":
        # Others may be at it for a while: here, and only here, waiting is right.
        connection.execute(text("SET LOCAL lock_timeout = '5min'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
    with _alembic:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "jobber.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
