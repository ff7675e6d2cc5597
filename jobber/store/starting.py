"""What a claim writes: the dispatch lock, the jobs that start, their slots, the heads of their lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    RowMapping,
    Text,
    and_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from jobber.errors import Fenced
from jobber.jobs import JobState
from jobber.store.database import Database, TryAgain
from jobber.store.engines import Engine
from jobber.store.returning import Change
from jobber.store.schema import RUN_COLUMNS, dispatch, jobs, lanes, running, workers
from jobber.store.surveying import Lane


class Starter:
    """Locks before a claim chooses, and writes down what it chose."""

    def __init__(self, database: Database) -> None:
        engine = self._engine = database.engine
        self._start_all = _start_at_once(engine) if engine.arrays else None
        chosen = engine.among(jobs.c.run, "runs")
        self._start_some = Change(jobs, chosen, _started(engine), _STARTED, still=_READY)
        self._free = select(lanes.c.id).where(engine.among(lanes.c.id, "lanes")).with_for_update(skip_locked=True)

    def enter(self, connection: Connection, worker: int) -> tuple[int, str]:
        """Lock the dispatch row; return the version of the gates and the worker's name.

        Raises:
            Fenced: the worker was declared dead, or never registered.
        """
        who = {"worker": worker}
        if self._engine.locks_one_table:
            version, name = connection.execute(_ENTER, who).one()
        else:
            version = connection.execute(_LOCK).scalar_one()
            name = connection.execute(_NAME, who).scalar_one_or_none()
        if name is None:
            raise Fenced("this worker was declared dead; it must register again")
        return version, name

    def start(
        self,
        connection: Connection,
        worker: int,
        name: str,
        chosen: Sequence[tuple[Lane, int]],
        heads: Sequence[tuple[Lane, int]],
    ) -> dict[int, RowMapping]:
        """Start the chosen runs, note them as running, raise the heads; return the rows of the runs.

        Raises:
            TryAgain: one of them was cancelled between the look and the start.
        """
        if not chosen and not heads:
            return {}
        if self._start_all is not None:
            parameters = {
                "runs": [run for _, run in chosen],
                "by": name,
                "holder": worker,
                "lanes": [lane.id for lane, _ in heads],
                "versions": [lane.version for lane, _ in heads],
                "heads": [head for _, head in heads],
            }
            rows: Sequence[Row[Any]] = connection.execute(self._start_all, parameters).all()
        else:
            rows = self._start_in_steps(connection, worker, name, chosen, heads)
        if len(rows) != len(chosen):
            raise TryAgain
        return {row.run: row._mapping for row in rows}

    def _start_in_steps(
        self,
        connection: Connection,
        worker: int,
        name: str,
        chosen: Sequence[tuple[Lane, int]],
        heads: Sequence[tuple[Lane, int]],
    ) -> Sequence[Row[Any]]:
        rows: Sequence[Row[Any]] = []
        if chosen:
            which = {"runs": self._engine.many([run for _, run in chosen]), "by": name}
            rows = self._start_some(self._engine, connection, which)
        if rows:
            slots = [
                {**_IDLE, "run": row.run, "attempt": row.attempt, "worker": worker, "lane": row.lane} for row in rows
            ]
            connection.execute(_NOTE, slots)
        self._raise(connection, heads)
        return rows

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


_ENTER = (
    select(dispatch.c.gates_version, workers.c.name)
    .select_from(dispatch.outerjoin(workers, and_(workers.c.id == bindparam("worker"), ~workers.c.dead)))
    .with_for_update(of=dispatch)
)
_LOCK = select(dispatch.c.gates_version).with_for_update()
_NAME = select(workers.c.name).where(workers.c.id == bindparam("worker"), ~workers.c.dead)
_READY = jobs.c.ord.is_not(None)
_STARTED = (*(jobs.c[column] for column in RUN_COLUMNS), jobs.c.lane)
_NOTE = insert(running)
_IDLE = {"phase": "", "rows": 0, "bytes": 0}
_RAISE = (
    update(lanes)
    .where(lanes.c.id == bindparam("lane"), lanes.c.version == bindparam("seen"))
    .values(head=bindparam("to"))
)


def _started(engine: Engine) -> dict[str, Any]:
    """Return what starting sets, in the name of the worker ``:by``."""
    return {
        "state": JobState.STARTED.value,
        "attempt": jobs.c.attempt + 1,
        "ord": None,
        "worker": bindparam("by"),
        "started_at": engine.now,
        "rows_so_far": 0,
        "bytes_so_far": 0,
    }


def _start_at_once(engine: Engine) -> Any:
    """Return the statement that does all that a claim writes: one round trip while the dispatch lock is held."""
    numbers = ARRAY(BigInteger)
    chosen = engine.among(jobs.c.run, "runs")
    started = update(jobs).where(chosen, _READY).values(_started(engine)).returning(*_STARTED).cte("started")
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
    # It waits for no lane (see Starter._raise).
    free = select(lanes.c.id).where(lanes.c.id == func.any(ids)).with_for_update(skip_locked=True).cte("free")
    raising = (
        update(lanes)
        .where(lanes.c.id == raised.c.id, lanes.c.version == raised.c.version, lanes.c.id.in_(select(free.c.id)))
        .values(head=raised.c.head)
    )
    return select(started).add_cte(noted.cte("noted"), raising.cte("raising"))
