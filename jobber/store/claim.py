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
from typing import NamedTuple

from sqlalchemy import Connection, text

from jobber.jobs import Job
from jobber.store.database import ATTEMPTS, Database, TryAgain
from jobber.store.exchange import Request
from jobber.store.failures import Contended, translated
from jobber.store.finishing import Finisher, Success
from jobber.store.gates import Gate, GateBook, Gates
from jobber.store.records import job_of
from jobber.store.schema import EMPTY
from jobber.store.starting import Decision, Starter
from jobber.store.surveying import Lane, Look, Ready, Survey, read
from jobber.store.turns import Place


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker got.

    Parameters:
        jobs: now STARTED, in the order in which they were chosen.
        more: served queues in which more could run right now: their wake-up should be passed on.
        ended: (run, attempt) of what ended in the same transaction.
        freed: gates with a limit that those counted against.
    """

    jobs: tuple[Job, ...]
    more: frozenset[str]
    ended: frozenset[tuple[int, int]] = frozenset()
    freed: frozenset[Gate] = frozenset()


@dataclass(slots=True)
class _Ends:
    """What is to end along with a claim, and what has: also in a try that started nothing.

    Parameters:
        left: has not ended.
        ended, freed: as of ``Claim``.
    """

    left: Sequence[Success]
    ended: set[tuple[int, int]] = field(default_factory=set)
    freed: set[Gate] = field(default_factory=set)

    def note(self, ended: Sequence[Success], gates: Gates) -> None:
        """Note what a transaction has ended."""
        self.ended.update(success.key for success in ended)
        self.freed.update(gate for success in ended for gate, _ in gates.limited(success.job))
        self.left = [success for success in self.left if success.key not in self.ended]

    def apart(self) -> Apart:
        """Return what is to be raised."""
        return Apart(self.ended, self.freed)


class _Turn(NamedTuple):
    """What one transaction has done.

    Parameters:
        jobs, more: as of ``Claim``.
        ended: what ended in it.
        gates: as they were.
        held: what was chosen, and is held by somebody else.
    """

    jobs: tuple[Job, ...]
    more: frozenset[str]
    ended: Sequence[Success]
    gates: Gates
    held: Sequence[tuple[Lane, int]]


class Apart(Exception):
    """Raised where attempts cannot end in the transaction of a claim: others wait for them, or it would wait.

    Parameters:
        ended: (run, attempt) of those that did end, before that was found out.
        freed: gates with a limit that those counted against.
    """

    def __init__(self, ended: Collection[tuple[int, int]] = frozenset(), freed: Collection[Gate] = frozenset()) -> None:
        super().__init__()
        self.ended = ended
        self.freed = freed


_UNDO = Request(text("ROLLBACK"))


class Claimer:
    """Claims jobs; remembers which queue each worker's turn ended with."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates
        self._lock = threading.Lock()
        self._last_queue: dict[int, str] = {}
        self._starter = Starter(database)
        self._finisher = Finisher(database)
        self._full: frozenset[Gate] = frozenset()
        self._full_last: frozenset[Gate] = frozenset()

    def claim(
        self,
        worker: int,
        *,
        queues: Sequence[str],
        tasks: Collection[str],
        databases: Collection[str],
        limit: int,
        ends: Sequence[Success] | None = None,
    ) -> Claim:
        """Start up to ``limit`` jobs on ``worker``, one less for each of ``ends`` that does not end.

        A job whose row somebody else holds, to cancel it or to let another one wait for it, is passed over for the
        moment, and its lane with it: all claims would wait with this one. Where nothing else can run, the row is waited
        for before the turn to claim is.

        Parameters:
            ends: attempts that end in the same transaction, before it claims, unless somebody else holds them right
                now; with any, or none, no row is waited for. None where that may be.

        Raises:
            Apart: a row was to be waited for, or others wait for what is to end.
            Fenced: the worker was declared dead, or never registered.
            StateUnavailable: the state database cannot be reached, or a job is held for seconds.
        """
        ending = _Ends(ends or ())
        in_turn = self._in_turn(worker, queues)
        passed_over: dict[int, int] = {}  # runs by lane
        wanted: list[int] = []
        if not all(success.alone for success in ending.left):
            raise Apart

        # One more than can be taken says whether there is more.
        look = Look(
            self._database,
            worker=worker,
            served={"queue": queues, "task": tasks, "db": databases},
            count=limit + 1,
        )

        def work(connection: Connection) -> _Turn:
            if wanted:
                self._starter.wait_for(connection, wanted.pop())
            # The look is sent along with the question for the lock, and thus built on what was so at the last claim.
            gates, thought = self._gates.newest, self._full
            held = self._finisher.hold(connection, ending.left)
            first = self._finisher.requests(held)
            answers = self._database.exchange(
                connection, *first, self._starter.entering(worker), *look.requests(gates, thought)
            )
            ended, awaited = self._finisher.ended(held, answers[: len(first)])
            if awaited:
                raise ending.apart()
            entered, *answers = answers[len(first) :]
            entry = self._starter.entered(entered)
            if gates.version != entry.version:
                gates = self._gates.at(connection, entry.version)
                answers = self._database.exchange(connection, *look.requests(gates, thought))
            most = max(0, limit - (len(ending.left) - len(ended)))
            for found in look.surveys(connection, gates, answers, thought):
                choice = _Choice(self._database, connection, found, most, entry.turn, passed_over)
                chosen, more = choice.choose(in_turn), choice.more(in_turn)
                if not choice.short:
                    break
            # What was full at two claims one after the other will be at the next one, too.
            self._full, self._full_last = found.full & self._full_last, found.full
            if passed_over and not chosen:
                if ends is not None:
                    raise ending.apart()
                wanted.append(next(iter(passed_over.values())))
                passed_over.clear()
                raise TryAgain
            decision = Decision(
                chosen,
                heads=choice.raised_heads(),
                served={lane.tenant: found.turns.served[lane.tenant] for lane, _ in chosen} if gates.tenants else {},
                turn=choice.turn,
                rates={db: found.usage.rates[db] for db in found.usage.starts},
            )
            if self._database.engine.arrays and not (ended or chosen or decision.heads):
                # The lock alone would make a commit wait for the disk.
                self._database.exchange(connection, _UNDO)
            started = self._starter.start(connection, worker, entry.name, decision)
            left = [(lane, run) for lane, run in chosen if run not in started]
            jobs = tuple(job_of(started[run]) for _, run in chosen if run in started)
            return _Turn(jobs, more | {lane.queue for lane, _ in left}, ended, gates, left)

        for _ in range(ATTEMPTS):
            turn = self._database.write(work)
            ending.note(turn.ended, turn.gates)
            if turn.jobs:
                with self._lock:
                    self._last_queue[worker] = turn.jobs[-1].queue
            if turn.jobs or not turn.held:
                return Claim(turn.jobs, turn.more, frozenset(ending.ended), frozenset(ending.freed))
            # Of all that was chosen nothing is to be had: others may be.
            passed_over.update({lane.id: run for lane, run in turn.held})
        raise translated(Contended())

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

    def more(self, queues: Sequence[str]) -> frozenset[str]:
        """Return the queues of which another job could run now."""
        return frozenset(queue for queue in queues if self.has_more(queue))

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
