"""Finding the runs of one table that a filter matches, newest first, at a bounded cost per step.

Where one index gives the matches in order, one statement does it. Where there are several conditions, each has an index
of its own (a **list** of runs, newest first), and no single one is good for all data: the lists are read side by side
in steps, what one of them rules out is jumped over in all, and only what is left is looked up. No estimate of the
database decides how much is read, so that a wrong one costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, func, select, true, union_all

from jobber.jobs import JobState
from jobber.store import tagging
from jobber.store.database import Database
from jobber.store.schema import groups, jobs, lanes, tags
from jobber.store.times import bounds

if TYPE_CHECKING:
    from jobber.store.listing import JobFilter

#: Runs that are read from a list at first, and from then on.
FIRST, STEP = 1000, 5000
#: Runs that are looked up at a time: of more MariaDB makes a table (in_predicate_conversion_threshold).
LOOK = 800
#: Groups that are looked at at a time: of more MariaDB guesses (eq_range_index_dive_limit).
GROUPS = 100
#: Live runs of a task or a queue that are read at once.
SHORT = 20_000
#: Rows of a table that are held against the filter at once.
WINDOW = 160_000

T = TypeVar("T")
#: Runs a SELECT with these values, and makes something of each row.
Make = Callable[[Connection, Select[Any], Mapping[str, Any]], list[T]]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A part of a list: all its runs from ``low`` on, newest first."""

    runs: Sequence[int]
    low: int


#: Reads a list below a run, down to another, at most so many; None where that is no way to find anything.
_List = Callable[[int, int, int], _Batch | None]


