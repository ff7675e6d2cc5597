"""Results databases: where the rows of finished jobs live."""

from __future__ import annotations

from jobber.config import ResultsSettings
from jobber.errors import ConfigError
from jobber.results.base import ResultsBackend


def open_results(settings: ResultsSettings) -> ResultsBackend:
    """Return the backend for ``[results.NAME]``; nothing is connected or created yet.

    Raises:
        ConfigError: jobber cannot write results to that engine, or the table template is unfit.
    """
    # What is not configured is not imported: every process pays for what is.
    if settings.engine == "postgresql":
        from jobber.results.postgresql import PostgresResults

        return PostgresResults(settings)
    if settings.engine == "mysql":
        from jobber.results.mysql import MysqlResults

        return MysqlResults(settings)
    if settings.engine == "sqlite":
        from jobber.results.sqlite import SqliteResults

        return SqliteResults(settings)
    raise ConfigError(
        f'[results.{settings.name}] is a {settings.engine} database; results are written to "postgresql", "mysql" or '
        '"sqlite"'
    )
