"""Lists of runs: what they hold, in which order, and that paging loses and doubles nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from jobber.jobs import FINISHED, JobState
from jobber.store import Store, tagging, times, walking
from jobber.store.listing import JobFilter
from jobber.store.records import NEW_RUN, Membership, values_of
from jobber.store.schema import finished_jobs, groups, jobs, lanes, tags
from tests.store.conftest import QUEUES, TASKS, Bench, new_group, new_job

PENDING, STARTED, RETRY = JobState.PENDING, JobState.STARTED, JobState.RETRY
SUCCESS, FAILURE, CANCELLED = JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED
HOUR = 3600 * 1_000_000


@dataclass(frozen=True)
class Run:
    """A run as the model knows it."""

    run: int
    state: JobState
    task: str
    queue: str
    group: str
    tags: Mapping[str, str]
    created_at: int

    def matches(self, wanted: JobFilter) -> bool:
        return (
            (not wanted.states or self.state in wanted.states)
            and wanted.task in ("", self.task)
            and wanted.queue in ("", self.queue)
            and wanted.group in ("", self.group)
            and wanted.tags.items() <= self.tags.items()
            and (wanted.since is None or self.created_at >= wanted.since)
            and (wanted.until is None or self.created_at < wanted.until)
        )


@dataclass(frozen=True)
class Shelf:
    """Runs, and the groups that they are of, all of one ID: the group's run of each member, the callback of each."""

    runs: list[Run]
    members: dict[int, int] = field(default_factory=dict)
    callbacks: dict[int, int] = field(default_factory=dict)


def shelve(store: Store, shelf: Shelf) -> None:
    """Write runs as they are, live or finished, in the place of all that there are."""
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for run in shelf.runs:
        new = new_job(f"j{run.run}", task=run.task, queue=run.queue, tags=run.tags)
        row = NEW_RUN | values_of(new, run.run, run.created_at, Membership(run.group, shelf.members.get(run.run)))
        live = run.state not in FINISHED
        lane = TASKS.index(run.task) * len(QUEUES) + QUEUES.index(run.queue) + 1
        place = {"lane": lane, "ord": run.run, "due": None, "ended_attempt": 0, "ended_as": ""} if live else {}
        rows[live].append(row | {"state": run.state.value} | place)
    plain = {"db": "db0", "tenant": "", "job_group": "", "group_limit": 0, "suspect": False, "head": 0, "version": 0}
    of_lanes = [
        {"id": t * len(QUEUES) + q + 1, "task": task, "queue": queue} | plain
        for t, task in enumerate(TASKS)
        for q, queue in enumerate(QUEUES)
    ]
    none = {"live_id": None, "concurrency": 0, "created_at": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    of_groups = [
        {"run": run, "group_id": "g", "size": sum(of == run for of in shelf.members.values())}
        | {"callback_run": shelf.callbacks.get(run)}
        | none
        for run in {*shelf.members.values(), *shelf.callbacks}
    ]

    def work(connection: Any) -> None:
        for table in (jobs, finished_jobs, tags, groups, lanes):
            connection.execute(delete(table))
        for table, new in ((lanes, of_lanes), (groups, of_groups), (jobs, rows[True]), (finished_jobs, rows[False])):
            if new:
                connection.execute(insert(table), new)
        tagging.note(connection, [*rows[True], *rows[False]])

    store._database.write(work)


def pages(store: Store, wanted: JobFilter, limit: int) -> Iterator[list[int]]:
    """Yield the runs of all pages."""
    below = None
    while True:
        page = store.lists.page(wanted, below=below, limit=limit)
        yield [job.run for job in page.jobs]
        if page.below is None:
            return
        assert below is None or page.below < below, "a page must lead on"
        below = page.below


def listed(store: Store, wanted: JobFilter, limit: int = 1000) -> list[int]:
    return [run for page in pages(store, wanted, limit) for run in page]


# -- against a model ---------------------------------------------------------------------------------------------------


@st.composite
def shelves(draw: st.DrawFn) -> Shelf:
    """Draw runs in any state, numbered with gaps, some of them members and callbacks of a group's runs."""
    rng = draw(st.randoms(use_true_random=False))
    number, at, group_run = 1000, 0, 0
    shelf = Shelf([], {}, {})
    for _ in range(draw(st.integers(0, 60))):
        number += rng.choice([1, 1, 1, 2, 300])
        at += rng.choice([0, 1, 20, HOUR])
        if rng.random() < 0.1:
            group_run, number = number, number + 1
        part = rng.choice(["", "", "", "member", "member", "callback"]) if group_run else ""
        if part == "member":
            shelf.members[number] = group_run
        elif part == "callback" and group_run not in shelf.callbacks:
            shelf.callbacks[group_run] = number
        else:
            part = ""
        labels = {name: rng.choice(["", "1", "1 ", "É"]) for name in ("k", "env") if rng.random() < 0.5}
        state, task, queue = rng.choice([*JobState]), rng.choice(TASKS), rng.choice(QUEUES)
        shelf.runs.append(Run(number, state, task, queue, "g" if part else "", labels, at))
    return shelf


_FILTERS = st.builds(
    JobFilter,
    states=st.frozensets(st.sampled_from([*JobState]), max_size=4),
    task=st.sampled_from(["", "", *TASKS, "none"]),
    queue=st.sampled_from(["", "", *QUEUES]),
    group=st.sampled_from(["", "", "g", "none"]),
    tags=st.dictionaries(st.sampled_from(["k", "env"]), st.sampled_from(["", "1", "1 ", "É"]), max_size=2),
    since=st.none() | st.integers(0, 20 * HOUR),
    until=st.none() | st.integers(0, 20 * HOUR),
)


def test_random_filters_list_what_a_model_finds_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps so small that every list is read in many of them."""
    for name, value in {"FIRST": 3, "STEP": 5, "LOOK": 2, "GROUPS": 2, "SHORT": 6, "WINDOW": 7}.items():
        monkeypatch.setattr(walking, name, value)
    monkeypatch.setattr(times, "CLOSE", 2)
    examples = 20 if store._database.engine.name == "sqlite" else 8

    @settings(max_examples=examples, deadline=None, suppress_health_check=[*HealthCheck])
    @given(shelves(), st.lists(_FILTERS, min_size=4, max_size=8), st.integers(1, 12))
    def check(shelf: Shelf, filters: list[JobFilter], limit: int) -> None:
        shelve(store, shelf)
        for wanted in filters:
            expected = [run.run for run in reversed(shelf.runs) if run.matches(wanted)]
            found = [*pages(store, wanted, limit)]
            assert [run for page in found for run in page] == expected, wanted
            # A page is only short where there is no more.
            assert all(len(page) == limit for page in found[:-1]), wanted

    check()


# -- what a model does not know ----------------------------------------------------------------------------------------


def test_runs_that_are_submitted_claimed_and_finished_meanwhile_are_neither_lost_nor_doubled(bench: Bench) -> None:
    store = bench.store
    before = [job.run for job in bench.submit(*(f"j{n}" for n in range(60)), tags={"k": "1"})]
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            for job in bench.claim(limit=5).jobs:
                store.succeed(job, rows=0, columns=[])
            bench.submit(f"more{number}", tags={"k": "1"})
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        rounds = 0
        while rounds < 3 or (rounds < 10 and bench.store.get("j59").live):
            for wanted in (JobFilter(), JobFilter(task="t"), JobFilter(queue="q", tags={"k": "1"})):
                found = listed(store, wanted, 7)
                assert found == sorted({*found}, reverse=True)
                assert {*found} >= {*before}
            rounds += 1
    finally:
        stop.set()
        worker.join()


def test_a_run_that_finishes_between_the_two_looks_is_told_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live runs are read first: the other way round the list would miss it."""
    jobs_ = {job.job_id: job.run for job in bench.submit("a", "b", "c")}
    (started,) = bench.claim().jobs
    rows, moved = walking.Walk.rows, []

    def finish_after_the_first(self: walking.Walk, *args: Any, **kwargs: Any) -> Any:
        found = rows(self, *args, **kwargs)
        if not moved:
            moved.append(bench.store.succeed(started, rows=1, columns=[]))
        return found

    monkeypatch.setattr(walking.Walk, "rows", finish_after_the_first)
    page = bench.store.lists.page(JobFilter())
    assert [job.run for job in page.jobs] == [jobs_["c"], jobs_["b"], jobs_["a"]]
    assert page.jobs[-1].state is SUCCESS
    assert page.below is None


def test_a_walk_that_takes_too_long_answers_as_far_as_it_came_and_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "FIRST", 2)
    monkeypatch.setattr(walking, "STEP", 2)
    runs = [Run(n, SUCCESS, TASKS[n % 2], QUEUES[n % 3 == 0], "", {"k": str(n % 5 == 0)}, n) for n in range(1000, 1060)]
    shelve(store, Shelf(runs))
    wanted = JobFilter(task=TASKS[0], queue=QUEUES[1], tags={"k": "True"})
    monkeypatch.setattr(store.lists, "_patience", 0.0)
    found = [*pages(store, wanted, 100)]
    assert [run for page in found for run in page] == [run.run for run in reversed(runs) if run.matches(wanted)]
    assert len(found) > 2, "a page must have ended before the list did"


