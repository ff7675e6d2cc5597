"""ClickHouse as a source: rows in the blocks that the server makes, decoded one block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clickhouse_driver import Client
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.config import DatabaseSettings
from jobber.config.clickhouse import driver_options
from jobber.errors import QueryFailed, TimedOut
from jobber.sources.base import Chunk, Query, RowStream, Shape
from jobber.sources.clickhouse import types
from jobber.sources.clickhouse.failures import BROKEN, translate
from jobber.sources.clickhouse.literals import literal
from jobber.sources.clickhouse.session import Session
from jobber.sources.pool import Pool
from jobber.sqllexer import Kind, dialect, tokens
from jobber.sqltext import Statement

#: Statements that tell what the server knows; they cannot be part of a query.
_TELLING = frozenset({"DESC", "DESCRIBE", "EXISTS", "EXPLAIN", "SHOW"})
_WRITING = frozenset(
    [
        *("ALTER", "ATTACH", "BACKUP", "BEGIN", "CHECK", "COMMIT", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE"),
        *("GRANT", "INSERT", "KILL", "OPTIMIZE", "RENAME", "REPLACE", "RESTORE", "REVOKE", "ROLLBACK", "SET"),
        *("SYSTEM", "TRUNCATE", "UNDROP", "UPDATE", "USE"),
    ]
)
#: Errors that NULL in place of an argument does not cause: no such function, column, table or database, no right.
_CERTAIN = frozenset({46, 47, 60, 81, 497})
#: Seconds that a second connection, for ending a query, may take.
_SECOND_TIMEOUT = 1.0


class ClickhouseSource:
    """A ClickHouse database that queries read from (see ``sources.base.Source``)."""

    engine = "clickhouse"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = settings.name
        self._options = driver_options(make_url(settings.url))
        self._connect_timeout = settings.connect_timeout
        self._pool = Pool(settings.name, self._connect, settings.connections, settings.connect_timeout)

    def describe(self, statement: Statement) -> Sequence[Column] | None:
        """Return the columns that the server describes.

        None for what tells its columns only when it runs, and for a query of which the server can say nothing without
        its arguments (``LIMIT ?``), or not soon (it runs subqueries that give one value).
        """
        if _first_word(statement.sql) in _TELLING:
            return None
        nobody = Cancellation()
        session = self._pool.acquire(nobody, lambda session: session.begin(nobody), self._connect_timeout)
        try:
            session.limit(self._connect_timeout)
            with session.guard(nobody):
                fields = self._described(session, statement, statement.render(lambda _: " NULL "))
        except TimedOut:
            return None
        except QueryFailed as failed:
            if statement.count and failed.details.get("errno") not in _CERTAIN:
                return None
            raise
        finally:
            self._pool.release(session)
        return [field.column for field in fields]

    @contextmanager
    def read(
        self,
        query: Query,
        accepts: frozenset[Shape],  # noqa: ARG002 - DECODED is always among them
        *,
        timeout: float,
        cancellation: Cancellation,
        columns: Sequence[Column] | None = None,  # noqa: ARG002 - the server knows its types
    ) -> Iterator[RowStream]:
        """Run ``query`` read-only and give its rows (see ``sources.base.Source``)."""
        values = query.statement.bind(query.args)
        session = self._pool.acquire(cancellation, lambda session: session.begin(cancellation))
        try:
            session.limit(timeout)
            literals = [literal(value, session.version) for value in values]
            # Spaces keep a constant from becoming one with what stands beside it.
            sql = query.statement.render(lambda i: f" {literals[i]} ")
            with session.guard(cancellation):
                fields = self._start(session, query, sql)
            yield _Rows(session, fields, cancellation)
        finally:
            self._pool.release(session)

    def estimate(self, query: Query, *, timeout: float) -> None:
        """Return None: ClickHouse estimates what a query reads, not what it returns."""

    def close(self) -> None:
        """Close all connections; those in use close when their query ends."""
        self._pool.close()

    def _connect(self) -> Session:
        try:
            # The second limit is that of a ping.
            limits = {"connect_timeout": self._connect_timeout, "sync_request_timeout": self._connect_timeout}
            client = Client(**(limits | self._options), disable_reconnect=True)
            return Session(client, self.name, lambda: self._second(client))
        except BROKEN as error:
            raise translate(error, self.name, connecting=True) from error

    def _second(self, first: Client) -> Client:
        place = {"host": first.connection.host, "port": first.connection.port, "alt_hosts": None, "settings": None}
        return Client(**(self._options | place), connect_timeout=_SECOND_TIMEOUT, send_receive_timeout=_SECOND_TIMEOUT)

    def _described(self, session: Session, statement: Statement, sql: str, label: str = "") -> list[types.Field]:
        if _first_word(statement.sql) in _WRITING:
            raise QueryFailed(f"{self.name}: the statement returns no columns; a task must read", retryable=False)
        # On a line of its own: a comment may end the query.
        described = session.rows(f"{_comment(label)}DESCRIBE TABLE ({sql}\n)")
        return [types.field(name, declared, self.name) for name, declared, *_ in described]

    def _start(self, session: Session, query: Query, sql: str) -> list[types.Field]:
        """Run the query; return how its columns are read."""
        told = _first_word(query.statement.sql) in _TELLING
        fields = [] if told else self._described(session, query.statement, sql, query.label)
        if not all(field.plain for field in fields):
            names = [field.column.name for field in fields]
            if twice := [name for name in names if names.count(name) > 1]:
                raise QueryFailed(
                    f"{self.name}: more than one column is called {twice[0]!r}; give each a name of its own with AS",
                    retryable=False,
                )
            sql = f"SELECT {', '.join(field.asked() for field in fields)} FROM ({sql}\n)"  # noqa: S608
        query.begins()
        session.start(_comment(query.label) + sql)
        header = session.receive()
        sent = header.columns_with_types if header is not None else []
        if told:
            fields = [types.field(name, declared, self.name) for name, declared in sent]
            if not all(field.plain for field in fields):
                raise QueryFailed(
                    f"{self.name}: this statement has columns that only a query can read; SELECT from the tables of "
                    "the database system instead",
                    retryable=False,
                )
        elif len(sent) != len(fields) or not all(map(types.fits, fields, (declared for _, declared in sent))):
            raise QueryFailed(f"{self.name}: a table of the query was altered while it began", retryable=True)
        return fields


class _Rows:
    """The rows of one query (see ``sources.base.RowStream``)."""

    shape = Shape.DECODED

    def __init__(self, session: Session, fields: Sequence[types.Field], cancellation: Cancellation) -> None:
        self.columns: Sequence[Column] = tuple(field.column for field in fields)
        self._session = session
        self._fields = fields
        self._cancellation = cancellation

    def chunks(self) -> Iterator[Chunk]:
        """Refuse: the values are Python's."""
        raise TypeError("this stream is decoded")

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows of each block."""
        while (block := self._next()) is not None:
            if block.num_rows:
                columns = zip(self._fields, block.get_columns(), strict=True)
                yield list(zip(*(field.canonical(values) for field, values in columns), strict=True))

    def _next(self) -> Any | None:
        with self._session.guard(self._cancellation):
            return self._session.receive()


def _first_word(sql: str) -> str:
    for token in tokens(sql, dialect("clickhouse")):
        if token.kind not in {Kind.SPACE, Kind.COMMENT, Kind.OPEN}:
            return sql[token.start : token.end].upper()
    return ""


def _comment(label: str) -> str:
    return f"/* {''.join(c if c.isalnum() or c in '=_-., @:' else '_' for c in label)} */ " if label else ""
