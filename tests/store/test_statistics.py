"""Statistics against a model that keeps all jobs in a list, and what bounds their cost."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from jobber.errors import StateUnavailable
from jobber.jobs import FINISHED, JobState
from jobber.store import Store, statistics
from jobber.store.records import NEW_RUN, values_of
from jobber.store.schema import finished_jobs, jobs
from jobber.store.statistics import Statistician
from tests.store.conftest import DATABASES, QUEUES, TASKS, Bench, new_job

HOUR = 3600 * 1_000_000
Row = dict[str, Any]


def shelve(store: Store, rows: list[Row]) -> None:
    """Write finished runs in the place of those that there are."""

    def work(connection: Any) -> None:
        connection.execute(delete(finished_jobs))
        connection.execute(delete(jobs))
        if rows:
            connection.execute(insert(finished_jobs), rows)

    store._database.write(work)


def finished(run: int, rng: random.Random, now: int, ago: int) -> Row:
    """Return a run that finished so long ago."""
    new = new_job(f"j{run}", task=rng.choice(TASKS), queue=rng.choice(QUEUES), db=rng.choice(DATABASES))
    ended = now - ago
    started = None if rng.random() < 0.2 else ended - rng.choice([0, 1, 999, 5_000_000, rng.randrange(HOUR)])
    created = (started or ended) - rng.choice([0, 1, 1500, rng.randrange(HOUR)])
    row = NEW_RUN | values_of(new, run, created) | {"started_at": started, "finished_at": ended}
    row["state"] = rng.choice(sorted(FINISHED))
    row["eta"] = rng.choice([None, None, created - HOUR, created + rng.randrange(2 * HOUR)])
    row["error_code"] = rng.choice(["query_failed", "timed_out"]) if row["state"] == "FAILURE" else ""
    row["rows"] = rng.choice([None, 0, 7])
    return row


def disc(durations: list[int], p: int) -> int | None:
    return sorted(durations)[math.ceil(len(durations) * p / 100) - 1] if durations else None


def expected(rows: list[Row], column: str) -> dict[str, Any]:
    """Return the figures by a column, as one would count by hand."""
    found = {}
    for name in {row[column] for row in rows}:
        mine = [row for row in rows if row[column] == name]
        began = [row for row in mine if row["started_at"] is not None]
        queued = [max(0, row["started_at"] - max(row["created_at"], row["eta"] or 0)) // 1000 for row in began]
        run = [(row["finished_at"] - row["started_at"]) // 1000 for row in began]
        found[name] = (
            Counter(row["state"] for row in mine),
            Counter(row["error_code"] for row in mine if row["error_code"]),
            sum(row["rows"] or 0 for row in began),
            {p: disc(queued, p) for p in (50, 95, 99)},
            {p: disc(run, p) for p in (50, 95, 99)},
        )
    return found


def told(tallies: Any) -> dict[str, Any]:
    return {
        name: (Counter({s.value: n for s, n in t.states.items()}), +t.failures, t.rows, t.queued, t.run)
        for name, t in tallies.items()
    }


def test_random_histories_have_the_figures_that_a_model_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that a window is read in many, some by the order of runs and the rest by the time of their end."""
    monkeypatch.setattr(statistics, "PART", 7)
    monkeypatch.setattr(statistics, "DENSE", 0.5)
    monkeypatch.setattr(statistics, "PATIENCE", 600.0)

    @settings(max_examples=12, deadline=None, suppress_health_check=[*HealthCheck])
    @given(st.integers(0, 40), st.randoms(use_true_random=False), st.sampled_from([0.5, 1.0, 24.0]))
    def check(count: int, rng: random.Random, hours: float) -> None:
        now = store.now()
        # Those near a bound of the window would depend on how long this takes.
        rows = [finished(1000 + n, rng, now, rng.choice([1, 20, 50, 90, 2000]) * 60_000_000) for n in range(count)]
        shelve(store, rows)
        figures = Statistician(store._database).make(hours)
        within = [row for row in rows if row["finished_at"] >= now - hours * HOUR]
        for column, tallies in (("task", figures.tasks), ("queue", figures.queues), ("db", figures.databases)):
            assert told(tallies) == expected(within, column)
        assert {s.value: n for s, n in figures.states.items() if n} == Counter(row["state"] for row in within)
        assert (figures.complete, figures.sample) == (True, 1)
        assert len(figures.series) <= statistics.POINTS + 1
        for point in figures.series:
            of_it = [row for row in within if 0 <= row["finished_at"] - point.at < figures.interval * 1_000_000]
            failed = sum(row["state"] == "FAILURE" for row in of_it)
            assert (point.finished, point.failed) == (len(of_it), failed)
        assert sum(point.finished for point in figures.series) == len(within)

    check()


