"""A query that runs twice at the same time, on two connections that see the same snapshot.

The ``sqlite3`` module lets go of the interpreter while SQLite works, so that the two take two processors.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

#: Bytes of a source below which a second connection costs more than it saves.
WORTH = 4 << 20
#: A query with one of these may choose among rows, and differently in a statement around it that has another plan.
_CHOOSES = re.compile(r"\b(?:LIMIT|DISTINCT|GROUP)\b", re.IGNORECASE)
#: Steps of a plan that go over much of one table, in any order. https://sqlite.org/eqp.html
_LOOP = re.compile(r"SCAN (?!CONSTANT)(?!.*VIRTUAL TABLE)|SEARCH (?!.*VIRTUAL TABLE).*[<>]")
_SORT = "USE TEMP B-TREE FOR "
#: What has a transaction begin to read.
_READ = "SELECT 1 FROM main.sqlite_master"


def loops(plan: Sequence[str]) -> list[str]:
    """Return the steps of a plan that go over tables."""
    return [step for step in plan if not step.startswith(_SORT)]


def may_run_twice(sql: str, plan: Sequence[str]) -> bool:
    """Whether a SELECT without functions or subqueries gives the same rows twice, at the cost of one more scan.

    Parameters:
        plan: the steps that EXPLAIN QUERY PLAN tells.
    """
    found = loops(plan)
    return len(found) == 1 and _LOOP.match(found[0]) is not None and not _CHOOSES.search(sql)


def is_worth_it(connection: sqlite3.Connection) -> bool:
    """Whether a database is so large that a thread pays."""
    pages, size = (connection.execute(f"PRAGMA main.{name}").fetchone()[0] for name in ("page_count", "page_size"))
    return bool(pages * size >= WORTH)


def begin_both(first: sqlite3.Connection, second: sqlite3.Connection | None) -> bool:
    """Begin a read transaction on two connections to a file; False if they may not see the same snapshot.

    The version that ``second`` sees changes with every commit of others, so that none came between where it did not
    (https://sqlite.org/pragma.html#pragma_data_version). ``first`` has begun in any case.
    """
    before = _seen(second)
    first.execute("BEGIN")
    first.execute(_READ).fetchone()
    if second is None or before is None:
        return False
    second.execute("BEGIN")
    return _seen(second) == before


def _seen(connection: sqlite3.Connection | None) -> int | None:
    """Read the file, and return which version the connection sees; None if a writer keeps it from that."""
    if connection is None:
        return None
    try:
        connection.execute(_READ).fetchone()
        version: int = connection.execute("PRAGMA main.data_version").fetchone()[0]
    except sqlite3.OperationalError:
        return None
    return version


class Beside:
    """Work that is done in a thread while the body of a ``with`` runs.

    Leaving waits for it, and raises its error if that came first. Where the body raises, the work is told to stop.

    Parameters:
        work: gets what says whether to stop.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None]) -> None:
        self._stopped = threading.Event()
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="jobber-beside", daemon=True)

    @property
    def failed(self) -> bool:
        """Whether the work failed on its own."""
        return self._error is not None

    def stop(self) -> None:
        """Have the work end, and say nothing of errors from here on."""
        self._stopped.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self.stop()
        self._thread.join()
        if self._error is not None and (kind is None or issubclass(kind, Exception)):
            raise self._error from error

    def _run(self) -> None:
        try:
            self._work(self._stopped.is_set)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            if not self._stopped.is_set():
                self._error = error
