"""Random webs of jobs that wait for each other, ended in random ways and orders, against a simple model."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.jobs import FINISHED, JobState, NewGroup, NewJob, Policy
from jobber.store import Store
from tests.store.conftest import QUEUES, Bench, new_job

S, F, C, PENDING, STARTED = (JobState(n) for n in ("SUCCESS", "FAILURE", "CANCELLED", "PENDING", "STARTED"))


@dataclass
class Model:
    """What becomes of jobs, by ID: those of the parents stand before those of their children."""

    parents: dict[str, tuple[str, ...]]
    policy: dict[str, Policy]
    states: dict[str, JobState] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)

    def runnable(self) -> set[str]:
        return {
            name
            for name, state in self.states.items()
            if state is PENDING
            and name not in self.paused
            and all(self.states[parent] in FINISHED for parent in self.parents[name])
        }

    def follow(self, store: Store) -> None:
        """End who depends on the success of jobs that had none: as one of those did, the store says which."""
        for name in self.parents:
            if self.states.get(name) is PENDING and self.policy[name] is Policy.SUCCESS:
                bad = {self.states[parent] for parent in self.parents[name]} & {F, C}
                if bad:
                    self.states[name] = store.get(name).state
                    assert self.states[name] in bad
                    self.paused.discard(name)


@dataclass
class Web:
    """A store, the model of it, and chance."""

    bench: Bench
    model: Model
    chance: random.Random
    groups: dict[str, set[str]] = field(default_factory=dict)

    def submit(self, names: list[str], *, group: str) -> None:
        """Submit some jobs in any order: of one submission, children may stand before their parents."""
        new = [
            new_job(name, depends_on=self.model.parents[name], depends_policy=self.model.policy[name])
            for name in self.chance.sample(names, len(names))
        ]
        self.model.states |= dict.fromkeys(names, PENDING)
        if group:
            self.groups[group] = {*names}
            self.bench.store.submit_group(NewGroup(group_id=group, jobs=new, callback=_callback(group)))
        else:
            self.bench.store.submit(new)

    def step(self, pick: str, how: str) -> None:
        """Do something with a job that is not finished."""
        store, state = self.bench.store, self.model.states[pick]
        if how == "pause" and state is PENDING:
            store.pauses.pause(pick, "")
            self.model.paused.add(pick)
        elif how == "cancel" and state is PENDING:
            store.cancel(pick)
            self.model.states[pick] = C
            self.model.paused.discard(pick)
        elif state is STARTED:
            job = store.get(pick)
            if how == "fail":
                store.fail(job, error="no", code="c")
            elif how == "cancel":
                store.cancel(pick)
                store.cancelled(job)
            elif how == "put back":
                store.requeue(job)
                self.model.states[pick] = PENDING
                return
            else:
                store.succeed(job, rows=1, columns=[])
            self.model.states[pick] = {"fail": F, "cancel": C}.get(how, S)

    def claim(self) -> None:
        """Start all that may run, which are those that the model says, and the callbacks of groups that are over."""
        self.model.follow(self.bench.store)
        over = {name for name, jobs in self.groups.items() if all(self.model.states[job] in FINISHED for job in jobs)}
        claimed = {job.job_id: job for job in self.bench.claim(100).jobs}
        assert claimed.keys() == self.model.runnable() | {f"{name}-done" for name in over}
        for name in over:
            done = claimed[f"{name}-done"]
            states = [self.model.states[job] for job in self.groups.pop(name)]
            assert done.args == {"succeeded": states.count(S), "failed": states.count(F), "cancelled": states.count(C)}
            self.bench.store.succeed(done, rows=1, columns=[])
        self.model.states |= dict.fromkeys(claimed.keys() & self.model.parents.keys(), STARTED)


def _callback(group: str) -> NewJob:
    return new_job(f"{group}-done", queue="p", args=dict.fromkeys(("succeeded", "failed", "cancelled")))


#: What happens, but for what happens in the end, when all that is left succeeds.
HOW = ("succeed", "succeed", "fail", "cancel", "pause", "pause", "put back")
#: How many parents a job has, and the policies of those that have some.
COUNTS, POLICIES = (0, 1, 1, 2, 3), (Policy.SUCCESS, Policy.SUCCESS, Policy.FINISHED)


def test_random_webs_run_and_end_as_the_model_says_and_nothing_waits_for_ever(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    bench = Bench(store, store.register("w", QUEUES, 1000, lease=3600))
    numbers = itertools.count()

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**64), st.integers(1, 12), st.integers(0, 25), st.booleans())
    def check(seed: int, count: int, mischief: int, grouped: bool) -> None:
        number, chance = next(numbers), random.Random(seed)  # an example that fails leaves its jobs behind
        names = [f"{number}-{n}" for n in range(count)]
        parents = {name: tuple(chance.sample(names[:n], min(n, chance.choice(COUNTS)))) for n, name in enumerate(names)}
        web = Web(bench, Model(parents, {name: chance.choice(POLICIES) for name in names}), chance)
        todo = list(names)
        while todo or any(state not in FINISHED for state in web.model.states.values()):
            if todo and chance.random() < 0.3:
                batch = [todo.pop(0) for _ in range(chance.randint(1, len(todo)))]
                web.submit(batch, group=f"g{number}-{batch[0]}" if grouped else "")
            web.claim()
            if waits := [name for name, state in web.model.states.items() if state not in FINISHED]:
                mischief -= 1
                if mischief < 0 and web.model.paused:
                    name = chance.choice(sorted(web.model.paused))
                    store.pauses.resume(name)
                    web.model.paused.discard(name)
                web.step(chance.choice(waits), chance.choice(HOW) if mischief >= 0 else "succeed")
        web.claim()
        assert not web.groups
        assert {name: store.get(name).state for name in names} == web.model.states

    check()
    store.close()
