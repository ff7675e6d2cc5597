"""Results databases: where the rows of finished jobs live."""

from __future__ import annotations

from jobber.config import ResultsSettings
from jobber.errors import ConfigError
from jobber.results.base import ResultsBackend
from jobber.results.mysql import MysqlResults
from jobber.results.postgresql import PostgresResults
from jobber.results.sqlite import SqliteResults


def open_results(settings: ResultsSettings) -> ResultsBackend:
    """Return the backend for ``[results.NAME]``; nothing is connected or created yet.

    Raises:
        ConfigError: jobber cannot write results to that engine, or the table template is unfit.
    """
    if settings.engine == "postgresql":
        return PostgresResults(settings)
    if settings.engine == "mysql":
        return MysqlResults(settings)
    if settings.engine == "sqlite":
        return SqliteResults(settings)
    raise ConfigError(
        f'[results.{settings.name}] is a {settings.engine} database; results are written to "postgresql", "mysql" or '
        '"sqlite"'
    )
