"""Lists of runs, live and finished together, newest submission first; a page costs what it shows, not what there is.

A page begins below a run (keyset paging), so that new submissions move nothing. Live runs are read first, then finished
ones: a run only ever moves from the former to the latter, so one that moves in between is found twice, never missed,
and told once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, select

from jobber.jobs import FINISHED, LIVE, Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.reading import live_jobs, select_live
from jobber.store.records import job_of
from jobber.store.schema import finished_jobs, jobs
from jobber.store.times import NEWEST
from jobber.store.walking import Walk

#: Seconds after which a page is answered as far as it has come.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which runs are wanted; what is left out does not matter.

    Parameters:
        states: any of them; empty: all.
        group: ID of a group: its jobs and its callback.
        tags: all of them.
        since, until: bounds of the submission's time; ``until`` itself is out.
    """

    states: frozenset[JobState] = frozenset()
    task: str = ""
    queue: str = ""
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    since: Micros | None = None
    until: Micros | None = None

    def __bool__(self) -> bool:
        """Whether it names any condition."""
        named = self.states, self.task, self.queue, self.group, self.tags
        return any(named) or self.since is not None or self.until is not None

    def within(self, states: frozenset[JobState]) -> frozenset[JobState]:
        """Return which of these states are wanted."""
        return self.states & states if self.states else states


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of runs, newest first.

    Parameters:
        below: where the next page begins: its runs are smaller; None after the last one. A page may hold fewer runs
            than were asked for, or none, and not be the last: then finding more took too long.
    """

    jobs: Sequence[Job]
    below: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """Some runs that a filter matches, newest first, with the columns that were asked for."""

    rows: Sequence[Mapping[str, Any]]
    below: int | None


class Lister:
    """Lists runs."""

    def __init__(self, database: Database, *, patience: float = PATIENCE) -> None:
        self._database = database
        self._patience = patience

    def page(self, wanted: JobFilter, *, below: int | None = None, limit: int = 100) -> Listed:
        """Return the newest runs that a filter matches, of those submitted before the run ``below``."""

        def work(connection: Connection) -> Listed:
            deadline = time.monotonic() + self._patience
            found: dict[int, Job] = {}
            # One more than the page holds tells whether there is another.
            bottom, open_ = 0, False
            for table, states, whole, make in (
                (jobs, LIVE, select_live(), live_jobs),
                (finished_jobs, FINISHED, select(finished_jobs), _finished_jobs),
            ):
                walk = Walk(self._database, connection, table, states=states, wanted=wanted, whole=whole)
                rows, stopped = walk.rows(below or NEWEST, limit + 1, deadline, bottom=bottom, make=make)
                found |= {job.run: job for job in rows}
                open_ = open_ or stopped is not None
                bottom = max(bottom, stopped or 0, _last(found, limit + 1))
            runs = sorted((run for run in found if run >= bottom), reverse=True)
            if len(runs) > limit:
                return Listed([found[run] for run in runs[:limit]], runs[limit - 1])
            return Listed([found[run] for run in runs], bottom if open_ else None)

        return self._database.read(work)

    def runs(
        self, wanted: JobFilter, columns: Sequence[str], *, live: bool, below: int | None = None, limit: int = 1000
    ) -> Found:
        """Return columns of the live, or of the finished runs that a filter matches, ``run`` among them."""
        table, states = (jobs, LIVE) if live else (finished_jobs, FINISHED)
        statement = select(*(table.c[name] for name in ("run", *columns)))

        def work(connection: Connection) -> Found:
            walk = Walk(self._database, connection, table, states=states, wanted=wanted, whole=statement)
            deadline = time.monotonic() + self._patience
            rows, stopped = walk.rows(below or NEWEST, limit, deadline, make=_mappings)
            if len(rows) >= limit:
                return Found(rows, rows[-1]["run"])
            return Found(rows, stopped)

        return self._database.read(work)


def _last(found: Mapping[int, Job], most: int) -> int:
    """Return the run below which no more are needed; 0 if more are."""
    return sorted(found, reverse=True)[most - 1] if len(found) >= most else 0


def _finished_jobs(connection: Connection, statement: Select[Any], values: Mapping[str, Any]) -> list[Job]:
    return [job_of(row) for row in connection.execute(statement, values).mappings()]


def _mappings(connection: Connection, statement: Select[Any], values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*connection.execute(statement, values).mappings()]
