"""Tables that have no TOAST table beside them, for small results whose rows need none.

A TOAST table and its index are about half of what a small table costs the server. PostgreSQL makes them for every table
with a column of unbounded length, unless all columns have STORAGE PLAIN at that moment; and before version 16 only
``LIKE … INCLUDING STORAGE`` can say so. So each connection keeps a template for every list of columns that comes
again and again: a temporary partitioned table, which has neither rows nor files nor a relfrozenxid, so that an idle
connection does not hold back what vacuum may freeze. A template's name is a hash of its columns; if it is not there
(a pooler between may have changed sessions), the table is made the ordinary way.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from jobber.columns import Column, Kind, result_type

if TYPE_CHECKING:
    from jobber.results.postgresql_pool import Connection

#: Bytes of a result up to which its rows are looked at: beyond that the TOAST table hardly counts.
_LOOKED_AT = 64 * 1024
#: Bytes of a row, at the most, that PostgreSQL stores as it is: from 2,032 on it compresses values or moves them out.
_AS_IT_IS = 2000
#: Bytes of a row beside its text: the header; and per column alignment, a length and at most 8 of a fixed width.
_HEADER, _PER_COLUMN = 32, 20
#: How much longer than its text ``jsonb`` may be: ``[1,1,1]`` takes six times as much.
_JSON = 8
#: Types of unbounded length; ``numeric(p, s)`` alone needs no TOAST table.
_UNBOUNDED = {"TEXT", "JSONB", "NUMERIC"}
#: The how many-th result of the same columns makes a template, and how many lists of columns a connection counts.
_FREQUENT, _MOST = 3, 100


class Templates:
    """What the connections of one results database have for templates."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Connection, dict[str, int] | None] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, connection: Connection, columns: Sequence[Column]) -> Identifier | None:
        """Return the template for a table of these columns, or None: too seldom, no right to temporary tables …

        Parameters:
            connection: outside of a transaction.

        Raises:
            psycopg.OperationalError: the connection broke.
        """
        name, made = _template(tuple(columns))
        if made is None:
            return None
        with self._lock:
            seen = self._seen.setdefault(connection, {})
            if seen is None:
                return None
            if name not in seen and len(seen) >= _MOST:
                rarest = min(seen, key=seen.__getitem__)
                if seen[rarest] >= _FREQUENT:
                    return None
                del seen[rarest]
            count = seen[name] = seen.get(name, 0) + 1
        if count == _FREQUENT:
            try:
                connection.execute(made)
            except psycopg.Error:
                self.forget(connection)
                if connection.closed:
                    raise
                connection.execute("ROLLBACK")
                return None
        return Identifier("pg_temp", name) if count >= _FREQUENT else None

    def forget(self, connection: Connection) -> None:
        """Use no templates on a connection any more: they were lost, or none can be made."""
        with self._lock:
            self._seen[connection] = None


def fits(columns: Sequence[Column], pieces: Iterable[bytes]) -> bool:
    """Whether a result is small and none of its rows is of a size at which PostgreSQL would use a TOAST table.

    Parameters:
        pieces: whole rows in COPY's text format.
    """
    pieces = list(pieces)
    if sum(map(len, pieces)) > _LOOKED_AT:
        return False
    longest = max((len(line) for piece in pieces for line in piece.split(b"\n")), default=0)
    factor = _JSON if any(column.kind is Kind.JSON for column in columns) else 1
    return _HEADER + _PER_COLUMN * len(columns) + factor * longest <= _AS_IT_IS


@lru_cache(1000)
def _template(columns: tuple[Column, ...]) -> tuple[str, Composed | None]:
    """Return the name of a template and the statements that make it; None if such tables have no TOAST table anyway."""
    types = [result_type("postgresql", column) for column in columns]
    names = [Identifier(column.name) for column in columns]
    parts = [name + SQL(" ") + SQL(kind) for name, kind in zip(names, types, strict=True)]
    listed = SQL(", ").join(parts).as_string()
    name = "jobber_plain_" + hashlib.sha256(listed.encode()).hexdigest()[:32]
    if not _UNBOUNDED & set(types):
        return name, None
    table = Identifier("pg_temp", name)
    plain = SQL(", ").join([SQL("ALTER {} SET STORAGE PLAIN").format(column) for column in names])
    return name, SQL(
        "BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL client_min_messages = error; "
        "CREATE TABLE IF NOT EXISTS {table} ({columns}) PARTITION BY LIST ({first}); "
        "ALTER TABLE {table} {plain}; COMMIT"
    ).format(table=table, columns=SQL(listed), first=names[0], plain=plain)
