"""Results on MySQL and MariaDB: one table per result, in the database that the URL names.

No transaction spans DDL there. Instead every step that changes what stands under a result's name is taken under that
name's advisory lock (``locks``), every table says in its comment whose it is (``tables``), and whoever takes the lock
first lets the ledger catch up with a step that a crash cut short (``settle``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pymysql import err
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.config import ResultsSettings
from jobber.errors import AttemptError, ConfigError, ResultsFailed, ResultsGone, ResultsUnavailable
from jobber.mysql import Connection, words
from jobber.results import naming, notes
from jobber.results.base import LEDGER, Claim, Published, Target
from jobber.results.mysql import ledger, reading, tables
from jobber.results.mysql.errors import Held, translate, translated
from jobber.results.mysql.load import Identity
from jobber.results.mysql.locks import Locks
from jobber.results.mysql.pool import Connections, heard
from jobber.results.mysql.writer import Writer
from jobber.results.readers import Patience
from jobber.sources.base import Shape

log = logging.getLogger(__name__)

#: The oldest servers that have invisible columns.
_OLDEST = {True: (10, 3), False: (8, 0, 23)}
#: What is asked of a server once. Every URL of a database must come to the same name of it.
_FACTS = (
    "SELECT @@max_allowed_packet, @@GLOBAL.local_infile, "
    "IF(@@lower_case_table_names = 0, DATABASE(), LOWER(DATABASE()))"
)
#: How often a table is tried to be dropped whose connection was just ended and rolls back.
_DROPS = 3


class MysqlResults:
    """A results database on MySQL or MariaDB; ``jobber.results.base.ResultsBackend``.

    Parameters:
        settings: ``[results.NAME]``.
    """

    engine = "mysql"
    accepts = frozenset({Shape.ENCODED, Shape.DECODED})

    def __init__(self, settings: ResultsSettings) -> None:
        naming.check_template(settings)
        url = make_url(settings.url)
        if not url.database:
            raise ConfigError(f"url of [results.{settings.name}] must name a database: mysql+pymysql://…/DATABASE")
        if settings.grant_select_to:
            raise ConfigError(
                f"grant_select_to of [results.{settings.name}] is a matter of PostgreSQL: on MySQL a right belongs to "
                "a name, whatever table bears it. Grant SELECT on the whole database once, and give results a "
                "database of their own"
            )
        if settings.unlogged:
            raise ConfigError(
                f"unlogged of [results.{settings.name}] is a matter of PostgreSQL; MySQL has no such tables"
            )
        self.name = settings.name
        self._publish_timeout = settings.publish_timeout
        self.connections = Connections(settings)
        #: Whether rows go by LOAD DATA LOCAL; else by INSERT.
        self.can_load = str(url.query.get("local_infile", "1")).lower() not in ("0", "false", "off", "no")
        #: Bytes that the server takes in one piece.
        self.largest = 0
        self._template = settings.results_table
        self._prepared = False
        self._preparing = threading.Lock()
        # Locks are the server's, so the database's name there is part of theirs; set anew once it is known.
        self.locks = Locks(url.database, settings.name)

    # -- the protocol -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the ledger if it is not there, and bring one of an earlier version up to date."""
        with self._preparing, self._connected() as connection:
            oldest = _OLDEST[connection.is_mariadb]
            if connection.version < oldest:
                raise ResultsFailed(
                    f'results database "{self.name}" is too old: it has no invisible columns, which came with MariaDB '
                    "10.3 and MySQL 8.0.23",
                    retryable=False,
                )
            [(self.largest, may_load, database)] = connection.rows(_FACTS)
            self.locks = Locks(database, self.name)
            self.can_load = self.can_load and bool(may_load)
            # Asked first, because CREATE TABLE wants the right to create even if there is nothing to do.
            if tables.comment(connection, LEDGER) is None:
                connection.run(ledger.CREATE)
            self._upgrade(connection)
            self._prepared = True

    def table_name(self, job_id: str) -> str:
        """Return the name of the result table of ``job_id``; some servers fold the case of names."""
        return naming.table_name(self._template, job_id, folds_case=True)

    @contextmanager
    def begin(self, target: Target, columns: Sequence[Column], cancellation: Cancellation) -> Iterator[Writer]:
        """Register the attempt in the ledger; leaving without ``publish`` discards it."""
        if not columns:
            raise ResultsFailed("the query gives no columns, so there is no table to make", retryable=False)
        writer = Writer(self, target, columns, cancellation)
        with self._ready(cancellation) as connection, translated(self.name), heard(cancellation, connection):
            with self.locks.held(connection, target.table):
                leftovers = self._claim(connection, target, writer.staging, columns)
            if leftovers:
                self.drop_leftovers(connection, target.table)
        try:
            yield writer
        finally:
            writer.close()

    def ping(self) -> None:
        """Raise ResultsUnavailable unless the server answers within ``connect_timeout``."""
        self.connections.ping()

    def fence(self, table: str, run: int, attempt: int) -> Published | None:
        """Make sure that no attempt up to (run, attempt) publishes to ``table`` any more; drops its staging table."""
        with self._ready() as connection:
            with self.locks.held(connection, table):
                entry = self.settle(connection, table)
                leftovers: Sequence[str] = ()
                if entry is None or (entry.claim_run, entry.claim_attempt) <= (run, attempt):
                    leftovers = _left_by(entry)
                    ledger.claim(connection, Target(table, "", run, attempt, 0), leftovers)
            if leftovers:
                self.drop_leftovers(connection, table)
            # From here on nothing that this attempt has not published yet will be.
            if entry is None or (entry.run, entry.attempt) != (run, attempt):
                return None
            return reading.published(connection, table, run, attempt)

    def drop(self, table: str, run: int) -> bool:
        """Drop the published result of ``run``; False if the ledger holds none of that run any more."""
        patience = self.patience(f'"{table}"', "it cannot be dropped")
        while True:
            try:
                with self._ready() as connection:
                    return self._drop(connection, table, run)
            except Held as exc:
                patience.pause(exc)

    def rows(self, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int) -> list[Row]:
        """Return rows of the published result of ``run`` in the order of its query, in canonical form."""
        with self._ready() as connection:
            page = reading.page(connection, table, run, columns, offset=offset, limit=limit)
            if page is None:
                # A crash may have kept the ledger from learning of the table, or it was published just now.
                with self.locks.held(connection, table):
                    self.settle(connection, table)
                page = reading.page(connection, table, run, columns, offset=offset, limit=limit)
        if page is None:
            raise ResultsGone(
                f'the result "{table}" is not in results database "{self.name}" any more: expired, purged, replaced by '
                "a newer run, or changed by hand"
            )
        return page

    def expire(self, limit: int = 100) -> list[str]:
        """Drop results whose time is over, and what overtaken attempts left; a table in use is left for later."""
        dropped: list[str] = []
        with self._ready() as connection:
            # A few more than asked for: some may be held open by readers, or not be jobber's to drop any more.
            for table, run in ledger.expired(connection, limit + 100):
                with self._each(table), suppress(Held):
                    if self._drop(connection, table, run):
                        dropped.append(table)
                if len(dropped) >= limit:
                    break
            for table in ledger.with_leftovers(connection, limit):
                self.drop_leftovers(connection, table)
            ledger.forget_idle(connection)
        return dropped

    def abandoned(self, older_than: float) -> list[Claim]:
        """Return the attempts that may still publish and began more than ``older_than`` seconds ago."""
        with self._ready() as connection:
            return ledger.abandoned(connection, older_than)

    def close(self) -> None:
        """Close all connections."""
        self.connections.close()

    # -- under the table's lock ---------------------------------------------------------------------------------------

    def settle(self, connection: Connection, table: str) -> ledger.Entry | None:
        """Return the ledger's row, after catching up with what a crash cut short.

        Only the claim's holder puts a table with the claim's marker under that name, and only under the lock that is
        held here; so where the table bears the marker and the ledger does not say so, the holder died in between. And
        a server that dies in the midst of a RENAME may leave one half of it, so that nothing stands under the name
        (https://mariadb.com/kb/en/atomic-ddl/).
        """
        entry = ledger.read(connection, table)
        if entry is None or entry.staging is None:
            return entry
        standing = tables.comment(connection, table)
        trash = tables.trash_name(entry.staging)
        if standing is not None and standing == entry.claimed:
            leftovers = (*entry.leftovers, trash) if entry.run is not None else entry.leftovers
            ledger.set_published(connection, table, tables.count(connection, table), leftovers)
            return ledger.read(connection, table)
        if standing is None and entry.run is not None and tables.comment(connection, trash) == entry.published:
            try:
                tables.rename(connection, (trash, table), another=self.connections.another)
            except Held as exc:
                raise ResultsUnavailable(
                    f'"{table}" in results database "{self.name}" was being replaced when the server crashed, and '
                    "cannot be put back: somebody keeps it open"
                ) from exc
        return entry

    def _claim(self, connection: Connection, target: Target, staging: str, columns: Sequence[Column]) -> Sequence[str]:
        """Make ``target`` the newest attempt of its table; return what the one before it left."""
        entry = self.settle(connection, target.table)
        if entry is not None:
            if (entry.claim_run, entry.claim_attempt) >= (target.run, target.attempt):
                raise ledger.fenced(target)
            if entry.job_id != target.job_id and entry.run is not None:
                raise ResultsFailed(
                    f'"{target.table}" in results database "{self.name}" holds the result of job "{entry.job_id}"; the '
                    "names of the two jobs' tables are the same",
                    retryable=False,
                )
        leftovers = _left_by(entry)
        noted = notes.note(target.run, target.attempt, columns)
        ledger.claim(connection, target, leftovers, staging=staging, columns=noted)
        return leftovers

    def _drop(self, connection: Connection, table: str, run: int) -> bool:
        """Drop a result. Raises Held while a reader keeps it open."""
        with self.locks.held(connection, table):
            entry = self.settle(connection, table)
            if entry is None or entry.run != run:
                return False
            if tables.comment(connection, table) == entry.published:
                tables.drop(connection, table, another=self.connections.another)
            ledger.set_unpublished(connection, table)
            return True

    # -- for the writer -----------------------------------------------------------------------------------------------

    def patience(self, what: str, so: str) -> Patience:
        """Return how long an operation waits for those who keep ``what`` open."""
        return Patience(self._publish_timeout, f'{what} in results database "{self.name}"', so)

    def settled(self, table: str, loader: Identity | None) -> ledger.Entry | None:
        """Return the ledger's row of a table when the connection that loaded does nothing to it any more."""
        with self._ready() as connection:
            _end(connection, loader)
            with self.locks.held(connection, table):
                entry = self.settle(connection, table)
            if entry is not None and entry.leftovers:
                # The answer is known; the janitor drops what stays.
                with suppress(err.Error, AttemptError):
                    self.drop_leftovers(connection, table)
            return entry

    def give_up(self, target: Target, staging: str, loader: Identity | None) -> None:
        """Forget an attempt that did not publish, and drop its staging table unless somebody keeps it open."""
        with self._ready() as connection:
            _end(connection, loader)
            with self.locks.held(connection, target.table):
                entry = self.settle(connection, target.table)
                if entry is None or not entry.may_publish(target, staging):
                    return
                leftovers = _left_by(entry) if loader is not None else entry.leftovers
                ledger.give_up(connection, target.table, leftovers)
            if leftovers:
                self.drop_leftovers(connection, target.table)

    def drop_leftovers(self, connection: Connection, table: str, only: str | None = None) -> None:
        """Drop what attempts left of a table; what is in use stays in the ledger for the next time.

        Parameters:
            only: one of them.
        """
        with self.locks.held(connection, table):
            entry = ledger.read(connection, table)
            if entry is None:
                return
            tried = [name for name in entry.leftovers if only in (None, name)]
            dropped = {name for name in tried if self._drop_leftover(connection, name)}
            if dropped:
                ledger.set_leftovers(connection, table, [name for name in entry.leftovers if name not in dropped])

    # -- steps --------------------------------------------------------------------------------------------------------

    def _upgrade(self, connection: Connection) -> None:
        """Add what a ledger of an earlier version lacks. Locks nothing where there is nothing to do."""
        patience = self.patience(f'"{LEDGER}"', "it cannot be brought up to date")
        while not ledger.is_current(connection):
            try:
                ledger.upgrade(connection, self.connections.another)
            except Held as exc:
                patience.pause(exc)

    def _drop_leftover(self, connection: Connection, name: str) -> bool:
        tries = _DROPS if self.locks.disconnect(connection, name) else 1
        for _ in range(tries):
            with self._each(name), suppress(Held):
                tables.drop(connection, name)
                return True
        return False

    @contextmanager
    def _each(self, table: str) -> Iterator[None]:
        """Drop one of several tables: one that the server does not drop (a foreign key …) keeps no other from it."""
        try:
            yield
        except err.Error as exc:
            if not isinstance(translate(exc, self.name), ResultsFailed):
                raise
            log.warning('"%s" in results database "%s" cannot be dropped: %s', table, self.name, words(exc))

    @contextmanager
    def _connected(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        with translated(self.name), self.connections.connection(cancellation) as connection:
            yield connection

    @contextmanager
    def _ready(self, cancellation: Cancellation | None = None) -> Iterator[Connection]:
        if not self._prepared:
            self.prepare()
        with self._connected(cancellation) as connection:
            yield connection


def _left_by(entry: ledger.Entry | None) -> tuple[str, ...]:
    """Return what is to be dropped once the attempt that holds the claim holds it no more."""
    if entry is None:
        return ()
    return entry.leftovers if entry.staging is None else (*entry.leftovers, entry.staging)


def _end(connection: Connection, other: Identity | None) -> None:
    """End another connection of jobber's own, if it is not gone yet."""
    # Behind one address there may be several servers, each with connections of that ID.
    if other is not None and other[0] == connection.server:
        with suppress(err.OperationalError, err.InternalError):
            connection.run(f"KILL {other[1]}")
