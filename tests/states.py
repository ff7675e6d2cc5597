"""State databases with jobber's tables in them, and stores whose connections are open already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import pymysql
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from sqlalchemy import Connection, event

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


# -- the steps of a transaction ---------------------------------------------------------------------------------------


@contextmanager
def steps(
    store: Store, *, before: Callable[[Any], object] | None = None, after: Callable[[Any], object] | None = None
) -> Iterator[None]:
    """Call back before and after each step of the store's writes: a statement, or several that go together.

    Parameters:
        before, after: take the driver's connection. After a step that also commits there is no call.
    """
    pool, engine = store._database._pool, store._database.engine
    exchange = engine.exchange

    def call(what: Callable[[Any], object] | None) -> Callable[..., None]:
        def listen(connection: Any, *_: Any) -> None:
            if what and connection.get_execution_options().get("jobber_write"):
                what(connection.connection.dbapi_connection)

        return listen

    def step(driver: Any, statements: Any, *, commit: bool) -> Any:
        writes = getattr(driver, "begins", False) or _in_transaction(driver)
        if before and writes:
            before(driver)
        found = exchange(driver, statements, commit=commit)
        if after and _in_transaction(driver):
            after(driver)
        return found

    listeners = {"before_cursor_execute": call(before), "after_cursor_execute": call(after)}
    for name, listener in listeners.items():
        event.listen(pool, name, listener)
    with patch.object(engine, "exchange", step):
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(pool, name, listener)


def _in_transaction(driver: Any) -> bool:
    if isinstance(driver, psycopg.Connection):
        return driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
    if isinstance(driver, pymysql.connections.Connection):
        return bool(driver.server_status & SERVER_STATUS_IN_TRANS)
    return bool(driver.in_transaction)
