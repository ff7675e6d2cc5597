"""Random groups, ended in random ways and orders, against arithmetic."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.jobs import FINISHED, LIVE, JobState, NewGroup, group_state
from jobber.store import Store
from tests.store.conftest import QUEUES, Bench, new_group, new_job

ENDINGS = st.lists(st.sampled_from(["succeed", "fail", "cancel"]), min_size=1, max_size=8)


@given(st.dictionaries(st.sampled_from(JobState), st.integers(0, 5)))
def test_the_state_of_a_group_follows_from_its_counts(counts: dict[JobState, int]) -> None:
    present = {state for state in counts if counts[state]}
    state = group_state(counts)
    if present & LIVE:
        assert state is (JobState.STARTED if present - {JobState.PENDING, JobState.CANCELLED} else JobState.PENDING)
    elif present:
        assert state in FINISHED & present
        assert (state is JobState.FAILURE) == (JobState.FAILURE in present)
        assert (state is JobState.SUCCESS) == (present == {JobState.SUCCESS})


def test_random_groups_end_with_the_right_counts(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    bench = Bench(store, store.register("w", QUEUES, 100, lease=3600))

    numbers = itertools.count()

    @settings(max_examples=40, deadline=None)
    @given(ENDINGS, st.integers(0, 9), st.booleans(), st.randoms(use_true_random=False))
    def check(endings: list[str], concurrency: int, asks: bool, random: object) -> None:
        number = next(numbers)  # an example that fails leaves its group behind
        gid, names = f"g{number}", [f"{number}-{n}" for n in range(len(endings))]
        jobs = [new_job(name) for name in names]
        callback = new_group(gid, "x").callback if asks else None
        store.submit_group(NewGroup(group_id=gid, jobs=jobs, concurrency=concurrency, callback=callback))
        todo, most = dict(zip(names, endings, strict=True)), 0
        while todo:
            assert store.group(gid).live
            claimed = list(bench.claim(100, queues=["q"]).jobs)
            running = [job for job in store.group(gid).jobs if job.state is JobState.STARTED]
            most = max(most, len(running))
            assert claimed or running
            job = random.choice(running)  # type: ignore[attr-defined]
            how = todo.pop(job.job_id)
            if how == "cancel":
                store.cancelled(store.cancel(job.job_id).job)
            elif how == "fail":
                store.fail(job, error="no", code="c")
            else:
                store.succeed(job, rows=1, columns=[])
        assert most == min(concurrency or len(names), len(names))
        group = store.group(gid)
        assert not group.live
        by_state = {JobState.SUCCESS: "succeed", JobState.FAILURE: "fail", JobState.CANCELLED: "cancel"}
        expected = {state: endings.count(how) for state, how in by_state.items()}
        assert {state: group.counts[state] for state in expected} == expected
        told = bench.claim(100).jobs
        assert len(told) == asks
        for job in told:
            assert isinstance(job.args, dict)
            assert [job.args[name] for name in ("succeeded", "failed", "cancelled")] == list(expected.values())
            tables = [f"results_{name}" for name, how in zip(names, endings, strict=True) if how == "succeed"]
            assert json.loads(str(job.args["tables"])) == tables
            store.succeed(job, rows=1, columns=[])

    check()
    store.close()
