"""PostgreSQL as a source: COPY text where the backend takes it, decoded rows elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from sqlalchemy.engine import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.config import DatabaseSettings
from jobber.errors import QueryFailed, SourceUnavailable, TimedOut, ValueNotRepresentable
from jobber.sources.base import Chunk, Query, RowStream, Shape
from jobber.sources.pool import FREE_WITHIN, Pool
from jobber.sources.postgresql import types
from jobber.sources.postgresql.failures import NOT_FOR_COPY, ServerError, translate
from jobber.sources.postgresql.session import Session, UndecodableResult
from jobber.sources.postgresql.wire import Description
from jobber.sqltext import Statement

#: What the text of values depends on; for the transaction only, so that nothing leaks through a pooling proxy.
_SESSION = {
    "default_transaction_read_only": "on",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
#: What a label may not bring into a comment.
_UNSAFE = re.compile(r"[^-\w=:.,@ ]")
#: Seconds beyond a limit that the server has been told, in which it may say that it has passed.
_GRACE = 1.0
#: A session of one's own looks after itself when nobody hears of its client any more. A server that computes does not
#: notice that its client is gone, unless it looks (PostgreSQL 14, Linux); and one whose client's machine or network
#: vanished would be told after two hours. Not every version and system can do all of it.
#: https://www.postgresql.org/docs/current/runtime-config-connection.html#RUNTIME-CONFIG-TCP-KEEPALIVES-IDLE
_LOST_CLIENT = {
    "client_connection_check_interval": "1s",
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60s",
}
#: The largest statement_timeout, milliseconds.
_TIMEOUT_MAX = 2**31 - 1
#: Statements whose descriptions are remembered.
_KNOWN_MAX = 1000


class _Known(NamedTuple):
    """A statement as the server described it, and took it inside COPY."""

    described: Description
    columns: tuple[Column, ...]


class PostgresqlSource:
    """A PostgreSQL database that queries read from (see ``sources.base.Source``)."""

    engine = "postgresql"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._connect_timeout = settings.connect_timeout
        self._pool = Pool(settings.name, self._connect, settings.connections, settings.connect_timeout)
        self._type_names: dict[int, str] = {}
        self._known: dict[str, _Known] = {}  # by their texts

    def describe(self, statement: Statement) -> Sequence[Column]:
        """Prepare ``statement`` in the database and return its columns; it is not run."""
        nobody = Cancellation()
        limit = self._connect_timeout

        def begin(session: Session) -> None:
            with session.guard(nobody, limit), session.patience(limit):
                session.script(_begin(limit))

        session = self._pool.acquire(nobody, begin, limit)
        try:
            # The server's own limit comes first, if the server is there.
            with session.guard(nobody, limit), session.patience(limit + _GRACE):
                return self._columns(session.prepare(_numbered(statement)))
        except TimedOut as error:
            # Preparing waits only for locks on the tables.
            raise SourceUnavailable(f"{self.name}: a table of the query is locked") from error
        finally:
            self._pool.release(session)

    @contextmanager
    def read(
        self,
        query: Query,
        accepts: frozenset[Shape],
        *,
        timeout: float,
        cancellation: Cancellation,
        columns: Sequence[Column] | None = None,  # noqa: ARG002 - the server knows its types
    ) -> Iterator[RowStream]:
        """Run ``query`` in a read-only transaction and give its rows (see ``sources.base.Source``)."""
        values = types.parameters(query.statement.bind(query.args))
        known = self._known.get(_numbered(query.statement))
        if known is not None and Shape.ENCODED in accepts:
            with self._ahead(query, known, values, timeout, cancellation) as rows:
                if rows is not None:
                    yield rows
                    return

        # A pooling proxy may let a transaction wait for its turn.
        patience = self._connect_timeout if self._settings.server_side_cursors else 0

        def begin(session: Session) -> None:
            with session.guard(cancellation, timeout), session.patience(patience):
                session.script(_begin(timeout))

        session = self._pool.acquire(cancellation, begin)
        try:
            text = _comment(query.label) + _numbered(query.statement)
            with session.guard(cancellation, timeout):
                described = session.prepare(text)
                found = self._columns(described)
                encoded = Shape.ENCODED in accepts and self._start_copy(session, query, values, described)
            stream: RowStream
            if encoded:
                if session.plain:
                    self._remember(query.statement, described, found)
                stream = _EncodedRows(session, found, cancellation, timeout)
            else:
                with session.guard(cancellation, timeout):
                    if Shape.ENCODED in accepts:  # COPY refused it, which ended the transaction
                        session.script(_begin(timeout))
                        session.prepare(text)
                    query.begins()
                    session.start_rows(values)
                stream = _DecodedRows(session, found, cancellation, timeout, text)
            yield stream
        finally:
            self._pool.release(session)

    def estimate(self, query: Query, *, timeout: float) -> int | None:
        """Return the rows that PostgreSQL's planner expects of a query with its arguments."""
        nobody = Cancellation()
        values = types.parameters(query.statement.bind(query.args))

        def begin(session: Session) -> None:
            with session.guard(nobody, timeout), session.patience(timeout):
                session.script(_begin(timeout))

        session = self._pool.acquire(nobody, begin, patience=FREE_WITHIN)
        try:
            with session.guard(nobody, timeout), session.patience(timeout + _GRACE):
                constants = self._constants(session, values, session.prepare(_numbered(query.statement)))
                inner = query.statement.render(lambda i: constants[i])
                ((plan,),) = session.select(f"EXPLAIN (FORMAT JSON) {inner}")
        finally:
            self._pool.release(session)
        return int(json.loads(plan or "null")[0]["Plan"]["Plan Rows"])

    def close(self) -> None:
        """Close all connections; those in use close when their query ends."""
        self._pool.close()

    @contextmanager
    def _ahead(
        self,
        query: Query,
        known: _Known,
        values: Sequence[bytes | None],
        timeout: float,
        cancellation: Cancellation,
    ) -> Iterator[RowStream | None]:
        """Run a query whose description is known in one round trip; None if it must go the general way.

        The server describes it again before its rows: those of a statement that has changed are not looked at.
        """
        statement = _numbered(query.statement)
        sent = False

        def begin(session: Session) -> None:
            nonlocal sent
            names = [self._type_names[oid] for oid in known.described.parameters]
            copy = _copying(query, _literals(session, values, names))
            with session.guard(cancellation, timeout), session.patience(self._connect_timeout):
                query.begins()
                sent = session.send_copy_ahead(_begin(timeout), _comment(query.label) + statement, copy)

        session = self._pool.acquire(cancellation, begin)
        try:
            rows = None
            if sent and self._is_taken(session, known, cancellation, timeout):
                rows = _EncodedRows(session, known.columns, cancellation, timeout)
            else:
                self._known.pop(statement, None)
            if rows is not None:
                yield rows
        finally:
            self._pool.release(session)
        if rows is None:
            yield None

    def _is_taken(self, session: Session, known: _Known, cancellation: Cancellation, timeout: float) -> bool:
        with session.guard(cancellation, timeout):
            try:
                return session.copy_taken(known.described)
            except ServerError as error:
                if error.sqlstate in NOT_FOR_COPY:
                    return False
                raise

    def _remember(self, statement: Statement, described: PGresult, columns: tuple[Column, ...]) -> None:
        parameters = tuple(described.param_type(i) for i in range(described.nparams))
        # Names of other types may change. Behind a proxy, less is taken for granted.
        if self._settings.server_side_cursors and all(oid in self._type_names for oid in parameters):
            fields = tuple(
                (described.fname(i) or b"", described.ftype(i), described.fmod(i)) for i in range(described.nfields)
            )
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[_numbered(statement)] = _Known(Description(parameters, fields), columns)

    def _columns(self, described: PGresult) -> tuple[Column, ...]:
        if not described.nfields:
            # Also what keeps COMMIT, SET and CALL from ever being run.
            raise QueryFailed(f"{self.name}: the statement returns no columns; a task must read", retryable=False)
        return types.columns_of(described)

    def _start_copy(self, session: Session, query: Query, values: Sequence[bytes | None], described: PGresult) -> bool:
        """Run the query inside COPY, which takes no arguments; False if COPY does not take the statement.

        ``described`` has proved the text to be one whole statement: nothing in it can close the parenthesis.
        """
        copy = _copying(query, self._constants(session, values, described))
        query.begins()
        try:
            session.start_copy(copy)
        except ServerError as error:
            if error.sqlstate in NOT_FOR_COPY:
                return False
            raise
        return True

    def _constants(self, session: Session, values: Sequence[bytes | None], described: PGresult) -> list[str]:
        """Return the arguments as constants, each of the type that the server wants there."""
        names = self._names(session, [described.param_type(i) for i in range(described.nparams)])
        return _literals(session, values, names)

    def _names(self, session: Session, oids: Sequence[int]) -> list[str]:
        """Return the types' names as they stand in a cast."""
        unknown = sorted({oid for oid in oids if oid not in self._type_names})
        names = {}
        if unknown:
            # With a modifier of -1: without one, bpchar and bit read as character(1) and bit(1), which cut.
            wanted = f"{{{','.join(map(str, unknown))}}}".encode()
            rows = session.select(
                "SELECT t, pg_catalog.format_type(t, -1) FROM pg_catalog.unnest($1::pg_catalog.oid[]) t", wanted
            )
            names = {int(oid or 0): name or "" for oid, name in rows}
            self._type_names |= {oid: name for oid, name in names.items() if oid <= types.LAST_BUILTIN}
        return [self._type_names.get(oid) or names[oid] for oid in oids]

    def _connect(self) -> Session:
        try:
            connection: Connection[Any] = Connection.connect(**_conninfo(self._settings), autocommit=True)
            if self._settings.server_side_cursors:  # a session of one's own
                connection.execute("SET default_transaction_read_only = on")
                for name, value in _LOST_CLIENT.items():
                    with suppress(psycopg.Error):
                        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", [name, value], prepare=False)
            plain = _is_plain(connection)
        except psycopg.Error as error:
            raise translate(error, self.name) from error
        return Session(connection, self.name, plain=plain)


