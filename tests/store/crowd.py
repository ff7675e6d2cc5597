"""What the processes of the concurrency tests run; importable, so that a fork server can start them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from jobber.errors import JobIsFinished
from jobber.jobs import Job, JobState
from jobber.scheduling.planning import SECOND, job_id
from jobber.store import Gate, GateKind, Receipt, Store, Success
from tests.states import steps
from tests.store.conftest import new_group, new_job

QUEUES = ("q", "p")
TASKS = ("t0", "t1", "t2")
DATABASES = ("db0", "db1", "db2")
LIMITS = {Gate(GateKind.DATABASE, "db0"): 2, Gate(GateKind.TASK, "t1"): 3, Gate(GateKind.QUEUE, "p"): 3}


def submit(url: str, name: str, count: int, report: Any) -> None:
    """Submit ``count`` jobs in batches of all sizes; cancel the first of some."""
    store, chance, n = Store(url), random.Random(name), 0
    while n < count:
        size = min(chance.randint(1, 8), count - n)
        first, *_ = store.submit(
            [
                new_job(
                    f"{name}-{n + i}",
                    queue=chance.choice(QUEUES),
                    task=chance.choice(TASKS),
                    db=chance.choice(DATABASES),
                    priority=chance.randint(1, 10),
                    eta=store.now() + 20_000 if chance.random() < 0.2 else None,
                )
                for i in range(size)
            ]
        )
        n += size
        if chance.random() < 0.3:
            with contextlib.suppress(JobIsFinished):
                if store.cancel(first.job_id).job.state is JobState.CANCELLED:
                    report.cancelled(first.run)
    store.close()


def toggle(url: str, rounds: int) -> None:
    """Pause and resume gates; leave all open."""
    store, chance = Store(url), random.Random(1)
    gates = [Gate(GateKind.DATABASE, "db1"), Gate(GateKind.QUEUE, "q"), Gate(GateKind.TASK, "t2")]
    for _ in range(rounds):
        gate = chance.choice(gates)
        store.pause(gate, "test")
        store.set_limits({Gate(GateKind.TASK, "t0"): chance.randint(0, 5)})
        store.resume(gate)
    store.set_limits({Gate(GateKind.TASK, "t0"): 0})
    store.close()


def work(url: str, total: int, threads: int, report: Any) -> None:
    """Claim and end jobs until ``total`` are finished by all workers together; report each claim."""
    store = Store(url)
    worker = store.register("crowd", QUEUES, threads, lease=600)

    def loop(seed: int) -> None:
        chance = random.Random(seed)
        while not report.done(total):
            store.release_due()
            limit = chance.randint(1, 4)
            claim = store.claim(worker, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=limit)
            for job in claim.jobs:
                report.claimed(job.run, job.attempt)
            for job in claim.jobs:
                _end(store, job, chance, report)

    crew = [threading.Thread(target=loop, args=(os.getpid() + n,)) for n in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    store.unregister(worker)
    store.close()


def _end(store: Store, job: Job, chance: random.Random, report: Any) -> None:
    draw = chance.random()
    if draw < 0.1:
        store.requeue(job)
    elif draw < 0.2:
        store.retry(job, error="again", code="c", delay=0.01)
    else:
        store.succeed(job, rows=1, columns=[])
        report.finished(job.run)
        return
    if store.get(job.job_id).state is JobState.CANCELLED:
        report.cancelled(job.run)


def dying_after(steps_taken: int) -> Callable[[Any], None]:
    """Return what kills this process by SIGKILL when it is called so often."""
    count = itertools.count(1)

    def kill(_: Any) -> None:
        if next(count) == steps_taken:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def die_keeping(url: str, statement: int) -> None:
    """Submit a job with a receipt, and die by SIGKILL right after the ``statement``-th statement of that."""
    store = Store(url, pool_size=1)
    store.ping()
    with steps(store, after=dying_after(statement)):
        store.submit([new_job("a")], receipt=Receipt("key", "d1", lambda jobs: f"{jobs[0].job_id} {jobs[0].run}"))
    store.close()


class Report:
    """Shared by all processes through a manager."""

    def __init__(self) -> None:
        self.claims: list[tuple[int, int]] = []
        self.ends: list[int] = []
        self.cancels: set[int] = set()

    def claimed(self, run: int, attempt: int) -> None:
        self.claims.append((run, attempt))

    def finished(self, run: int) -> None:
        self.ends.append(run)

    def cancelled(self, run: int) -> None:
        self.cancels.add(run)

    def done(self, total: int) -> bool:
        return len(self.ends) + len(self.cancels) >= total

    def all(self) -> tuple[list[tuple[int, int]], list[int], set[int]]:
        return self.claims, self.ends, self.cancels


def migrate(url: str, barrier: Any) -> None:
    """Migrate at the same moment as the others; exit status 0 if the tables work then."""
    store = Store(url)
    barrier.wait(30)
    store.migrate()
    store.submit([new_job(f"by-{os.getpid()}")])
    store.close()


def die_migrating(url: str, steps: int) -> None:
    """Migrate, and die by SIGKILL right after ``steps`` statements that make something."""
    store, count = Store(url, pool_size=1), 0

    @event.listens_for(store._database._pool, "after_cursor_execute")
    def kill(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal count
        count += statement.lstrip().startswith(("CREATE", "INSERT", "ALTER"))
        if count == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    store.migrate()
    store.close()


def die_at(url: str, statement: int, act: str, job: Job | None, worker: int) -> None:
    """Do something in the store, and die by SIGKILL right after its ``statement``-th step of a write."""
    store = Store(url, pool_size=1)
    store.ping()
    with steps(store, after=dying_after(statement)):
        _do(store, act, job, worker)
    store.close()


def _do(store: Store, act: str, job: Job | None, worker: int) -> None:
    if act == "submit":
        store.submit([new_job("a"), new_job("b", task="u")])
    elif act == "claim":
        store.claim(worker, queues=["q"], tasks=["t", "u"], databases=["db0"], limit=2)
    elif act == "cancel":
        store.cancel("a")
    elif act == "fire":
        seen = store.schedules.get("s")
        at = seen.next_at or 0
        store.schedules.fire(seen, at, new_job(job_id(seen, at), schedule="s"), then=at + SECOND)
    elif act == "submit group":
        store.submit_group(new_group("h", "a", "b"))
    elif act == "cancel group":
        store.cancel_group("g")
    elif job is not None:
        ends: dict[str, Callable[[Job], Any]] = {
            "succeed": lambda j: store.succeed(j, rows=1, columns=[]),
            "turn": lambda j: store.finish_and_claim(
                worker, [Success(j, 1, [])], queues=["q"], tasks=["t"], databases=["db0"], limit=2
            ),
            "fail": lambda j: store.fail(j, error="no", code="c"),
            "requeue": store.requeue,
            "give_back": lambda j: store.give_back(worker, [(j.run, j.attempt)]),
            "rescue": lambda j: store.rescue(j, max_rescues=3),
        }
        ends[act.partition(" ")[0]](job)
