"""What a claim writes: the dispatch lock, the jobs that start, their slots, the heads of their lanes.

Where there are tenants or rates, also whose turn it was, and what is left of the rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    RowMapping,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.errors import Fenced
from jobber.jobs import JobState
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.outbox import Outbox, copying
from jobber.store.rates import SPEND
from jobber.store.schema import RUN_COLUMNS, dispatch, jobs, lanes, rates, running, tenants, workers
from jobber.store.surveying import Lane

#: By run, what is in the rows of jobs that were started.
Started = dict[int, RowMapping | Mapping[str, Any]]


class Entry(NamedTuple):
    """What a claim finds when it has the dispatch lock.

    Parameters:
        version: of the gates.
        turn: jobs of tenants that were started so far.
        name: of the worker.
    """

    version: int
    turn: int
    name: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a claim has decided.

    Parameters:
        chosen: the runs to start.
        heads: better lower bounds of lanes.
        served: the turn in which each tenant was last served; empty where there are no tenants.
        turn: the last one that was taken.
        spent: rows of ``SPEND``.
    """

    chosen: Sequence[tuple[Lane, int]]
    heads: Sequence[tuple[Lane, int]] = ()
    served: Mapping[str, int] = field(default_factory=dict)
    turn: int = 0
    spent: Sequence[Mapping[str, Any]] = ()


class Starter:
    """Locks before a claim chooses, and writes down what it chose."""

    def __init__(self, database: Database) -> None:
        engine = self._engine = database.engine
        self._told = database.events
        self._outbox = Outbox(database)
        chosen = engine.among(jobs.c.run, "runs")
        ready = select(*_STARTED, engine.now.label("now")).where(chosen, _READY)
        self._take = ready.with_for_update(key_share=True, skip_locked=True)
        self._start_some = update(jobs).where(chosen).values(_started(bindparam("at")))
        self._free = select(lanes.c.id).where(engine.among(lanes.c.id, "lanes")).with_for_update(skip_locked=True)

    def enter(self, connection: Connection, worker: int) -> Entry:
        """Lock the dispatch row.

        Raises:
            Fenced: the worker was declared dead, or never registered.
        """
        version, turn, name = connection.execute(_ENTER, {"worker": worker}).one()
        if name is None:
            raise Fenced("this worker was declared dead; it must register again")
        return Entry(version, turn, name)

    def wait_for(self, connection: Connection, run: int) -> None:
        """Wait until nobody else holds a run, and hold it. Before ``enter``: then nobody waits with who waits here."""
        connection.execute(_HOLD, {"of_run": run})

    def start(self, connection: Connection, worker: int, name: str, decision: Decision) -> Started:
        """Start the chosen runs, note them as running, raise the heads; return what is in the rows of the runs now.

        Waits for nobody: a run that somebody else holds right now is not started, nor is one that was cancelled since
        the look.
        """
        chosen, heads = decision.chosen, decision.heads
        if not chosen and not heads:
            return {}
        if not self._engine.arrays:
            return self._start_in_steps(connection, worker, name, decision)
        parameters = {
            "runs": [run for _, run in chosen],
            "homes": [lane.id for lane, _ in chosen],
            "by": name,
            "holder": worker,
            "lanes": [lane.id for lane, _ in heads],
            "versions": [lane.version for lane, _ in heads],
            "heads": [head for _, head in heads],
        }
        if decision.served:
            parameters |= {
                "tenants": list(decision.served),
                "served": list(decision.served.values()),
                "turn": decision.turn,
            }
        if decision.spent:
            parameters |= {f"{key}s": [row[key] for row in decision.spent] for key in ("of_db", "next", "short")}
        statement = _start_at_once(self._engine, bool(decision.served), bool(decision.spent), self._told)
        rows: Sequence[Any] = connection.execute(statement, parameters).all()
        return {row.run: row._mapping for row in rows}

    def _start_in_steps(self, connection: Connection, worker: int, name: str, decision: Decision) -> Started:
        runs = [run for _, run in decision.chosen]
        free: Sequence[Any] = []
        if runs:
            free = connection.execute(self._take, {"runs": self._engine.many(runs)}).all()
        started: Started = {}
        if free:
            now = free[0].now
            which = {"runs": self._engine.many([row.run for row in free]), "by": name, "at": now}
            connection.execute(self._start_some, which)
            news = {**_NEWS, "worker": name, "started_at": now}
            started = {row.run: {**row._mapping, **news, "attempt": row.attempt + 1} for row in free}
            slots = [
                {**_IDLE, "run": run, "attempt": row["attempt"], "worker": worker, "lane": row["lane"]}
                for run, row in started.items()
            ]
            connection.execute(_NOTE, slots)
            if decision.served:
                for tenant, turn in decision.served.items():
                    connection.execute(self._engine.upsert(tenants, {"tenant": tenant}, {"served": turn}))
                connection.execute(_TURN, {"turn": decision.turn})
            if decision.spent:
                connection.execute(SPEND, decision.spent)
            self._outbox.note(connection, list(started), "started")
        held = {lane.id for lane, run in decision.chosen if run not in started}
        self._raise(connection, [(lane, head) for lane, head in decision.heads if lane.id not in held])
        return started

    def _raise(self, connection: Connection, heads: Sequence[tuple[Lane, int]]) -> None:
        # A head that is too low is never wrong, so a claim, which holds everybody up, waits for no lane: one that a
        # submission holds right now is about to change its version anyway.
        if heads and self._engine.row_locks:
            wanted = {"lanes": self._engine.many([lane.id for lane, _ in heads])}
            free = set(connection.execute(self._free, wanted).scalars())
            heads = [(lane, head) for lane, head in heads if lane.id in free]
        if heads:
            rows = [{"lane": lane.id, "seen": lane.version, "to": head} for lane, head in heads]
            connection.execute(_RAISE, rows)


