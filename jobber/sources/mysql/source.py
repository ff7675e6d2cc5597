"""MySQL and MariaDB as a source: COPY text where the backend takes it, decoded rows elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from math import isfinite

from pymysql import err

from jobber import mysql
from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.config import DatabaseSettings
from jobber.errors import BadArguments, QueryFailed, SourceUnavailable, TimedOut
from jobber.jobs import Scalar
from jobber.mysql import ColumnPacket, Connection
from jobber.sources.base import Chunk, Query, RowStream, Shape
from jobber.sources.mysql import statements, types
from jobber.sources.mysql.charsets import Charsets
from jobber.sources.mysql.failures import translate
from jobber.sources.mysql.marking import MarkedRows, Marking
from jobber.sources.mysql.planning import planned_rows
from jobber.sources.mysql.session import Prepared, Session
from jobber.sources.mysql.values import Values
from jobber.sources.pool import FREE_WITHIN, Pool
from jobber.sqltext import Statement

#: Bytes of rows that travel together; decoded ones take several times as much memory.
_CHUNK_BYTES, _BATCH_BYTES = 256 * 1024, 128 * 1024
#: Digits that a number of type DECIMAL may have
#: (https://dev.mysql.com/doc/refman/8.4/en/precision-math-decimal-characteristics.html).
_DECIMAL_DIGITS = 65
#: What a label may not bring into a comment.
_UNSAFE = re.compile(r"[^-\w=:.,@ ]")


class MysqlSource:
    """A MySQL or MariaDB database that queries read from (see ``sources.base.Source``)."""

    engine = "mysql"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._connect_timeout = settings.connect_timeout
        self._charsets = Charsets()
        self._pool = Pool(settings.name, self._connect, settings.connections, settings.connect_timeout)

    def describe(self, statement: Statement) -> Sequence[Column] | None:
        """Prepare ``statement`` in the database and return its columns; it is not run.

        None for what tells its columns only when it runs: ``EXPLAIN`` and some of ``SHOW``.
        """
        nobody = Cancellation()
        limit = self._connect_timeout
        session = self._begun(nobody, limit, patience=limit)
        try:
            session.limit(limit)
            with session.guard(nobody):
                prepared = self._prepare(session, statement)
                session.forget(prepared)
        except TimedOut as error:
            # Preparing waits only for locks on the tables.
            raise SourceUnavailable(f"{self.name}: a table of the query is locked") from error
        finally:
            self._pool.release(session)
        return types.columns_of(prepared.columns) if prepared.columns else None

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
        values = _arguments(query.statement.bind(query.args))
        session = self._begun(cancellation, timeout)
        try:
            session.limit(timeout)
            with session.guard(cancellation):
                definitions, texts = self._start(session, query, values)
            fields = types.fields_of(definitions, mariadb=session.connection.is_mariadb, texts=texts)
            converter = Values(fields, self._settings.zero_dates)
            stream: RowStream
            if Shape.ENCODED in accepts:
                stream = _EncodedRows(session, converter, cancellation)
            else:
                stream = _DecodedRows(session, converter, cancellation)
            yield stream
        finally:
            self._pool.release(session)

    def estimate(self, query: Query, *, timeout: float) -> int | None:
        """Return the rows that the optimizer expects of a query with its arguments; None where it tells too much."""
        if statements.tells(query.statement.sql) or statements.condenses(query.statement.sql):
            return None
        nobody = Cancellation()
        values = _arguments(query.statement.bind(query.args))
        session = self._begun(nobody, timeout, patience=FREE_WITHIN)
        try:
            session.limit(timeout)
            with session.guard(nobody):
                session.forget(self._prepare(session, query.statement))
                literals = session.literals(values)
                return planned_rows(session, query.statement.render(lambda i: f" {literals[i]} "))
        finally:
            self._pool.release(session)

    def close(self) -> None:
        """Close all connections; those in use close when their query ends."""
        self._pool.close()

    def _begun(self, cancellation: Cancellation, timeout: float, *, patience: float = 0) -> Session:
        def begin(session: Session) -> None:
            with session.guard(cancellation):
                session.begin(statements.begin(session, timeout), self._connect_timeout)

        return self._pool.acquire(cancellation, begin, patience)

    def _prepare(self, session: Session, statement: Statement, label: str = "") -> Prepared:
        """Prepare a statement with its placeholders; it has no columns if only running it tells them.

        That refuses what would write or return nothing, and a second statement, before anything has run; and the
        server and jobber must agree on what is a placeholder before a value takes the place of one.
        """
        self._check_quotes(session, statement)
        prepared = session.prepare(_comment(label) + statement.render(lambda _: "?"))
        if statements.maintains(statement.sql) or (not prepared.columns and not statements.tells(statement.sql)):
            # Also what keeps COMMIT, SET and CALL from ever being run.
            raise self._without_columns()
        wanted = sum(not isinstance(piece, str) for piece in statement.pieces)
        if prepared.id is not None and prepared.placeholders != wanted:
            raise QueryFailed(
                f"{self.name}: the server finds {prepared.placeholders} placeholders in the query where jobber finds "
                f"{wanted}; look at its quotes and comments",
                retryable=False,
            )
        return prepared

    def _start(
        self, session: Session, query: Query, values: Sequence[Scalar | float]
    ) -> tuple[Sequence[ColumnPacket], Mapping[int, types.Form]]:
        """Run the query.

        Returns:
            the columns of its answer, under the names that they have without arguments; and what makes UTF-8 of text
            that comes otherwise, by the position of its column.
        """
        prepared = self._prepare(session, query.statement, query.label)
        names = [column.name for column in prepared.columns]
        literals = session.literals(values)
        # Spaces keep a constant from becoming one with what stands beside it: '' '', N'', x''.
        text = _comment(query.label) + query.statement.render(lambda i: f" {literals[i]} ")
        if values:  # their types are part of what the columns' types are
            session.forget(prepared)
            prepared = session.prepare(text)
        texts = self._charsets.forms(session.connection, prepared.columns)
        if not texts:
            session.connection.run("SET character_set_results = utf8mb4")
        query.begins()
        if any(map(types.rounded, prepared.columns)):
            definitions = session.execute(prepared)
        else:
            session.forget(prepared)
            definitions = session.query(text)
        if not definitions:
            raise self._without_columns()
        if not statements.tells(query.statement.sql):
            self._name(definitions, names)
        return definitions, texts

    def _name(self, definitions: Sequence[ColumnPacket], names: Sequence[str]) -> None:
        """Give columns the names that they had with placeholders in place of the arguments."""
        pairs = list(zip(definitions, names, strict=False))
        # Between preparing and running nothing holds the tables, and columns may have changed places.
        if len(names) != len(definitions) or any(d.name != name and "?" not in name for d, name in pairs):
            raise QueryFailed(f"{self.name}: a table of the query was altered while it began", retryable=True)
        for definition, name in pairs:
            definition.name = name

    def _without_columns(self) -> QueryFailed:
        return QueryFailed(f"{self.name}: the statement returns no columns; a task must read", retryable=False)

    def _check_quotes(self, session: Session, statement: Statement) -> None:
        if not statements.reads_alike(statement, session.sql_mode):
            raise QueryFailed(
                f"{self.name}: under the server's sql_mode ({session.sql_mode}) this query's quotes end elsewhere than "
                "jobber takes them to; write it without backslashes in quotes",
                retryable=False,
            )

    def _connect(self) -> Session:
        try:
            return Session(self._connection(), self.name, self._connection)
        except err.Error as error:
            raise translate(error, self.name) from error

    def _connection(self) -> Connection:
        return mysql.connect(self._settings.url, connect_timeout=self._connect_timeout)


class _EncodedRows:
    shape = Shape.ENCODED

    def __init__(self, session: Session, values: Values, cancellation: Cancellation) -> None:
        self.columns: Sequence[Column] = values.columns
        self._session = session
        self._values = values
        self._cancellation = cancellation

    def chunks(self) -> Iterator[Chunk]:
        return self._marked() if self._values.plain and self._session.as_text else self._encoded()

    def _marked(self) -> Iterator[Chunk]:
        marking = Marking(self._values)
        while True:
            rows = MarkedRows(marking)
            with self._session.guard(self._cancellation):
                more = self._session.gather(rows, _CHUNK_BYTES)
            if not more:
                return
            yield rows.chunk()

    def _encoded(self) -> Iterator[Chunk]:
        while True:
            with self._session.guard(self._cancellation):
                fields = self._session.read(_CHUNK_BYTES)
            if fields is None:
                return
            yield self._values.encoded(fields)

    def batches(self) -> Iterator[list[Row]]:
        raise TypeError("this stream is encoded")


class _DecodedRows:
    shape = Shape.DECODED

    def __init__(self, session: Session, values: Values, cancellation: Cancellation) -> None:
        self.columns: Sequence[Column] = values.columns
        self._session = session
        self._values = values
        self._cancellation = cancellation

    def chunks(self) -> Iterator[Chunk]:
        raise TypeError("this stream is decoded")

    def batches(self) -> Iterator[list[Row]]:
        while True:
            with self._session.guard(self._cancellation):
                fields = self._session.read(_BATCH_BYTES)
            if fields is None:
                return
            yield self._values.decoded(fields)


def _arguments(values: Sequence[Scalar]) -> Sequence[Scalar | float]:
    """Return the values as they can be written in SQL; BadArguments for one that the server would read as another."""
    return [_argument(position, value) for position, value in enumerate(values, 1)]


def _argument(position: int, value: Scalar) -> Scalar | float:
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise BadArguments(
                    f"argument {position} holds half of a surrogate pair, which is no character"
                ) from None
        case int() | Decimal() if not _is_decimal(Decimal(value)):
            # The server would take the largest number that it has, or 0, in its place. What 1e100 stands for is a
            # double anyhow, where it is one exactly.
            with suppress(OverflowError):
                double = float(value)
                if isfinite(double) and Decimal(repr(double)) == value:
                    return double
            raise BadArguments(
                f"argument {position} is a number that MySQL cannot hold: its decimals have {_DECIMAL_DIGITS} digits"
            )
    return value


def _is_decimal(value: Decimal) -> bool:
    """Tell whether a number, written without an exponent, has no more digits than a DECIMAL."""
    if not value.is_finite():
        return False
    _, digits, exponent = value.as_tuple()
    whole = max(len(digits) + int(exponent), 1)
    return whole + max(-int(exponent), 0) <= _DECIMAL_DIGITS


def _comment(label: str) -> str:
    """Return the label as a comment in front of the query."""
    return f"/* {_UNSAFE.sub('_', label)} */ " if label else ""
