"""Many jobs at once, each accepted or refused by itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from jobber.errors import BacklogFull, InvalidRequest, JobberError, JobIsLive, StateUnavailable, UnknownTask
from jobber.jobs import Job, JobState, NewJob, fingerprint
from jobber.store import Answered, Gate, GateKind, Limits, Receipt
from jobber.store.parts import MOST
from tests.store.conftest import Bench, new_job


def told(outcomes: Sequence[Job | JobberError]) -> list[str]:
    return [outcome.job_id if isinstance(outcome, Job) else outcome.message for outcome in outcomes]


def equal(job_id: str, **fields: Any) -> NewJob:
    return new_job(job_id, version="v", fingerprint=fingerprint("t", "v", []), **fields)


def test_good_jobs_are_accepted_beside_all_kinds_of_bad_ones_each_told_why(bench: Bench) -> None:
    (live,) = bench.submit("live")
    outcomes = bench.store.batches.submit(
        [
            new_job("a"),
            UnknownTask("no task named 'x' is loaded"),
            new_job("live"),
            new_job("b", db="d" * 151),
            new_job("a"),
            new_job("c", args=["\ud800"]),
            new_job("d", depends_on=("nobody",)),
            new_job("e"),
        ]
    )
    assert told(outcomes) == [
        "a",
        "no task named 'x' is loaded",
        "job live is PENDING already",
        "job b: db is longer than 150 characters",
        "job_id: a is the ID of jobs[0] already",
        "args: a text is not valid Unicode",
        "depends_on: there is no job nobody",
        "e",
    ]
    assert isinstance(outcomes[2], JobIsLive)
    assert outcomes[2].job == live
    assert bench.ids(9) == ["live", "a", "e"]


def test_jobs_depend_on_others_before_and_after_them_and_nothing_on_a_refused_one(bench: Bench) -> None:
    bench.submit("refused")
    outcomes = bench.store.batches.submit(
        [
            new_job("child", depends_on=("parent", "other")),
            new_job("parent"),
            new_job("other", depends_on=("parent",)),
            new_job("x", depends_on=("y",)),
            new_job("y", depends_on=("x",)),
            new_job("below", depends_on=("x", "parent")),
            new_job("refused"),
            new_job("orphan", depends_on=("refused",)),
            new_job("its-child", depends_on=("orphan",)),
            new_job("of-lost", depends_on=("lost",)),
            new_job("itself", depends_on=("itself",)),
        ],
        lost=["lost"],
    )
    assert told(outcomes) == [
        "child",
        "parent",
        "other",
        "depends_on: these jobs would wait for each other for ever: x → y → x",
        "depends_on: these jobs would wait for each other for ever: x → y → x",
        "depends_on: job x of this request was refused",
        "job refused is PENDING already",
        "depends_on: job refused of this request was refused",
        "depends_on: job orphan of this request was refused",
        "depends_on: job lost of this request was refused",
        "depends_on: itself is the job itself",
    ]
    order = []
    while found := bench.claim(9).jobs:
        for job in found:
            bench.store.succeed(job, rows=1, columns=[])
            order.append(job.job_id)
    assert order == ["refused", "parent", "other", "child"]


def test_parents_and_children_may_stand_thousands_apart(bench: Bench) -> None:
    count = 2 * MOST + 5
    new = [new_job(f"j{n:04}", depends_on=(f"j{count - 1:04}",) if n < 3 else ()) for n in range(count)]
    outcomes = bench.store.batches.submit(new)
    assert all(isinstance(outcome, Job) for outcome in outcomes)
    assert told(outcomes) == [job.job_id for job in new]
    waiting = [job for job in bench.store.pending("q", limit=5000) if job.depends_on]
    assert [job.job_id for job in waiting] == ["j0000", "j0001", "j0002"]


def test_what_fits_a_backlog_is_accepted_and_the_rest_told_when_to_try_again(bench: Bench) -> None:
    bench.store.announce({Gate(GateKind.QUEUE, "q"): Limits(pending=3), Gate(GateKind.TENANT, ""): Limits(0, 1)}, {})
    outcomes = bench.store.batches.submit(
        [
            new_job("a", tenant="x"),
            new_job("b", tenant="x"),
            new_job("c", tenant="y"),
            new_job("d"),
            new_job("e"),
            new_job("f", queue="p"),
            new_job("g", queue="p", depends_on=("e",)),
        ]
    )
    assert [isinstance(outcome, Job) for outcome in outcomes] == [True, False, True, True, False, True, False]
    tenant, queue = outcomes[1], outcomes[4]
    assert isinstance(tenant, BacklogFull)
    assert isinstance(queue, BacklogFull)
    assert (tenant.details, queue.details) == ({"tenant": "x", "limit": 1}, {"queue": "q", "limit": 3})
    assert queue.retry_after == 5
    assert told(outcomes)[6] == "depends_on: job e of this request was refused"


def test_results_are_taken_and_runs_shared_within_a_bulk_too(bench: Bench) -> None:
    first, *others = bench.store.batches.submit([equal(name, single_flight=True) for name in "abc"])
    assert [job.depends_on for job in (first, *others) if isinstance(job, Job)] == [(), ("a",), ("a",)]
    (job,) = bench.claim(9).jobs
    bench.store.succeed(job, rows=1, columns=[])
    reused, fresh = bench.store.batches.submit([equal("d", max_age=60), new_job("e")])
    assert isinstance(reused, Job)
    assert isinstance(fresh, Job)
    assert (reused.state, fresh.state) == (JobState.SUCCESS, JobState.PENDING)


def test_of_bulks_of_the_same_ids_at_once_each_id_goes_to_one(bench: Bench) -> None:
    barrier = threading.Barrier(4)

    def submit(thread: int) -> list[Job | JobberError]:
        new = [new_job(f"j{n}", task="t" if thread % 2 else "u") for n in range(100)]
        barrier.wait(30)
        return bench.store.batches.submit(new if thread % 2 else new[::-1])

    with ThreadPoolExecutor(4) as pool:
        outcomes = [outcome for found in pool.map(submit, range(4)) for outcome in found]
    accepted = [outcome.job_id for outcome in outcomes if isinstance(outcome, Job)]
    assert sorted(accepted) == sorted(f"j{n}" for n in range(100))
    assert {type(outcome) for outcome in outcomes} == {Job, JobIsLive}


def test_with_a_receipt_all_of_a_bulk_is_one_transaction_and_comes_once(bench: Bench) -> None:
    receipt = Receipt("key", "digest", lambda outcomes: "\n".join(told(outcomes)))
    new = [new_job(f"j{n}") for n in range(MOST + 1)]
    commits: list[object] = []
    note = commits.append
    event.listen(bench.store._database._pool, "commit", note)
    bench.store.batches.submit([*new, InvalidRequest("no")], receipt=receipt)
    event.remove(bench.store._database._pool, "commit", note)
    assert len(commits) == 1
    with pytest.raises(Answered) as again:
        bench.store.batches.submit([*new, InvalidRequest("no")], receipt=receipt)
    assert again.value.answer == "\n".join([*(job.job_id for job in new), "no"])
    only_bad = Receipt("other", "digest", lambda outcomes: "\n".join(told(outcomes)))
    bench.store.batches.submit([InvalidRequest("no")], receipt=only_bad)
    with pytest.raises(Answered):
        bench.store.batches.submit([InvalidRequest("no")], receipt=only_bad)


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_what_is_not_stored_any_more_when_the_database_goes_away_is_told_for_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, write, calls = bench.store.batches, bench.store.batches._write, []

    def fail_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StateUnavailable("gone")
        return write(*arguments)

    monkeypatch.setattr(batches, "_write", fail_later)
    outcomes = batches.submit(
        [new_job(f"j{n}", depends_on=("j0",) if n == 2 * MOST else ()) for n in range(2 * MOST + 1)]
    )
    assert [sum(isinstance(outcome, kind) for outcome in outcomes) for kind in (Job, StateUnavailable)] == [1001, 1000]
    calls[:] = [1]
    with pytest.raises(StateUnavailable):
        batches.submit([new_job("k")])
