"""What a claim should do, said as simply as it can be: a list of jobs, all of which are looked at every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobber.jobs import JobState, Policy
from jobber.store import Gate, GateKind

QUEUES, TASKS, DATABASES = ("q", "p"), ("t", "u"), ("db0", "db1")
SECOND = 1_000_000
MAX_RESCUES = 1
EACH_TENANT, TOTAL = Gate(GateKind.TENANT, ""), Gate(GateKind.TOTAL, "")


class Lane(NamedTuple):
    """What a job shares with others that are held back together with it."""

    queue: str
    task: str
    db: str
    tenant: str
    group: int | None
    suspect: bool


@dataclass(kw_only=True)
class Modelled:
    """A run that is not finished."""

    job_id: str
    run: int
    queue: str
    task: str
    db: str
    tenant: str
    priority: int
    at: int | None = None  # not before
    due: int | None = None  # waits for this time, and for somebody who looks at the clock
    ready: bool = False
    paused: bool = False
    parents: dict[int, Policy] = field(default_factory=dict)
    group: int | None = None  # run of its group, if that has a limit
    group_limit: int = 0
    suspect: bool = False
    rescues: int = 0
    attempt: int = 0
    worker: int | None = None  # that runs it
    cancelled: bool = False  # somebody asked for it while it ran

    @property
    def lane(self) -> Lane:
        return Lane(self.queue, self.task, self.db, self.tenant, self.group, self.suspect)

    @property
    def gates(self) -> list[Gate]:
        return [
            Gate(GateKind.QUEUE, self.queue),
            Gate(GateKind.TASK, self.task),
            Gate(GateKind.DATABASE, self.db),
            *([Gate(GateKind.TENANT, self.tenant)] if self.tenant else []),
            *([Gate(GateKind.GROUP, str(self.group))] if self.group else []),
            TOTAL,
        ]


@dataclass
class Bucket:
    """The rate of a database."""

    pace: int  # microseconds
    next_at: int = 0
    slow_until: int = 0
    short: int | None = None  # those who wait are to be woken then

    def interval(self, now: int) -> int:
        return self.pace * (2 if now < self.slow_until else 1)

    def repace(self, pace: int, now: int) -> None:
        """Give it another rate: nobody waits for longer than for one token of that."""
        if pace != self.pace:
            self.pace, self.next_at = pace, min(self.next_at, now + pace)
            self.short = None if self.short is None else min(self.short, now + pace)

    def start(self, now: int) -> None:
        """Take the token that came first of those that are kept."""
        oldest = now + self.interval(now) - max(self.interval(now), SECOND // 2)
        self.next_at = max(self.next_at, oldest) + self.interval(now)


class Model:
    """All that the store should know."""

    def __init__(self) -> None:
        self.now = 0
        self.live: dict[int, Modelled] = {}
        self.ended: dict[str, tuple[int, JobState]] = {}  # the newest finished run of each ID
        self.limits: dict[Gate, int] = {}
        self.paused: set[Gate] = set()
        self.buckets: dict[str, Bucket] = {}
        self.lanes: set[Lane] = set()
        self.tenants = False  # whether a job ever had one
        self.turn = 0
        self.served: Counter[str] = Counter()
        self.last_queue: dict[int, str] = {}

    # -- what holds jobs back ----------------------------------------------------------------------------------------

    def limit(self, gate: Gate, job: Modelled) -> int:
        """Return the limit of a gate on the way of a job; 0 is none."""
        if gate.kind is GateKind.GROUP:
            return job.group_limit
        limit = self.limits.get(gate, 0)
        if gate.kind is GateKind.TENANT and not limit:
            limit = self.limits.get(EACH_TENANT, 0)
        return max(0, limit)

    def running(self, gate: Gate) -> int:
        return sum(gate in job.gates for job in self.live.values() if job.worker is not None)

    def may_run(self, job: Modelled, worker: int | None = None) -> bool:
        """Whether a job may start now, if ``worker`` is given on that one."""
        if not job.ready or job.worker is not None or any(gate in self.paused for gate in job.gates):
            return False
        if any((limit := self.limit(gate, job)) and self.running(gate) >= limit for gate in job.gates):
            return False
        if (bucket := self.buckets.get(job.db)) and bucket.next_at > self.now:
            return False
        beside = any(other.suspect and other.worker == worker for other in self.live.values())
        return not (worker is not None and job.suspect and beside)

    def place(self, job: Modelled) -> tuple[int, int, int, int]:
        """Return where a job is in its queue: by priority, then turns of tenants, then age."""
        busy = sum(other.tenant == job.tenant for other in self.live.values() if other.worker is not None)
        return (-job.priority, busy, self.served[job.tenant], job.run)

    def runnable(self, worker: int | None = None, behind: Collection[Gate] | None = None) -> frozenset[str]:
        """Return the queues with a job that could run now, and passes one of the gates ``behind``."""
        return frozenset(
            job.queue
            for job in self.live.values()
            if self.may_run(job, worker) and (behind is None or set(behind) & set(job.gates))
        )

    # -- the claim ---------------------------------------------------------------------------------------------------

    def claim(self, worker: int, queues: Collection[str], limit: int) -> list[Modelled]:
        """Start jobs; return them in order."""
        turns, last = list(queues), self.last_queue.get(worker)
        if last in turns:
            at = turns.index(last) + 1
            turns = turns[at:] + turns[:at]
        chosen: list[Modelled] = []
        spent: set[str] = set()
        turn, served = self.turn, self.served.copy()
        while turns and len(chosen) < limit:
            for queue in list(turns):
                ready = [job for job in self.live.values() if job.queue == queue and self.may_run(job, worker)]
                if not ready:
                    turns.remove(queue)
                elif len(chosen) < limit:
                    job = min(ready, key=self.place)
                    job.worker, job.ready, job.attempt = worker, False, job.attempt + 1
                    chosen.append(job)
                    self.turn += 1
                    self.served[job.tenant] = self.turn
                    if job.db in self.buckets:
                        spent.add(job.db)
                        self.buckets[job.db].start(self.now)
        if not self.tenants:  # then nobody counts turns
            self.turn, self.served = turn, served
        for db in spent:
            if (bucket := self.buckets[db]).next_at > self.now:
                bucket.short = bucket.next_at
        if chosen:
            self.last_queue[worker] = chosen[-1].queue
        return chosen

    # -- what happens to jobs ----------------------------------------------------------------------------------------

    def add(self, job: Modelled) -> frozenset[str]:
        """Take a new job in; return its queue if it is ready, and nobody's if it has ended at once."""
        self.tenants = self.tenants or bool(job.tenant)
        self.lanes.add(job.lane)
        self.live[job.run] = job
        return self._free(job)

    def _free(self, job: Modelled) -> frozenset[str]:
        """Make a job ready, or let it wait for its time, unless something else holds it."""
        if job.paused or job.parents:
            return frozenset()
        if job.at is not None and job.at > self.now:
            job.due = job.at
            return frozenset()
        job.ready, job.due = True, None
        return frozenset({job.queue})

    def end(self, job: Modelled, state: JobState) -> frozenset[str]:
        """Finish a run, and those that end with it; return the queues of those that are ready now."""
        del self.live[job.run]
        self.ended[job.job_id] = (job.run, state)
        woken: frozenset[str] = frozenset()
        for child in [child for child in self.live.values() if job.run in child.parents]:
            if child.run not in self.live:
                continue
            policy = child.parents.pop(job.run)
            if policy is Policy.SUCCESS and state is not JobState.SUCCESS:
                woken |= self.end(child, state)
            else:
                woken |= self._free(child)
        return woken

    def freed(self, limited: Collection[Gate]) -> frozenset[str]:
        """Return the queues to wake as an attempt is over: those behind the limits that it counted against."""
        return self.runnable(behind=limited) if limited else frozenset()

    def limited(self, job: Modelled) -> set[Gate]:
        """Return the gates with a limit on the way of a job."""
        return {gate for gate in job.gates if self.limit(gate, job)}

    def put_back(self, job: Modelled, *, at: int | None = None, db: str = "", suspect: bool = False) -> frozenset[str]:
        """End an attempt but not its run; return its queue if it is ready again."""
        job.worker = None
        if db:
            job.db, job.suspect = db, job.rescues > 0
        job.suspect = job.suspect or suspect
        self.lanes.add(job.lane)
        if at is not None:
            job.at = job.due = at
            return frozenset()
        job.ready = True
        return frozenset({job.queue})

    def pause(self, job: Modelled) -> None:
        job.paused, job.ready, job.due = True, False, None

    def resume(self, job: Modelled) -> frozenset[str]:
        if not job.paused:
            return frozenset()
        job.paused = False
        return self._free(job)

    def release(self) -> frozenset[str]:
        """Look at the clock; return the queues of jobs whose time has come."""
        come = [job for job in self.live.values() if job.due is not None and job.due <= self.now]
        for job in come:
            job.ready, job.due = True, None
        return frozenset(job.queue for job in come)

    def refill(self) -> frozenset[str]:
        """Look at the clock; return the queues of jobs that waited for a database with a rate."""
        filled = {db for db, of in self.buckets.items() if of.short is not None and of.short <= self.now}
        for db in filled:
            self.buckets[db].short = None
        return self.runnable(behind=[Gate(GateKind.DATABASE, db) for db in filled])

    def prune(self) -> None:
        """Forget tenants without lanes, then lanes without jobs."""
        known = {lane.tenant for lane in self.lanes} | {""}
        self.served = Counter({tenant: turn for tenant, turn in self.served.items() if tenant in known})
        self.lanes = {job.lane for job in self.live.values()}

    # -- looking around ----------------------------------------------------------------------------------------------

    def by_id(self, job_id: str) -> Modelled | None:
        return next((job for job in self.live.values() if job.job_id == job_id), None)

    def those(self, which: Callable[[Modelled], bool]) -> list[Modelled]:
        return [job for job in self.live.values() if which(job)]

    def held_by(self, worker: int) -> Iterator[Modelled]:
        return iter(sorted(self.those(lambda job: job.worker == worker), key=lambda job: job.run))
