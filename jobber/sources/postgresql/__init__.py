"""PostgreSQL as a source."""

from jobber.sources.postgresql.source import PostgresqlSource

__all__ = ["PostgresqlSource"]
