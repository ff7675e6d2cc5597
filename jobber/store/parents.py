"""Jobs that wait for other jobs: what they wait for, and what the end of those means for them.

``jobber_dependencies`` has a row for each parent of a live run that is not finished. Who submits a child holds the row
of each live parent until the commit, so that no parent ends unseen. Who ends a parent takes it away first, then locks
its children, then takes away what they waited for, then looks what is left of that: of two parents that end at once,
the later one sees that it is the last. Runs are locked in the order of their numbers; parents mostly have lower ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Row,
    Select,
    delete,
    func,
    insert,
    literal,
    select,
)

from jobber.errors import InvalidRequest
from jobber.jobs import JobState, NewJob, Policy
from jobber.store import cycles
from jobber.store.database import Database, TryAgain
from jobber.store.engines import Engine
from jobber.store.fates import Edge, Fate, fate_of, spread
from jobber.store.flights import Flights
from jobber.store.history import Ended, move_each
from jobber.store.lanes import Woken
from jobber.store.parts import parts
from jobber.store.readying import make_ready
from jobber.store.schema import dependencies, finished_jobs, jobs

#: The run of a group, None outside groups, and how one of its jobs ended.
Counted = tuple[int | None, JobState]


@dataclass(frozen=True, slots=True)
class Waits:
    """What their parents mean for new runs.

    Parameters:
        held: runs that are not to be ready: they wait, or end as ``fates`` says.
        fates: of runs that end at once.
        problems: what is wrong with ``depends_on``, by run; where there are any, nothing was written.
    """

    held: frozenset[int] = frozenset()
    fates: Mapping[int, Fate] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)

    def refuse(self, places: Mapping[int, str]) -> None:
        """Raise InvalidRequest if there are problems.

        Parameters:
            places: of the runs in the request: ``jobs[3]``; "" where the request is the job.
        """
        if self.problems:
            fields = {f"{places[run]}.depends_on".removeprefix("."): text for run, text in self.problems.items()}
            message = "; ".join(f"{place}: {text}" for place, text in fields.items())
            raise InvalidRequest(message, field=next(iter(fields)), fields=fields)


class ParentBook:
    """Notes who waits for whom; settles it when they end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._flights = Flights(database)
        self._insert_json = database.engine.insert_json(dependencies)

    # -- who comes -----------------------------------------------------------------------------------------------------

    def attach(self, connection: Connection, new: Sequence[tuple[NewJob, int]], callback: int | None = None) -> Waits:
        """Note what new runs wait for. They are to be inserted after that, and then comes ``carry_out``.

        A parent is the job of that ID among ``new``, else the live one, else the newest finished one.

        Parameters:
            callback: the run among ``new`` that waits for all others as the callback of their group.
        """
        if not any(job.depends_on for job, _ in new):
            return Waits()
        own = {job.job_id: run for job, run in new}
        wanted = {job.job_id: list(job.depends_on) for job, _ in new}
        if callback is not None:
            (last,) = (job.job_id for job, run in new if run == callback)
            wanted[last] += [job_id for job_id in own if job_id != last]
        problems = {own[job_id]: cycles.told(circle) for job_id, circle in cycles.circles(wanted).items()}
        live, over = self._look_up(connection, {of for job, _ in new for of in job.depends_on} - own.keys())
        rows: list[dict[str, Any]] = []
        fates: dict[int, Fate] = {}
        for job, run in new:
            waits, unknown = [], []
            for parent_id in dict.fromkeys(job.depends_on):
                if (parent := own.get(parent_id, live.get(parent_id))) is not None:
                    waits.append({"child": run, "parent": parent, "parent_id": parent_id})
                elif parent_id not in over:
                    unknown.append(parent_id)
                else:
                    parent, end = over[parent_id]
                    if (fate := fate_of(job.depends_policy, parent, parent_id, end)) and run not in fates:
                        fates[run] = fate
            if unknown:
                problems.setdefault(run, f"there is no job {', '.join(unknown)}")
            if run not in fates:
                rows += ({**row, "policy": job.depends_policy.value} for row in waits)
        if not problems:
            self._insert(connection, rows)
        return Waits(frozenset(fates).union(row["child"] for row in rows), fates, problems)

    def _look_up(
        self, connection: Connection, ids: Collection[str]
    ) -> tuple[dict[str, int], dict[str, tuple[int, Fate]]]:
        """Return the runs of the live jobs among ``ids``, which are held until the commit; and how others ended."""
        engine = self._database.engine
        live: dict[str, int] = {}
        over: dict[str, tuple[int, Fate]] = {}
        seen: dict[int, str] = {}
        for some in parts(sorted(ids)):
            seen |= {row.run: row.job_id for row in connection.execute(_live(engine), {"ids": engine.many(some)})}
        # By their runs: MySQL locks what an index leads to in the order of the index.
        for part in parts(sorted(seen)):
            held = connection.execute(_keep(engine), {"runs": engine.many(part)}).scalars()
            live |= {seen[run]: run for run in held}
        # Those that ended between the two are in the history by now.
        for some in parts(sorted(set(ids) - live.keys())):
            for row in connection.execute(_newest(engine), {"ids": engine.many(some)}):
                over[row.job_id] = row.run, _end_of(row)
        return live, over

    def _insert(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        if self._insert_json is not None and len(rows) > 1:
            connection.execute(self._insert_json, {"rows": json.dumps(rows)})
        elif rows:
            connection.execute(insert(dependencies), rows)

    def carry_out(self, connection: Connection, waits: Waits, woken: Woken) -> list[Counted]:
        """End the new runs that have a fate already, now that they are inserted; return what ``settle`` returns.

        Raises:
            TryAgain: as ``settle``.
        """
        if not waits.fates:
            return []
        return self._end(connection, waits.fates) + self.settle(connection, waits.fates.keys(), woken)

    # -- who goes ------------------------------------------------------------------------------------------------------

    def settle(self, connection: Connection, ended: Collection[int], woken: Woken) -> list[Counted]:
        """Do to the children of runs that this transaction has moved to the history what their policies say.

        Comes after all else that locks jobs. Returns the children, and theirs, that ended with them, for
        ``GroupBook.settle``.

        Parameters:
            woken: takes note of those that may run now.

        Raises:
            TryAgain: a result that a child is to have is forgotten.
        """
        edges = _Edges(self._database, connection)
        above = edges.around(ended)
        self._forget(connection, above)
        roots = self._ends(connection, edges.parents())
        if not roots:
            return []
        found, held, gone = spread(roots, edges), dict[int, Row[Any]](), set[int]()
        while wanted := found.touched - held.keys() - gone:
            held |= self._hold(connection, wanted)
            gone |= wanted - held.keys()  # who ended them takes their rows away
            # What stands below those that are held does not change any more.
            edges.read_again()
            found = spread(roots, edges)
        ready = found.touched - found.fates.keys()
        heirs = {parent: [held[run] for run in runs if run in ready] for parent, runs in found.heirs.items()}
        self._pass_on(connection, {parent: rows for parent, rows in heirs.items() if rows})
        self._forget(connection, found.fates)
        self._cut(connection, roots.keys() | found.fates.keys())
        ended_too = self._end(connection, found.fates, held)
        make_ready(self._database, connection, ready, woken)
        return ended_too

    def _ends(self, connection: Connection, runs: Collection[int]) -> dict[int, Fate]:
        """Return how finished runs ended."""
        engine, found = self._database.engine, dict[int, Fate]()
        for some in parts(sorted(runs)):
            rows = connection.execute(_ends(engine), {"runs": engine.many(some)})
            found |= {row.run: _end_of(row) for row in rows}
        return found

    def _hold(self, connection: Connection, runs: Collection[int]) -> dict[int, Row[Any]]:
        """Lock live runs, in the order of their numbers, and return their rows."""
        engine, found = self._database.engine, dict[int, Row[Any]]()
        for some in parts(sorted(runs)):
            found |= {row.run: row for row in connection.execute(_lock(engine), {"runs": engine.many(some)})}
        return found

    def _pass_on(self, connection: Connection, heirs: Mapping[int, Sequence[Row[Any]]]) -> None:
        """Make the first of those that shared a cancelled run the one that the others share and wait for.

        Parameters:
            heirs: by the cancelled run, which is all that they wait for.
        """
        firsts: dict[int, int] = {}
        waiting: list[dict[str, Any]] = []
        for parent, rows in heirs.items():
            first, *others = sorted(rows, key=lambda row: (row.paused is not None, row.run))
            firsts[parent] = first.run
            edge = {"parent": first.run, "parent_id": first.job_id, "policy": Policy.SHARE.value}
            waiting += ({"child": row.run, **edge} for row in others)
        self._forget(connection, [row["child"] for row in waiting])
        self._insert(connection, waiting)
        self._flights.pass_on(connection, firsts)

    def _forget(self, connection: Connection, children: Collection[int]) -> None:
        """Take away all that these runs, which end, wait for."""
        engine = self._database.engine
        for some in parts(sorted(children)):
            connection.execute(_forget(engine), {"children": engine.many(some)})

    def _cut(self, connection: Connection, parents: Collection[int]) -> None:
        """Take away what others wait for as far as it has ended; this transaction holds all who do."""
        engine = self._database.engine
        for some in parts(sorted(parents)):
            connection.execute(_cut(engine), {"parents": engine.many(some)})

    def _end(
        self, connection: Connection, fates: Mapping[int, Fate], held: Mapping[int, Row[Any]] | None = None
    ) -> list[Counted]:
        """Move runs to the history as their fates say."""
        held = self._hold(connection, fates) if held is None else held
        reused = self._reused(connection, {fate.shares for fate in fates.values() if fate.shares is not None})
        for some in parts(sorted(fates)):
            ended = [_ended(run, fates[run], reused) for run in some]
            quiet = not any(held[run].callback_url for run in some)
            move_each(self._database, connection, ended, quiet=quiet)
        return [(held[run].group_run, fate.state) for run, fate in fates.items()]

    def _reused(self, connection: Connection, runs: Collection[int]) -> dict[int, str]:
        """Return what the rows of those say that have the results of some finished runs."""
        engine, found = self._database.engine, dict[int, str]()
        for some in parts(sorted(runs)):
            rows = connection.execute(_results(engine), {"runs": engine.many(some)})
            found |= {row.run: row.reused or _told(row) for row in rows}
        if len(found) != len(runs):
            raise TryAgain  # purged meanwhile
        return found


def _told(row: Row[Any]) -> str:
    return json.dumps({"job_id": row.job_id, "run": row.run, "at": row.snapshot_at or row.started_at})


def _ended(run: int, fate: Fate, reused: Mapping[int, str]) -> Ended:
    return {
        "run": run,
        "state": fate.state.value,
        "error": fate.error,
        "error_code": fate.code,
        "source": fate.shares,
        "reused": None if fate.shares is None else reused[fate.shares],
    }


class _Edges:
    """The rows of ``jobber_dependencies`` below some runs, read once."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._engine = database.engine
        self._connection = connection
        self._below: dict[int, list[Edge]] = {}

    def around(self, runs: Collection[int]) -> set[int]:
        """Read what waits for some runs; return those of them that wait for something themselves."""
        ended, above = frozenset(runs), set[int]()
        for some in parts(sorted(ended)):
            self._below |= {run: [] for run in some}
            for is_below, *row in self._connection.execute(_around(self._engine), {"runs": self._engine.many(some)}):
                edge = Edge(*row)
                if not is_below:
                    above.add(edge.child)
                elif edge.child not in ended:
                    self._below[edge.parent].append(edge)
        return above

    def parents(self) -> list[int]:
        """Return the runs for which others wait."""
        return [run for run, edges in self._below.items() if edges]

    def __call__(self, parents: Collection[int]) -> Iterator[Edge]:
        self._read([run for run in parents if run not in self._below])
        return (edge for run in parents for edge in self._below[run])

    def read_again(self) -> None:
        """Read what may have changed."""
        self._read(list(self._below))

    def _read(self, parents: Sequence[int]) -> None:
        for some in parts(parents):
            self._below |= {run: [] for run in some}
            for row in self._connection.execute(_below(self._engine), {"runs": self._engine.many(some)}):
                self._below[row.parent].append(Edge(*row))


def _end_of(row: Row[Any]) -> Fate:
    return Fate(JobState(row.state), row.error, row.error_code)


# Rows are locked through the index of their key: to find few of few, MySQL would walk through all and lock them.
_BY_KEY = "FORCE INDEX (PRIMARY)"


@lru_cache(maxsize=8)
def _live(engine: Engine) -> Select[Any]:
    return select(jobs.c.run, jobs.c.job_id).where(engine.among(jobs.c.job_id, "ids"))


@lru_cache(maxsize=8)
def _keep(engine: Engine) -> Select[Any]:
    """The lock that a submission takes on live parents: they may start, be put back, be looked at; they cannot end."""
    rows = select(jobs.c.run).with_hint(jobs, _BY_KEY, "mysql").where(engine.among(jobs.c.run, "runs"))
    return rows.order_by(jobs.c.run).with_for_update(read=True, key_share=True)


@lru_cache(maxsize=8)
def _lock(engine: Engine) -> Select[Any]:
    wanted = (jobs.c[name] for name in ("run", "job_id", "group_run", "fingerprint", "paused", "callback_url"))
    rows = select(*wanted).with_hint(jobs, _BY_KEY, "mysql").where(engine.among(jobs.c.run, "runs"))
    return rows.order_by(jobs.c.run).with_for_update()


@lru_cache(maxsize=8)
def _newest(engine: Engine) -> Select[Any]:
    named = engine.among(finished_jobs.c.job_id, "ids")
    newest = select(func.max(finished_jobs.c.run)).where(named).group_by(finished_jobs.c.job_id)
    return _END.where(finished_jobs.c.run.in_(newest))


@lru_cache(maxsize=8)
def _ends(engine: Engine) -> Select[Any]:
    return _END.where(engine.among(finished_jobs.c.run, "runs"))


@lru_cache(maxsize=8)
def _results(engine: Engine) -> Select[Any]:
    told = (finished_jobs.c[name] for name in ("run", "job_id", "snapshot_at", "started_at", "reused"))
    return select(*told).where(engine.among(finished_jobs.c.run, "runs"))


_END = select(*(finished_jobs.c[name] for name in ("run", "job_id", "state", "error", "error_code")))
_EDGE = tuple(dependencies.c[name] for name in Edge._fields)


@lru_cache(maxsize=8)
def _around(engine: Engine) -> Any:
    above = select(literal(0), *_EDGE).where(engine.among(dependencies.c.child, "runs"))
    return select(literal(1), *_EDGE).where(engine.among(dependencies.c.parent, "runs")).union_all(above)


@lru_cache(maxsize=8)
def _below(engine: Engine) -> Select[Any]:
    return select(*_EDGE).where(engine.among(dependencies.c.parent, "runs"))


@lru_cache(maxsize=8)
def _forget(engine: Engine) -> Delete:
    return delete(dependencies).where(engine.among(dependencies.c.child, "children"))


@lru_cache(maxsize=8)
def _cut(engine: Engine) -> Delete:
    return delete(dependencies).where(engine.among(dependencies.c.parent, "parents"))