class _EncodedRows:
    shape = Shape.ENCODED

    def __init__(self, session: Session, columns: Sequence[Column], cancellation: Cancellation, timeout: float) -> None:
        self.columns = columns
        self._session = session
        self._cancellation = cancellation
        self._timeout = timeout

    def chunks(self) -> Iterator[Chunk]:
        read = 0
        while True:
            with self._session.guard(self._cancellation, self._timeout):
                data, rows = self._session.copy_chunk()
                if not rows:
                    counted = self._session.end_copy()
                    break
            read += rows
            yield Chunk(data, rows)
        if counted != read:
            raise QueryFailed(f"the server sent {counted} rows and {read} came")

    def batches(self) -> Iterator[list[Row]]:
        raise TypeError("this stream is encoded")


class _DecodedRows:
    shape = Shape.DECODED

    def __init__(
        self, session: Session, columns: Sequence[Column], cancellation: Cancellation, timeout: float, text: str
    ) -> None:
        self.columns = columns
        self._session = session
        self._cancellation = cancellation
        self._timeout = timeout
        self._text = text

    def chunks(self) -> Iterator[Chunk]:
        raise TypeError("this stream is decoded")

    def batches(self) -> Iterator[list[Row]]:
        transformer = Transformer(types.CANONICAL)
        while True:
            try:
                with self._session.guard(self._cancellation, self._timeout):
                    batch = self._session.rows(transformer, self._text)
            except UndecodableResult as error:
                raise self._undecodable(error.result) from error
            if batch is None:
                return
            yield batch

    def _undecodable(self, result: PGresult) -> ValueNotRepresentable:
        for row in range(result.ntuples):
            for field, column in enumerate(self.columns):
                value = result.get_value(row, field) or b""
                try:
                    text = value.decode()
                    if result.ftype(field) != types.TIMESTAMPTZ or "+00" in text or text.endswith("infinity"):
                        continue
                except UnicodeDecodeError:
                    pass
                return ValueNotRepresentable(
                    f"column {column.name}: the value {value[:100]!r} is no valid {column.kind}", column=column.name
                )
        return ValueNotRepresentable("a value of the result cannot be decoded")


