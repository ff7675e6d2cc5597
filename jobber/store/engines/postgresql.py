"""PostgreSQL, through psycopg."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.abc import PQGen
from psycopg.waiting import READY_NONE
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
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
from sqlalchemy.types import TypeEngine

from jobber.store.engines.base import UNHURRIED, Engine

T = TypeVar("T")

#: Nobody may hold up the others: a claimer that hangs between two statements is thrown out, and its lock with it.
SETTINGS = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "10s",
    "default_transaction_isolation": "read committed",
}
#: Seconds that a server may be silent over a statement: longer than it lets one take, so that this ends only what is
#: out of reach; and short enough that a worker whose connection went dead has another one before its lease is over.
PATIENCE = 12.0
#: libpq notices a dead peer within about half a minute instead of two hours
#: (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES). That does not see a proxy on the way
#: that lives, nor a server that hangs: for those there is ``PATIENCE``.
_CONNECT = {
    "connect_timeout": 5,
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
        event.listen(pool, "do_connect", _connect)
        event.listen(pool, "connect", _open)

    def take_time(self, connection: Connection) -> None:
        super().take_time(connection)
        driver: Any = connection.connection.dbapi_connection
        driver.patience = UNHURRIED
        driver.execute("SELECT set_config('statement_timeout', '0', false)")
        driver.commit()

    def reader(self, pool: sqlalchemy.Engine) -> sqlalchemy.Engine:
        # A read is one statement: no BEGIN, no COMMIT, a third of the round trips.
        return pool.execution_options(isolation_level="AUTOCOMMIT")

    def lanes_at_once(self, limit: int) -> int:
        # A lane costs some 10 µs, a round trip 200 µs and more.
        return min(limit + 3, 16)

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

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
        records = func.json_to_recordset(cast(bindparam(name, type_=Text()), postgresql.JSON))
        named = (column(key, Text() if isinstance(kind, String) else kind) for key, kind in columns.items())
        return records.table_valued(*named).render_derived(name=name, with_types=True)

    def insert_missing(self, table: Any) -> Any:
        return postgresql.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Any, key: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        row = postgresql.insert(table).values(**key, **values)
        return row.on_conflict_do_update(index_elements=list(key), set_=values)

    def put_rows(self, table: Table, rows: FromClause) -> Insert:
        key, *others = (column.name for column in table.columns)
        listed = select(*(rows.c[name] for name in (key, *others))).order_by(rows.c[key])
        row = postgresql.insert(table).from_select([key, *others], listed)
        return row.on_conflict_do_update(index_elements=[key], set_={name: row.excluded[name] for name in others})


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for no answer for ever; psycopg itself would, as it has no limit for reading."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.patience = PATIENCE  # seconds

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        """Do what ``gen`` does with the connection; close it if the server is silent for too long."""
        return super().wait(self._in_time(gen), *arguments, **options)

    def _in_time(self, gen: PQGen[T]) -> PQGen[T]:
        try:
            state = next(gen)
            give_up_at = time.monotonic() + self.patience
            while True:
                ready = yield state
                # psycopg looks in every 0.1 s whether there is something to do.
                if ready == READY_NONE and time.monotonic() > give_up_at:
                    self.pgconn.finish()  # which tells SQLAlchemy, too
                    raise psycopg.OperationalError("no answer in time") from TimeoutError()
                state = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def _connect(_dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> _Connection:
    return _Connection.connect(*arguments, **options)


def _open(connection: Any, _record: Any) -> None:
    settings = ", ".join("set_config(%s, %s, false)" for _ in SETTINGS)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {settings}", [part for pair in SETTINGS.items() for part in pair])
    connection.commit()
