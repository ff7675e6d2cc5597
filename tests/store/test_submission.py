from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from jobber.errors import InvalidRequest, JobIsLive, UnknownJob
from jobber.jobs import JobState
from jobber.store import Store
from tests.store.conftest import Bench, new_job


def test_a_job_reads_back_as_it_was_submitted(bench: Bench) -> None:
    args = ["é\x00'", Decimal("0.10000000000000000000001"), 2**70, True, None]
    eta = bench.store.now() + 3_600_000_000
    (job,) = bench.submit(
        "Job-1:a_B", args=args, eta=eta, tags={"ü": "\ud800"}, retries=3, ttl=9, timeout=8, priority=9
    )
    assert bench.store.get("Job-1:a_B") == job
    assert (job.args, job.eta, job.tags, job.table) == (args, eta, {"ü": "\ud800"}, "results_Job-1:a_B")
    assert (job.retries, job.ttl, job.timeout, job.priority) == (3, 9, 8, 9)
    assert (job.state, job.attempt, job.error, job.rows, job.worker) == (JobState.PENDING, 0, "", None, "")
    assert abs(job.created_at - bench.store.now()) < 60_000_000


def test_an_id_is_compared_byte_for_byte(bench: Bench) -> None:
    bench.submit("a", "A", "a-", "á", "ß")
    assert bench.store.get("A").job_id == "A"
    for other in ("Á", "a ", " a", "ss"):
        with pytest.raises(UnknownJob):
            bench.store.get(other)
    assert bench.store.live(["a", "a ", "á", "SS"]) == {"a", "á"}


def test_jobs_come_back_in_the_order_asked_and_runs_grow(bench: Bench) -> None:
    first = bench.submit("c", "a", "b")
    assert [job.job_id for job in first] == ["c", "a", "b"]
    runs = [job.run for job in (*first, *bench.submit("d"))]
    assert runs == sorted(set(runs))


def test_the_longest_names_and_texts_of_megabytes_read_back(bench: Bench) -> None:
    longest = {"table": "t", "task": "t" * 150, "queue": "🐘" * 150, "db": "d" * 150}
    (job,) = bench.submit("j" * 150, args=["x" * 5_000_000, "🐘\\'\"%s\x1a"], **longest)
    (claimed,) = bench.claim(queues=[longest["queue"]], tasks=[longest["task"]], databases=[longest["db"]]).jobs
    assert (claimed.args, claimed.queue) == (job.args, job.queue)
    text = "🐘" * 100_000
    bench.store.fail(claimed, error=text, code="c")
    bench.store.fail(claimed, error=text, code="c")
    assert bench.store.get(job.job_id).error == text


def test_a_live_id_refuses_the_whole_submission_and_names_the_live_job(bench: Bench) -> None:
    (live,) = bench.submit("b")
    with pytest.raises(JobIsLive) as refused:
        bench.submit("a", "b", "c")
    assert refused.value.job == live
    for job_id in ("a", "c"):
        with pytest.raises(UnknownJob):
            bench.store.get(job_id)
    assert bench.ids(5) == ["b"]


def test_a_live_id_is_refused_while_it_runs_and_while_it_waits_for_a_retry(bench: Bench) -> None:
    job = bench.started("a")
    with pytest.raises(JobIsLive):
        bench.submit("a")
    bench.store.retry(job, error="no", code="c", delay=60)
    with pytest.raises(JobIsLive) as refused:
        bench.submit("a")
    assert refused.value.job.state is JobState.RETRY


def test_an_id_may_be_used_again_once_it_is_finished_and_the_newest_run_is_the_job(bench: Bench) -> None:
    bench.store.succeed(bench.started("a"), rows=1, columns=[])
    bench.store.fail(bench.started("a"), error="no", code="c")
    assert bench.store.get("a").state is JobState.FAILURE
    (third,) = bench.submit("a")
    assert bench.store.get("a") == third


@pytest.mark.parametrize(
    ("jobs", "field"),
    [
        ([new_job("a"), new_job("a")], "job_id"),
        ([new_job("a", args=["\ud800"])], "args"),
        ([new_job("a", db="é" * 151)], "db"),
        ([new_job("a", task="t" * 151)], "task"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is(store: Store, jobs: list[Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.submit(jobs)
    assert refused.value.details["field"] == field
    with pytest.raises(UnknownJob):
        store.get("a")


def test_an_empty_submission_adds_nothing(store: Store) -> None:
    assert store.submit([]) == []


def test_live_tells_which_ids_are_not_finished(bench: Bench) -> None:
    bench.store.succeed(bench.started("a"), rows=1, columns=[])
    bench.started("b")
    bench.submit("c")
    many = {f"none{n}" for n in range(5000)}
    assert bench.store.live({"a", "b", "c", "B", *many}) == {"b", "c"}
    assert bench.store.live([]) == set()


def test_pending_lists_ready_jobs_as_they_will_run_and_then_delayed_ones_by_time(bench: Bench) -> None:
    now = bench.store.now()
    bench.submit("late", eta=now + 200_000_000, priority=10)
    bench.submit("soon", eta=now + 100_000_000)
    bench.submit("low", priority=1)
    bench.submit("first", "second")
    bench.submit("high", priority=8, db="db1", task="u")
    bench.submit("elsewhere", queue="p")
    listed = [job.job_id for job in bench.store.pending("q")]
    assert listed == ["high", "first", "second", "low", "soon", "late"]
    assert [job.job_id for job in bench.store.pending("q", limit=5)] == listed[:5]
    assert [job.job_id for job in bench.store.pending("q", limit=2)] == listed[:2]
    assert bench.ids(9, queues=["q"]) == listed[:4]


def test_a_bulk_of_a_thousand_jobs_runs_in_order(bench: Bench) -> None:
    ids = [f"{n * 7919 % 1000:04}" for n in range(1000)]
    bench.submit(*ids)
    assert bench.ids(1000) == ids
