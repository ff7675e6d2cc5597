"""Many at once: threads, processes, and processes that die."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.managers import BaseManager
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from jobber.errors import Fenced, GroupIsFinished, JobIsLive, UnknownJob
from jobber.jobs import Job, JobState
from jobber.store import Store, database, failures
from jobber.store.exchange import Answer, Request
from jobber.store.gates import GateKind
from tests.forking import start
from tests.servers import wait_until
from tests.store import crowd
from tests.store.conftest import Bench, new_group, new_job


class Manager(BaseManager):
    """Serves one ``Report`` to all processes."""


Manager.register("Report", crowd.Report)

RUNNING = text(
    "SELECT l.queue, l.task, l.db, count(*) FROM jobber_running r JOIN jobber_lanes l ON l.id = r.lane GROUP BY 1, 2, 3"
)


def test_processes_that_submit_claim_end_and_pause_lose_nothing_and_break_no_limit(
    store: Store, state_url: str
) -> None:
    submitters, each = 2, 40
    store.set_limits(crowd.LIMITS)
    with Manager() as manager:
        report = manager.Report()  # type: ignore[attr-defined]
        processes = [
            *(start(crowd.submit, state_url, f"s{n}", each, report) for n in range(submitters)),
            *(start(crowd.work, state_url, submitters * each, 5, report) for _ in range(2)),
            start(crowd.toggle, state_url, 15),
        ]
        seen = 0
        deadline = time.monotonic() + 60
        while any(process.is_alive() for process in processes):
            assert time.monotonic() < deadline, f"stranded: {store.pending('q')} {store.pending('p')}"
            seen = max(seen, _check_limits(store))
        assert [process.exitcode for process in processes] == [0] * len(processes)
        claims, ends, cancels = report.all()
    assert seen > 1
    assert len(set(claims)) == len(claims), "an attempt was started twice"
    assert len(set(ends)) == len(ends) == submitters * each - len(cancels)
    assert cancels.isdisjoint(ends)
    assert store.pending("q") == store.pending("p") == store.lost() == []
    for n in range(submitters):
        for i in range(each):
            job = store.get(f"s{n}-{i}")
            assert job.state is (JobState.CANCELLED if job.run in cancels else JobState.SUCCESS)


def _check_limits(store: Store) -> int:
    """Fail if a limit is exceeded at this moment; return how many run."""
    rows = store._database.read(lambda connection: connection.execute(RUNNING).all())
    count: Counter[tuple[GateKind, str]] = Counter()
    for queue, task, db, n in rows:
        count.update({(GateKind.QUEUE, queue): n, (GateKind.TASK, task): n, (GateKind.DATABASE, db): n})
    for gate, limit in crowd.LIMITS.items():
        assert count[gate.kind, gate.name] <= limit
    return sum(row[-1] for row in rows)


def test_concurrent_claims_start_jobs_in_strict_order_and_each_once(bench: Bench) -> None:
    def submit(n: int) -> None:
        for i in range(10):
            bench.submit(f"{n}-{i}", priority=(n * i) % 10 + 1, db=f"db{i % 2}")

    def claim(_: int) -> list[Job]:
        got: list[Job] = []
        while jobs := bench.claim(2).jobs:
            got += jobs
        return got

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(8)))
        jobs = [job for got in pool.map(claim, range(8)) for job in got]
    assert len({job.run for job in jobs}) == len(jobs) == 80
    # Jobs of one claim, and on SQLite claims of one millisecond, share their start.
    starts: dict[int, list[tuple[int, int]]] = {}
    for job in jobs:
        starts.setdefault(job.started_at or 0, []).append((-job.priority, job.run))
    assert [place for start in sorted(starts) for place in sorted(starts[start])] == sorted(
        (-job.priority, job.run) for job in jobs
    )


def test_of_16_that_submit_one_id_at_once_one_wins_and_the_others_learn_of_its_job(state_url: str) -> None:
    store = Store(state_url, pool_size=16)
    store.migrate()
    barrier = threading.Barrier(16)

    def submit(job_id: str) -> Job:
        barrier.wait(10)
        try:
            return store.submit([new_job(f"{job_id}-own-{threading.get_ident()}"), new_job(job_id)])[1]
        except JobIsLive as refused:
            live: Job = refused.job
            return live

    with ThreadPoolExecutor(16) as pool:
        for n in range(4):
            assert len({job.run for job in pool.map(submit, [f"j{n}"] * 16)}) == 1
    assert len(store.pending("q")) == 8
    store.close()


def test_two_bulks_with_the_same_ids_in_opposite_order_end_in_one_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(database, "cause", lambda error: errors.append(error) or failures.cause(error))
    barrier = threading.Barrier(2)

    def submit(order: list[str]) -> bool:
        new = [new_job(job_id) for job_id in order]
        barrier.wait(10)
        try:
            store.submit(new)
        except JobIsLive:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for n in range(5):
            ids = [f"{n}-{i}" for i in range(500)]
            assert sorted(pool.map(submit, [ids, ids[::-1]])) == [False, True]
    assert len(store.pending("q", limit=9999)) == 2500
    thrown_out = [error for error in errors if not isinstance(error, IntegrityError)]
    assert thrown_out == [], "they deadlocked, and one was thrown out"


def test_several_that_rescue_release_or_lead_at_once_do_it_once(bench: Bench) -> None:
    job = bench.lost("a")
    bench.submit(*(f"d{n}" for n in range(20)), eta=bench.store.now() + 50_000)
    wait_until(lambda: bench.store.due().jobs == 0)

    def all_three(n: int) -> tuple[bool, bool]:
        try:
            bench.store.rescue(job, max_rescues=3)
            rescued = True
        except Fenced:
            rescued = False
        bench.store.release_due(limit=7)
        return rescued, bench.store.lead("maintenance", f"holder{n}", lease=60)

    with ThreadPoolExecutor(6) as pool:
        outcome = list(pool.map(all_three, range(6)))
    assert [sum(column) for column in zip(*outcome, strict=True)] == [1, 1]
    assert bench.store.get("a").rescues == 1
    assert len(bench.ids(30)) == 21


def test_a_cancel_and_an_end_at_once_leave_one_outcome(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        for n in range(10):
            job = bench.started(f"a{n}")
            ended = pool.submit(bench.store.retry, job, error="no", code="c", delay=60)
            cancelled = pool.submit(bench.store.cancel, job.job_id)
            ended.result()
            cancelled.result()
            # Whichever came first: a job that somebody cancelled never waits for another attempt.
            assert bench.store.get(job.job_id).state is JobState.CANCELLED


def test_callbacks_are_ready_once_however_many_jobs_end_at_the_same_moment(bench: Bench) -> None:
    groups, each, threads = 10, 6, 6
    moment = threading.Barrier(threads)
    for n in range(groups):
        bench.store.submit_group(new_group(f"g{n}", *(f"{n}-{i}" for i in range(each))))
        claimed = list(bench.claim(each, queues=["q"]).jobs)
        assert len(claimed) == each

        def end(job: Job) -> frozenset[str]:
            moment.wait(20)
            if job.run % 3:
                return bench.store.succeed(job, rows=1, columns=[])
            return bench.store.fail(job, error="no", code="c")

        with ThreadPoolExecutor(threads) as pool:
            woken = list(pool.map(end, claimed))
        assert sorted(woken, key=len) == [frozenset()] * (each - 1) + [{"p"}]
        failed = sum(job.run % 3 == 0 for job in claimed)
        group = bench.store.group(f"g{n}")
        assert (group.counts[JobState.SUCCESS], group.counts[JobState.FAILURE]) == (each - failed, failed)
    callbacks = bench.claim(99).jobs
    assert sorted(job.job_id for job in callbacks) == sorted(f"g{n}-done" for n in range(groups))
    for job in callbacks:
        assert isinstance(job.args, dict)
        succeeded, failed = job.args["succeeded"], job.args["failed"]
        assert isinstance(succeeded, int)
        assert succeeded + failed == each  # type: ignore[operator]


def test_a_group_that_is_cancelled_while_its_jobs_end_has_one_outcome(bench: Bench) -> None:
    for n in range(8):
        bench.store.submit_group(new_group("g", *(f"{n}-{i}" for i in range(8))))
        claimed = bench.claim(5, queues=["q"]).jobs

        def end(job: Job) -> Any:
            return bench.store.succeed(job, rows=1, columns=[])

        with ThreadPoolExecutor(6) as pool:
            cancelled = pool.submit(bench.store.cancel_group, "g")
            for done in [pool.submit(end, job) for job in claimed]:
                done.result()
            with suppress(GroupIsFinished):
                cancelled.result()
        group = bench.store.group("g")
        assert {s: c for s, c in group.counts.items() if c} == {JobState.SUCCESS: 5, JobState.CANCELLED: 3}
        (callback,) = bench.claim(9).jobs
        assert (callback.args["succeeded"], callback.args["cancelled"]) == (5, 3)  # type: ignore[call-overload]
        bench.store.succeed(callback, rows=1, columns=[])


# -- power cuts in one process ----------------------------------------------------------------------------------------


ACTS = (
    *("submit", "claim", "turn", "succeed", "requeue", "give_back", "rescue", "cancel"),
    *("submit group", "succeed in a group", "fail a parent in a group", "cancel group"),
)


@pytest.mark.parametrize("act", ACTS)
def test_a_process_that_dies_between_two_steps_leaves_nothing_half_done(bench: Bench, state_url: str, act: str) -> None:
    job = None
    if act in ("claim", "cancel"):
        bench.submit("a", "b")
    elif act == "rescue":
        job = bench.lost("a")
    elif "group" in act:
        child = [new_job("y", depends_on=("x",))] if "parent" in act else []
        bench.store.submit_group(new_group("g", jobs=[new_job("x"), *child]))
        job = bench.claim().jobs[0] if " in a group" in act else None
    elif act != "submit":
        job = bench.started("a")
        if act == "turn":
            bench.submit("b", "c")
    before = _tables(bench.store)
    for statement in range(1, 40, 5 if "parent" in act else 2 if "group" in act else 1):
        dying = start(crowd.die_at, state_url, statement, act, job, bench.worker)
        dying.join(20)
        if dying.exitcode == 0:
            break
        assert dying.exitcode == -signal.SIGKILL
        # A write may commit before the process dies in the next one; here each act is one write.
        assert _tables(bench.store) == before
    assert statement > (1 if act in ("turn", "succeed") else 2 if act == "claim" else 3)  # these ask and write
    assert _tables(bench.store) != before
    # Nobody holds a lock that the dead left behind, and what came of the act that lived is whole.
    bench.submit("after")
    assert "after" in (ids := bench.ids(9))
    if "group" in act:
        # The callback is ready, once, with the end of the group's only job.
        assert ids.count("g-done") == (act != "submit group")
        assert bench.store.live_groups(["g", "h"]) == ({"g", "h"} if act == "submit group" else set())
    elif act == "submit":
        assert bench.store.live({"a", "b"}) == {"a", "b"}
    elif act == "succeed":
        assert bench.store.get("a").state is JobState.SUCCESS


def _tables(store: Store) -> dict[str, list[Any]]:
    """Return all that the state database holds, but for the numbers that a lost transaction may use up."""
    names = ["jobs", "finished_jobs", "dependencies", "groups", "running", "lanes", "workers", "gates", "dispatch"]
    return {
        name: sorted(
            store._database.read(lambda c, name=name: c.execute(text(f"SELECT * FROM jobber_{name}")).all()),
            key=str,
        )
        for name in names
    }


def test_an_unknown_job_stays_unknown_while_others_come_and_go(bench: Bench) -> None:
    def come_and_go(n: int) -> None:
        for i in range(5):
            bench.submit(f"{n}-{i}")
            bench.store.cancel(f"{n}-{i}")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(come_and_go, n) for n in range(3)]:
            done.result()
    with pytest.raises(UnknownJob):
        bench.store.get("9-9")


def test_a_job_is_found_at_every_moment_of_its_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is finished, and moves to the history, after the one table was read and before the other is.
    job = bench.started("a")
    state = bench.store._database
    exchange = state.exchange

    def finished_meanwhile(connection: Connection, *requests: Request) -> list[Answer]:
        monkeypatch.setattr(state, "exchange", exchange)
        first, *others = requests
        answers = exchange(connection, first)
        bench.store.succeed(job, rows=1, columns=[])
        return answers + exchange(connection, *others)

    monkeypatch.setattr(state, "exchange", finished_meanwhile)
    assert bench.store.get("a").state is JobState.STARTED
    assert bench.store.get("a").state is JobState.SUCCESS
