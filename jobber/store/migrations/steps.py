"""What migrations are made of: steps that are skipped where an earlier, interrupted attempt has taken them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql, sqlite

KEY = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
#: Storage on PostgreSQL of small tables whose rows change all the time, and of tables that many rows go through.
HOT = {
    "fillfactor": 40,
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_cost_delay": 0,
}
BUSY = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": 0,
}
_NAME_MAX = 150
#: Binary, and 'a' is not 'a ': by whether it is MariaDB.
_COLLATION = {True: "utf8mb4_nopad_bin", False: "utf8mb4_0900_bin"}
_INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_row_format": "DYNAMIC",
    "mysql_default_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


class Steps:
    """Makes what is missing: on MySQL each step commits by itself, and an earlier attempt may have died half-way."""

    def __init__(self, bind: sa.Connection) -> None:
        self._bind = bind
        self._done: set[str] = set()
        mysql_only: dict[str, Any] = {"charset": "utf8mb4"}
        if bind.dialect.name == "mysql":
            mysql_only["collation"] = _COLLATION[bool(getattr(bind.dialect, "is_mariadb", False))]
            inspector = sa.inspect(bind)
            for table in (name for name in inspector.get_table_names() if name.startswith("jobber_")):
                self._done.add(table)
                self._done.update(str(index["name"]) for index in inspector.get_indexes(table))
                self._done.update(f"{table}.{column['name']}" for column in inspector.get_columns(table))
        self.name = (
            sa.Text()
            .with_variant(postgresql.TEXT(collation="C"), "postgresql")
            .with_variant(mysql.VARCHAR(_NAME_MAX, **mysql_only), "mysql")
        )
        self.text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
        self.label = self.text.with_variant(postgresql.TEXT(collation="C"), "postgresql")

    def table(self, name: str, *parts: Any, **options: Any) -> None:
        """Create a table."""
        if name not in self._done:
            op.create_table(name, *parts, **_INNODB, **options)

    def column(self, table: str, column: sa.Column[Any]) -> None:
        """Add a column to a table."""
        if f"{table}.{column.name}" not in self._done:
            op.add_column(table, column)

    def index(self, table: str, *columns: str) -> None:
        """Create an index of the name that the schema's naming convention gives it."""
        name = f"ix_{table}_{'_'.join(columns)}"
        if name not in self._done:
            op.create_index(name, table, list(columns))

    def row(self, table: str, **values: Any) -> None:
        """Insert the one row of a table."""
        named = sa.table(table, *(sa.column(name) for name in values))
        if not self._bind.execute(sa.select(sa.literal(1)).select_from(named)).first():
            op.bulk_insert(named, [values])


def needed(name: str, kind: Any, default: str | None = None) -> sa.Column[Any]:
    """Return a column that is not null; one that is added to a table with rows takes a default."""
    return sa.Column(name, kind, nullable=False, server_default=default)
