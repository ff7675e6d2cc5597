"""How the end of a job counts in its group, and how the last one makes the callback ready.

All of it happens in the transaction that ends the job. The row of the group is locked by counting in it, so of two jobs
that end at the same time the second waits, and sees that it is the last: a callback can neither be lost nor run twice,
whatever dies when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from jobber.jobs import JobState, decode_args, encode_args
from jobber.store.database import Database
from jobber.store.history import tell_of_group
from jobber.store.lanes import Woken
from jobber.store.readying import make_ready
from jobber.store.returning import Change
from jobber.store.schema import finished_jobs, groups, jobs

#: The column of a group that counts the jobs that ended in a state.
COUNTERS = {JobState.SUCCESS: "succeeded", JobState.FAILURE: "failed", JobState.CANCELLED: "cancelled"}


class GroupBook:
    """Keeps count of the jobs of groups."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, connection: Connection, ended: Iterable[tuple[int | None, JobState]], woken: Woken) -> None:
        """Count jobs that this transaction has moved to the history; the callback is ready with the last of a group.

        Comes after all that locks jobs: who holds a group waits for no job but its callback, which nobody locks first.

        Parameters:
            ended: the run of the group of each, None outside groups, and its state.
            woken: takes note of the callback.
        """
        counts = Counter((run, COUNTERS[state]) for run, state in ended if run is not None)
        for run in sorted({run for run, _ in counts}):
            values = {"of_run": run, **{f"more_{name}": counts[run, name] for name in COUNTERS.values()}}
            (group,) = _COUNT(self._database.engine, connection, values)
            if group.succeeded + group.failed + group.cancelled == group.size:
                self._finish(connection, run, group, woken)

    def remind(self, connection: Connection, run: int | None, woken: Woken) -> None:
        """Note the callback of a group again if it is ready: who made it so may never have heard of its success.

        Parameters:
            run: of the group, None outside groups.
        """
        ready = select(jobs.c.queue).join(groups, groups.c.callback_run == jobs.c.run)
        ready = ready.where(groups.c.run == run, jobs.c.ord.is_not(None))
        woken.queues.update(connection.execute(ready).scalars())

    def _finish(self, connection: Connection, run: int, group: Row[Any], woken: Woken) -> None:
        now = self._database.engine.now
        connection.execute(update(groups).where(groups.c.run == run).values(live_id=None, finished_at=now))
        tell_of_group(self._database, connection, run, group.callback_url)
        if group.callback_run is None:
            return
        wanted = select(jobs.c.args).where(jobs.c.run == group.callback_run)
        args = connection.execute(wanted.with_for_update()).scalar_one_or_none()
        if args is None:  # it is over: cancelled, or what it depends on has failed
            return
        told = update(jobs).where(jobs.c.run == group.callback_run)
        connection.execute(told.values(args=self._with_outcome(connection, args, run, group)))
        make_ready(self._database, connection, [group.callback_run], woken)

    def _with_outcome(self, connection: Connection, encoded: str, run: int, group: Row[Any]) -> str:
        """Return the args of a callback with what has become of its group in those that ask for it."""
        args = decode_args(encoded)
        if not isinstance(args, dict):
            return encoded
        outcome = {name: group._mapping[name] for name in ("group_id", *COUNTERS.values())}
        if "tables" in args:
            succeeded = finished_jobs.c.group_run == run, finished_jobs.c.state == JobState.SUCCESS.value
            tables = select(finished_jobs.c.result_table).where(*succeeded).order_by(finished_jobs.c.run)
            outcome["tables"] = encode_args(list(connection.execute(tables).scalars()))
        return encode_args({name: outcome.get(name, value) for name, value in args.items()})


_COUNT = Change(
    groups,
    groups.c.run == bindparam("of_run"),
    {name: groups.c[name] + bindparam(f"more_{name}") for name in COUNTERS.values()},
    [
        *(groups.c[name] for name in ("group_id", "size", "callback_run", "callback_url")),
        *(groups.c[name] for name in COUNTERS.values()),
    ],
)
