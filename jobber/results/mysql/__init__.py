"""Results on MySQL and MariaDB."""

from jobber.results.mysql.backend import MysqlResults

__all__ = ["MysqlResults"]
