"""Source databases: what queries read from, one module per engine behind the protocol of ``base``."""

from __future__ import annotations

import threading
from contextlib import suppress

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.config.clickhouse import missing
from jobber.errors import ConfigError, QueryFailed, SourceUnavailable, TimedOut
from jobber.sources.base import Query, Shape, Source
from jobber.sqltext import parse

__all__ = ["open_source", "ping"]


def open_source(settings: DatabaseSettings) -> Source:
    """Return the source of a ``[db.NAME]`` section; nothing connects before its first use.

    Raises:
        ConfigError: the engine's driver is not installed, or the URL cannot name a source.
    """
    # What is not configured is not imported: every process pays for what is, and one driver comes with an extra.
    if settings.engine == "postgresql":
        from jobber.sources.postgresql import PostgresqlSource

        return PostgresqlSource(settings)
    if settings.engine in ("mysql", "mariadb"):  # SQLAlchemy's two names of it
        from jobber.sources.mysql import MysqlSource

        return MysqlSource(settings)
    if settings.engine == "sqlite":
        from jobber.sources.sqlite import SqliteSource

        return SqliteSource(settings)
    if settings.engine == "clickhouse":
        if needed := missing():
            raise ConfigError(f"db.{settings.name}: {needed}")
        from jobber.sources.clickhouse import ClickhouseSource

        return ClickhouseSource(settings)
    from jobber.sources.generic import GenericSource

    return GenericSource(settings)


def ping(source: Source, timeout: float) -> None:
    """Return if the database answers a query, whatever it says.

    Parameters:
        timeout: seconds for all of it; connecting takes ``connect_timeout`` at most.

    Raises:
        SourceUnavailable: it cannot be reached, or is silent.
    """
    silent = TimedOut(f"the database {source.name} cannot be reached: no answer within {timeout:g} s")
    token = Cancellation()
    # The time limit of the query is the server's own: one that hangs needs another.
    watchdog = threading.Timer(timeout, token.pull, [silent])
    watchdog.daemon = True
    watchdog.start()
    query = Query(parse("SELECT 1", source.engine), [])
    try:
        with suppress(QueryFailed), source.read(query, frozenset({Shape.DECODED}), timeout=timeout, cancellation=token):
            pass
    except TimedOut as error:
        raise SourceUnavailable(silent.message) from error
    finally:
        watchdog.cancel()
