"""The rows of new runs, and of their tags: written in as few round trips as the engine allows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    String,
    Text,
    Update,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from jobber.jobs import Micros, NewJob
from jobber.store import tagging
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.lanes import LaneBook, Woken
from jobber.store.outbox import Outbox
from jobber.store.records import NEW_RUN, Membership, values_of
from jobber.store.schema import dispatch, jobs, lanes, order, run_sequence

_SAME: Mapping[str, Any] = {**NEW_RUN, "ended_attempt": 0, "ended_as": "", "paused": None}
_INSERT = insert(jobs)


def row_of(
    new: NewJob, run: int, now: Micros, group: Membership, lane: int, *, ord_: int | None, due: Micros | None
) -> dict[str, Any]:
    """Return the row of a new run, but for the columns in which all new runs are the same.

    Parameters:
        ord_: its place in its lane, None unless it may run now.
        due: when it may, if only time holds it.
    """
    row = values_of(new, run, now, group)
    row["lane"], row["ord"], row["due"], row["ready_at"] = lane, ord_, due, new.eta
    return row


def ready_rows(
    new: Sequence[tuple[NewJob, int]],
    now: Micros,
    group: Membership,
    lanes: Mapping[str, int],
    woken: Woken,
    *,
    held: Collection[int],
) -> list[dict[str, Any]]:
    """Return the rows of new jobs that may run now, or at their start time, but for those that are held.

    Parameters:
        lanes: by the job's ID.
        held: runs that wait for something else than their time.
    """
    rows = []
    for job, run in new:
        lane, later = lanes[job.job_id], job.eta is not None and job.eta > now
        ready = not later and run not in held
        ord_ = order(job.priority, run)
        if ready:
            woken.ready(lane, job.queue, ord_)
        else:
            woken.later(lane)
        due = job.eta if later and run not in held else None
        rows.append(row_of(job, run, now, group, lane, ord_=ord_ if ready else None, due=due))
    return rows


class Inserter:
    """Writes new runs."""

    def __init__(self, database: Database, lanes: LaneBook) -> None:
        self._database = database
        self._lanes = lanes
        self._outbox = Outbox(database)
        self._insert_rows = _insert_rows(database.engine) if database.engine.arrays else None

    def insert(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """Insert new runs. Raises IntegrityError, of SQLAlchemy, where an ID is live already.

        Parameters:
            rows: as of ``row_of``.
        """
        _sort(rows)
        if self._insert_rows is not None:
            self._database.exchange(connection, *self._requests(self._insert_rows, rows))
            return
        whole = [{**_SAME, **row} for row in rows]
        connection.execute(_INSERT, whole if len(whole) > 1 else whole[0])
        tagging.note(connection, rows)
        self._outbox.note(connection, [row["run"] for row in rows], "submitted")

    def insert_and_wake(self, connection: Connection, rows: list[dict[str, Any]], woken: Woken) -> None:
        """Insert new runs, and tell their lanes. Nothing follows in a transaction: it may be over.

        Raises:
            IntegrityError: of SQLAlchemy: an ID is live already, or a lane is not there any more; ``LaneBook.forget``.
            TryAgain: as ``LaneBook.wake``.
        """
        if self._insert_rows is None:
            self.insert(connection, rows)
            self._lanes.wake(connection, woken)
            return
        _sort(rows)
        waking = self._lanes.waking(woken, [row["run"] for row in rows])
        self._database.exchange(connection, *self._requests(self._insert_rows, rows), *waking, commit=True)

    @property
    def numbers(self) -> bool:
        """Whether ``insert_numbered`` can be used."""
        return self._insert_rows is not None and self._database.engine.sequences and not self._database.events

    def insert_numbered(
        self, connection: Connection, rows: list[dict[str, Any]], woken: Woken, *, gates: int, after: int
    ) -> list[tuple[int, str, Micros]]:
        """Number new runs and insert them in one step; nothing follows in the transaction: it is over.

        Parameters:
            rows: as of ``row_of`` for the run 0, of jobs without tags that may run now.
            woken: of these.
            gates: nothing is inserted if the gates have another version.
            after: a number that a run had already; all new ones are greater.

        Returns:
            Run, ID and time of each run that was inserted: of all of them, or of none but in the rarest cases.

        Raises:
            IntegrityError, CommitFailed: as ``insert_and_wake``.
        """
        engine = self._database.engine
        _sort(rows)
        values = {"rows": json.dumps(rows), "gates": gates, "after": after}
        # Lower than they will be: a head is a lower bound, and the numbers are not known yet.
        heads = {lane: head + after + 1 for lane, head in woken.heads.items()}
        answers = self._database.exchange(
            connection,
            Request(_insert_numbered(engine), values),
            *self._lanes.lowering(heads),
            Request(_lanes_are_there(engine), {"ids": engine.many(heads), "count": len(heads)}),
            commit=True,
        )
        return [(run, job_id, now) for run, job_id, now in answers[0].rows]

    def _requests(self, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> list[Request]:
        return [
            Request(statement, {"rows": json.dumps(rows)}),
            *tagging.noting(self._database, rows),
            *self._outbox.noting([row["run"] for row in rows], "submitted"),
        ]


def _sort(rows: list[dict[str, Any]]) -> None:
    # Two submissions that share IDs wait for each other at the unique index: in one order, never in a circle.
    rows.sort(key=lambda row: str(row["job_id"]))


def _insert_rows(engine: Engine) -> Insert:
    """Return the INSERT whose one parameter ``rows`` holds what differs between new runs."""
    rows = _rows(engine, without=())
    return insert(jobs).from_select([*rows.columns.keys(), *_SAME], select(*rows.columns, *_same()))


def _rows(engine: Engine, *, without: Collection[str]) -> FromClause:
    """Return the parameter ``rows``, of what differs between new runs, as a table."""
    differ = [column for column in jobs.columns if column.name not in _SAME and column.name not in without]
    return engine.rows("rows", {one.name: Text() if isinstance(one.type, String) else BigInteger() for one in differ})


def _same() -> list[ColumnElement[Any]]:
    return [literal_column(_literal(value)) for value in _SAME.values()]


@lru_cache(maxsize=4)
def _insert_numbered(engine: Engine) -> ReturningInsert[Any]:
    """Return the INSERT of ``insert_numbered``; ``ord`` of its rows is that of run 0."""
    rows = _rows(engine, without=("run", "created_at"))
    valid = select(dispatch.c.gates_version).scalar_subquery() == bindparam("gates", type_=BigInteger())
    # The database takes a number for each row, and looks at it afterwards: it is volatile.
    numbered = select(run_sequence.next_value().label("run"), *rows.columns).where(valid).subquery("numbered")
    differ = [column.name for column in rows.columns]
    rest = [numbered.c.ord + numbered.c.run if name == "ord" else numbered.c[name] for name in differ]
    chosen = select(numbered.c.run, engine.now, *rest, *_same()).where(
        numbered.c.run > bindparam("after", type_=BigInteger())
    )
    names = ["run", "created_at", *differ, *_SAME]
    return insert(jobs).from_select(names, chosen).returning(jobs.c.run, jobs.c.job_id, jobs.c.created_at)


@lru_cache(maxsize=4)
def _lanes_are_there(engine: Engine) -> Update:
    """Return a statement that fails, as a column may not be NULL, where one of some lanes is not there."""
    found = select(func.count()).select_from(lanes).where(engine.among(lanes.c.id, "ids")).scalar_subquery()
    return update(dispatch).where(found < bindparam("count", type_=BigInteger())).values(gates_version=None)


def _literal(value: str | int | None) -> str:
    """Return a value of our own as SQL."""
    if isinstance(value, str):
        return f"'{value}'"
    return "NULL" if value is None else str(value)