class Walk:
    """Walks over one table.

    Parameters:
        states: that runs of this table can be in.
        whole: SELECT of all rows of the table, with the columns that are wanted.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection,
        table: Table,
        *,
        states: frozenset[JobState],
        wanted: JobFilter,
        whole: Select[Any],
    ) -> None:
        self._engine = database.engine
        self._connection = connection
        self._table = table
        self._run: Column[int] = table.c.run
        self._wanted = wanted
        self._whole = whole
        self._states = sorted(wanted.within(states))
        self._some_states = len(self._states) < len(states)
        self._is_live = table is jobs

    def rows(
        self, below: int, most: int, deadline: float, *, make: Make[T], bottom: int = 0
    ) -> tuple[list[T], int | None]:
        """Return the newest matches below a run, and where the walk stopped because its time was over.

        Parameters:
            deadline: on the monotonic clock; one step is made in any case.
            bottom: smaller runs are not wanted.
        """
        wanted = self._wanted
        if not self._states:
            return [], None
        if wanted.since is not None or wanted.until is not None:
            first, last = bounds(self._connection, self._table, wanted.since, wanted.until)
            bottom, below = max(bottom, first), min(below, last)
        if below <= bottom:
            return [], None
        if (column := self._only_index()) is not False:
            statement = self._hinted(column).where(self._run < below, self._run >= bottom)
            return make(self._connection, statement.order_by(self._run.desc()).limit(most), {}), None
        return self._step_by_step(below, bottom, most, deadline, make)

    def _only_index(self) -> str | Literal[False] | None:
        """Return the column whose index gives all matches in order, None if that is the primary key, else False."""
        wanted = self._wanted
        if wanted.tags or wanted.group or (self._is_live and (wanted.task or wanted.queue)):
            return False
        columns = [name for name in ("task", "queue") if getattr(wanted, name)]
        columns += ["state"] if self._some_states else []
        if len(columns) > 1 or (self._some_states and len(self._states) > 1):
            return False
        return columns[0] if columns else None

    def _hinted(self, column: str | None) -> Select[Any]:
        """Return the SELECT of all matches; MySQL goes by the index of a column, or by the primary key."""
        hint = f"FORCE INDEX ({_index(self._table, column)})"
        return self._whole.with_hint(self._table, hint, "mysql").where(*self._conditions())

    def _conditions(self) -> list[ColumnElement[bool]]:
        columns, wanted = self._table.c, self._wanted
        conditions = [columns[name] == getattr(wanted, name) for name in ("task", "queue") if getattr(wanted, name)]
        if self._some_states:
            one = len(self._states) == 1
            conditions.append(columns.state == self._states[0] if one else columns.state.in_(self._states))
        if wanted.group:
            conditions.append(columns.group_id == wanted.group)
        if wanted.since is not None:
            conditions.append(columns.created_at >= wanted.since)
        if wanted.until is not None:
            conditions.append(columns.created_at < wanted.until)
        return conditions

    # -- step by step --------------------------------------------------------------------------------------------------

    def _step_by_step(
        self, below: int, bottom: int, most: int, deadline: float, make: Make[T]
    ) -> tuple[list[T], int | None]:
        lists, found, step, width = self._lists(), list[T](), FIRST, STEP
        statement = self._hinted(None).order_by(self._run.desc())
        among = self._engine.among(self._run, "runs")
        while True:
            batches = [batch for read in lists if (batch := read(below, bottom, step)) is not None]
            if batches:
                candidates, low = _common(batches)
                for start in range(0, len(candidates), LOOK):
                    if len(found) >= most:
                        break
                    if part := self._tagged(candidates[start : start + LOOK]):
                        these = statement.where(among).limit(most - len(found))
                        found += make(self._connection, these, {"runs": self._engine.many(part)})
            else:
                # Nothing but the rows themselves.
                low = self._window(below, bottom, width)
                window = statement.where(self._run < below, self._run >= low).limit(most - len(found))
                found += make(self._connection, window, {})
            if len(found) >= most or low <= bottom:
                return found, None
            below, step, width = low, STEP, min(2 * width, WINDOW)
            if time.monotonic() > deadline:
                return found, below

    def _window(self, below: int, bottom: int, width: int) -> int:
        """Return from where on the table has so many rows below a run."""
        rows = select(self._run).where(self._run < below, self._run >= bottom).order_by(self._run.desc()).limit(width)
        counted = rows.subquery()
        low, count = self._connection.execute(select(func.min(counted.c.run), func.count()).select_from(counted)).one()
        return low if count == width else bottom

    def _tagged(self, runs: Sequence[int]) -> Sequence[int]:
        """Return those of some runs that have all the tags that are wanted."""
        for name, value in _keys(self._wanted.tags):
            if runs:
                has = select(tags.c.run).where(tags.c.name == name, tags.c.value == value)
                these = {"runs": self._engine.many(runs)}
                tagged = {*self._connection.execute(has.where(self._engine.among(tags.c.run, "runs")), these).scalars()}
                runs = [run for run in runs if run in tagged]
        return runs

    def _lists(self) -> list[_List]:
        """Return the lists that every match is on."""
        wanted, table = self._wanted, self._table
        lists: list[_List] = []
        if self._some_states:
            lists.append(self._in_order(table, "state", *([table.c.state == state] for state in self._states)))
        if wanted.group:
            lists.append(self._of_group)
        named = [name for name in ("task", "queue") if getattr(wanted, name)]
        if self._is_live and named:
            lists.append(self._in_lanes([lanes.c[name] == getattr(wanted, name) for name in named]))
        elif not self._is_live:
            lists += [self._in_order(table, name, [table.c[name] == getattr(wanted, name)]) for name in named]
        for name, value in _keys(wanted.tags):
            lists.append(self._in_order(tags, None, [tags.c.name == name, tags.c.value == value]))
        if wanted.tags:
            # Tags tell nothing of which table a run is in; of live runs there may be none at all.
            lists.append(self._in_order(table, None, []))
        return lists

    def _in_order(self, table: Table, column: str | None, *choices: Sequence[ColumnElement[bool]]) -> _List:
        """Return the list of the rows that one of some conditions finds.

        Parameters:
            column: has an index that ends with the run; None for the primary key.
        """
        run, hint = table.c.run, f"FORCE INDEX ({_index(table, column)})"

        def read(below: int, bottom: int, most: int) -> _Batch:
            parts = [
                select(run)
                .with_hint(table, hint, "mysql")
                .where(*choice, run < below, run >= bottom)
                .order_by(run.desc())
                .limit(most)
                for choice in choices
            ]
            # In one statement: a run that goes from one state to another meanwhile is in one of them.
            statement = parts[0] if len(parts) == 1 else union_all(*(select(part.subquery().c.run) for part in parts))
            runs = sorted(self._connection.execute(statement).scalars(), reverse=True)[:most]
            return _Batch(runs, runs[-1] if len(runs) == most else bottom)

        return read

    def _in_lanes(self, these: Sequence[ColumnElement[bool]]) -> _List:
        """Return the list of the live runs in some lanes, if it is short: it is in no order.

        In one statement: a run that goes to another lane meanwhile is in one of them. And by the index of lanes,
        whatever an engine thinks that it will find.
        """
        too_long = False
        if self._engine.arrays:
            part = select(jobs.c.run).where(jobs.c.lane == lanes.c.id).limit(SHORT + 1).lateral()
            all_ = select(part.c.run).select_from(lanes.join(part, true()))
        else:
            all_ = select(jobs.c.run).select_from(lanes.join(jobs, jobs.c.lane == lanes.c.id))
            all_ = all_.prefix_with("STRAIGHT_JOIN", dialect="mysql")
        all_ = all_.where(*these).limit(SHORT + 1)

        def read(below: int, bottom: int, _: int) -> _Batch | None:
            nonlocal too_long
            runs = [] if too_long else self._connection.execute(all_).scalars().all()
            too_long = too_long or len(runs) > SHORT
            return None if too_long else _Batch(sorted((r for r in runs if bottom <= r < below), reverse=True), bottom)

        return read

    def _of_group(self, below: int, bottom: int, most: int) -> _Batch:
        """Read the list of the runs of a group: its members and its callback.

        The runs of a group's ID follow each other, and the number of a group is smaller than those of its jobs.
        """
        columns = groups.c.run, groups.c.size, groups.c.callback_run
        newest = select(*columns).where(groups.c.group_id == self._wanted.group, groups.c.run < below)
        rows = self._connection.execute(newest.order_by(groups.c.run.desc()).limit(GROUPS)).all()
        chosen, size = [], 0
        for row in rows:
            chosen.append(row)
            size += row.size
            # A group that began before the bottom may have members after it.
            if size >= most or row.run < bottom:
                break
        members = select(self._run).where(self._engine.among(self._table.c.group_run, "groups"))
        ids = {"groups": self._engine.many([row.run for row in chosen])}
        runs = {*self._connection.execute(members, ids).scalars()} if chosen else set()
        runs |= {row.callback_run for row in chosen if row.callback_run is not None}
        whole = len(chosen) == len(rows) < GROUPS
        low = bottom if whole or not chosen else max(bottom, chosen[-1].run)
        return _Batch(sorted((run for run in runs if low <= run < below), reverse=True), low)


def _index(table: Table, column: str | None) -> str:
    return f"ix_{table.name}_{column}_run" if column else "PRIMARY"


def _keys(wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(tagging.key(name), tagging.key(value)) for name, value in wanted.items()]


def _common(batches: Sequence[_Batch]) -> tuple[list[int], int]:
    """Return the runs that may be on all lists, newest first, and down to which run that is all."""
    # Above the newest of any list there is none.
    top = min(batch.runs[0] if batch.runs else batch.low - 1 for batch in batches)
    reach = min(batches, key=lambda batch: (batch.low, len(batch.runs)))
    others = [(batch.low, frozenset(batch.runs)) for batch in batches if batch is not reach]
    runs = [run for run in reach.runs if run <= top and all(run < low or run in runs for low, runs in others)]
    return runs, min(reach.low, top + 1)
