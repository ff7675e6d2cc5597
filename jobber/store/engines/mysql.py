"""MySQL and MariaDB, through PyMySQL.

Connections are in autocommit mode, so that a read is one round trip; a write says ``START TRANSACTION`` itself, in one
round trip with its first statement. For that, statements may be several here, and here only: all of them are jobber's
own, and their values are bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pymysql
import sqlalchemy
from pymysql.constants import CLIENT, ER
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    ExceptionContext,
    FromClause,
    Insert,
    Integer,
    String,
    Table,
    bindparam,
    event,
    select,
    text,
)
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.types import TypeEngine

from jobber import mysql
from jobber.errors import ConfigError
from jobber.store.engines.base import UNHURRIED, Engine, Rows, Statement
from jobber.store.failures import lost_by_mysql

#: The oldest versions that will do: SKIP LOCKED and atomic DDL are in MariaDB from 10.6 on, in MySQL from 8.0 on; what
#: results need of MySQL is there from 8.0.23 on.
OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0, 23)}

#: Settings of a session, so that no default of the server matters. Nobody may hold up the others: locks are waited for
#: briefly (seconds), and a claimer that hangs between two statements is thrown out, and its lock with it.
#: https://mariadb.com/kb/en/server-system-variables/, https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html
SETTINGS: dict[str, int | str] = {
    # No ANSI_QUOTES, NO_BACKSLASH_ESCAPES, PAD_CHAR_TO_FULL_LENGTH …, and nothing is cut or rounded silently.
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "time_zone": "+00:00",
    "innodb_lock_wait_timeout": 5,
    "lock_wait_timeout": 5,
    "completion_type": 0,
    "default_storage_engine": "InnoDB",
    "sql_safe_updates": 0,
    "sql_select_limit": 2**64 - 1,
}
MARIADB: dict[str, int | str] = {
    "idle_transaction_timeout": 10,
    "max_statement_time": 10,
}
#: MySQL ends no transaction for being idle, only a session: the pool replaces those that it kept for too long. And it
#: limits the time of SELECT only (milliseconds).
MYSQL: dict[str, int | str] = {
    "wait_timeout": 10,
    "max_execution_time": 10_000,
}
#: Seconds. Longer than any statement may take, so that they end only what is out of reach; and short enough that a
#: worker whose connection went dead has another one before its lease is over.
_CONNECT = {"connect_timeout": 5, "read_timeout": 12, "write_timeout": 12}
#: A pooled connection that idled for longer (seconds) is replaced: something on the way may have forgotten it.
_IDLE = 60.0


class MySQL(Engine):
    """A server of either make."""

    name = "mysql"
    # Not UNIX_TIMESTAMP, which may end in 2038. UTC_TIMESTAMP is the statement's start.
    clock = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    returning = False  # MySQL has none, MariaDB none for UPDATE

    def settings(self, url: URL) -> tuple[URL, dict[str, Any]]:
        arguments: dict[str, Any] = {key: value for key, value in _CONNECT.items() if key not in url.query}
        arguments |= {"charset": "utf8mb4", "autocommit": True, "program_name": "jobber state"}
        # The connection that was used last is taken first, so that the rest may grow old.
        return url.set(drivername="mysql+pymysql"), {"connect_args": arguments, "pool_use_lifo": True}

    def prepare(self, pool: sqlalchemy.Engine) -> None:
        event.listen(pool, "do_connect", _connect)
        event.listen(pool, "checkin", _checked_in)
        event.listen(pool, "checkout", _checked_out)
        event.listen(pool, "begin", _begin)
        event.listen(pool, "handle_error", _tell_lost)

    def exchange(self, driver: Any, statements: Sequence[Statement], *, commit: bool) -> list[Rows]:
        with driver.cursor() as cursor:
            texts = [cursor.mogrify(text, values) for text, values in statements]
        return driver.answers("; ".join(texts + ["COMMIT"] * commit))[: len(texts)]  # type: ignore[no-any-return]

    def reader_of(self, kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return next(reader for type_, reader in _READERS if isinstance(kind, type_))

    def is_lost(self, connection: Connection, error: Exception) -> bool:
        return super().is_lost(connection, error) or lost_by_mysql(error)

    def take_time(self, connection: Connection) -> None:
        super().take_time(connection)
        driver: Any = connection.connection.dbapi_connection
        driver.run(f"SET SESSION {'max_statement_time' if driver.is_mariadb else 'max_execution_time'} = 0")
        driver.wait_at_most(UNHURRIED)

    def lanes_at_once(self, limit: int) -> int:
        # A lane costs some 30 µs in PyMySQL: as many as are surely needed.
        return min(limit, 16)

    def among(self, which: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return which.in_(bindparam(name, expanding=True, type_=which.type))

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
        kinds = {key: "LONGTEXT" if isinstance(kind, String) else "BIGINT" for key, kind in columns.items()}
        read = ", ".join(f"{key} {kind} PATH '$.{key}'" for key, kind in kinds.items())
        table = f"JSON_TABLE(:{name}, '$[*]' COLUMNS ({read})) AS {name}_each"
        listed = text(f"SELECT {', '.join(kinds)} FROM {table}")  # noqa: S608 - names of columns, which are ours
        return listed.columns(**columns).subquery(name)

    def insert_missing(self, table: Any) -> Any:
        # Not INSERT IGNORE, which would cut what is too long.
        row = insert(table)
        first = next(iter(table.primary_key))
        return row.on_duplicate_key_update({first.name: first})

    def upsert(self, table: Any, key: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        return insert(table).values(**key, **values).on_duplicate_key_update(dict(values))

    def put_rows(self, table: Table, rows: FromClause) -> Insert:
        key, *others = (column.name for column in table.columns)
        listed = select(*(rows.c[name] for name in (key, *others))).order_by(rows.c[key])
        row = insert(table).from_select([key, *others], listed)
        return row.on_duplicate_key_update({name: rows.c[name] for name in others})


def _untyped(_: bytes) -> Any:
    raise TypeError("a column of an exchange has no type")


#: What makes values of the texts that a server sends; NULL is none of them.
_READERS: tuple[tuple[type[TypeEngine[Any]], Callable[[bytes], Any]], ...] = (
    (Boolean, b"1".__eq__),
    (Integer, int),
    (String, bytes.decode),
    (TypeEngine, _untyped),
)


class _Connection(mysql.Connection):
    """A connection that spares round trips and a lost connection."""

    #: Bytes that the server takes in one statement.
    most = 0
    #: Whether the next statement begins a transaction.
    begins = False

    def commit(self) -> None:
        """Commit if a transaction is open: it may have been committed with its last statement."""
        self.begins = False
        if self.server_status & SERVER_STATUS_IN_TRANS:
            super().commit()

    def rollback(self) -> None:
        """Roll back if a transaction is open: SQLAlchemy asks for it after every read."""
        self.begins = False
        if self.server_status & SERVER_STATUS_IN_TRANS:
            super().rollback()

    def query(self, sql: str | bytes, unbuffered: bool = False) -> int:
        """Run a statement; refuse one that is so long that the server would hang up on us."""
        begins, final = self._begun(sql)
        rows: int = super().query(final, unbuffered)
        return self.next_result(unbuffered) if begins else rows

    def answers(self, sql: str | bytes) -> list[mysql.Texts]:
        """Run statements; return the rows of each."""
        begins, final = self._begun(sql)
        return super().answers(final)[begins:]

    def _begun(self, sql: str | bytes) -> tuple[bool, bytes]:
        """Return whether a transaction begins with a statement, and the statement with what begins it."""
        final = sql.encode(self.encoding) if isinstance(sql, str) else sql
        begins, self.begins = self.begins, False
        if begins:
            final = b"START TRANSACTION; " + final
        if self.most and len(final) >= self.most:
            raise pymysql.err.DataError(ER.NET_PACKET_TOO_LARGE, f"max_allowed_packet is {self.most}")
        return begins, final


def _connect(_dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> _Connection:
    """Make a connection and set its session up. Raises ConfigError if the server is too old."""
    # A server that takes a connection and then says nothing is no server; PyMySQL's own limit ends before that.
    options["client_flag"] = options.get("client_flag", 0) | CLIENT.MULTI_STATEMENTS
    connection = _Connection(*arguments, **options | {"read_timeout": options["connect_timeout"]})
    try:
        _refuse_old(connection)
        settings = {**SETTINGS, **(MARIADB if connection.is_mariadb else MYSQL)}
        ((most, idle),) = connection.rows("SELECT @@max_allowed_packet, @@wait_timeout")
        connection.run(f"SET {', '.join(f'SESSION {name} = %s' for name in settings)}", list(settings.values()))
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
    except BaseException:
        connection.close()
        raise
    connection.wait_at_most(options["read_timeout"])
    connection.most = int(most)
    # Half of what the server grants: a connection is replaced well before it is cut off.
    record.info["idle_limit"] = min(_IDLE, float(settings.get("wait_timeout", idle)) / 2)
    return connection


def _refuse_old(connection: mysql.Connection) -> None:
    make = "MariaDB" if connection.is_mariadb else "MySQL"
    if connection.version < OLDEST[make]:
        found, needed = (".".join(map(str, numbers)) for numbers in (connection.version, OLDEST[make]))
        raise ConfigError(f"the state database is {make} {found}, which is too old: it must be {needed} or newer")


def _checked_in(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _checked_out(_connection: Any, record: Any, _proxy: Any) -> None:
    since = record.info.pop("idle_since", None)
    if since is not None and time.monotonic() - since > record.info["idle_limit"]:
        raise DisconnectionError("it may have been cut off meanwhile")


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("jobber_write"):
        connection.connection.dbapi_connection.begins = True  # type: ignore[union-attr]


def _tell_lost(context: ExceptionContext) -> None:
    """Tell SQLAlchemy of all errors that end a connection: it knows some."""
    if lost_by_mysql(context.original_exception):
        context.is_disconnect = True
