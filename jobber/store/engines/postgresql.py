"""PostgreSQL, through psycopg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    String,
    Table,
    Text,
    bindparam,
    cast,
    column,
    event,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL

from jobber.store.engines.base import Engine

#: Nobody may hold up the others: a claimer that hangs between two statements is thrown out, and its lock with it.
SETTINGS = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "30s",
    "default_transaction_isolation": "read committed",
}
#: libpq notices a dead peer within about half a minute instead of two hours
#: (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES).
_CONNECT = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "jobber state",
}


class PostgreSQL(Engine):
    """A server of any supported version."""

    name = "postgresql"
    # The statement's start: stable within it, so that an index on a time is used.
    clock = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"
    arrays = True
    sequences = True

    def settings(self, url: URL) -> tuple[URL, dict[str, Any]]:
        arguments = {key: value for key, value in _CONNECT.items() if key not in url.query}
        return url.set(drivername="postgresql+psycopg"), {"connect_args": arguments}

    def prepare(self, pool: sqlalchemy.Engine) -> None:
        event.listen(pool, "connect", _open)

    def reader(self, pool: sqlalchemy.Engine) -> sqlalchemy.Engine:
        # A read is one statement: no BEGIN, no COMMIT, a third of the round trips.
        return pool.execution_options(isolation_level="AUTOCOMMIT")

    def lanes_at_once(self, limit: int) -> int:  # noqa: ARG002
        # A lane costs some 10 µs, a round trip 200 µs and more.
        return 16

    def among(self, which: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        kind = postgresql.TEXT() if isinstance(which.type, String) else BigInteger()
        return which == func.any(bindparam(name, type_=postgresql.ARRAY(kind)))

    def insert_json(self, table: Table) -> Insert | None:
        # One parameter instead of 35,000 for a thousand jobs: 5 times as fast as executemany.
        names = [target.name for target in table.columns]
        records = func.json_populate_recordset(
            literal_column(f"NULL::{table.name}"), cast(bindparam("rows", type_=Text()), postgresql.JSON)
        ).table_valued(*(column(name) for name in names))
        return insert(table).from_select(names, select(records))

    def insert_missing(self, table: Any) -> Any:
        return postgresql.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Any, key: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        row = postgresql.insert(table).values(**key, **values)
        return row.on_conflict_do_update(index_elements=list(key), set_=values)


def _open(connection: Any, _record: Any) -> None:
    settings = ", ".join("set_config(%s, %s, false)" for _ in SETTINGS)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {settings}", [part for pair in SETTINGS.items() for part in pair])
    connection.commit()