def test_a_clock_that_was_set_back_hides_no_run_from_a_list_of_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "CLOSE", 2)
    back = times.MARGIN - 1_000_000
    at = [n * 60_000_000 - (back if 40 <= n < 45 else 0) for n in range(90)]
    runs = [Run(1000 + n, SUCCESS, "t", "q", "", {}, moment) for n, moment in enumerate(at)]
    shelve(store, Shelf(runs))
    for since in range(30, 50):
        wanted = JobFilter(since=since * 60_000_000, until=(since + 2) * 60_000_000)
        assert listed(store, wanted) == [run.run for run in reversed(runs) if run.matches(wanted)]


def test_a_group_lists_the_jobs_and_callbacks_of_all_its_runs(bench: Bench) -> None:
    store = bench.store
    for _ in range(2):
        group = store.submit_group(new_group("g", "a", "b"))
        store.submit([new_job(f"between{group.run}")])
        for _ in range(4):
            (job,) = bench.claim().jobs
            store.succeed(job, rows=0, columns=[])
    jobs_ = store.lists.page(JobFilter(group="g"), limit=10).jobs
    assert [job.job_id for job in jobs_] == ["g-done", "b", "a"] * 2
    assert [job.job_id for job in store.lists.page(JobFilter(group="g"), limit=2).jobs] == ["g-done", "b"]
    assert listed(store, JobFilter(group="g"), 1) == [job.run for job in jobs_]


def test_a_page_of_a_group_is_followed_by_those_that_finished_before_older_ones(bench: Bench) -> None:
    group = bench.store.submit_group(new_group("g", jobs=[new_job(job_id, db="db1") for job_id in "abc"]))
    *_, last = bench.claim(3).jobs
    bench.store.succeed(last, rows=0, columns=[])
    expected = [group.callback.run, *sorted((job.run for job in group.jobs), reverse=True)]
    for size in (1, 2, 3):
        assert listed(bench.store, JobFilter(group="g"), size) == expected
