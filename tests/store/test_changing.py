"""Many jobs cancelled at once, beside those who claim, finish and cancel them, too."""

from __future__ import annotations

import threading
from collections import Counter

from jobber.jobs import JobState
from jobber.store import Store
from jobber.store.listing import JobFilter
from tests.store.conftest import Bench, new_group, new_job


def everything(store: Store) -> list[tuple[str, JobState]]:
    return [(job.job_id, job.state) for job in store.lists.page(JobFilter(), limit=1000).jobs]


def test_jobs_that_are_claimed_while_they_are_cancelled_end_once_and_no_limit_leaks(bench: Bench) -> None:
    store = bench.store
    members = [f"j{n}" for n in range(100)]
    group = store.submit_group(new_group("g", *members))
    runs = [job.run for job in group.jobs]
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for job in bench.claim(limit=3).jobs:
                store.succeed(job, rows=0, columns=[])

    threads = [threading.Thread(target=work), *(threading.Thread(target=cancel, args=(store, runs)) for _ in range(2))]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    for job in bench.claim(limit=100).jobs:
        store.succeed(job, rows=0, columns=[])
    states = Counter(state for job_id, state in everything(store) if job_id in members)
    counted = store.group("g", jobs=False)
    assert states.total() == 100
    assert states.keys() <= {JobState.SUCCESS, JobState.CANCELLED}
    assert {state: count for state, count in counted.counts.items() if count} == states
    assert counted.finished_at is not None
    assert store.get("g-done").state is JobState.SUCCESS


def cancel(store: Store, runs: list[int]) -> None:
    for start in range(0, len(runs), 10):
        store.changes.cancel(runs[-start - 10 : len(runs) - start])


def test_a_cancel_tells_what_it_did(bench: Bench) -> None:
    store = bench.store
    running = bench.started("a")
    waiting, finished = bench.submit("b", "c")
    store.cancel("c")
    store.submit([new_job("child", depends_on=("b",))])
    told = store.changes.cancel([running.run, waiting.run, finished.run, 5])
    assert (told.done, told.asked) == ({running.run, waiting.run}, ((running.run, 1),))
    states = {"a": "STARTED", "b": "CANCELLED", "c": "CANCELLED", "child": "CANCELLED"}
    assert dict(everything(store)) == states
    assert store.get("a").cancel_requested
    assert store.changes.cancel([]).done == frozenset()


def test_the_newest_run_of_each_id_is_found_live_or_finished(bench: Bench) -> None:
    store = bench.store
    for job_id in ("a", "b"):
        bench.submit(job_id)
        store.cancel(job_id)
    (live,) = bench.submit("a")
    newest = store.changes.newest(["a", "b", "none"])
    assert {job_id: (job.run, job.state) for job_id, job in newest.items()} == {
        "a": (live.run, JobState.PENDING),
        "b": (store.get("b").run, JobState.CANCELLED),
    }
    assert store.changes.newest_runs(["a", "b", "none"]) == {job_id: job.run for job_id, job in newest.items()}
