"""Random histories against a model that keeps all jobs in a list and looks at every one of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from jobber.errors import JobIsFinished, JobIsLive, UnknownJob
from jobber.jobs import Job, JobState
from jobber.store import Gate, GateKind, Store, surveying
from tests.servers import MariaDB, Postgres, wait_until
from tests.store.conftest import FILLED, new_job

QUEUES, TASKS, DATABASES = ("q", "p"), ("t", "u"), ("db0", "db1")
GATES = [
    *(Gate(GateKind.QUEUE, name) for name in QUEUES),
    *(Gate(GateKind.TASK, name) for name in TASKS),
    *(Gate(GateKind.DATABASE, name) for name in DATABASES),
]
IDS = [f"j{n}" for n in range(12)]


@dataclass(frozen=True)
class Modelled:
    job_id: str
    run: int
    queue: str
    task: str
    db: str
    priority: int
    state: JobState = JobState.PENDING
    delayed: bool = False

    @property
    def gates(self) -> list[Gate]:
        return [
            Gate(GateKind.QUEUE, self.queue),
            Gate(GateKind.TASK, self.task),
            Gate(GateKind.DATABASE, self.db),
        ]

    @property
    def place(self) -> tuple[int, int]:
        return (-self.priority, self.run)


class StoreMachine(RuleBasedStateMachine):
    """The store beside the model. ``make`` gives an empty store."""

    attempts = Bundle("attempts")

    @staticmethod
    def make() -> contextlib.AbstractContextManager[Store]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.live: dict[str, Modelled] = {}
        self.finished: dict[str, JobState] = {}
        self.limits: dict[Gate, int] = {}
        self.paused: set[Gate] = set()
        self.turn = ""

    @initialize()
    def start(self) -> None:
        self.store = self.stack.enter_context(self.make())
        self.worker = self.store.register("w", QUEUES, 10, lease=3600)

    def teardown(self) -> None:
        self.stack.close()

    # -- the model ---------------------------------------------------------------------------------------------------

    def count(self) -> Counter[Gate]:
        return Counter(g for job in self.live.values() if job.state is JobState.STARTED for g in job.gates)

    def runnable(self, queue: str, count: Counter[Gate], taken: set[str]) -> list[Modelled]:
        return sorted(
            (
                job
                for job in self.live.values()
                if job.queue == queue
                and job.state in (JobState.PENDING, JobState.RETRY)
                and not job.delayed
                and job.job_id not in taken
                and all(
                    g not in self.paused and (not self.limits.get(g) or count[g] < self.limits[g]) for g in job.gates
                )
            ),
            key=lambda job: job.place,
        )

    def expect_claim(self, limit: int) -> tuple[list[str], set[str]]:
        count, taken = self.count(), set[str]()
        chosen: list[Modelled] = []
        turns = list(QUEUES)
        if self.turn:
            at = turns.index(self.turn) + 1
            turns = turns[at:] + turns[:at]
        order = list(turns)
        while turns and len(chosen) < limit:
            for queue in list(turns):
                ready = self.runnable(queue, count, taken)
                if not ready:
                    turns.remove(queue)
                elif len(chosen) < limit:
                    chosen.append(ready[0])
                    taken.add(ready[0].job_id)
                    count.update(ready[0].gates)
        if chosen:
            self.turn = chosen[-1].queue
        return [job.job_id for job in chosen], {q for q in order if self.runnable(q, count, taken)}

    def finish(self, job_id: str, state: JobState) -> None:
        del self.live[job_id]
        self.finished[job_id] = state

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(
        job_ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True),
        queue=st.sampled_from(QUEUES),
        task=st.sampled_from(TASKS),
        db=st.sampled_from(DATABASES),
        priority=st.integers(1, 10),
        delayed=st.booleans(),
    )
    def submit(self, job_ids: list[str], delayed: bool, **fields: Any) -> None:
        eta = self.store.now() + 3_600_000_000 if delayed else None
        new = [new_job(job_id, eta=eta, **fields) for job_id in job_ids]
        if any(job_id in self.live for job_id in job_ids):
            with pytest.raises(JobIsLive) as refused:
                self.store.submit(new)
            assert refused.value.job.job_id in self.live
        else:
            for job in self.store.submit(new):
                self.live[job.job_id] = Modelled(job_id=job.job_id, run=job.run, delayed=delayed, **fields)

    @rule(target=attempts, limit=st.integers(1, 4))
    def claim(self, limit: int) -> Any:
        expected, more = self.expect_claim(limit)
        claim = self.store.claim(self.worker, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=limit)
        assert [job.job_id for job in claim.jobs] == expected
        assert claim.more == more
        for job_id in expected:
            self.live[job_id] = replace(self.live[job_id], state=JobState.STARTED)
        return multiple(*claim.jobs)

    @rule(
        job=consumes(attempts),
        how=st.sampled_from(["succeed", "fail", "cancelled", "retry", "delay", "requeue", "reroute", "give back"]),
    )
    def end(self, job: Job, how: str) -> None:
        cancel = self.store.get(job.job_id).cancel_requested
        full = {g for g in self.live[job.job_id].gates if self.limits.get(g)}
        if how == "succeed":
            wake = self.store.succeed(job, rows=1, columns=[])
            self.finish(job.job_id, JobState.SUCCESS)
        elif how == "fail":
            wake = self.store.fail(job, error="no", code="c")
            self.finish(job.job_id, JobState.FAILURE)
        elif how == "cancelled":
            wake = self.store.cancelled(job)
            self.finish(job.job_id, JobState.CANCELLED)
        else:
            db = self.live[job.job_id].db
            if how == "reroute":
                db = next(other for other in DATABASES if other != db)
                wake, state = self.store.reroute(job, db, error="no", code="c"), JobState.PENDING
            elif how == "requeue":
                wake, state = self.store.requeue(job), JobState.PENDING
            elif how == "give back":
                wake, state = self.store.give_back(self.worker, [(job.run, job.attempt)]), JobState.PENDING
            else:
                delay = 3600 if how == "delay" else 0
                wake, state = self.store.retry(job, error="no", code="c", delay=delay), JobState.RETRY
            if cancel:
                self.finish(job.job_id, JobState.CANCELLED)
            else:
                self.live[job.job_id] = replace(self.live[job.job_id], state=state, delayed=how == "delay", db=db)
        freed = {
            queue
            for queue in QUEUES
            if any(full & set(ready.gates) for ready in self.runnable(queue, self.count(), set()))
        }
        again = {job.queue} if not cancel and how in ("retry", "requeue", "reroute", "give back") else set()
        assert wake == freed | again

    @rule(job_id=st.sampled_from(IDS))
    def cancel(self, job_id: str) -> None:
        job = self.live.get(job_id)
        if job is None:
            expected = JobIsFinished if job_id in self.finished else UnknownJob
            with pytest.raises(expected):
                self.store.cancel(job_id)
        elif job.state is JobState.STARTED:
            assert self.store.cancel(job_id).job.cancel_requested
        else:
            assert self.store.cancel(job_id).job.state is JobState.CANCELLED
            self.finish(job_id, JobState.CANCELLED)

    @rule(job_id=st.sampled_from(IDS))
    def purge(self, job_id: str) -> None:
        if job_id in self.live:
            with pytest.raises(JobIsLive):
                self.store.purge(job_id)
        elif self.finished.pop(job_id, None):
            assert self.store.purge(job_id)
        else:
            with pytest.raises(UnknownJob):
                self.store.purge(job_id)

    @rule(gate=st.sampled_from(GATES), limit=st.integers(0, 3))
    def limit(self, gate: Gate, limit: int) -> None:
        self.store.set_limits({gate: limit})
        self.limits[gate] = limit

    @rule(gate=st.sampled_from(GATES))
    def pause(self, gate: Gate) -> None:
        self.store.pause(gate, "why")
        self.paused.add(gate)

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        gate = data.draw(st.sampled_from(sorted(self.paused, key=str)))
        self.paused.discard(gate)
        expected = {q for q in QUEUES if any(gate in job.gates for job in self.runnable(q, self.count(), set()))}
        assert self.store.resume(gate) == expected

    @rule()
    def prune_lanes(self) -> None:
        self.store.prune(3600)

    @rule(job_id=st.sampled_from(IDS), priority=st.integers(1, 10))
    def submit_soon(self, job_id: str, priority: int) -> None:
        """A job that is delayed for a moment, waited for, and released."""
        if job_id in self.live:
            return
        (job,) = self.store.submit([new_job(job_id, eta=self.store.now() + 3_000, priority=priority)])
        self.live[job_id] = Modelled(job_id, job.run, "q", "t", "db0", priority)

        def ready() -> bool:
            self.store.release_due()
            return not any(hold.kind == "start" for hold in self.store.waiting_for(job))

        wait_until(ready, interval=0.001)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        for queue in QUEUES:
            waiting = [j for j in self.live.values() if j.queue == queue and j.state is not JobState.STARTED]
            listed = [job.job_id for job in self.store.pending(queue)]
            ready = [j.job_id for j in sorted(waiting, key=lambda j: j.place) if not j.delayed]
            assert listed[: len(ready)] == ready
            assert set(listed[len(ready) :]) == {j.job_id for j in waiting if j.delayed}
        count = self.count()
        assert self.store.runnable_queues() == {q for q in QUEUES if self.runnable(q, count, set())}
        assert self.store.live(IDS) == set(self.live)


def run(make: Any, *, examples: int, steps: int) -> None:
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("first", [surveying.FIRST, 1])
def test_sqlite_does_what_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    # With one lane of each queue in a survey, most claims need another.
    monkeypatch.setattr(surveying, "FIRST", first)
    numbers = iter(range(10_000))

    @contextlib.contextmanager
    def make() -> Iterator[Store]:
        store = Store(f"sqlite:///{tmp_path}/{next(numbers)}.db?timeout=5")
        store.migrate()
        yield store
        store.close()

    run(make, examples=20, steps=30)


def _run_on(server: Postgres | MariaDB) -> None:
    url, tables = server.url(server.new_database()), [f"jobber_{name}" for name in FILLED]
    first = Store(url, pool_size=2)
    first.migrate()

    @contextlib.contextmanager
    def make() -> Iterator[Store]:
        store = Store(url, pool_size=2)
        yield store
        store.close()
        for name in tables:
            first._database.write(lambda connection, name=name: connection.execute(text(f"DELETE FROM {name}")))

    run(make, examples=5, steps=20)
    first.close()


def test_postgresql_does_what_the_model_does(postgres: Postgres) -> None:
    _run_on(postgres)


def test_mariadb_does_what_the_model_does(mariadb: MariaDB) -> None:
    _run_on(mariadb)
