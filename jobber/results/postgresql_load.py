"""Loading rows into staging tables on PostgreSQL: in order, and without a transaction that stays open.

A table keeps the order of its rows only if they are written by the transaction that creates it. Later ones ask the
free space map and fill gaps that wide rows left behind (measured: a thousand of 20,000 rows of mixed width out of
place; ``TABLE_INSERT_SKIP_FSM`` in PostgreSQL's ``copyfrom.c`` is set for a new relation alone). But a transaction that
is open as long as a slow query runs keeps the whole database from cleaning up. So a load that takes long becomes
several *segments*, each a table filled in one transaction of limited age, and these are put together in the end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from psycopg.sql import SQL, Composable, Composed, Identifier

from jobber.cancellation import Cancellation
from jobber.columns import Column, result_type
from jobber.errors import AttemptError, ResultsFailed
from jobber.results import postgresql_ledger as ledger
from jobber.results.base import Target
from jobber.results.postgresql_copy import CopyIn
from jobber.results.postgresql_errors import translated
from jobber.results.postgresql_waiting import heard

if TYPE_CHECKING:
    from jobber.results.postgresql import PostgresResults
    from jobber.results.postgresql_pool import Connection


class Load:
    """The staging tables of one attempt.

    Parameters:
        backend: where to.
        target: in whose name.
        columns: of the result.
        staging: what the names of all its tables begin with; the ledger knows it.
        cancellation: of the attempt.
    """

    def __init__(
        self,
        backend: PostgresResults,
        target: Target,
        columns: Sequence[Column],
        staging: str,
        cancellation: Cancellation,
    ) -> None:
        self.rows = 0
        #: Whether any staging table may outlive this connection.
        self.committed = False
        self._backend = backend
        self._target = target
        self._columns = columns
        self._staging = staging
        self._cancellation = cancellation
        self._segments: list[str] = []
        self._copy: CopyIn | None = None  # into the last segment, while it is open
        self._timer: threading.Timer | None = None
        self._error: AttemptError | None = None  # the first
        self._lock = threading.RLock()
        self._held = ExitStack()
        #: The one that loads; None before, and after it was given back.
        self.connection: Connection | None = None

    @property
    def begun(self) -> bool:
        """Whether any rows were staged."""
        return bool(self._segments)

    def add(self, piece: bytes, rows: int) -> None:
        """Append rows.

        Raises:
            ValueNotRepresentable, ResultsFailed, ResultsUnavailable, Fenced: as ``ResultsWriter.write_chunk``.
        """
        with self._step() as connection:
            if self._copy is None:
                self._copy = self._open(connection)
            self._copy.write(piece, rows)
            self.rows += rows

    def finish(self) -> str:
        """Commit what was added and return the name of the one staging table that holds it all."""
        with self._step() as connection:
            self._seal(connection)
            if len(self._segments) > 1:
                self._merge(connection)
            if self._target.index:
                self._index(connection)
            return self._segments[0]

    def release(self) -> None:
        """Give the connection back; what is not committed is gone."""
        with self._lock:
            self._stop_timer()
            if self._copy is not None:
                self._copy.abort()
                self._copy = None
            self.connection = None
            self._held.close()

    # -- statements that the writer of small results uses, too --------------------------------------------------------

    def create(self, table: str, template: Identifier | None = None) -> Composed:
        """Return the statements that make an empty staging table.

        Parameters:
            template: a table of the same columns, whose storage it takes over.
        """
        if template is None:
            columns: Composable = _defined(tuple(self._columns))
        else:
            columns = SQL("LIKE {} INCLUDING STORAGE").format(template)
        made = SQL("CREATE {} TABLE {} ({})").format(self._kind(), self._backend.identifier(table), columns)
        return SQL("; ").join([made, *self._grants(table)])

    def indexes(self, table: str) -> Composed:
        """Return the statements that index a filled staging table as the target says."""
        made = SQL("CREATE INDEX ON {} ({})")
        return Composed(
            [
                made.format(self._backend.identifier(table), Identifier(column)) + SQL("; ")
                for column in self._target.index
            ]
        )

    def copy(self, connection: Connection, table: str) -> CopyIn:
        """Begin to fill a staging table, in the transaction that made it."""
        return CopyIn(
            connection,
            name=self._backend.name,
            table=table,
            identifier=self._backend.identifier(table),
            columns=self._columns,
        )

    # -- steps --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self) -> Iterator[Connection]:
        """Lend the connection to the thread that writes; a cancel is heard even while the timer's thread has it."""
        self._check_error()
        if self.connection is None:
            # One connection for all of a load: another would not notice a crash of the server in between, which empties
            # UNLOGGED tables.
            self.connection = self._held.enter_context(self._backend.connections.connection(self._cancellation))
        with (
            translated(self._backend.name, locks=True),
            heard(self._cancellation, self.connection),
            self._lock,
            self._guarded(),
        ):
            yield self.connection

    def _check_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _guarded(self) -> ExitStack:
        """After an error the connection is closed, with it the open segment, and so every later call fails, too."""
        self._check_error()
        guard = ExitStack()
        guard.push(self._fail)
        guard.enter_context(translated(self._backend.name, locks=True))
        return guard

    def _fail(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self._error = error if isinstance(error, AttemptError) else ResultsFailed("the load was broken off")
            self._stop_timer()
            if self.connection is not None:
                self.connection.close()  # given back by the thread that writes

    def _open(self, connection: Connection) -> CopyIn:
        segment = f"{self._staging}_{len(self._segments)}"
        # Only the publishing commit needs to reach the disk, and it takes all earlier ones along. A session that waits
        # for its source is not idle, and its timer ends the transaction anyway.
        connection.execute(
            SQL("BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL idle_in_transaction_session_timeout = 0; ")
            + self.create(segment)
        )
        self._segments.append(segment)
        self._timer = threading.Timer(self._backend.segment_seconds, self._time_is_up)
        self._timer.daemon = True
        self._timer.start()
        return self.copy(connection, segment)

    def _seal(self, connection: Connection) -> None:
        """Commit the open segment, unless the attempt was overtaken."""
        if self._copy is None:
            return
        self._stop_timer()
        self._copy.finish()
        self._copy = None
        # Under the lock on the ledger's row: whoever overtakes this attempt later finds the table.
        self._check_claim(connection)
        self.committed = True
        connection.execute("COMMIT")

    def _time_is_up(self) -> None:
        with self._lock:
            if threading.current_thread() is not self._timer or self.connection is None:
                return  # sealed while this waited
            # The error is kept for the thread that loads.
            with suppress(AttemptError), self._guarded():
                self._seal(self.connection)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _merge(self, connection: Connection) -> None:
        merged = f"{self._staging}_all"
        parts = [self._backend.identifier(segment) for segment in self._segments]
        connection.execute("BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL synchronize_seqscans = off")
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        rows = connection.execute(
            SQL("CREATE {} TABLE {} AS {}").format(
                self._kind(),
                self._backend.identifier(merged),
                SQL(" UNION ALL ").join([SQL("SELECT * FROM {}").format(part) for part in parts]),
            )
        ).rowcount
        if rows != self.rows:
            raise ResultsFailed(f'results database "{self._backend.name}" lost rows of a staging table')
        self._check_claim(connection)
        steps: list[Composable] = [*self._grants(merged), SQL("DROP TABLE {}").format(SQL(", ").join(parts))]
        connection.execute(SQL("; ").join([*steps, SQL("COMMIT")]))
        self._segments = [merged]

    def _index(self, connection: Connection) -> None:
        connection.execute("BEGIN; SET LOCAL synchronous_commit = off")
        connection.execute(self.indexes(self._segments[0]) + SQL("COMMIT"))

    def _kind(self) -> SQL:
        return SQL("UNLOGGED" if self._backend.unlogged else "")

    def _grants(self, table: str) -> list[Composed]:
        if not self._backend.grant_select_to:
            return []
        roles = SQL(", ").join(map(Identifier, self._backend.grant_select_to))
        return [SQL("GRANT SELECT ON TABLE {} TO {}").format(self._backend.identifier(table), roles)]

    def _check_claim(self, connection: Connection) -> None:
        entry = self._backend.entry(connection, self._target.table)
        if entry is None or not entry.may_publish(self._target, self._staging):
            raise ledger.fenced(self._target)


@lru_cache(1000)
def _defined(columns: tuple[Column, ...]) -> SQL:
    """Return the definitions of a table's columns."""
    listed = [Identifier(column.name) + SQL(" ") + SQL(result_type("postgresql", column)) for column in columns]
    return SQL(SQL(", ").join(listed).as_string())  # a name may hold braces; this is not formatted again
