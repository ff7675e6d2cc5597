"""Clients that submit and cancel through all faults, and write down what they were told."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.plan import GroupPlan, JobPlan, Plan
from tests.chaos.wire import Answer, Wire
from tests.chaos.work import Work, salt_of

#: What became of a submission, as far as its client knows.
ACCEPTED, REFUSED, UNKNOWN = "accepted", "refused", "unknown"


@dataclass
class Try:
    """One submission of one job: the run that it makes, if it makes one, is known by the salt.

    Parameters:
        group: name of the group's own submission, "" outside groups.
        again: whether it was to be a further run of its ID.
    """

    name: str
    job_id: str
    work: Work
    results: str
    retries: int
    outcome: str = UNKNOWN
    group: str = ""
    eta: datetime | None = None
    cancels: set[str] = field(default_factory=set)  # states that answered cancels told

    @property
    def salt(self) -> str:
        return salt_of(self.name)


@dataclass
class GroupTry:
    """One submission of a group, with IDs of its own."""

    name: str
    members: list[Try]
    callback: Try
    outcome: str = UNKNOWN
    cancelled: bool = False


class Load:
    """Carries out the load of a plan.

    Parameters:
        apis: addresses, any of which takes any request.
        clients: threads.
    """

    def __init__(self, plan: Plan, apis: Sequence[str], *, clients: int) -> None:
        self.tries: dict[str, Try] = {}  # by salt
        self.groups: list[GroupTry] = []
        self.doubtful_cancels: set[str] = set()  # IDs of jobs and groups
        self.refusals: Counter[str] = Counter()
        self.surprises: list[str] = []  # answers that no fault explains
        self.cancels = 0
        self.waiting_again: set[str] = set()  # IDs that are to run once more, and were not accepted yet
        self._plan = plan
        self._apis = apis
        self._wire = Wire()
        self._begin = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._open = 0  # steps that are queued or run
        self._changed = threading.Condition()
        self._gone = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(clients)]
        self.planned = len(plan.jobs) + sum(job.twin + len(job.again) for job in plan.jobs)
        self.planned += sum(len(group.members) + 1 for group in plan.groups)

    # -- the clients --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._begin = time.monotonic()
        for job in self._plan.jobs:
            self._plan_job(job)
        for group in self._plan.groups:
            self._at(group.at, _Grouping(self, group).submit)
        for thread in self._threads:
            thread.start()

    @property
    def accepted(self) -> int:
        """Jobs that were accepted so far."""
        return sum(1 for job in list(self.tries.values()) if job.outcome == ACCEPTED)

    @property
    def open(self) -> int:
        """Steps that are still to be taken."""
        return self._open

    def finish(self) -> bool:
        """End; False if there were still steps to take."""
        with self._changed:
            done = not self._open
            self._gone = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(15)
        return done

    def _at(self, moment: float, step: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._heap, (moment, next(self._numbers), step))
            self._open += 1
            self._changed.notify()

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        """Take a step in so many seconds."""
        self._at(time.monotonic() - self._begin + seconds, step)

    def _serve(self) -> None:
        while (step := self._next()) is not None:
            try:
                step()
            except Exception as error:  # noqa: BLE001  # the run goes on, and tells
                self.surprises.append(f"the harness failed: {error!r}")
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._gone:
                wait = self._heap[0][0] - (time.monotonic() - self._begin) if self._heap else 1.0
                if self._heap and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(min(max(wait, 0.001), 1.0))
        return None

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def _plan_job(self, job: JobPlan) -> None:
        self._at(job.at, _Submitting(self, job, "a").submit)
        if job.twin:
            self._at(job.at, _Submitting(self, job, "b", twin=True).submit)

    def call(self, rng: random.Random, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send a request to any instance."""
        answer = self._wire.call(method, rng.choice(self._apis) + path, body)
        if not answer.ok:
            self.refusals[answer.code] += 1
        expected = answer.ok or answer.later or answer.code in _EXPECTED
        if not expected:
            self.surprises.append(f"{method} {path}: {answer.status} {answer.code}: {answer.data}")
        return answer

    def rng(self, name: str) -> random.Random:
        """Return the random numbers of one client, which depend on nobody else."""
        return random.Random(f"{self._plan.seed}:{name}")

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job that somebody else chose."""
        rng = self.rng(f"{job_id}:soon")
        self.later(0, lambda: self.cancel(rng, "job", job_id))

    def submit_again(self, job_id: str) -> None:
        """Run an ID once more, with other arguments, as soon as its present run is over."""
        before = next((try_ for try_ in list(self.tries.values()) if try_.job_id == job_id), None)
        if before is None:
            return
        work = Work("count", before.work.db if before.work.kind != "group" else "pg", 30, 1 + len(self.tries))
        job = JobPlan(0, job_id, work, before.results, before.retries)
        self.waiting_again.add(job_id)
        self.later(0, _Submitting(self, job, f"z{len(self.tries)}-", again=True).submit)

    def cancel(self, rng: random.Random, what: str, name: str, tried: int = 0) -> None:
        """Cancel a job or a group, again and again while nobody answers."""
        answer = self.call(rng, "DELETE", f"/{what}s/{name}")
        if answer.doubtful:
            self.doubtful_cancels.add(name)
        if answer.later and tried < 40:
            self.later(0.3, lambda: self.cancel(rng, what, name, tried + 1))
        if not answer.ok:
            return
        self.cancels += 1
        if what == "group":
            for group in self.groups:
                group.cancelled = group.cancelled or group.name == name
        elif (found := self.tries.get(answer.data["args"]["salt"])) is not None:
            found.cancels.add(answer.data["state"])


#: Refusals that are right in their place; the audit looks at what they left.
_EXPECTED = frozenset({"job_is_live", "group_is_live", "job_is_finished", "group_is_finished"})


def _pause(rng: random.Random, failures: int) -> float:
    """Return the seconds until a client that got no answer tries again."""
    return rng.uniform(0.5, 1.0) * min(0.2 * failures, 2.0)


class _Submitting:
    """One client that wants a job to be accepted, and then its further runs.

    Parameters:
        twin: whether another client submits the same ID: the first refusal is final.
        again: whether another client has the first run of the ID.
    """

    def __init__(self, load: Load, job: JobPlan, client: str, *, twin: bool = False, again: bool = False) -> None:
        self._load, self._job, self._client, self._twin, self._again = load, job, client, twin, again
        self._rng = load.rng(f"{job.job_id}:{client}")
        self._works = (job.work,) if twin else (job.work, *job.again)
        self._stage, self._count, self._failures = 0, 0, 0
        self._mine: dict[str, Try] = {}  # of this stage, by salt

    def submit(self) -> None:
        """Submit once, and see to what comes next."""
        job, work = self._job, self._works[self._stage]
        self._count += 1
        name = f"{job.job_id}/{self._client}{self._stage}.{self._count}"
        try_ = Try(name, job.job_id, work, job.results, job.retries)
        body: dict[str, Any] = {"job_id": job.job_id, "args": work.args(try_.salt), "results": job.results}
        body |= {"retries": job.retries, "priority": job.priority}
        if job.delay is not None and not self._stage:
            try_.eta = datetime.now(UTC) + timedelta(seconds=job.delay)
            body["eta"] = try_.eta.isoformat()
        self._load.tries[try_.salt] = self._mine[try_.salt] = try_
        answer = self._load.call(self._rng, "POST", f"/tasks/{work.task}/jobs", body)
        if answer.ok:
            try_.outcome = ACCEPTED
            self._accepted()
        elif answer.code == "job_is_live":
            try_.outcome = REFUSED
            self._refused(answer.data["error"]["job"]["args"]["salt"])
        else:
            try_.outcome = UNKNOWN if answer.doubtful else REFUSED
            if answer.later:
                self._failures += 1
                self._load.later(_pause(self._rng, self._failures), self.submit)

    def _refused(self, live: str) -> None:
        if live in self._mine:
            # The answer to an earlier submission was lost on its way.
            self._mine[live].outcome = ACCEPTED
            self._accepted()
        elif not self._twin and (self._stage or self._job.twin or live in self._load.tries):
            # The run before has not ended, or the twin was faster, or another client runs the ID once more.
            if self._stage or self._job.again or self._again:
                self._stage = self._stage if self._again else max(self._stage, 1)
                self._load.later(self._rng.uniform(0.3, 1.2), self.submit)
        elif not self._twin:
            self._load.surprises.append(f"{self._job.job_id} is refused for a job that nobody submitted: {live!r}")

    def _accepted(self) -> None:
        job = self._job
        if job.cancel_after is not None and not self._stage and not self._twin:
            cancel_rng = self._load.rng(f"{job.job_id}:cancel")
            self._load.later(job.cancel_after, lambda: self._load.cancel(cancel_rng, "job", job.job_id))
        self._stage += 1
        self._mine = {}
        if self._again:
            self._load.waiting_again.discard(job.job_id)
        if self._stage < len(self._works):
            self._load.later(self._rng.uniform(0.2, 2.0), self.submit)


class _Grouping:
    """One client that wants a group to be accepted. Every submission has IDs of its own: none is in doubt."""

    def __init__(self, load: Load, plan: GroupPlan) -> None:
        self._load, self._plan, self._count = load, plan, 0
        self._rng = load.rng(plan.name)

    def submit(self) -> None:
        """Submit once, and again with other IDs if it is not known to be accepted."""
        self._count += 1
        name = f"{self._plan.name}-{self._count}"
        members = [self._try(name, job) for job in self._plan.members]
        callback = self._try(name, self._plan.callback)
        group = GroupTry(name, members, callback)
        self._load.groups.append(group)
        for try_ in (*members, callback):
            self._load.tries[try_.salt] = try_
        body: dict[str, Any] = {"group_id": name, "jobs": [_body(try_) for try_ in members]}
        body |= {"callback": _body(callback), "concurrency": self._plan.concurrency}
        answer = self._load.call(self._rng, "POST", "/groups", body)
        group.outcome = ACCEPTED if answer.ok else UNKNOWN if answer.doubtful else REFUSED
        for try_ in (*members, callback):
            try_.outcome = group.outcome
        if answer.later:
            self._load.later(_pause(self._rng, self._count), self.submit)
        elif answer.ok and self._plan.cancel_after is not None:
            self._load.later(self._plan.cancel_after, lambda: self._load.cancel(self._rng, "group", name))

    def _try(self, name: str, job: JobPlan) -> Try:
        job_id = f"{job.job_id}-{self._count}"
        return Try(job_id, job_id, job.work, job.results, job.retries, group=name)


def _body(try_: Try) -> dict[str, Any]:
    return {
        "job_id": try_.job_id,
        "task": try_.work.task,
        "args": try_.work.args(try_.salt),
        "results": try_.results,
        "retries": try_.retries,
    }
