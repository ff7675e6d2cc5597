"""SQLite: one file, one writer at a time, as many readers as there are."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, FromClause, Text, bindparam, event, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.types import TypeEngine

from jobber.errors import ConfigError
from jobber.store.engines.base import OnConflict, Rows, Statement
from jobber.store.failures import Contended

#: Seconds that a writer waits for the one write lock, unless the URL says ``?timeout=``.
TIMEOUT = 10.0
#: Seconds that an opening connection waits for others that open the same new file.
PATIENCE = 15.0


class SQLite(OnConflict):
    """A file."""

    name = "sqlite"
    # julianday counts whole milliseconds.
    clock = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS BIGINT) * 1000"
    row_locks = False

    def settings(self, url: URL) -> tuple[URL, dict[str, Any]]:
        if not url.database or url.database == ":memory:" or "mode=memory" in url.render_as_string():
            raise ConfigError("the state database must be a file: SQLite in memory is seen by one process only")
        return url if "timeout" in url.query else url.update_query_dict({"timeout": str(TIMEOUT)}), {}

    def prepare(self, pool: sqlalchemy.Engine) -> None:
        event.listen(pool, "connect", _open)
        event.listen(pool, "begin", _begin)

    def exchange(self, driver: Any, statements: Sequence[Statement], *, commit: bool) -> list[Rows]:  # noqa: ARG002
        return [driver.execute(text, values).fetchall() for text, values in statements]

    def turn(self) -> AbstractContextManager[Any]:
        # One of our own threads at a time at SQLite's lock: its waiters sleep and poll, ours are woken.
        return _Turn()

    def among(self, which: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return which.in_(select(func.json_each(bindparam(name, type_=Text())).table_valued("value").c.value))

    def many(self, values: Collection[Any]) -> Any:
        return json.dumps(list(values))

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
        each = func.json_each(bindparam(name, type_=Text())).table_valued("value", name=f"{name}_each")
        values = (func.json_extract(each.c.value, f"$.{key}", type_=kind).label(key) for key, kind in columns.items())
        return select(*values).subquery(name)

    def insert(self, table: Any) -> Any:
        return sqlite.insert(table)


class _Turn(AbstractContextManager[None]):
    """A lock that is not waited for for long: where another process keeps the file locked, each would find that out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=TIMEOUT):
            raise Contended

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _open(connection: Any, _record: Any) -> None:
    # The driver would begin and commit by itself; BEGIN is ours (see _begin).
    connection.isolation_level = None
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except Exception as error:
            # Turning WAL on takes the file for itself and does not ask the busy handler: several first starts collide.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # An accepted job survives a power cut: WAL with FULL syncs each commit (https://sqlite.org/pragma.html#pragma_synchronous).
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    # Readers take no lock and need no transaction: each statement sees one state.
    if connection.get_execution_options().get("jobber_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
