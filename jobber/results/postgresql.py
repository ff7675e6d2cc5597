"""Results on PostgreSQL: one table per result, in the connection's default schema, rows in physical order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from psycopg.types.string import TextLoader

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import AttemptError, ResultsFailed, ResultsGone
from jobber.results import naming, notes
from jobber.results import postgresql_ledger as ledger
from jobber.results.base import LEDGER, Claim, Published, Target
from jobber.results.postgresql_errors import translate, translated, words
from jobber.results.postgresql_plain import Templates
from jobber.results.postgresql_pool import Connection, Connections
from jobber.results.postgresql_waiting import heard
from jobber.results.postgresql_writer import BRIEFLY, Writer
from jobber.results.readers import Patience
from jobber.sources.base import Shape

log = logging.getLogger(__name__)

#: Types that are read as the text that the server prints: the canonical form.
_AS_TEXT = ("numeric", "date", "timestamp", "jsonb")

#: How a CREATE TABLE IF NOT EXISTS fails beside another one: for the row, the table or the row type of the same name.
_MADE_MEANWHILE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
)


#: Begins a transaction whose plain SELECTs give rows in the order in which they lie. ``ORDER BY ctid`` says the same,
#: and sorts the whole table for every page.
_IN_ORDER = (
    "BEGIN READ ONLY; SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0; "
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
)


class PostgresResults:
    """A results database on PostgreSQL; ``jobber.results.base.ResultsBackend``.

    Parameters:
        settings: ``[results.NAME]``.
        segment_seconds: age that a loading transaction may reach before it is committed.
    """

    engine = "postgresql"
    accepts = frozenset({Shape.ENCODED, Shape.DECODED})

    def __init__(self, settings: ResultsSettings, *, segment_seconds: float = 60.0) -> None:
        naming.check_template(settings)
        self.name = settings.name
        self.unlogged = settings.unlogged
        self.grant_select_to = settings.grant_select_to
        self._publish_timeout = settings.publish_timeout
        self.segment_seconds = segment_seconds
        self.connections = Connections(settings)
        self.templates = Templates()
        self._template = settings.results_table
        self._schema = ""  # the default one, asked for when preparing
        self._prepared = False
        self._preparing = threading.Lock()

    # -- the protocol -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the ledger if it is not there, and bring one of an earlier version up to date."""
        with self._preparing, self._idle() as connection:
            row = connection.execute("SELECT current_schema()").fetchone()
            if row is None or row[0] is None:
                raise ResultsFailed(
                    f'results database "{self.name}" has no schema to create tables in: none of its search_path exists',
                    retryable=False,
                )
            self._schema = row[0]
            # Asked first, because CREATE TABLE IF NOT EXISTS wants the right to create even if there is nothing to do;
            # two of them at the same moment collide in the catalogue.
            while not self.exists(connection, LEDGER):
                with suppress(*_MADE_MEANWHILE):
                    connection.execute(self.sql(ledger.CREATE))
            self._upgrade(connection)
            self._prepared = True

    def table_name(self, job_id: str) -> str:
        """Return the name of the result table of ``job_id``; PostgreSQL keeps the case of quoted names."""
        return naming.table_name(self._template, job_id, folds_case=False)

    @contextmanager
    def begin(self, target: Target, columns: Sequence[Column], cancellation: Cancellation) -> Iterator[Writer]:
        """Look whether the attempt may publish, and register it unless it may do so at once.

        Leaving without ``publish`` discards it.
        """
        if not columns:
            raise ResultsFailed("the query gives no columns, so there is no table to make", retryable=False)
        writer = Writer(self, target, columns, cancellation)
        with self.ready(cancellation) as connection, heard(cancellation, connection):
            entry = self._read(connection, target.table)
            if entry is not None and not entry.is_free_for(target):
                writer.register(connection)
        try:
            yield writer
        finally:
            writer.close()

    def ping(self) -> None:
        """Raise ResultsUnavailable unless the server answers, within 2 seconds at least (libpq's least limit)."""
        self.connections.ping()

    def fence(self, table: str, run: int, attempt: int) -> Published | None:
        """Make sure that no attempt up to (run, attempt) publishes to ``table`` any more; drops its staging table."""
        with self.ready() as connection:
            facts = {"table": table, "run": run, "attempt": attempt}
            row = connection.execute(self.sql(ledger.FENCE), facts).fetchone()
            if row is not None:
                self._drop_leftovers(connection, table, row[0])
            # From here on nothing that this attempt has not published yet will be.
            return self._published(connection, table, run, attempt)

    def drop(self, table: str, run: int) -> bool:
        """Drop the published result of ``run``; False if the ledger holds none of that run any more."""
        patience = self.patience(f'"{table}"', "it cannot be dropped")
        while True:
            try:
                with self._connected() as connection:
                    return self._drop(connection, table, run)
            except psycopg.errors.LockNotAvailable as exc:
                patience.pause(exc)

    def rows(self, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int) -> list[Row]:
        """Return rows of the published result of ``run`` in the order of its query, in canonical form."""
        with self.ready() as connection:
            try:
                page = self._page(connection, table, run, columns, offset=offset, limit=limit)
                if page is None:  # published between our two looks, or dropped by hand
                    page = self._page(connection, table, run, columns, offset=offset, limit=limit)
            except psycopg.errors.UndefinedColumn as exc:
                raise self._gone(table) from exc  # a newer run with other columns
        if page is None:
            raise self._gone(table)
        return page

    def expire(self, limit: int = 100) -> list[str]:
        """Drop results whose time is over, and staging tables of overtaken attempts; one in use is left for later."""
        dropped = []
        with self.ready() as connection:
            # A few more than asked for: some may be held open by readers, or not be jobber's to drop any more.
            due = connection.execute(self.sql(ledger.EXPIRED), {"limit": limit + 100}).fetchall()
            for table, run in due:
                with self._each(table), suppress(psycopg.errors.LockNotAvailable):
                    if self._drop(connection, table, run):
                        dropped.append(table)
                if len(dropped) >= limit:
                    break
            for table, names in connection.execute(self.sql(ledger.LEFTOVERS), {"limit": limit}).fetchall():
                self._drop_leftovers(connection, table, names)
            connection.execute(self.sql(ledger.FORGET_IDLE))
        return dropped

    def abandoned(self, older_than: float) -> list[Claim]:
        """Return the attempts that may still publish and began more than ``older_than`` seconds ago."""
        with self.ready() as connection:
            found = connection.execute(self.sql(ledger.ABANDONED), {"older_than": older_than}).fetchall()
        return [Claim(*row) for row in found]

    def close(self) -> None:
        """Close all connections."""
        self.connections.close()

    # -- for the writer -----------------------------------------------------------------------------------------------

    def patience(self, what: str, so: str) -> Patience:
        """Return how long an operation waits for those who keep ``what`` open."""
        return Patience(self._publish_timeout, f'{what} in results database "{self.name}"', so)

    def sql(self, statement: SQL, **parts: Composable) -> Composed:
        """Return a statement of the ledger with its name filled in."""
        return statement.format(ledger=self.identifier(LEDGER), **parts)

    def identifier(self, table: str) -> Identifier:
        """Return a table's name with its schema, quoted by the driver."""
        return Identifier(self._schema, table)

    def exists(self, connection: Connection, table: str) -> bool:
        """Say whether anything of that name stands in the schema."""
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", [self._quoted(table)]).fetchone() == (True,)

    def entry(self, connection: Connection, table: str) -> ledger.Entry | None:
        """Return the ledger's row of a table, locked until the transaction ends."""
        row = connection.execute(self.sql(ledger.LOCK), {"table": table}).fetchone()
        return None if row is None else ledger.Entry(*row)

    @staticmethod
    def roll_back(connection: Connection) -> None:
        """End whatever transaction is open; a broken connection stays broken."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")

    @contextmanager
    def ready(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        """Lend a connection to a database that has its ledger."""
        if not self._prepared:
            self.prepare()
        with self._idle(cancellation) as connection:
            yield connection

    def register(self, connection: Connection, target: Target, staging: str) -> None:
        """List an attempt in the ledger, and drop what those left that it overtakes.

        Parameters:
            connection: outside of a transaction.
            staging: what the names of the attempt's tables begin with.

        Raises:
            Fenced: a newer attempt is registered, or this one was fenced off.
            ResultsFailed: the result of another job has the table's name.
        """
        facts = {"table": target.table, "job_id": target.job_id, "run": target.run, "attempt": target.attempt}
        row = connection.execute(self.sql(ledger.CLAIM), {**facts, "staging": staging}).fetchone()
        if row is None:
            raise self._refused(connection, target)
        self._drop_leftovers(connection, target.table, row[0])

    def is_published(self, target: Target) -> bool:
        """Say whether the attempt's result is the published one, when no transaction of its is under way any more."""
        with self.ready() as connection:
            try:
                connection.execute("BEGIN")
                connection.execute(self.sql(ledger.AWAIT), {"table": target.table})
                entry = self.entry(connection, target.table)
            finally:
                self.roll_back(connection)
        return entry is not None and entry.published(target.run, target.attempt)

    def give_up(self, target: Target, staging: str, *, drop: bool) -> None:
        """Forget an attempt that did not publish, and drop its staging table unless somebody keeps it open."""
        facts = {"table": target.table, "run": target.run, "attempt": target.attempt, "staging": staging}
        with self.ready() as connection:
            self.entry(connection, target.table)  # waits for a transaction of the attempt that lost its client
            dropped = not drop or self._drop_staging(connection, staging)
            connection.execute(self.sql(ledger.GIVE_UP), {**facts, "dropped": dropped})

    # -- steps --------------------------------------------------------------------------------------------------------

    def _upgrade(self, connection: Connection) -> None:
        """Add what a ledger of an earlier version lacks. Locks nothing where there is nothing to do."""
        patience = self.patience(f'"{LEDGER}"', "it cannot be brought up to date")
        while connection.execute(ledger.IS_OLD, {"name": self._quoted(LEDGER)}).fetchone() == (True,):
            try:
                connection.execute(SQL("; ").join([SQL("BEGIN"), BRIEFLY, self.sql(ledger.UPGRADE), SQL("COMMIT")]))
            except psycopg.errors.LockNotAvailable as exc:
                self.roll_back(connection)
                patience.pause(exc)

    def _quoted(self, table: str) -> str:
        return self.identifier(table).as_string()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        if not self._prepared:
            self.prepare()
        with self.connections.connection() as connection:
            yield connection

    @contextmanager
    def _idle(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        """Lend a connection to a body that waits for no reader; a lock that is not granted is a refusal like others."""
        with translated(self.name, locks=True), self.connections.connection(cancellation) as connection:
            yield connection

    def _refused(self, connection: Connection, target: Target) -> AttemptError:
        """Return why a claim was refused."""
        entry = self.entry(connection, target.table)
        claim = (target.run, target.attempt)
        if entry is None or entry.job_id == target.job_id or (entry.claim_run, entry.claim_attempt) >= claim:
            return ledger.fenced(target)
        return ResultsFailed(
            f'"{target.table}" in results database "{self.name}" holds the result of job "{entry.job_id}"; the names '
            "of the two jobs' tables are the same",
            retryable=False,
        )

    def _drop(self, connection: Connection, table: str, run: int) -> bool:
        """Drop a result in one transaction; LockNotAvailable while a reader keeps it open."""
        try:
            connection.execute("BEGIN")
            entry = self.entry(connection, table)
            if entry is None or entry.run != run:
                return False
            steps: list[Composable] = [self.sql(ledger.UNPUBLISH, table=Literal(table)), SQL("COMMIT")]
            if self.exists(connection, table):
                steps = [*_drop_now(self.identifier(table)), *steps]
            connection.execute(SQL("; ").join(steps))
            return True
        finally:
            self.roll_back(connection)

    def _drop_staging(self, connection: Connection, staging: str) -> bool:
        """Drop the tables of an attempt; False while somebody (a hung writer, a backup …) keeps one open."""
        try:
            for (table,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relname >= %(from)s AND relname < %(from)s || '~' "
                "AND relnamespace = to_regnamespace(%(schema)s)",
                {"from": staging, "schema": Identifier(self._schema).as_string(connection)},
            ).fetchall():
                steps = [SQL("BEGIN"), *_drop_now(self.identifier(table)), SQL("COMMIT")]
                connection.execute(SQL("; ").join(steps))
        except psycopg.errors.LockNotAvailable:
            return False
        finally:
            self.roll_back(connection)
        return True

    @contextmanager
    def _each(self, table: str) -> Iterator[None]:
        """Drop one of several tables: one that the server does not drop (a view needs it …) keeps no other from it."""
        try:
            yield
        except psycopg.Error as exc:
            if not isinstance(translate(exc, self.name), ResultsFailed):
                raise
            log.warning('"%s" in results database "%s" cannot be dropped: %s', table, self.name, words(exc))

    def _drop_leftovers(self, connection: Connection, table: str, names: Sequence[str]) -> None:
        dropped = [name for name in names if self._drop_staging(connection, name)]
        if dropped:
            connection.execute(self.sql(ledger.FORGET_LEFTOVERS), {"table": table, "dropped": dropped})

    def _published(self, connection: Connection, table: str, run: int, attempt: int) -> Published | None:
        """Return what an attempt published, or None if it does not stand there whole."""
        entry = self._read(connection, table)
        if entry is None or not entry.published(run, attempt):
            return None
        with self._standing(connection, table, run) as entry:
            if entry is None or entry.rows is None or not entry.published(run, attempt):
                return None
            # A crash empties UNLOGGED tables.
            [(rows,)] = connection.execute(SQL("SELECT count(*) FROM {}").format(self.identifier(table))).fetchall()
            return notes.published(run, attempt, entry.rows, entry.columns) if rows == entry.rows else None

    @contextmanager
    def _standing(self, connection: Connection, table: str, run: int) -> Iterator[ledger.Entry | None]:
        """Keep the published table of a run from being replaced, and read its entry; None if table or run is gone."""
        try:
            # The lock comes before the look into the ledger: while it is held nothing else can take the table's place.
            connection.execute(_IN_ORDER)
            try:
                connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(self.identifier(table)))
            except psycopg.errors.UndefinedTable:
                yield None
                return
            entry = self._read(connection, table)
            yield entry if entry is not None and entry.run == run else None
        finally:
            self.roll_back(connection)

    def _page(
        self, connection: Connection, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int
    ) -> list[Row] | None:
        """Return a page, or None if the table or the run is not there."""
        with self._standing(connection, table, run) as entry:
            # The janitor may take a while to come.
            if entry is None or entry.rows is None or entry.expired:
                return None
            page = self._select(connection, table, columns, offset, limit)
            expected = max(0, min(limit, entry.rows - offset))
            # An UNLOGGED table that a crash emptied; a page beyond the end must notice it too.
            if len(page) < expected or (entry.rows and not expected and not self._select(connection, table, [], 0, 1)):
                raise self._gone(table)
            return page

    def _read(self, connection: Connection, table: str) -> ledger.Entry | None:
        row = connection.execute(self.sql(ledger.READ), {"table": table}).fetchone()
        return None if row is None else ledger.Entry(*row)

    def _select(
        self, connection: Connection, table: str, columns: Sequence[Column], offset: int, limit: int
    ) -> list[Row]:
        names = SQL(", ").join(Identifier(column.name) for column in columns)
        cursor = connection.cursor()
        for type_name in _AS_TEXT:
            cursor.adapters.register_loader(type_name, TextLoader)
        cursor.execute(
            SQL("SELECT {} FROM {} LIMIT {} OFFSET {}").format(
                names, self.identifier(table), Literal(limit), Literal(offset)
            )
        )
        floats = [position for position, column in enumerate(columns) if column.kind is Kind.FLOAT]
        page = cursor.fetchall()
        return [_with_floats(row, floats) for row in page] if floats else page

    def _gone(self, table: str) -> ResultsGone:
        return ResultsGone(
            f'the result "{table}" is not in results database "{self.name}" any more: expired, purged, replaced by a '
            "newer run, or emptied by a crash"
        )


def _with_floats(row: tuple[Any, ...], positions: Sequence[int]) -> Row:
    values = list(row)
    for position in positions:
        if values[position] is not None:
            values[position] = float(values[position])
    return tuple(values)


def _drop_now(table: Identifier) -> list[Composable]:
    """Return the steps that drop a table in a transaction without making new readers wait behind an old one."""
    return [BRIEFLY, SQL("DROP TABLE {}").format(table)]
