"""A worker at work: wake-ups, slots, draining while it claims, heartbeats."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jobber.jobs import JobState
from tests.servers import wait_until
from tests.worker.conftest import Bench, in_thread


def test_a_wake_up_runs_all_that_there_is(bench: Bench) -> None:
    for number in range(3):
        bench.submit("quick", f"job{number}")

    bench.worker.work()

    assert {bench.store.get(f"job{number}").state for number in range(3)} == {JobState.SUCCESS}


def test_the_first_claim_passes_the_wake_up_on_twice_while_there_is_more(bench: Bench) -> None:
    for number in range(5):
        bench.submit("quick", f"job{number}")

    bench.worker.work()

    assert bench.wakes.queues == ["default"]


def test_no_more_jobs_run_than_there_are_slots(bench: Bench) -> None:
    for number in range(3):
        bench.submit("endless", f"job{number}")
    working = [in_thread(bench.worker.work) for _ in range(2)]
    wait_until(lambda: len(bench.worker._held) == 2)

    bench.worker.work()

    assert sorted(bench.store.get(f"job{number}").state for number in range(3)) == ["PENDING", "STARTED", "STARTED"]
    bench.worker.interrupt()
    for thread in working:
        thread.join(10)


def test_a_job_that_is_being_claimed_when_the_drain_begins_is_not_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is on its way, so the process counts as busy though it holds no job yet."""
    bench.submit("quick", "late")
    claiming, go_on = threading.Event(), threading.Event()
    claim = bench.store.finish_and_claim

    def slow_claim(*args: Any, **options: Any) -> Any:
        claiming.set()
        assert go_on.wait(10)
        return claim(*args, **options)

    monkeypatch.setattr(bench.store, "finish_and_claim", slow_claim)
    working = in_thread(bench.worker.work)
    assert claiming.wait(10)
    draining = in_thread(lambda: bench.worker.drain(10))
    draining.join(0.2)
    assert draining.is_alive()

    go_on.set()
    draining.join(10)
    working.join(10)
    bench.worker.leave()

    assert bench.store.get("late").state is JobState.SUCCESS
    assert bench.store.lost() == []


def test_a_wake_up_that_comes_while_all_are_busy_is_not_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The busy thread has seen that nothing is left, and has not gone yet, when the job and its wake-up come."""
    bench.worker.slots = 1
    looked, go_on = threading.Event(), threading.Event()
    claim = bench.store.finish_and_claim

    def claim_and_linger(*args: Any, **options: Any) -> Any:
        found = claim(*args, **options)
        if not looked.is_set():
            looked.set()
            assert go_on.wait(10)
        return found

    monkeypatch.setattr(bench.store, "finish_and_claim", claim_and_linger)
    busy = in_thread(bench.worker.work)
    assert looked.wait(10)
    bench.submit("quick", "just-missed")

    bench.worker.work()
    go_on.set()
    busy.join(10)

    assert bench.store.get("just-missed").state is JobState.SUCCESS


def test_a_claim_whose_answer_was_lost_goes_back_to_its_queue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit("quick", "lost-answer")
    worker = bench.worker._identity()
    bench.store.claim(worker, queues=["default"], tasks={"quick"}, databases={"src"}, limit=1)
    bench.worker._pulse()
    assert bench.store.get("lost-answer").state is JobState.STARTED  # its claim may still be on its way

    monkeypatch.setattr("jobber.held._STRANGE", 0)
    bench.worker._pulse()

    assert bench.store.get("lost-answer").state is JobState.PENDING
    bench.worker.work()
    assert bench.store.get("lost-answer").state is JobState.SUCCESS


def test_the_heartbeat_outlives_any_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobber.worker._BEAT", 0.01)
    beats: list[str] = []
    heartbeat = bench.store.heartbeat

    def first_fails(*args: Any, **options: Any) -> Any:
        beats.append("beat")
        if len(beats) == 1:
            raise RuntimeError("a bug")
        return heartbeat(*args, **options)

    monkeypatch.setattr(bench.store, "heartbeat", first_fails)
    beating = in_thread(bench.worker.beat)

    wait_until(lambda: len(beats) > 1)

    bench.worker.drain(1)
    beating.join(5)
    assert not beating.is_alive()
