"""The one way in which live runs end: they move to the history, their children hear of it, their groups count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from jobber.jobs import JobState
from jobber.store.database import Database
from jobber.store.grouping import GroupBook
from jobber.store.history import move
from jobber.store.lanes import Woken
from jobber.store.parents import ParentBook, Waits

#: What a finish sets on a run besides its time.
Outcome = Mapping[str, Any]
#: What becomes of a job that nobody runs when somebody cancels it.
CANCELLED_BY_REQUEST: Outcome = {"state": JobState.CANCELLED.value, "cancel_requested": True}


class EndBook:
    """Ends runs."""

    def __init__(self, database: Database, parents: ParentBook, groups: GroupBook) -> None:
        self._database = database
        self._parents = parents
        self._groups = groups

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
        """
        if not ended:
            return
        runs = [run for run, _ in ended]
        move(self._database, connection, runs, outcome, quiet=quiet)
        state = JobState(outcome["state"])
        counted = [(group, state) for _, group in ended]
        self._groups.settle(connection, counted + self._parents.settle(connection, runs, woken), woken)

    def begin(self, connection: Connection, waits: Waits, woken: Woken) -> bool:
        """End new runs that do not run, as ``ParentBook.attach`` said; return whether there were any."""
        ended = self._parents.carry_out(connection, waits, woken)
        self._groups.settle(connection, ended, woken)
        return bool(ended)
