"""Which jobs run next: the one place where priority, age, pauses and limits are decided.

One transaction. It locks the row of ``dispatch`` in a statement of its own, so that all that follows sees what earlier
claims committed; counts what runs; takes the open lanes of the worker's queues by head; merges their first jobs; and
starts the chosen ones. Limits can only be reached through here, one claim at a time, so none is ever exceeded.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
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
from jobber.jobs import Job, JobState
from jobber.store.engine import Database, TryAgain, among, clock
from jobber.store.gates import GateBook, Usage
from jobber.store.lanes import Lane, Ready, read, survey, usage_of
from jobber.store.records import job_of
from jobber.store.schema import EMPTY, RUN_COLUMNS, dispatch, jobs, lanes, running, workers

#: Lanes that one statement reads on PostgreSQL: a lane costs some 10 µs, a round trip 200 µs and more.
BATCH = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker got.

    Parameters:
        jobs: now STARTED, in the order in which they were chosen.
        more: served queues in which more could run right now: their wake-up should be passed on.
    """

    jobs: tuple[Job, ...]
    more: frozenset[str]


class Claimer:
    """Claims jobs; remembers which queue each worker's turn ended with."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates
        self._lock = threading.Lock()
        self._last_queue: dict[int, str] = {}
        self._start_some = _start(among(database.engine_name, jobs.c.run, "runs"), database.now)

    def claim(
        self, worker: int, *, queues: Sequence[str], tasks: Collection[str], databases: Collection[str], limit: int
    ) -> Claim:
        """Start up to ``limit`` jobs on ``worker``.

        Raises:
            Fenced: the worker was declared dead, or never registered.
            StateUnavailable: the state database cannot be reached.
        """
        in_turn = self._in_turn(worker, queues)

        def work(connection: Connection) -> Claim:
            version, name = self._enter(connection, worker)
            gates = self._gates.at(connection, version)
            found = survey(
                self._database,
                connection,
                gates,
                worker=worker,
                queues=queues,
                tasks=tasks,
                databases=databases,
            )
            choice = _Choice(self._database, connection, found, usage_of(gates, found), limit)
            chosen = choice.choose(in_turn)
            more = frozenset(queue for queue in in_turn if choice.next_in(queue) is not None)
            started = self._start(connection, worker, name, chosen, choice.raised_heads())
            if len(started) != len(chosen):
                # One of them was cancelled between the look and the start.
                raise TryAgain
            return Claim(tuple(job_of(started[run]) for _, run in chosen), more)

        claim = self._database.write(work)
        if claim.jobs:
            with self._lock:
                self._last_queue[worker] = claim.jobs[-1].queue
        return claim

    def forget(self, worker: int) -> None:
        """Drop what is remembered of a worker that is gone."""
        with self._lock:
            self._last_queue.pop(worker, None)

    def _in_turn(self, worker: int, queues: Sequence[str]) -> list[str]:
        """Return the queues so that the one after the last that was served comes first."""
        names = list(dict.fromkeys(queues))
        with self._lock:
            last = self._last_queue.get(worker)
        at = names.index(last) + 1 if last in names else 0
        return names[at:] + names[:at]

    def _enter(self, connection: Connection, worker: int) -> tuple[int, str]:
        """Lock the dispatch row; return the version of the gates and the worker's name."""
        version, name = connection.execute(_ENTER, {"worker": worker}).one()
        if name is None:
            raise Fenced("this worker was declared dead; it must register again")
        return version, name

    def _start(
        self,
        connection: Connection,
        worker: int,
        name: str,
        chosen: Sequence[tuple[Lane, int]],
        heads: Sequence[tuple[Lane, int]],
    ) -> dict[int, RowMapping]:
        """Start the chosen runs, note them as running, raise the heads; return the rows of those that were there."""
        if self._database.engine_name == "postgresql":
            if not chosen and not heads:
                return {}
            parameters = {
                "runs": [run for _, run in chosen],
                "by": name,
                "holder": worker,
                "lanes": [lane.id for lane, _ in heads],
                "versions": [lane.version for lane, _ in heads],
                "heads": [head for _, head in heads],
            }
            rows = connection.execute(_START_AT_ONCE, parameters).mappings().all()
            return {row["run"]: row for row in rows}
        started = {}
        if chosen:
            runs = self._database.many([run for _, run in chosen])
            rows = connection.execute(self._start_some, {"runs": runs, "by": name}).mappings().all()
            started = {row["run"]: row for row in rows}
            connection.execute(
                _NOTE,
                [
                    {**_IDLE, "run": row["run"], "attempt": row["attempt"], "worker": worker, "lane": row["lane"]}
                    for row in started.values()
                ],
            )
        for lane, head in heads:
            connection.execute(_RAISE, {"lane": lane.id, "seen": lane.version, "to": head})
        return started


_ENTER = (
    select(dispatch.c.gates_version, workers.c.name)
    .select_from(dispatch.outerjoin(workers, and_(workers.c.id == bindparam("worker"), ~workers.c.dead)))
    .with_for_update(of=dispatch)
)
_NOTE = insert(running)
_IDLE = {"phase": "", "rows": 0, "bytes": 0}
_RAISE = (
    update(lanes)
    .where(lanes.c.id == bindparam("lane"), lanes.c.version == bindparam("seen"))
    .values(head=bindparam("to"))
)


