"""What the broker has not been told yet: each change of a job's state, and the end of each group.

A row is written in the transaction that makes the change, so that there is one if, and only if, the change is there.
Whoever changes a job holds its row by then: of one job, the order of IDs is that of its changes. Of several jobs it is
not, and a row may turn up below others that were read before.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    RowMapping,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
)

from jobber.jobs import Group, Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.reading import newest
from jobber.store.records import job_of
from jobber.store.schema import RUN_COLUMNS, finished_jobs, jobs, outbox


@dataclass(frozen=True, slots=True)
class Told:
    """One change, as it is to be told.

    Parameters:
        id: grows with the changes of a job.
        event: what happened: ``submitted``, ``started``, how an attempt ended (``Ending``), or the end of a group.
        job: as it was then; None if it is a group's.
        group: as it ended, without its jobs; its callback as it is now.
    """

    id: int
    event: str
    at: Micros
    job: Job | None
    group: Group | None


#: Changes that are counted at most.
MANY = 100_000


class Outbox:
    """Writes changes down, in the transactions that make them; and reads them.

    Without ``Database.events`` nothing is written, and no statement is made.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, connection: Connection, runs: Collection[int], event: str) -> None:
        """Write down a change of live runs, as they are after it. Comes last of all that changes them.

        Parameters:
            event: what happened to them.
        """
        for statement, values in self.noting(runs, event):
            connection.execute(statement, values)

    def noting(self, runs: Collection[int], event: str) -> list[Request]:
        """Return what ``note`` would run."""
        if not (self._database.events and runs):
            return []
        engine = self._database.engine
        return [Request(_copy(engine, jobs), {"of_runs": engine.many(runs), "what": event})]

    def note_ends(self, connection: Connection, runs: Collection[int]) -> None:
        """Write down that runs ended, which are in the history now: the event is named like the state."""
        for statement, values in self.noting_ends(runs):
            connection.execute(statement, values)

    def noting_ends(self, runs: Collection[int]) -> list[Request]:
        """Return what ``note_ends`` would run."""
        if not (self._database.events and runs):
            return []
        engine = self._database.engine
        return [Request(_copy(engine, finished_jobs), {"of_runs": engine.many(runs)})]

    def note_group(self, connection: Connection, row: RowMapping) -> None:
        """Write down that a group ended.

        Parameters:
            row: of the group, as it is then.
        """
        if self._database.events:
            event = ended_group(row).state.value.lower()
            values = {"run": row["run"], "event": event, "at": row["finished_at"], "ended_group": json.dumps(dict(row))}
            connection.execute(insert(outbox).values(values))

    def waiting(self, limit: int = 200) -> list[Told]:
        """Return what is to be told, in this order."""
        wanted = select(outbox).order_by(outbox.c.id).limit(limit)

        def work(connection: Connection) -> list[Told]:
            return [_told(connection, row) for row in connection.execute(wanted).mappings().all()]

        return self._database.read(work)

    def remove(self, told: Collection[int]) -> None:
        """Forget what was told.

        Parameters:
            told: IDs.
        """
        if told:
            gone = delete(outbox).where(self._database.engine.among(outbox.c.id, "ids"))
            wanted = {"ids": self._database.engine.many(told)}
            self._database.write(lambda connection: connection.execute(gone, wanted))

    def size(self) -> tuple[int, float]:
        """Return how many changes wait to be told, ``MANY`` at most, and for how many seconds the oldest of them has.

        It answers at once however many there are: that is when somebody has to know.
        """
        some = select(outbox.c.id).limit(MANY).subquery()
        count = select(func.count()).select_from(some).scalar_subquery()
        oldest = select(count, outbox.c.at, self._database.engine.now).order_by(outbox.c.id).limit(1)
        row = self._database.read(lambda connection: connection.execute(oldest).one_or_none())
        return (row[0], max(0.0, (row[2] - row[1]) / 1_000_000)) if row else (0, 0.0)


def _told(connection: Connection, row: RowMapping) -> Told:
    if row["ended_group"] is None:
        return Told(row["id"], row["event"], row["at"], job_of(row), None)
    return Told(row["id"], row["event"], row["at"], None, with_callback(connection, json.loads(row["ended_group"])))


def with_callback(connection: Connection, row: Mapping[str, Any] | RowMapping) -> Group:
    """Return a group that has ended, without its jobs, from its row; its callback as it is now."""
    run = row["callback_run"]
    return ended_group(row, None if run is None else newest(connection, jobs.c.run == run, finished_jobs.c.run == run))


def ended_group(row: Mapping[str, Any] | RowMapping, callback: Job | None = None) -> Group:
    """Return a group that has ended, without its jobs, from its row."""
    counts = {
        **dict.fromkeys(JobState, 0),
        JobState.SUCCESS: row["succeeded"],
        JobState.FAILURE: row["failed"],
        JobState.CANCELLED: row["cancelled"],
    }
    return Group(
        run=row["run"],
        group_id=row["group_id"],
        size=row["size"],
        concurrency=row["concurrency"],
        counts=counts,
        jobs=(),
        callback=callback,
        callback_url=row["callback_url"] or "",
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )


def copying(rows: FromClause, event: ColumnElement[str], at: ColumnElement[int], *where: ColumnElement[bool]) -> Insert:
    """Return a statement that copies rows of runs to the outbox, for what changes them to do in the same step."""
    source = select(event, at, *(rows.c[name] for name in RUN_COLUMNS)).where(*where).order_by(rows.c.run)
    return insert(outbox).from_select(["event", "at", *RUN_COLUMNS], source)


def copying_ends(rows: FromClause, *where: ColumnElement[bool]) -> Insert:
    """Return the same for rows of finished runs."""
    return copying(rows, func.lower(rows.c.state), rows.c.finished_at, *where)


@lru_cache(maxsize=16)
def _copy(engine: Engine, table: Table) -> Insert:
    """Return the statement that copies runs of a table, live or finished, to the outbox."""
    these = engine.among(table.c.run, "of_runs")
    if table is finished_jobs:
        return copying_ends(table, these)
    return copying(table, cast(bindparam("what"), Text), engine.now, these)