def test_live_jobs_are_counted_as_they_are_now(bench: Bench) -> None:
    bench.submit("a", "b", "c")
    bench.claim()
    states = bench.store.statistics.make(1).states
    assert {state: n for state, n in states.items() if n} == {JobState.PENDING: 2, JobState.STARTED: 1}


def test_of_too_many_jobs_the_newest_are_counted_and_the_answer_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MOST", 10)
    now, rng = store.now(), random.Random(5)
    rows = [finished(1000 + n, rng, now, (n + 1) * 1_000_000) for n in range(25)]
    shelve(store, rows)
    figures = store.statistics.make(24)
    assert (figures.complete, figures.since) == (False, rows[9]["finished_at"])
    assert sum(tally.states.total() for tally in figures.tasks.values()) == 10


def test_a_sample_is_near_the_whole_whatever_order_jobs_were_submitted_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that take turns are not told apart by the sample; of one with few jobs all count."""
    monkeypatch.setattr(statistics, "SAMPLE", 1000)
    monkeypatch.setattr(statistics, "SMALL", 20)
    now, rng = store.now(), random.Random(5)
    rows = []
    for n in range(4000):
        task = "rare" if n % 400 == 0 else TASKS[n % 2]
        took = (n // 400 + 1) * 1_000_000 if task == "rare" else rng.randrange(1_000_000) + n % 2 * 1_000_000
        row = finished(1000 + n, rng, now, 60_000_000) | {
            "task": task,
            "eta": None,
            "started_at": now - 60_000_000 - took,
        }
        rows.append(row | {"created_at": row["started_at"]})
    shelve(store, rows)
    figures = store.statistics.make(24)
    assert figures.sample == 4
    assert {name: tally.states.total() for name, tally in figures.tasks.items()} == {"rare": 10, "t": 1990, "u": 2000}
    assert figures.tasks["rare"].run == {50: 5000, 95: 10_000, 99: 10_000}
    for name, base in (("t", 0), ("u", 1000)):
        for p, ms in figures.tasks[name].run.items():
            assert ms is not None
            assert abs(ms - (base + p * 10)) < 120


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        (0.0001, 1),
        (0.02, 72),
        (1, 3600),
        (1.0001, 3600),
        (1.65, 5940),
        (24.001, 86_400),
        (100, 360_000),
        (743, 743 * 3600),
    ],
)
def test_hours_are_rounded_and_whole_ones_stay(asked: float, counted: int) -> None:
    assert statistics.rounded(asked) == counted / 3600
    assert statistics.rounded(counted / 3600) == counted / 3600


def test_all_lengths_that_can_be_asked_for_come_down_to_a_few_windows() -> None:
    assert len({statistics.rounded(second / 3600) for second in range(1, statistics.MOST_HOURS * 3600, 7)}) < 1500


def test_while_one_window_is_counted_who_asks_for_another_is_not_kept_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "WAIT", 0.05)
    counting, go_on = threading.Event(), threading.Event()
    ours = Statistician(store._database)
    old = ours.look(24)
    made = ours.make

    def slowly(hours: float) -> statistics.Statistics:
        counting.set()
        assert go_on.wait(30)
        return made(hours)

    monkeypatch.setattr(ours, "make", slowly)
    ours._kept[24] = (ours._kept[24][0], 0.0, old)  # is to be made again
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ours.look, 1)
        assert counting.wait(30)
        for hours in (2, 1):
            with pytest.raises(StateUnavailable, match="being counted"):
                ours.look(hours)
        assert ours.look(24) is old
        go_on.set()
        made_now = first.result(30)
    assert ours.look(1.0001) is made_now


def test_an_answer_serves_all_who_ask_within_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit("a")
    first = bench.store.statistics.look(24)
    bench.submit("b")
    assert bench.store.statistics.look(24) is first
    assert bench.store.statistics.look(1).states[JobState.PENDING] == 2
    monkeypatch.setattr(statistics, "FRESH", 0.0)
    monkeypatch.setattr(statistics, "SHARE", 0)
    fresh = Statistician(bench.store._database)
    assert fresh.look(24) is not fresh.look(24)
    for hours in range(1, 40):
        fresh.look(hours)
    assert len(fresh._kept) == statistics.KEPT
