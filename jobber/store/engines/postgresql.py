"""PostgreSQL, through psycopg.

Connections are in autocommit mode, so that a read is one round trip; a write says ``BEGIN`` itself, in one round trip
with its first statements if those go together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg import adapt
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
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
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.types import TypeEngine

from jobber.store.engines import pipelining
from jobber.store.engines.base import UNHURRIED, OnConflict, Rows, Statement

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
#: Seconds for which a plan is used.
PLANS_LAST = 2.0
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
    "client_encoding": "UTF8",
}
_BEGIN, _COMMIT = Statement("BEGIN", ()), Statement("COMMIT", ())
#: Parameters as libpq has them.
_NUMBERED: Dialect = postgresql.psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class PostgreSQL(OnConflict):
    """A server of any supported version."""

    name = "postgresql"
    # The statement's start: stable within it, so that an index on a time is used.
    clock = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"
    arrays = True
    sequences = True

    def settings(self, url: URL) -> tuple[URL, dict[str, Any]]:
        arguments = {key: value for key, value in _CONNECT.items() if key not in url.query}
        return url.set(drivername="postgresql+psycopg"), {"connect_args": arguments, "isolation_level": "AUTOCOMMIT"}

    def prepare(self, pool: sqlalchemy.Engine) -> None:
        event.listen(pool, "do_connect", _connect)
        event.listen(pool, "connect", _open)
        event.listen(pool, "begin", _begin)

    def renew(self, driver: Any) -> None:
        driver.renew_plans()

    def exchange(self, driver: Any, statements: Sequence[Statement], *, commit: bool) -> list[Rows]:
        wanted = [*([_BEGIN] if driver.begins else []), *statements, *([_COMMIT] if commit else [])]
        begins, driver.begins = driver.begins, False
        return pipelining.run(driver, driver.names, wanted, driver.transformer)[begins:][: len(statements)]

    def dialect_of(self, _: Dialect) -> Dialect:
        return _NUMBERED

    def take_time(self, connection: Connection) -> None:
        super().take_time(connection)
        driver: Any = connection.connection.dbapi_connection
        driver.patience = UNHURRIED
        driver.execute("SELECT set_config('statement_timeout', '0', false)")

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

    def insert(self, table: Any) -> Any:
        return postgresql.insert(table)


#: After these psycopg deallocates all prepared statements of the session, if any of them is its own.
_CLEARING = ("ALTER", "DROP", "ROLLBACK", "DISCARD")


class _Cursor(psycopg.Cursor[Any]):
    """A cursor that sees to it that the transaction has begun."""

    def execute(self, *arguments: Any, **options: Any) -> _Cursor:
        """Run a statement."""
        self._get_ready()
        super().execute(*arguments, **options)
        if (self.statusmessage or "").startswith(_CLEARING):
            self.connection.forget_names()  # type: ignore[attr-defined]
        return self

    def executemany(self, *arguments: Any, **options: Any) -> None:
        """Run a statement for each of several sets of parameters."""
        self._get_ready()
        super().executemany(*arguments, **options)

    def _get_ready(self) -> None:
        connection: Any = self.connection
        connection.renew_plans()
        connection.begin()


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for no answer for ever; psycopg itself would, as it has no limit for reading."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.patience = PATIENCE  # seconds
        self.cursor_factory = _Cursor
        #: Whether the next statement begins a transaction.
        self.begins = False
        #: Of statements that ``pipelining`` has prepared.
        self.names: dict[str, bytes] = {}
        #: Makes values of what ``pipelining`` reads.
        self.transformer = adapt.Transformer(self)
        self._planned_at = time.monotonic()

    def renew_plans(self) -> None:
        """Forget the plans of prepared statements if they are old.

        The server keeps a plan for as long as it has learned nothing new of the tables, which may be minutes: one that
        it made for empty tables reads all of them, and a claim all jobs that wait.
        """
        now = time.monotonic()
        if now - self._planned_at > PLANS_LAST and self.info.transaction_status == TransactionStatus.IDLE:
            self._planned_at = now
            self._deallocate_all()

    def begin(self) -> None:
        """Begin a transaction if one is to begin."""
        if self.begins:
            self.begins = False
            self.execute("BEGIN")

    def forget_names(self) -> None:
        """Prepare anew what ``pipelining`` has prepared: psycopg may just have deallocated it with its own."""
        if self.names:
            self._deallocate_all()

    def _deallocate_all(self) -> None:
        self.names.clear()
        # psycopg sees that, and forgets what it has prepared; but it looks only at statements that are new to it.
        self.execute(f"DEALLOCATE ALL -- {time.monotonic_ns()}")

    def commit(self) -> None:
        """Commit if a transaction is open: it may have been committed with its last statement."""
        self.begins = False
        super().commit()

    def rollback(self) -> None:
        """Roll back if a transaction is open."""
        self.begins = False
        was_open = self.info.transaction_status != TransactionStatus.IDLE
        super().rollback()
        if was_open:
            self.forget_names()

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
    connection.execute(f"SELECT {settings}", [part for pair in SETTINGS.items() for part in pair])
    connection.commit()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("jobber_write"):
        connection.connection.dbapi_connection.begins = True  # type: ignore[union-attr]
