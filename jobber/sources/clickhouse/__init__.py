"""ClickHouse as a source, over its native protocol; needs the extra ``jobber[clickhouse]``."""

from jobber.sources.clickhouse.source import ClickhouseSource

__all__ = ["ClickhouseSource"]
