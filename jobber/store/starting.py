"""What a claim writes: the dispatch lock, the jobs that start, their slots, the heads of their lanes.

Where there are tenants or rates, also whose turn it was, and what is left of the rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    case,
    cast,
    exists,
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
from jobber.store.exchange import Answer, Request
from jobber.store.outbox import Outbox, copying
from jobber.store.rates import SPEND, Rate, spent
from jobber.store.schema import RUN_COLUMNS, dispatch, jobs, lanes, rates, running, tenants, workers
from jobber.store.surveying import Lane

#: By run, what is in the rows of jobs that were started.
Started = dict[int, Mapping[str, Any]]


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
        rates: of the databases with a rate on which any of them starts.
    """

    chosen: Sequence[tuple[Lane, int]]
    heads: Sequence[tuple[Lane, int]] = ()
    served: Mapping[str, int] = field(default_factory=dict)
    turn: int = 0
    rates: Mapping[str, Rate] = field(default_factory=dict)


class Starter:
    """Locks before a claim chooses, and writes down what it chose."""

    def __init__(self, database: Database) -> None:
        engine = self._engine = database.engine
        self._exchange = database.exchange
        self._told = database.events
        self._outbox = Outbox(database)
        chosen = engine.among(jobs.c.run, "runs")
        ready = select(*_STARTED, engine.now.label("now")).where(chosen, _READY)
        self._take = ready.with_for_update(key_share=True, skip_locked=True)
        self._start_some = update(jobs).where(chosen).values(_started(bindparam("at")))
        self._free = select(lanes.c.id).where(engine.among(lanes.c.id, "lanes")).with_for_update(skip_locked=True)
        self._serve = engine.upsert(tenants, {"tenant": bindparam("of_tenant")}, {"served": bindparam("at_turn")})

    @staticmethod
    def entering(worker: int) -> Request:
        """Return what locks the dispatch row; ``entered`` reads the answer."""
        return Request(_ENTER, {"worker": worker})

    @staticmethod
    def entered(answer: Answer) -> Entry:
        """Return what the dispatch row says.

        Raises:
            Fenced: the worker was declared dead, or never registered.
        """
        ((version, turn, name),) = answer.rows
        if name is None:
            raise Fenced("this worker was declared dead; it must register again")
        return Entry(version, turn, name)

    def wait_for(self, connection: Connection, run: int) -> None:
        """Wait until nobody else holds a run, and hold it. Before ``entering``: no other claim waits along."""
        connection.execute(_HOLD, {"of_run": run})

    def start(self, connection: Connection, worker: int, name: str, decision: Decision) -> Started:
        """Start the chosen runs, note them as running, raise the heads; return what is in the rows of the runs now.

        Waits for nobody: a run that somebody else holds right now is not started, nor is one that was cancelled since
        the look. On a server it ends the transaction.
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
        if decision.rates:
            found = decision.rates.values()
            parameters |= {
                "dbs": list(decision.rates),
                "bases": [rate.full_since for rate in found],
                "intervals": [rate.interval for rate in found],
                "nows": [rate.now for rate in found],
            }
        statement = _start_at_once(self._engine, bool(decision.served), bool(decision.rates), self._told)
        (answer,) = self._exchange(connection, Request(statement, parameters), commit=True)
        return {row["run"]: row for row in answer.mappings()}

    def _start_in_steps(self, connection: Connection, worker: int, name: str, decision: Decision) -> Started:
        many = self._engine.many
        taking = Request(self._take, {"runs": many([run for _, run in decision.chosen])})
        # A head that is too low is never wrong, so a claim, which holds everybody up, waits for no lane: one that a
        # submission holds right now is about to change its version anyway.
        freeing = Request(self._free, {"lanes": many([lane.id for lane, _ in decision.heads])})
        taken, free = self._exchange(connection, taking, freeing)
        runs = {row["run"]: row for row in taken.mappings()}
        started: Started = {}
        requests: list[Request] = []
        if runs:
            now = next(iter(runs.values()))["now"]
            requests.append(Request(self._start_some, {"runs": many(list(runs)), "by": name, "at": now}))
            for run, row in runs.items():
                started[run] = {**row, **_NEWS, "worker": name, "started_at": now, "attempt": row["attempt"] + 1}
                slot = {"of_run": run, "of_attempt": row["attempt"] + 1, "holder": worker, "in_lane": row["lane"]}
                requests.append(Request(_NOTE, slot))
            tenants_served = {row["tenant"] for row in runs.values()}
            served = [one for one in decision.served.items() if one[0] in tenants_served]
            requests += [Request(self._serve, {"of_tenant": tenant, "at_turn": turn}) for tenant, turn in served]
            requests += [Request(_TURN, {"turn": decision.turn})] if served else []
            starts = Counter(row["db"] for row in runs.values() if row["db"] in decision.rates)
            requests += [Request(SPEND, row) for row in spent(decision.rates, starts)]
            requests += self._outbox.noting(list(started), "started")
        held = {lane.id for lane, run in decision.chosen if run not in started}
        open_to_us = {lane_id for (lane_id,) in free.rows} - held
        heads = [(lane, head) for lane, head in decision.heads if lane.id in open_to_us]
        requests += [Request(_RAISE, {"lane": lane.id, "seen": lane.version, "to": head}) for lane, head in heads]
        self._exchange(connection, *requests, commit=True)
        return started


_NAME = select(workers.c.name).where(workers.c.id == bindparam("worker"), ~workers.c.dead).scalar_subquery()
#: Of a subquery nothing is locked.
_ENTER = select(dispatch.c.gates_version, dispatch.c.turn, _NAME).with_for_update()
_HOLD = select(jobs.c.run).where(jobs.c.run == bindparam("of_run")).with_for_update(key_share=True)
_READY = jobs.c.ord.is_not(None)
_STARTED = (*(jobs.c[column] for column in RUN_COLUMNS), jobs.c.lane)
_NOTE = insert(running).values(
    run=bindparam("of_run"),
    attempt=bindparam("of_attempt"),
    worker=bindparam("holder"),
    lane=bindparam("in_lane"),
    phase="",
    rows=0,
    bytes=0,
)
_TURN = update(dispatch).values(turn=bindparam("turn"))
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
    # It waits for no run: to wait here is to make all claims wait.
    free_runs = select(jobs.c.run).where(jobs.c.run == func.any(array("runs")), _READY)
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
    ids = array("lanes")
    raised = (
        func.unnest(ids, array("versions"), array("heads"))
        .table_valued("id", "version", "head", name="raised")
        .render_derived()
    )
    # The next job of a lane of whose runs one was not to be had is that run.
    homes = func.unnest(array("runs"), array("homes"))
    home = homes.table_valued("run", "lane", name="home").render_derived()
    held = select(home.c.lane).where(home.c.run.not_in(select(started.c.run)))
    # Nor does it wait for a lane (see Starter._start_in_steps).
    free = select(lanes.c.id).where(lanes.c.id == func.any(ids)).with_for_update(skip_locked=True).cte("free")
    raising = (
        update(lanes)
        .where(lanes.c.id == raised.c.id, lanes.c.version == raised.c.version, lanes.c.id.in_(select(free.c.id)))
        .where(lanes.c.id.not_in(held))
        .values(head=raised.c.head)
    )
    parts = [noted.cte("noted"), raising.cte("raising")]
    # What did not start costs no turn and no rate.
    if in_turn:
        any_started = exists(select(started.c.run))
        parts += [_serve(started).cte("serving"), _TURN.where(any_started).cte("turned")]
    if rated:
        parts.append(_spend(started).cte("spending"))
    if told:
        parts.append(copying(started, cast(literal("started"), Text), engine.now).cte("told"))
    return select(started).add_cte(*parts)


def _serve(started: CTE) -> Any:
    served = func.unnest(array("tenants", Text()), array("served")).table_valued("tenant", "served", name="turns")
    turns = served.render_derived()
    those = select(turns).where(turns.c.tenant.in_(select(started.c.tenant)))
    row = postgresql.insert(tenants).from_select(["tenant", "served"], those)
    return row.on_conflict_do_update(index_elements=["tenant"], set_={"served": row.excluded.served})


def _spend(started: CTE) -> Any:
    """Return the statement that does as ``rates.spent`` says, of those that did start."""
    arrays = array("dbs", Text()), array("bases"), array("intervals"), array("nows")
    found = func.unnest(*arrays).table_valued("db", "base", "interval", "now", name="found").render_derived()
    starts = select(started.c.db, func.count().label("count")).group_by(started.c.db).subquery("starts")
    next_at = found.c.base + starts.c.count * found.c.interval
    short = case((next_at > found.c.now, next_at), else_=rates.c.short_until)
    of_db = rates.c.db == found.c.db, rates.c.db == starts.c.db
    return update(rates).where(*of_db).values(next_at=next_at, short_until=short)


def array(name: str, of: Any = None) -> ColumnElement[Any]:
    """Return an array parameter whose length PostgreSQL does not see when it plans.

    It takes ten elements for granted then, whether it plans for this run or for all to come, and so is content with one
    plan for all: making one for each run costs a fifth of a claim.
    """
    kind = ARRAY(of or BigInteger())
    return cast(select(bindparam(name, type_=kind)).scalar_subquery(), kind)