def _is_plain(connection: Connection[Any]) -> bool:
    """Whether nothing lies between libpq and the socket: neither TLS nor GSSAPI encryption."""
    if connection.pgconn.ssl_in_use:
        return False
    if any(option.keyword == b"gssencmode" and option.val != b"disable" for option in connection.pgconn.info):
        try:
            found = connection.execute("SELECT encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_backend_pid()")
            return found.fetchall() == [(False,)]
        except psycopg.Error:  # it cannot tell
            return False
    return True


def _begin(timeout: float) -> str:
    settings = dict(_SESSION)
    if timeout:
        settings["statement_timeout"] = str(min(max(int(timeout * 1000), 1), _TIMEOUT_MAX))
    # The SELECT takes the transaction's snapshot, and from then on the server refuses to make it READ WRITE.
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in settings.items())
    return f"BEGIN READ ONLY; SELECT {calls}"


def _numbered(statement: Statement) -> str:
    return statement.render(lambda i: f"${i + 1}")


def _literals(session: Session, values: Sequence[bytes | None], names: Sequence[str]) -> list[str]:
    return [types.literal(*pair, session.connection) for pair in zip(values, names, strict=True)]


def _copying(query: Query, constants: Sequence[str]) -> str:
    """Return the statement that copies the rows of a query with its arguments written out."""
    inner = query.statement.render(lambda i: constants[i])
    return f"{_comment(query.label)}COPY ({inner}\n) TO STDOUT"


def _comment(label: str) -> str:
    """Return the label as a comment, on the first line of the query so that line numbers stay."""
    return f"/* {_UNSAFE.sub('_', label)} */ " if label else ""


def _conninfo(settings: DatabaseSettings) -> dict[str, Any]:
    """Return libpq's connection parameters (https://www.postgresql.org/docs/current/libpq-connect.html)."""
    url = make_url(settings.url)
    query = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in url.query.items()}
    defaults = {
        "application_name": "jobber",
        # A connection whose other end vanished breaks within about a minute.
        "keepalives_idle": "20",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    return {
        **defaults,
        **query,
        **url.translate_connect_args(username="user", database="dbname"),
        "client_encoding": "UTF8",
        "connect_timeout": str(max(2, round(settings.connect_timeout))),
    }
