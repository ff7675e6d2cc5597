"""Brings the tables of the state store up to date, however many processes start at once."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, String, column, inspect, select, table, text

from jobber.errors import ConfigError, StateUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

#: Where Alembic notes the version; its default name could be the application's own.
VERSION_TABLE = "jobber_state_version"
#: Key of the advisory lock that migrating processes queue behind: "jobber" in ASCII.
ADVISORY_LOCK = 0x6A6F62626572
#: Seconds to wait for others that migrate.
PATIENCE = 300.0

# Alembic's env.py talks to module-level proxies: one run at a time in a process.
_alembic = threading.Lock()


def is_current(connection: Connection) -> bool:
    """Whether every migration has been applied. Raises ConfigError if one has that this version does not know."""
    # Asked at every start of every process: Alembic, which takes long to import, is for what is to be done.
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    version = column("version_num", String)
    applied = set(connection.execute(select(version).select_from(table(VERSION_TABLE, version))).scalars())
    newest = known()[-1]
    if unknown := applied.difference(known()):
        raise ConfigError(
            f"the tables of the state database are those of a newer jobber (their version is {', '.join(unknown)}, "
            f"this one knows {newest}): start that one, or give this one a state database of its own"
        )
    return applied == {newest}


@cache
def known() -> tuple[str, ...]:
    """Return the versions that this jobber knows, oldest first: the names of their files begin with them."""
    names = (file.name for file in resources.files("jobber.store.migrations.versions").iterdir())
    return tuple(sorted(found[1] for name in names if (found := re.match(r"(\d{4})_\w+\.py$", name))))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Apply what is missing up to ``revision``, inside the write transaction that ``connection`` is in.

    One process at a time: on SQLite that transaction (``BEGIN IMMEDIATE``) already keeps others out; elsewhere an
    advisory lock does. MySQL commits after each step; what died half-way is completed by the next call.
    """
    from alembic import command

    with _LOCKS[connection.dialect.name](connection), _alembic:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@contextmanager
def _postgresql_lock(connection: Connection) -> Iterator[None]:
    # Others may be at it for a while: here, and only here, waiting is right.
    connection.execute(text("SET LOCAL lock_timeout = '5min'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    connection.execute(text("SET LOCAL lock_timeout = '30s'"))
    yield


@contextmanager
def _mysql_lock(connection: Connection) -> Iterator[None]:
    # A lock of the whole server: its name holds the database's, hashed because it may have 64 characters at most. The
    # server frees it when the connection ends.
    database: str = connection.execute(text("SELECT DATABASE()")).scalar_one()
    name = {"name": f"jobber {hashlib.sha256(database.encode()).hexdigest()[:32]}"}
    deadline = time.monotonic() + PATIENCE
    # In short waits, so that no time limit of the connection ends them.
    while not connection.execute(text("SELECT GET_LOCK(:name, 5)"), name).scalar_one():
        if time.monotonic() > deadline:
            raise StateUnavailable("another process has been making the tables of the state database for too long")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.execute(text("DO RELEASE_LOCK(:name)"), name)


_LOCKS: dict[str, Callable[[Connection], AbstractContextManager[Any]]] = {
    "postgresql": _postgresql_lock,
    "mysql": _mysql_lock,
    "sqlite": nullcontext,
}


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "jobber.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
