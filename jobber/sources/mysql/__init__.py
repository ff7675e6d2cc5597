"""MySQL and MariaDB as a source."""

from jobber.sources.mysql.source import MysqlSource

__all__ = ["MysqlSource"]
