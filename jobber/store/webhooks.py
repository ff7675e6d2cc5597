"""Calls that are owed to the URLs of jobs and groups that have ended.

A row is written in the transaction that ends the job, so a call is never lost. Who makes it takes the row for a while
(``next_at`` is when somebody else may): whoever dies in between has it made again, by another process.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update

from jobber.jobs import NAME_MAX, Group, Job, Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.outbox import ended_group, with_callback
from jobber.store.records import job_of, storable
from jobber.store.schema import finished_jobs, groups, webhooks


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is owed.

    Parameters:
        run: of the job or the group.
        job: that ended; None if it was a group, or is forgotten by now: was purged, or is older than the history.
        group: that ended, without its jobs; None if it was a job, or is forgotten.
        event: the state that it ended in, in small letters.
        tries: with the one that is to be made now.
    """

    id: int
    run: int
    job: Job | None
    group: Group | None
    event: str
    at: Micros
    url: str
    host: str
    tries: int


def host_of(url: str) -> str:
    """Return the host of a URL, in small letters."""
    return (urlsplit(url).hostname or "").rstrip(".")


def note_calls(database: Database, connection: Connection, runs: Collection[int]) -> None:
    """Owe a call for each of these finished runs that has a ``callback_url``."""
    if not runs:
        return
    found = connection.execute(_ended(database.engine), {"runs": database.engine.many(runs)}).all()
    if found:
        connection.execute(_NOTE, [_row(run, url, state, at) for run, url, state, at in found])


def note_group_call(connection: Connection, row: RowMapping) -> None:
    """Owe a call for a group that has ended.

    Parameters:
        row: of the group, as it is then.
    """
    state = ended_group(row).state.value
    owed = _row(row["run"], row["callback_url"], state, row["finished_at"]) | {"is_group": True}
    connection.execute(_NOTE, owed)


def _row(run: int, url: str, state: str, at: Micros) -> dict[str, Any]:
    owed = {
        "run": run,
        "is_group": False,
        "event": state.lower(),
        "at": at,
        "url": url,
        "host": host_of(url)[:NAME_MAX],
    }
    return owed | {"tries": 0, "next_at": at, "error": ""}


class CallBook:
    """Gives calls out, and takes note of what came of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self) -> bool:
        """Whether a call is to be made now."""
        engine = self._database.engine
        statement = select(engine.now, func.min(webhooks.c.next_at))
        now, first = self._database.read(lambda connection: connection.execute(statement).one())
        return first is not None and first <= now

    def overdue(self, seconds: float) -> int:
        """Return how many calls have been due for so long, and nobody has made them."""
        then = self._database.engine.now - int(seconds * 1_000_000)
        late = select(func.count()).select_from(webhooks).where(webhooks.c.next_at <= then)
        return self._database.read(lambda connection: int(connection.execute(late).scalar_one()))

    def take(self, limit: int, *, lease: float, without: Collection[str] = (), overdue: float = 0.0) -> list[Call]:
        """Take calls that are due, for ``lease`` seconds: nobody else makes them meanwhile.

        Parameters:
            without: hosts that have enough to do.
            overdue: seconds that they have been due for, at least.
        """
        engine = self._database.engine
        wanted = (
            select(webhooks)
            # By the index: to sort rows, InnoDB would lock them all.
            .with_hint(webhooks, "FORCE INDEX (ix_jobber_webhooks_next_at)", "mysql")
            .where(webhooks.c.next_at <= engine.now - int(overdue * 1_000_000))
            .order_by(webhooks.c.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        if without:
            wanted = wanted.where(webhooks.c.host.not_in(sorted(without)))
        until = engine.now + int(lease * 1_000_000)
        taken = (
            update(webhooks).where(engine.among(webhooks.c.id, "ids")).values(next_at=until, tries=webhooks.c.tries + 1)
        )

        def work(connection: Connection) -> list[Call]:
            rows = connection.execute(wanted).mappings().all()
            if rows:
                connection.execute(taken, {"ids": engine.many([row["id"] for row in rows])})
            return [_call(connection, row) for row in rows]

        return self._database.write(work)

    def made(self, call: Call) -> None:
        """Forget a call: it was made, or will not be."""
        gone = delete(webhooks).where(webhooks.c.id == call.id)
        self._database.write(lambda connection: connection.execute(gone))

    def failed(self, call: Call, error: str, *, pause: float) -> None:
        """Have a call that failed made again, after ``pause`` seconds."""
        later = self._database.engine.now + int(pause * 1_000_000)
        again = update(webhooks).where(webhooks.c.id == call.id).values(next_at=later, error=storable(error))
        self._database.write(lambda connection: connection.execute(again))


_NOTE = insert(webhooks)


@lru_cache(maxsize=8)
def _ended(engine: Engine) -> Select[Any]:
    ended = finished_jobs.c
    wanted = select(ended.run, ended.callback_url, ended.state, ended.finished_at)
    return wanted.where(engine.among(ended.run, "runs"), ended.callback_url.is_not(None))


def _call(connection: Connection, row: RowMapping) -> Call:
    """Return a call with what it is about, which may be forgotten by now."""
    job, group = None, None
    if row["is_group"]:
        found = connection.execute(select(groups).where(groups.c.run == row["run"])).mappings().one_or_none()
        group = None if found is None else with_callback(connection, found)
    else:
        found = (
            connection.execute(select(finished_jobs).where(finished_jobs.c.run == row["run"])).mappings().one_or_none()
        )
        job = None if found is None else job_of(found)
    return Call(
        id=row["id"],
        run=row["run"],
        job=job,
        group=group,
        event=row["event"],
        at=row["at"],
        url=row["url"],
        host=row["host"],
        tries=row["tries"] + 1,
    )
