"""State databases with jobber's tables in them, and stores whose connections are open already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection

from jobber.store import Store
from jobber.store.database import Database
from jobber.store.schema import counters, dispatch, metadata

#: What a test leaves behind.
FILLED = [table.name.removeprefix("jobber_") for table in metadata.sorted_tables if table not in (dispatch, counters)]


class Pools:
    """Pools of connections to the state databases that all tests share."""

    def __init__(self) -> None:
        self._databases: dict[tuple[object, ...], Database] = {}

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Give stores that are made in the body the pool that earlier ones of that database had.

        They know as little as any new store. But SQLAlchemy compiles each statement once for each pool, and to connect
        takes its time, too: together longer than most tests.
        """
        with patch("jobber.store.Database", self._open):
            yield

    def _open(self, url: str, **options: Any) -> Database:
        key = (url, *sorted(options.items()))
        if key not in self._databases:
            self._databases[key] = Database(url, **options)
        return self._databases[key]

    def migrate(self, url: str) -> str:
        """Make the tables; this, too, takes longer than most tests. Returns the URL."""
        with self.shared():
            Store(url).migrate()
        return url

    def empty(self, url: str) -> None:
        """Empty the tables."""

        def work(connection: Connection) -> None:
            for name in FILLED:
                connection.exec_driver_sql(f"DELETE FROM jobber_{name}")

        with self.shared():
            Store(url)._database.write(work)

    def close(self) -> None:
        for database in self._databases.values():
            database.close()
