"""Which jobs run next: the one place where priority, turns, age, pauses, limits and rates are decided.

One transaction. It locks the row of ``dispatch`` in a statement of its own, so that all that follows sees what earlier
claims committed; counts what runs; takes the open lanes of the worker's queues in the order in which they are served;
merges their first jobs; and starts the chosen ones. Limits can only be reached through here, one claim at a time, so
none is ever exceeded.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from jobber.jobs import Job
from jobber.store.database import Database, TryAgain
from jobber.store.gates import GateBook
from jobber.store.rates import spent
from jobber.store.records import job_of
from jobber.store.schema import EMPTY
from jobber.store.starting import Decision, Starter
from jobber.store.surveying import Lane, Ready, Survey, read, surveys
from jobber.store.turns import Place


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
        self._starter = Starter(database)

    def claim(
        self, worker: int, *, queues: Sequence[str], tasks: Collection[str], databases: Collection[str], limit: int
    ) -> Claim:
        """Start up to ``limit`` jobs on ``worker``.

        A job whose row somebody else holds, to cancel it or to let another one wait for it, is passed over for the
        moment, and its lane with it: all claims would wait with this one. Where nothing else can run, the row is waited
        for before the turn to claim is.

        Raises:
            Fenced: the worker was declared dead, or never registered.
            StateUnavailable: the state database cannot be reached, or a job is held for seconds.
        """
        in_turn = self._in_turn(worker, queues)
        passed_over: dict[int, int] = {}  # runs by lane
        wanted: list[int] = []

        def work(connection: Connection) -> Claim:
            if wanted:
                self._starter.wait_for(connection, wanted.pop())
            entry = self._starter.enter(connection, worker)
            gates = self._gates.at(connection, entry.version)
            served = {"queue": queues, "task": tasks, "db": databases}
            # One more than can be taken says whether there is more.
            seen = surveys(self._database, connection, gates, worker=worker, served=served, count=limit + 1)
            for found in seen:
                choice = _Choice(self._database, connection, found, limit, entry.turn, passed_over)
                chosen = choice.choose(in_turn)
                more = frozenset(queue for queue in in_turn if choice.has_more(queue))
                if not choice.short:
                    break
            if passed_over and not chosen:
                wanted.append(next(iter(passed_over.values())))
                passed_over.clear()
                raise TryAgain
            decision = Decision(
                chosen,
                heads=choice.raised_heads(),
                served={lane.tenant: found.turns.served[lane.tenant] for lane, _ in chosen} if gates.tenants else {},
                turn=choice.turn,
                spent=spent(found.usage.rates, found.usage.starts),
            )
            started = self._starter.start(connection, worker, entry.name, decision)
            held = [(lane, run) for lane, run in chosen if run not in started]
            if held and not started:
                passed_over.update({lane.id: run for lane, run in held})
                raise TryAgain
            more |= {lane.queue for lane, _ in held}
            return Claim(tuple(job_of(started[run]) for _, run in chosen if run in started), more)

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
class _Line:
    """The lanes of one tenant in one queue, by the lower bounds of their next jobs: a heap."""

    fronts: list[tuple[int, int, _Front]] = field(default_factory=list)

    @property
    def bound(self) -> int:
        return self.fronts[0][0]

    def put(self, front: _Front) -> None:
        heapq.heappush(self.fronts, (front.bound, front.lane.id, front))


#: The lines of one queue, by the lower bounds of the places of their next jobs.
_Lines = list[tuple[Place, str, _Line]]


@dataclass(slots=True)
class _Choice:
    """Merges the first ready jobs of the lanes of each queue, reading as few lanes as it can.

    All bounds only ever grow, while jobs are taken too: so whatever is first, and is as the heap says, is next.
    """

    database: Database
    connection: Connection
    found: Survey
    limit: int
    turn: int  # jobs of tenants that were started so far
    passed_over: Collection[int]  # lanes that are left alone
    fronts: list[_Front] = field(default_factory=list)  # those that were read
    heaps: dict[str, _Lines] = field(default_factory=dict)
    suspect: bool = False  # whether the worker holds a suspect already
    short: bool = False  # whether more lanes have to be seen to say what is next

    def choose(self, queues: Sequence[str]) -> list[tuple[Lane, int]]:
        """Return up to ``limit`` lanes and runs; the queues take turns."""
        self.suspect = self.found.suspect
        lines: dict[tuple[str, str], _Line] = {}
        for lane in self.found.lanes:
            if lane.id not in self.passed_over:
                front = _Front(lane)
                if lane.ready is not None:
                    self._note(front, lane.ready)
                lines.setdefault((lane.queue, lane.tenant), _Line()).put(front)
        for (queue, tenant), line in lines.items():
            place = self.found.turns.place(tenant, line.bound)
            heapq.heappush(self.heaps.setdefault(queue, []), (place, tenant, line))
        chosen: list[tuple[Lane, int]] = []
        turns = deque(queue for queue in queues if queue in self.heaps)
        while turns and len(chosen) < self.limit:
            queue = turns.popleft()
            first = self.next_in(queue)
            if first is not None:
                chosen.append((first.lane, self._take(first)))
                turns.append(queue)
        return chosen

    def has_more(self, queue: str) -> bool:
        """Whether another job of ``queue`` could run now, whichever is next."""
        known = (front for front in self.fronts if front.lane.queue == queue and front.taken < len(front.ready))
        return any(self._open(front.lane) for front in known) or self.next_in(queue) is not None

    def next_in(self, queue: str) -> _Front | None:
        """Return the lane whose first job is next in ``queue``, None if nothing in it can run, or it is not seen."""
        heap = self.heaps.get(queue, [])
        unseen = self.found.unseen.get(queue)
        while heap:
            place, tenant, line = heap[0]
            if not line.fronts:
                heapq.heappop(heap)
                continue
            now = self.found.turns.place(tenant, line.bound)
            _, _, front = line.fronts[0]
            if now != place:
                heapq.heapreplace(heap, (now, tenant, line))
            elif not self._open(front.lane) or front.bound == EMPTY:
                # It opens no more: within a claim, usage only grows.
                heapq.heappop(line.fronts)
            elif not front.known:
                self._read(heap)
            elif front.bound != line.bound:
                heapq.heapreplace(line.fronts, (front.bound, front.lane.id, front))
            elif unseen is not None and place >= unseen:
                break
            else:
                return front
        self.short = self.short or unseen is not None
        return None

    def raised_heads(self) -> list[tuple[Lane, int]]:
        """Return the lanes whose lower bound is known better now."""
        return [(front.lane, head) for front in self.fronts if (head := front.head()) != front.lane.head]

    def _open(self, lane: Lane) -> bool:
        # No worker runs two suspects beside each other: one that kills its process takes no other with it.
        return self.found.usage.free(lane) and not (lane.suspect and self.suspect)

    def _take(self, front: _Front) -> int:
        run = front.ready[front.taken].run
        front.taken += 1
        self.turn += 1
        self.found.usage.start(front.lane)
        self.found.turns.serve(front.lane.tenant, self.turn)
        self.suspect = self.suspect or front.lane.suspect
        return run

    def _read(self, heap: _Lines) -> None:
        """Read the first unread lane of ``heap``, and what may be next, as far as it fits into a round trip."""
        size = self.database.engine.lanes_at_once(self.limit)
        # The other queues will be asked, too: who claims also says where more could run.
        firsts = [heap, *(other for other in self.heaps.values() if other is not heap)]
        nearest = [line.fronts[0] for lines in firsts for _, _, line in lines[:1] if line.fronts]
        if size > len(nearest):
            nearest += [line.fronts[0] for _, _, line in heapq.nsmallest(size // 2, heap)[1:] if line.fronts]
            nearest += heapq.nsmallest(size - len(nearest), heap[0][2].fronts)[1:]
        fronts = [front for _, _, front in nearest if not front.known and self._open(front.lane)]
        ready = read(self.database, self.connection, [front.lane for front in fronts], self.limit + 1)
        for front in fronts:
            self._note(front, ready[front.lane.id])

    def _note(self, front: _Front, ready: Sequence[Ready]) -> None:
        """Note that of a lane ``limit`` + 1 ready jobs at most were read, and that these are all that there are."""
        front.known, front.ready, front.whole = True, ready, len(ready) <= self.limit
        self.fronts.append(front)
