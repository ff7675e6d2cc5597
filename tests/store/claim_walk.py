"""A walk through everything that can happen to jobs, step by step, with the model of ``claim_model`` beside the store.

The database's clock is a row of a table, so that time passes when a step says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import event, text

from jobber.errors import JobIsFinished, JobIsLive, JobIsStarted, UnknownJob
from jobber.jobs import Job, JobState, NewGroup, NewJob, Policy
from jobber.store import UNLIMITED, Apart, Claim, Gate, GateKind, Limits, Store, Success
from jobber.store.engines import engine_of
from tests.store.claim_model import (
    DATABASES,
    EACH_TENANT,
    MAX_RESCUES,
    QUEUES,
    SECOND,
    TASKS,
    TOTAL,
    Bucket,
    Model,
    Modelled,
)
from tests.store.conftest import FILLED, new_job

TENANTS = ("", "a", "b", "c")
PAUSABLE = [
    *(Gate(GateKind.QUEUE, name) for name in QUEUES),
    *(Gate(GateKind.TASK, name) for name in TASKS),
    *(Gate(GateKind.DATABASE, name) for name in DATABASES),
]
LIMITED = [*PAUSABLE, *(Gate(GateKind.TENANT, name) for name in TENANTS[1:]), EACH_TENANT, TOTAL]
BEGIN = 1_800_000_000 * SECOND
#: Seconds of a lease that no walk lasts.
LEASE = 10**6


def open_with_clock(url: str) -> Store:
    """Return a store, with its tables made, whose clock stands still."""

    def stopped(parsed: Any) -> Any:
        return type("Stopped", (type(engine_of(parsed)),), {"clock": "SELECT at FROM test_clock"})()

    with patch("jobber.store.database.engine_of", stopped):
        store = Store(url, pool_size=2)
    if url.startswith("sqlite"):
        # Nothing here has to survive a power cut.
        event.listen(store._database._pool, "connect", lambda one, _: one.execute("PRAGMA synchronous=OFF"))
    _run(store, "CREATE TABLE IF NOT EXISTS test_clock (at BIGINT)", "DELETE FROM test_clock")
    _run(store, f"INSERT INTO test_clock VALUES ({BEGIN})")
    store.migrate()
    return store


def _run(store: Store, *statements: str) -> None:
    for statement in statements:
        store._database.write(lambda connection, statement=statement: connection.execute(text(statement)))


class Walk:
    """What happens, drawn from ``chance``; each step is compared with the model."""

    def __init__(self, store: Store, chance: Random) -> None:
        self.store, self.chance = store, chance
        _run(store, *(f"DELETE FROM jobber_{name}" for name in FILLED), f"UPDATE test_clock SET at = {BEGIN}")
        _run(store, "UPDATE jobber_dispatch SET gates_version = gates_version + 1")  # they are gone without a word
        self.model = Model()
        self.model.now = BEGIN
        self.jobs: dict[int, Job] = {}  # those that run
        self.starts: dict[str, list[int]] = {}  # by database, since its rate was set
        self.names = 0
        # Each walk is about something else: what comes seldom in one comes often in another.
        self.queues = chance.choice([QUEUES, QUEUES[:1]])
        self.priorities = chance.choice([(5,), (1, 5, 5, 10)])
        self.tenants = chance.choice([TENANTS, TENANTS, TENANTS[:1], TENANTS[1:3]])
        self.workers = [store.register(f"w{n}", QUEUES, 9, lease=LEASE) for n in range(2)]

    def go(self, steps: int) -> None:
        """Take steps, then let all that is left run to its end."""
        often = {self.submit: 6, self.submit_group: 1, self.claim: 7, self.end: 6, self.cancel: 1, self.limit: 3}
        often |= {self.pause: 2, self.resume: 2, self.pause_job: 2, self.resume_job: 2, self.rate: 1, self.slow: 1}
        often |= {
            self.turn: 4,
            self.wait: 3,
            self.release: 2,
            self.refill: 2,
            self.crash: 1,
            self.prune: 1,
            self.purge: 1,
        }
        usual = (self.submit, self.claim, self.end)
        often = {step: n * (1 if step in usual else self.chance.choice([0, 1, 1, 4])) for step, n in often.items()}
        for _ in range(self.chance.randint(0, 4)):
            self.limit()
        for _ in range(steps):
            (step,) = self.chance.choices(list(often), list(often.values()))
            step()
            assert self.store.runnable_queues() == self.model.runnable()
        self.look()
        self.drain()

    def look(self) -> None:
        """Compare what waits."""
        model = self.model
        assert self.store.live([job.job_id for job in model.live.values()]) == {j.job_id for j in model.live.values()}
        for queue in QUEUES:
            waiting = model.those(lambda job, queue=queue: job.queue == queue and job.worker is None)
            listed = [job.run for job in self.store.pending(queue)]
            ready = sorted((job for job in waiting if job.ready), key=lambda job: (-job.priority, job.run))
            assert listed[: len(ready)] == [job.run for job in ready]
            assert set(listed[len(ready) :]) == {job.run for job in waiting if not job.ready}

    def drain(self) -> None:
        """Nothing waits for ever: with all pauses over, whatever the limits and rates are, all jobs end."""
        for gate in sorted(self.model.paused, key=str):
            self.resume(gate)
        for job in self.model.those(lambda job: job.paused):
            self.resume_job(job)
        for _ in range(300):
            if not self.model.live:
                return
            self.wait()
            self.release()
            self.refill()
            self.claim()
            for job in self.model.those(lambda job: job.worker is not None):
                self.end(job, "succeed")
        raise AssertionError(f"these wait for ever: {self.model.live}")

    # -- what clients do ---------------------------------------------------------------------------------------------

    def _new(self, **fields: Any) -> NewJob:
        pick, model = self.chance.choice, self.model
        self.names += 1
        job_id = f"j{self.names}"
        if model.ended and self.chance.random() < 0.1:
            taken = {*(job.job_id for job in model.live.values()), *fields.get("depends_on", ())}
            job_id = pick(sorted(model.ended.keys() - taken) or [job_id])
        eta = model.now + self.chance.randint(-5, 30) * SECOND if self.chance.random() < 0.15 else None
        plain = {"queue": pick(self.queues), "task": pick(TASKS), "db": pick(DATABASES), "tenant": pick(self.tenants)}
        return new_job(job_id, priority=self.chance.choice(self.priorities), eta=eta, **{**plain, **fields})

    def submit(self) -> None:
        known = [*(job.job_id for job in self.model.live.values()), *self.model.ended]
        fields: dict[str, Any] = {}
        if known and self.chance.random() < 0.25:
            parents = tuple(dict.fromkeys(self.chance.choices(known, k=self.chance.randint(1, 2))))
            policy = self.chance.choice([Policy.SUCCESS, Policy.FINISHED])
            fields = {"depends_on": parents, "depends_policy": policy}
        new = {(job := self._new(**fields)).job_id: job for _ in range(self.chance.randint(1, 5))}
        if known and self.chance.random() < 0.03 and (live := self.model.by_id(self.chance.choice(known))):
            with pytest.raises(JobIsLive):
                self.store.submit([*new.values(), new_job(live.job_id)])
            return
        for job in self.store.submit(list(new.values())):
            self._add(new[job.job_id], job)

    def submit_group(self) -> None:
        jobs = [self._new(tenant="") for _ in range(self.chance.randint(2, 4))]
        jobs = list({job.job_id: job for job in jobs}.values())
        group = NewGroup(group_id=f"g{self.names}", jobs=jobs, concurrency=self.chance.randint(0, 2))
        for new, job in zip(jobs, self.store.submit_group(group).jobs, strict=True):
            self._add(new, job)

    def _add(self, new: NewJob, job: Job) -> None:
        model = self.model
        modelled = Modelled(
            **{name: getattr(new, name) for name in ("job_id", "queue", "task", "db", "tenant", "priority")},
            run=job.run,
            at=new.eta,
            group=job.group_run if job.group_limit else None,
            group_limit=job.group_limit,
        )
        fates = []
        for parent in new.depends_on:
            live = model.by_id(parent)
            if live and live.run < job.run:
                modelled.parents[live.run] = new.depends_policy
            elif new.depends_policy is Policy.SUCCESS and (state := model.ended[parent][1]) is not JobState.SUCCESS:
                fates.append(state)
        if fates:
            modelled.parents[0] = Policy.SUCCESS  # it is never ready
        model.add(modelled)
        if fates:
            model.end(modelled, fates[0])

    def cancel(self) -> None:
        if not self.model.live:
            return
        job = self._one(self.model.those(lambda _: True))
        changed = self.store.cancel(job.job_id)
        if job.worker is not None:
            job.cancelled = True
            assert changed.job.cancel_requested
        else:
            assert changed.wake == self.model.end(job, JobState.CANCELLED)
            assert changed.job.state is JobState.CANCELLED

    def purge(self) -> None:
        """Forget a finished job; nothing is done to one that is not finished, nor to one that nobody knows."""
        job_id = f"j{self.chance.randint(1, self.names + 1)}"
        if self.model.by_id(job_id):
            with pytest.raises(JobIsLive):
                self.store.purge(job_id)
        elif job_id in self.model.ended:
            with pytest.raises(JobIsFinished):
                self.store.cancel(job_id)
            assert self.store.purge(job_id)
            del self.model.ended[job_id]
        else:
            with pytest.raises(UnknownJob):
                self.store.purge(job_id)
            with pytest.raises(UnknownJob):
                self.store.cancel(job_id)

    def pause_job(self) -> None:
        job = self._one(self.model.those(lambda job: not job.paused))
        if job and job.worker is None:
            self.store.pauses.pause(job.job_id, "why")
            self.model.pause(job)
        elif job:
            with pytest.raises(JobIsStarted):
                self.store.pauses.pause(job.job_id, "why")

    def resume_job(self, job: Modelled | None = None) -> None:
        if job := job or self._one(self.model.those(lambda job: job.paused)):
            assert self.store.pauses.resume(job.job_id).wake == self.model.resume(job)

    # -- what operators do -------------------------------------------------------------------------------------------

    def limit(self) -> None:
        gate = self.chance.choice(LIMITED)
        of_one = gate.kind is GateKind.TENANT and gate != EACH_TENANT
        limit = self.chance.choice([0, 1, 1, 2, 3, *([UNLIMITED] if of_one else [])])
        self.store.set_limits({gate: limit})
        self.model.limits[gate] = limit

    def pause(self) -> None:
        gate = self.chance.choice(PAUSABLE)
        self.store.pause(gate, "why")
        self.model.paused.add(gate)

    def resume(self, gate: Gate | None = None) -> None:
        if self.model.paused:
            gate = gate or self.chance.choice(sorted(self.model.paused, key=str))
            self.model.paused.discard(gate)
            assert self.store.resume(gate) == self.model.runnable(behind=[gate])

    def rate(self) -> None:
        db, rate = self.chance.choice(DATABASES), self.chance.choice([0, 1, 4, 10])
        # The limits of the config are announced with it.
        self.store.announce({gate: Limits(limit) for gate, limit in self.model.limits.items()}, {db: rate})
        self.starts[db] = []
        if not rate:
            self.model.buckets.pop(db, None)
        elif bucket := self.model.buckets.get(db):
            bucket.repace(SECOND // rate, self.model.now)
        else:
            self.model.buckets[db] = Bucket(SECOND // rate)

    def slow(self) -> None:
        db = self.chance.choice(DATABASES)
        self.store.slow_down(db, "too many connections")
        if db in self.model.buckets:
            self.model.buckets[db].slow_until = self.model.now + 60 * SECOND

    # -- what workers do ---------------------------------------------------------------------------------------------

    def claim(self) -> None:
        worker, limit = self.chance.choice(self.workers), self.chance.randint(1, 4)
        queues = self.chance.choice([QUEUES, QUEUES, QUEUES, ("q",)])
        got = self.store.claim(worker, queues=queues, tasks=TASKS, databases=DATABASES, limit=limit)
        self._check(got, worker, queues, limit)

    def turn(self) -> None:
        """End some jobs, and claim others in the same transaction; or in the next one, where it does not do both."""
        worker, limit = self.chance.choice(self.workers), self.chance.randint(1, 4)
        running = self.model.those(lambda job: job.worker is not None)
        ends = self.chance.sample(running, min(len(running), self.chance.randint(1, limit)))
        limited = {gate for job in ends for gate in self.model.limited(job)}
        awaited = any(job.run in child.parents for job in ends for child in self.model.live.values())
        done = [Success(self.jobs.pop(job.run), 1, []) for job in ends]
        alone = not awaited and all(success.job.group_run is None for success in done)
        served = {"queues": QUEUES, "tasks": TASKS, "databases": DATABASES}
        got = None
        try:
            got = self.store.finish_and_claim(worker, done, **served, limit=limit)
            assert alone
            ended = got.ended
        except Apart:
            assert not alone
            ended, woken, freed = self.store.finish(done)
            assert freed == limited
        assert ended == {success.key for success in done}
        expected = frozenset().union(*(self.model.end(job, JobState.SUCCESS) for job in ends))
        if got is None:
            assert woken == expected
            assert self.store.open_behind(freed) == self.model.freed(limited)
        else:
            assert got.freed == limited
            self._check(got, worker, QUEUES, limit)
            assert self.store.open_behind(got.freed) == self.model.freed(limited)

    def _check(self, got: Claim, worker: int, queues: Sequence[str], limit: int) -> None:
        expected = self.model.claim(worker, queues, limit)
        assert [job.run for job in got.jobs] == [job.run for job in expected]
        assert got.more == self.model.runnable(worker) & set(queues)
        for job in expected:
            for gate in self.model.limited(job):
                assert self.model.running(gate) <= self.model.limit(gate, job)
            self._note_start(job.db)
        self.jobs |= {job.run: job for job in got.jobs}

    def _note_start(self, db: str) -> None:
        """See that in no stretch of time more started than come in it and were there at its beginning."""
        if bucket := self.model.buckets.get(db):
            starts = self.starts[db]
            starts.append(self.model.now)
            for n, at in enumerate(starts):
                allowed = max(1, SECOND / 2 / bucket.pace) + (self.model.now - at) / bucket.pace
                assert len(starts) - n <= allowed

    def end(self, job: Modelled | None = None, how: str = "") -> None:
        if not (job := job or self._one(self.model.those(lambda job: job.worker is not None))):
            return
        model, store, held = self.model, self.store, self.jobs.pop(job.run)
        how = how or self.chance.choice(["succeed"] * 4 + ["fail", "retry", "delay", "requeue", "reroute", "give back"])
        limited, worker = model.limited(job), job.worker
        other = next(db for db in DATABASES if db != job.db)
        assert worker is not None
        ends: dict[str, Callable[[], frozenset[str]]] = {
            "succeed": lambda: store.succeed(held, rows=1, columns=[]),
            "fail": lambda: store.fail(held, error="no", code="c"),
            "retry": lambda: store.retry(held, error="no", code="c", delay=0),
            "delay": lambda: store.retry(held, error="no", code="c", delay=7),
            "requeue": lambda: store.requeue(held),
            "reroute": lambda: store.reroute(held, other, error="no", code="c"),
            "give back": lambda: store.give_back(worker, [(held.run, held.attempt)]),
        }
        woken = ends[how]()
        if how in ("succeed", "fail"):
            expected = model.end(job, JobState.SUCCESS if how == "succeed" else JobState.FAILURE)
        elif job.cancelled:
            expected = model.end(job, JobState.CANCELLED)
        else:
            at = model.now + 7 * SECOND if how == "delay" else None
            expected = model.put_back(job, at=at, db=other if how == "reroute" else "")
        assert woken == expected | model.freed(limited)

    def crash(self) -> None:
        """A worker dies; what it ran is found and rescued, and another one comes."""
        worker = self.chance.choice(self.workers)
        self.store.unregister(worker)
        lost = self.store.lost()
        assert [job.run for job in lost] == [job.run for job in self.model.held_by(worker)]
        for job, modelled in zip(lost, list(self.model.held_by(worker)), strict=True):
            limited = self.model.limited(modelled)
            changed = self.store.rescue(job, max_rescues=MAX_RESCUES)
            del self.jobs[job.run]
            modelled.rescues += 1
            if modelled.cancelled:
                expected = self.model.end(modelled, JobState.CANCELLED)
            elif modelled.rescues > MAX_RESCUES:
                expected = self.model.end(modelled, JobState.FAILURE)
            else:
                expected = self.model.put_back(modelled, suspect=True)
            assert changed.wake == expected | self.model.freed(limited)
        self.workers[self.workers.index(worker)] = self.store.register("w", QUEUES, 9, lease=LEASE)

    # -- what time brings --------------------------------------------------------------------------------------------

    def wait(self) -> None:
        self.model.now += self.chance.choice([1, 100_000, 300_000, SECOND, 10 * SECOND])
        _run(self.store, f"UPDATE test_clock SET at = {self.model.now}")
        dues = [job.due for job in self.model.live.values() if job.due is not None]
        shorts = [bucket.short for bucket in self.model.buckets.values() if bucket.short is not None]
        due = self.store.due()
        for told, times in ((due.jobs, dues), (due.starts, shorts)):
            assert told == (max(0, min(times) - self.model.now) / SECOND if times else None)

    def release(self) -> None:
        assert self.store.release_due() == self.model.release()

    def refill(self) -> None:
        assert self.store.refill() == self.model.refill()

    def prune(self) -> None:
        self.store.prune(3600)
        self.model.prune()

    def _one(self, jobs: list[Modelled]) -> Any:
        return self.chance.choice(jobs) if jobs else None
