"""What a finished job tells of where its rows come from."""

from __future__ import annotations

import time

import pytest

from jobber import execution
from jobber.jobs import JobState, fingerprint
from tests.worker.conftest import Bench


def test_the_version_of_a_job_is_that_of_the_sql_that_ran_and_not_of_the_one_it_was_submitted_with(
    bench: Bench,
) -> None:
    bench.submit("quick", "a", version="of an older file", fingerprint=5)
    bench.submit("wrong", "b", version="of an older file")
    bench.worker.work()
    done, failed = bench.store.get("a"), bench.store.get("b")
    assert (done.state, failed.state) == (JobState.SUCCESS, JobState.FAILURE)
    tasks = bench.worker._tasks()
    assert (done.version, failed.version) == (tasks["quick"].version, tasks["wrong"].version)
    assert done.fingerprint == fingerprint("quick", done.version, [])
    assert failed.fingerprint == 0  # what nobody may reuse stays so


def test_the_snapshot_of_a_result_is_the_moment_when_its_query_was_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = bench.worker._sources["src"].read

    def slowly(*args: object, **options: object) -> object:
        time.sleep(0.5)  # as a wait for a connection does
        return opened(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.worker._sources["src"], "read", slowly)
    bench.submit("quick", "a")
    bench.worker.work()
    job = bench.store.get("a")
    assert job.started_at is not None
    assert job.snapshot_at is not None
    assert job.finished_at is not None
    assert job.started_at + 500_000 <= job.snapshot_at <= job.finished_at


def test_of_an_attempt_whose_worker_died_when_it_had_published_the_snapshot_is_its_start(bench: Bench) -> None:
    bench.submit("quick", "a")
    worker = bench.store.register("dying", ["default"], 1, lease=60)
    (job,) = bench.store.claim(worker, queues=["default"], tasks=["quick"], databases=["src"]).jobs
    bench.store.succeed(job, rows=1, columns=[])
    assert bench.store.get("a").snapshot_at == job.started_at


def test_the_bytes_of_decoded_rows_are_told_about(bench: Bench) -> None:
    batch = [(n, "x" * 90, None, 0.5) for n in range(1000)]
    assert 95_000 < execution._size(batch) < 110_000
    assert execution._size([]) == 0
