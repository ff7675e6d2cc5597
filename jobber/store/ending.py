"""The one way in which live runs end: they move to the history, their children hear of it, their groups count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, update

from jobber.jobs import JobState
from jobber.store.database import Database
from jobber.store.events import EventBook
from jobber.store.grouping import GroupBook
from jobber.store.history import move
from jobber.store.lanes import Woken
from jobber.store.parents import ParentBook, Waits
from jobber.store.schema import jobs
from jobber.store.webhooks import note_calls

#: What a finish sets on a run besides its time.
Outcome = Mapping[str, Any]
#: What becomes of a job that nobody runs when somebody cancels it.
_BY_REQUEST: Outcome = {"state": JobState.CANCELLED.value, "cancel_requested": True}


#: What ``cancel`` has to know of each job, by the names of columns.
CANCELLING = ("run", "state", "attempt", "group_run", "cancel_requested", "callback_url")


class EndBook:
    """Ends runs."""

    def __init__(self, database: Database, parents: ParentBook, groups: GroupBook, events: EventBook) -> None:
        self._database = database
        self._parents = parents
        self._groups = groups
        self._events = events
        self._ask = update(jobs).where(database.engine.among(jobs.c.run, "runs")).values(cancel_requested=True)

    def cancel(self, connection: Connection, rows: Sequence[Row[Any]], woken: Woken) -> list[Row[Any]]:
        """End jobs that wait, and ask those that run to stop; return the latter. ``LaneBook.wake`` comes then.

        Parameters:
            rows: with the columns ``CANCELLING``, which this transaction holds.

        Raises:
            TryAgain: as ``end``.
        """
        started = [row for row in rows if row.state == JobState.STARTED.value]
        if asked := [row.run for row in started if not row.cancel_requested]:
            connection.execute(self._ask, {"runs": self._database.engine.many(asked)})
            self._events.note(connection, asked, "cancel_requested")
        waiting = [row for row in rows if row.state != JobState.STARTED.value]
        ended = [(row.run, row.group_run) for row in waiting]
        quiet = not any(row.callback_url for row in waiting)
        self.end(connection, ended, _BY_REQUEST, woken, quiet=quiet)
        return started

    def end(
        self,
        connection: Connection,
        ended: Sequence[tuple[int, int | None]],
        outcome: Outcome,
        woken: Woken,
        *,
        quiet: bool = False,
    ) -> None:
        """End live runs, all in the same way. Comes after all else that locks jobs; ``LaneBook.wake`` comes then.

        Parameters:
            ended: each run, which this transaction holds, and the run of its group, None outside groups.
            outcome: columns to set, ``state`` among them; ``lifetime`` as ``history.move`` takes it.
            woken: takes note of what becomes ready.
            quiet: whether none of them has a ``callback_url``, as whoever read them knows.

        Raises:
            TryAgain: a job that would take an earlier result found it gone.
        """
        if not ended:
            return
        runs = [run for run, _ in ended]
        move(self._database, connection, runs, outcome, quiet=quiet)
        self._settle(connection, ended, JobState(outcome["state"]), woken)

    def settle(
        self,
        connection: Connection,
        ended: Sequence[tuple[int, int | None]],
        state: JobState,
        woken: Woken,
        *,
        quiet: bool = False,
    ) -> None:
        """Do all that ``end`` does for runs that this transaction has moved to the history; parameters as there.

        Raises:
            TryAgain: as ``end``.
        """
        if not quiet:
            note_calls(self._database, connection, [run for run, _ in ended])
        self._settle(connection, ended, state, woken)

    def _settle(
        self, connection: Connection, ended: Sequence[tuple[int, int | None]], state: JobState, woken: Woken
    ) -> None:
        counted = [(group, state) for _, group in ended]
        children = self._parents.settle(connection, [run for run, _ in ended], woken)
        self._groups.settle(connection, counted + children, woken)

    def begin(self, connection: Connection, waits: Waits, woken: Woken) -> bool:
        """End new runs that do not run, as ``ParentBook.attach`` said; return whether there were any.

        Raises:
            TryAgain: as ``end``.
        """
        ended = self._parents.carry_out(connection, waits, woken)
        self._groups.settle(connection, ended, woken)
        return bool(ended)
