"""Groups where an answer was lost, or somebody else was faster."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from jobber.jobs import Job
from jobber.store import Store, groups, upkeep
from jobber.store.lanes import LaneBook, LaneKey
from jobber.store.submission import Submitter
from tests.store.conftest import QUEUES, Bench, new_group, new_job


def _cancel_and_put_back(bench: Bench, job: Job) -> Any:
    if bench.store.get("a").live:
        bench.store.cancel("a")
    return bench.store.requeue(job)


@pytest.mark.parametrize(
    "end",
    [
        lambda bench, job: bench.store.succeed(job, rows=1, columns=[]),
        lambda bench, job: bench.store.fail(job, error="no", code="c"),
        _cancel_and_put_back,
    ],
    ids=["succeed", "fail", "cancelled when put back"],
)
def test_an_end_whose_answer_was_lost_wakes_the_callback_when_it_is_told_again(bench: Bench, end: Any) -> None:
    bench.store.submit_group(new_group("g", "a"))
    (job,) = bench.claim().jobs
    end(bench, job)
    assert "p" in end(bench, job)
    assert bench.ids() == ["g-done"]
    assert "p" not in end(bench, job)


def test_a_group_that_comes_and_goes_while_the_one_before_is_purged_stays(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(server_url)
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))

    def come_and_go(job_id: str) -> None:
        store.submit_group(new_group("g", job_id, callback=None))
        (job,) = bench.claim().jobs
        store.succeed(job, rows=1, columns=[])

    come_and_go("a")
    look = groups._runs
    with monkeypatch.context() as during:

        def slowly(*args: Any) -> list[Job]:
            found = look(*args)
            during.undo()
            come_and_go("b")
            return found

        during.setattr(groups, "_runs", slowly)
        assert [job.job_id for job in store.purge_group("g")] == ["a"]
    assert [job.job_id for job in store.group("g").jobs] == ["b"]
    store.close()


def test_two_groups_that_make_the_same_lanes_never_wait_for_each_other(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    first, second = threading.Event(), threading.Event()
    make, add = LaneBook.ids, Submitter._add_group

    def make_slowly(*args: Any) -> Mapping[LaneKey, int]:
        made = make(*args)
        (second if first.is_set() else first).set()
        second.wait(0.3)  # it comes where the second can make lanes before the first has made all of its own
        return made

    def add_and_count(self: Submitter, connection: Any, new: Any, receipt: Any) -> Any:
        begun.append(new.group_id)
        return add(self, connection, new, receipt)

    monkeypatch.setattr(LaneBook, "ids", make_slowly)
    monkeypatch.setattr(Submitter, "_add_group", add_and_count)
    stores = [Store(server_url), Store(server_url)]
    there = new_group("there", callback=new_job("there-done", queue="p"), jobs=[new_job("a")])
    back = new_group("back", callback=new_job("back-done", queue="q"), jobs=[new_job("b", queue="p")])
    with ThreadPoolExecutor(2) as pool:
        going = pool.submit(stores[0].submit_group, there)
        assert first.wait(20)
        pool.submit(stores[1].submit_group, back).result(20)
        going.result(20)
    assert begun == ["there", "back"]  # neither was rolled back to end a deadlock
    for store in stores:
        store.close()


def test_a_purge_and_a_pruning_never_wait_for_each_other(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = Store(server_url), Store(server_url)
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    store.submit_group(new_group("g", "a", callback=None))
    (job,) = bench.claim().jobs
    store.succeed(job, rows=1, columns=[])
    begun: list[str] = []
    look, forget = groups._runs, upkeep.forget

    def forget_and_count(*args: Any) -> int:
        begun.append("prune")
        return forget(*args)

    monkeypatch.setattr(upkeep, "forget", forget_and_count)
    with ThreadPoolExecutor(1) as pool:
        pruning = []

        def look_and_prune(*args: Any) -> list[Job]:
            begun.append("purge")
            found = look(*args)
            pruning.append(pool.submit(other.prune, 0))
            wait([pruning[0]], 0.3)  # it waits for the group, which the purge holds
            return found

        monkeypatch.setattr(groups, "_runs", look_and_prune)
        store.purge_group("g")
        assert pruning[0].result(20) == 1
    assert begun == ["purge", "prune"]  # neither was rolled back to end a deadlock
    store.close()
    other.close()
