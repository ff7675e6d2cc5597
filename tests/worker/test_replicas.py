"""Databases that serve a task equally well: a job goes on with another one while one is down."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from jobber.errors import StateUnavailable
from jobber.jobs import JobState
from tests.servers import wait_until
from tests.worker.conftest import Bench


def test_a_job_goes_on_with_another_replica_while_one_is_down(bench: Bench) -> None:
    bench.submit("quick", "moved", db="gone", replicas=("gone", "src"))
    bench.submit("quick", "pinned", db="gone")

    bench.worker.work()

    moved, pinned = bench.store.get("moved"), bench.store.get("pinned")
    assert (moved.state, moved.db, moved.failures) == (JobState.SUCCESS, "src", 0)
    first, second = bench.store.attempts(moved)
    assert (first.ending, first.db, first.error_code) == ("rerouted", "gone", "source_unavailable")
    assert (second.ending, second.db) == ("success", "src")
    assert (pinned.state, pinned.error_code) == (JobState.FAILURE, "source_unavailable")


def test_a_replica_that_was_just_found_down_is_not_tried_again_by_each_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    gone = bench.worker._sources["gone"]
    read = gone.read

    def noted(*args: Any, **options: Any) -> Any:
        asked.append("gone")
        return read(*args, **options)

    monkeypatch.setattr(gone, "read", noted)
    for number in range(5):
        bench.submit("quick", f"job{number}", db="gone", replicas=("gone", "src"))

    bench.worker.work()

    assert {bench.store.get(f"job{number}").state for number in range(5)} == {JobState.SUCCESS}
    assert len(asked) == 1


def test_where_all_replicas_are_down_a_retry_is_spent_and_all_are_tried_again(bench: Bench) -> None:
    bench.worker._sources["src"] = bench.worker._sources["gone"]
    bench.submit("quick", "nowhere", db="src", replicas=("gone", "src"), retries=1)

    def finished() -> bool:
        bench.store.release_due()
        bench.worker.work()
        return not bench.store.live(["nowhere"])

    wait_until(finished, timeout=20)

    told = [(attempt.ending, attempt.db) for attempt in bench.store.attempts(bench.store.get("nowhere"))]
    around = [("rerouted", "src"), ("rerouted", "gone")]
    assert told == [*around, ("retry", "src"), *around, ("failure", "src")]


def test_a_replica_that_is_back_is_tried_though_it_was_passed_over(bench: Bench) -> None:
    bench.worker._replicas.note_down("src", "it was down a moment ago")
    bench.submit("quick", "back", db="src", replicas=("gone", "src"))

    bench.worker.work()

    job = bench.store.get("back")
    told = [(attempt.ending, attempt.db) for attempt in bench.store.attempts(job)]
    assert told == [("rerouted", "src"), ("rerouted", "gone"), ("success", "src")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which replicas are marked as down."""
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("jobber.replicas.time", clock)
    return clock


def test_a_replica_that_is_back_is_used_again_after_a_while_though_jobs_kept_coming(
    bench: Bench, clock: SimpleNamespace
) -> None:
    """Passing it over says nothing of it."""
    for number, seconds in enumerate((0, 4, 4, 3)):
        clock.now += seconds
        bench.submit("quick", f"job{number}", db="gone", replicas=("gone", "src"))
        bench.worker.work()
        sqlite3.connect(bench.gone).close()

    assert [bench.store.get(f"job{number}").db for number in range(4)] == ["src", "src", "src", "gone"]


def test_a_replica_is_down_for_a_while_from_when_it_was_tried_not_from_when_that_was_written_down(
    bench: Bench, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reroute = bench.store.reroute
    away = [StateUnavailable("away"), StateUnavailable("away")]

    def away_for_long(*args: Any, **options: Any) -> Any:
        if away:
            clock.now += 6
            raise away.pop()
        return reroute(*args, **options)

    monkeypatch.setattr(bench.store, "reroute", away_for_long)
    bench.submit("quick", "moved", db="gone", replicas=("gone", "src"))

    bench.worker.work()

    assert bench.store.get("moved").db == "src"
    assert bench.worker._replicas.why_down("gone") is None
