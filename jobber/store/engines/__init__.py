"""One module per engine that can hold the state: how to connect to it, and how its SQL differs."""

from __future__ import annotations

from sqlalchemy.engine import URL

from jobber.errors import ConfigError
from jobber.store.engines.base import Engine, Rows, Statement
from jobber.store.engines.mysql import MySQL
from jobber.store.engines.postgresql import PostgreSQL
from jobber.store.engines.sqlite import SQLite

__all__ = ["Engine", "Rows", "Statement", "engine_of"]

_MYSQL = MySQL()
#: By the backend that a SQLAlchemy URL names.
_ENGINES: dict[str, Engine] = {
    "sqlite": SQLite(),
    "postgresql": PostgreSQL(),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def engine_of(url: URL) -> Engine:
    """Return the engine that a URL names. Raises ConfigError where it cannot hold the state."""
    name = url.get_backend_name()
    if name not in _ENGINES:
        raise ConfigError(f"the state database cannot be {name}; use PostgreSQL, MySQL, MariaDB or SQLite")
    return _ENGINES[name]