def _start(which: ColumnElement[bool], now: ColumnElement[int]) -> Any:
    """Return the statement that starts jobs, as long as they are ready, in the name of the worker ``:by``."""
    return (
        update(jobs)
        .where(which, jobs.c.ord.is_not(None))
        .values(
            state=JobState.STARTED.value,
            attempt=jobs.c.attempt + 1,
            ord=None,
            worker=bindparam("by"),
            started_at=now,
            rows_so_far=0,
            bytes_so_far=0,
        )
        .returning(*(jobs.c[column] for column in RUN_COLUMNS), jobs.c.lane)
    )


def _start_at_once() -> Any:
    """Return the statement that does all that a claim writes: one round trip while the dispatch lock is held."""
    numbers = ARRAY(BigInteger)
    started = _start(jobs.c.run == func.any(bindparam("runs", type_=numbers)), clock("postgresql")).cte("started")
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
    # A head that is too low is never wrong, so a claim, which holds everybody up, waits for no lane: one that a
    # submission holds right now is about to change its version anyway.
    free = select(lanes.c.id).where(lanes.c.id == func.any(ids)).with_for_update(skip_locked=True).cte("free")
    raising = (
        update(lanes)
        .where(lanes.c.id == raised.c.id, lanes.c.version == raised.c.version, lanes.c.id.in_(select(free.c.id)))
        .values(head=raised.c.head)
    )
    return select(started).add_cte(noted.cte("noted"), raising.cte("raising"))


_START_AT_ONCE = _start_at_once()


@dataclass(slots=True)
class _Front:
    """A lane in the merge of its queue: its next ready jobs once read, until then a lower bound."""

    lane: Lane
    known: bool = False  # whether it was read
    ready: Sequence[Ready] = ()
    taken: int = 0
    whole: bool = False  # whether all of its ready jobs were read

    @property
    def bound(self) -> int:
        if not self.known:
            return self.lane.head
        return self.ready[self.taken].ord if self.taken < len(self.ready) else EMPTY

    def head(self) -> int:
        """Return the lane's new lower bound."""
        if not self.known:
            return self.lane.head
        if self.taken < len(self.ready):
            return self.ready[self.taken].ord
        return EMPTY if self.whole else self.ready[-1].ord + 1


@dataclass(slots=True)
class _Choice:
    """Merges the first ready jobs of the lanes of each queue, reading as few lanes as it can."""

    database: Database
    connection: Connection
    found: Sequence[Lane]
    usage: Usage
    limit: int
    fronts: list[_Front] = field(default_factory=list)  # those that were read
    heaps: dict[str, list[tuple[int, int, _Front]]] = field(default_factory=dict)
    suspect: bool = False  # whether the worker holds a suspect already

    def choose(self, queues: Sequence[str]) -> list[tuple[Lane, int]]:
        """Return up to ``limit`` lanes and runs; the queues take turns."""
        self.suspect = any(lane.suspect and lane.mine for lane in self.found)
        for lane in self.found:
            if lane.open:
                self.heaps.setdefault(lane.queue, []).append((lane.head, lane.id, _Front(lane)))
        for heap in self.heaps.values():
            heapq.heapify(heap)
        chosen: list[tuple[Lane, int]] = []
        turns = [queue for queue in queues if queue in self.heaps]
        while turns and len(chosen) < self.limit:
            for queue in list(turns):
                first = self.next_in(queue)
                if first is None:
                    turns.remove(queue)
                elif len(chosen) < self.limit:
                    chosen.append((first.lane, self._take(first)))
        return chosen

    def next_in(self, queue: str) -> _Front | None:
        """Return the lane whose first job is next in ``queue``, None if nothing in it can run."""
        heap = self.heaps.get(queue, [])
        while heap:
            bound, _, front = heap[0]
            if not self._open(front.lane):
                # It opens no more: within a claim, usage only grows.
                heapq.heappop(heap)
            elif not front.known:
                self._read(heap)
            elif front.bound != bound:
                heapq.heapreplace(heap, (front.bound, front.lane.id, front))
            elif bound == EMPTY:
                return None
            else:
                return front
        return None

    def raised_heads(self) -> list[tuple[Lane, int]]:
        """Return the lanes whose lower bound is known better now."""
        return [(front.lane, head) for front in self.fronts if (head := front.head()) != front.lane.head]

    def _open(self, lane: Lane) -> bool:
        # No worker runs two suspects beside each other: one that kills its process takes no other with it.
        return self.usage.free(lane) and not (lane.suspect and self.suspect)

    def _take(self, front: _Front) -> int:
        run = front.ready[front.taken].run
        front.taken += 1
        self.usage.add(front.lane)
        self.suspect = self.suspect or front.lane.suspect
        return run

    def _read(self, heap: list[tuple[int, int, _Front]]) -> None:
        """Read the first unread lane of ``heap``, and on PostgreSQL the ones after it in the same round trip."""
        size = BATCH if self.database.engine_name == "postgresql" else 1
        nearest = heapq.nsmallest(size, heap) if size > 1 else heap[:1]
        fronts = [front for _, _, front in nearest if not front.known and self._open(front.lane)]
        # One more than can be taken says whether there is more.
        count = self.limit + 1
        ready = read(self.database, self.connection, [front.lane for front in fronts], count)
        for front in fronts:
            front.known, front.ready = True, ready[front.lane.id]
            front.whole = len(front.ready) < count
        self.fronts += fronts
