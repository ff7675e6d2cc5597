"""Source databases: what queries read from, one module per engine behind the protocol of ``base``."""

from __future__ import annotations

from collections.abc import Callable

from jobber.config import DatabaseSettings
from jobber.config.clickhouse import missing
from jobber.errors import ConfigError
from jobber.sources.base import Source
from jobber.sources.generic import GenericSource
from jobber.sources.mysql import MysqlSource
from jobber.sources.postgresql import PostgresqlSource
from jobber.sources.sqlite import SqliteSource

__all__ = ["open_source"]


def _clickhouse(settings: DatabaseSettings) -> Source:
    """Import the driver, which comes with an extra, only where a section asks for it."""
    if needed := missing():
        raise ConfigError(f"db.{settings.name}: {needed}")
    from jobber.sources.clickhouse import ClickhouseSource

    return ClickhouseSource(settings)


_BY_ENGINE: dict[str, Callable[[DatabaseSettings], Source]] = {
    "clickhouse": _clickhouse,
    "mariadb": MysqlSource,  # SQLAlchemy's other name of the same
    "mysql": MysqlSource,
    "postgresql": PostgresqlSource,
    "sqlite": SqliteSource,
}


def open_source(settings: DatabaseSettings) -> Source:
    """Return the source of a ``[db.NAME]`` section; nothing connects before its first use.

    Raises:
        ConfigError: the engine's driver is not installed, or the URL cannot name a source.
    """
    return _BY_ENGINE.get(settings.engine, GenericSource)(settings)
