"""What an application that polls a job costs: few round trips; and that nothing of what holds it back is old."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from sqlalchemy.engine import make_url

from jobber.jobs import Job
from jobber.store import Gate, GateKind, Hold, Store, progress
from tests.blackhole import Proxy
from tests.store.conftest import COLUMNS, QUEUES, Bench

TOTAL = Gate(GateKind.TOTAL, "")


def test_a_poll_takes_few_round_trips(server_url: str) -> None:
    url = make_url(server_url)
    assert url.port is not None
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(url.port))
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False), pool_size=1)
        stack.callback(store.close)
        bench = Bench(store, store.register("w", QUEUES, 10, lease=60))
        store.set_limits({TOTAL: 2})
        store.succeed(bench.started("done"), rows=7, columns=COLUMNS)
        started = bench.started("runs")
        (pending,) = bench.submit("waits")

        def trips(ask: Callable[[], object]) -> int:
            """Return the round trips of one of several: now and then plans are made anew."""
            counts = []
            for _ in range(5):
                before = proxy.round_trips
                ask()
                counts.append(proxy.round_trips - before)
            return min(counts)

        for job_id in ("done", "runs", "waits"):
            assert trips(lambda job_id=job_id: store.get(job_id)) == 1  # type: ignore[misc]
        assert trips(lambda: store.live(["done", "waits"])) == 1
        done = store.get("done")
        assert trips(lambda: (store.waiting_for(done), store.attempts(done), store.prospects.outlook(done))) == 0
        assert trips(lambda: store.prospects.outlook(started)) == 1
        assert trips(lambda: store.waiting_for(pending)) == 1
        assert trips(lambda: store.prospects.outlook(pending)) == 1


def test_what_another_process_has_just_limited_or_paused_is_told_at_once(state_url: str, bench: Bench) -> None:
    other = Store(state_url)
    bench.started("runs")
    (job,) = bench.submit("waits")
    assert bench.store.waiting_for(job) == []
    other.set_limits({TOTAL: 1})
    full = Hold("total", "", "all jobs: 1 of 1 running")
    assert bench.store.waiting_for(job) == [full]
    other.pause(Gate(GateKind.QUEUE, "q"), "migration")
    assert bench.store.waiting_for(job) == [Hold("queue", "q", "queue q is paused: migration"), full]
    other.resume(Gate(GateKind.QUEUE, "q"))
    other.set_limits({TOTAL: 0})
    assert bench.store.waiting_for(job) == []
    other.close()


def test_how_fast_queues_go_is_looked_at_once_for_all_who_ask_at_about_the_same_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(job_id: str) -> None:
        bench.store.succeed(bench.started(job_id, priority=10), rows=7, columns=COLUMNS)

    def starts_at(job: Job) -> int | None:
        return bench.store.prospects.outlook(job).starts_at

    monkeypatch.setattr(progress, "_KEPT", 3600)
    (job,) = bench.submit("a")
    assert starts_at(job) is None
    end("x")
    assert starts_at(job) is None
    monkeypatch.setattr(bench.store.prospects, "_paces", progress._Paces(0, {}))
    assert starts_at(job) is not None
    # Its place is as of now.
    bench.submit("urgent", priority=10)
    assert bench.store.prospects.outlook(job).position == 2
