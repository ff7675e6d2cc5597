"""One ``COPY … FROM STDIN``, fed piece by piece, whose errors name column and value."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg.sql import SQL, Identifier

from jobber.columns import Column
from jobber.results.postgresql_errors import check_count, copy_error
from jobber.results.postgresql_pool import Connection

#: Bytes that are kept to look a bad line up in; more than the buffers between here and the server hold.
_KEPT = 8 * 1024 * 1024


class CopyIn:
    """Rows on their way into one table.

    Parameters:
        connection: in the transaction that made the table.
        name: of the results database, as the config calls it.
        table: of safe characters.
        identifier: the same, with its schema.
        columns: of the table.
    """

    def __init__(
        self, connection: Connection, *, name: str, table: str, identifier: Identifier, columns: Sequence[Column]
    ) -> None:
        self._name = name
        self._table = table
        self._columns = columns
        self._rows = 0
        self._recent: deque[tuple[int, bytes]] = deque()  # rows before each piece, and the piece
        self._recent_bytes = 0
        self._cursor = connection.cursor()
        self._context = self._cursor.copy(SQL("COPY {} FROM STDIN").format(identifier))
        self._copy = self._context.__enter__()
        self._open = True

    def write(self, piece: bytes, rows: int) -> None:
        """Send whole rows, while the server stores earlier ones. Raises ValueNotRepresentable or ResultsFailed."""
        self._recent.append((self._rows, piece))
        self._recent_bytes += len(piece)
        self._rows += rows
        while self._recent_bytes > _KEPT and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft()[1])
        try:
            self._copy.write(piece)
        except psycopg.Error as exc:
            self.abort()
            raise self._translated(exc) from exc

    def finish(self) -> None:
        """End the data and see that the server stored every row. Raises as ``write``."""
        self._open = False
        try:
            self._context.__exit__(None, None, None)
        except psycopg.Error as exc:
            raise self._translated(exc) from exc
        check_count(self._name, self._cursor.rowcount, self._rows)

    def abort(self) -> None:
        """Tell the server to forget the rows, if it still waits for more."""
        if not self._open:
            return
        self._open = False
        error = psycopg.OperationalError("aborted")
        with suppress(psycopg.Error):
            self._context.__exit__(type(error), error, None)

    def _translated(self, exc: psycopg.Error) -> Exception:
        return copy_error(exc, self._name, self._table, self._columns, self._recent)