_NAME = select(workers.c.name).where(workers.c.id == bindparam("worker"), ~workers.c.dead).scalar_subquery()
#: Of a subquery nothing is locked.
_ENTER = select(dispatch.c.gates_version, dispatch.c.turn, _NAME).with_for_update()
_HOLD = select(jobs.c.run).where(jobs.c.run == bindparam("of_run")).with_for_update(key_share=True)
_READY = jobs.c.ord.is_not(None)
_STARTED = (*(jobs.c[column] for column in RUN_COLUMNS), jobs.c.lane)
_NOTE = insert(running)
_TURN = update(dispatch).values(turn=bindparam("turn"))
_IDLE = {"phase": "", "rows": 0, "bytes": 0}
_RAISE = (
    update(lanes)
    .where(lanes.c.id == bindparam("lane"), lanes.c.version == bindparam("seen"))
    .values(head=bindparam("to"))
)


#: What starting sets, beside the number of the attempt, the name of the worker, and the time.
_NEWS = {"state": JobState.STARTED.value, "ord": None, "rows_so_far": 0, "bytes_so_far": 0}


def _started(now: ColumnElement[int]) -> dict[str, Any]:
    """Return what starting sets, in the name of the worker ``:by``."""
    return {**_NEWS, "attempt": jobs.c.attempt + 1, "worker": bindparam("by"), "started_at": now}


@lru_cache(maxsize=8)
def _start_at_once(engine: Engine, in_turn: bool, rated: bool, told: bool) -> Any:
    """Return the statement that does all that a claim writes: one round trip while the dispatch lock is held.

    Parameters:
        in_turn, rated: whether tenants were served, and rates spent.
        told: whether the broker is to be told.
    """
    numbers = ARRAY(BigInteger)
    # It waits for no run: to wait here is to make all claims wait.
    free_runs = select(jobs.c.run).where(engine.among(jobs.c.run, "runs"), _READY)
    taken = free_runs.with_for_update(key_share=True, skip_locked=True).cte("taken")
    starting = update(jobs).where(jobs.c.run == taken.c.run).values(_started(engine.now))
    started = starting.returning(*_STARTED).cte("started")
    noted = insert(running).from_select(
        ["run", "attempt", "worker", "lane", "phase", "rows", "bytes"],
        select(
            started.c.run,
            started.c.attempt,
            cast(bindparam("holder"), BigInteger),
            started.c.lane,
            cast(literal(""), Text),
            literal(0),
            literal(0),
        ),
    )
    ids = bindparam("lanes", type_=numbers)
    raised = (
        func.unnest(ids, bindparam("versions", type_=numbers), bindparam("heads", type_=numbers))
        .table_valued("id", "version", "head", name="raised")
        .render_derived()
    )
    # The next job of a lane of whose runs one was not to be had is that run.
    homes = func.unnest(bindparam("runs", type_=numbers), bindparam("homes", type_=numbers))
    home = homes.table_valued("run", "lane", name="home").render_derived()
    held = select(home.c.lane).where(home.c.run.not_in(select(started.c.run)))
    # Nor does it wait for a lane (see Starter._raise).
    free = select(lanes.c.id).where(lanes.c.id == func.any(ids)).with_for_update(skip_locked=True).cte("free")
    raising = (
        update(lanes)
        .where(lanes.c.id == raised.c.id, lanes.c.version == raised.c.version, lanes.c.id.in_(select(free.c.id)))
        .where(lanes.c.id.not_in(held))
        .values(head=raised.c.head)
    )
    parts = [noted.cte("noted"), raising.cte("raising")]
    if in_turn:
        parts += [_serve().cte("serving"), _TURN.cte("turned")]
    if rated:
        parts.append(_spend().cte("spending"))
    if told:
        parts.append(copying(started, cast(literal("started"), Text), engine.now).cte("told"))
    return select(started).add_cte(*parts)


def _serve() -> Any:
    served = func.unnest(_array("tenants", Text()), _array("served")).table_valued("tenant", "served", name="turns")
    row = postgresql.insert(tenants).from_select(["tenant", "served"], select(served.render_derived()))
    return row.on_conflict_do_update(index_elements=["tenant"], set_={"served": row.excluded.served})


def _spend() -> Any:
    arrays = _array("of_dbs", Text()), _array("nexts"), _array("shorts")
    spent = func.unnest(*arrays).table_valued("db", "next_at", "short", name="spent").render_derived()
    values = {"next_at": spent.c.next_at, "short_until": func.coalesce(spent.c.short, rates.c.short_until)}
    return update(rates).where(rates.c.db == spent.c.db).values(values)


def _array(name: str, of: Any = None) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(of or BigInteger()))
