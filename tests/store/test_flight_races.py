"""Equal jobs that come, end and are forgotten at the same moment, on several connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from jobber.errors import InvalidRequest, JobIsLive
from jobber.jobs import Job, JobState, NewJob, fingerprint
from jobber.store import Store
from tests.store.conftest import DATABASES, QUEUES, TASKS, Bench, new_group, new_job


def sharing(job_id: str, **fields: Any) -> NewJob:
    """Return a job that shares the run of an equal one; all are equal."""
    same = {"version": "v", "args": ["x"], "fingerprint": fingerprint("t", "v", ["x"])}
    return new_job(job_id, **{**same, "single_flight": True, **fields})


@pytest.fixture
def two(server_url: str) -> Iterator[tuple[Bench, Bench]]:
    """A bench, and that of somebody else on the same database."""
    one, other = Store(server_url), Store(server_url)
    yield tuple(Bench(store, store.register("w", QUEUES, 100, lease=600)) for store in (one, other))  # type: ignore[misc]
    one.close()
    other.close()


def after_first(bench: Bench, beginning: str, mentioning: str, meanwhile: Callable[[], Any]) -> list[bool]:
    """Have something done right after the first statement of some kind; the list is not empty once it is done."""
    done: list[bool] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not done and statement.startswith(beginning) and mentioning in statement:
            done.append(True)
            meanwhile()

    event.listen(bench.store._database._pool, "after_cursor_execute", look)
    return done


def test_a_flight_that_somebody_leads_anew_while_it_is_being_forgotten_stays(two: tuple[Bench, Bench]) -> None:
    bench, other = two
    bench.store.submit([sharing("a")])
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    met = after_first(bench, "SELECT", "FROM jobber_flights", lambda: other.store.submit([sharing("b")]))

    bench.store.prune(3600)

    assert met
    (job,) = bench.store.submit([sharing("c")])
    assert job.depends_on == ("b",)  # else both would run


@pytest.mark.parametrize("way", ["alone", "group", "bulk"])
def test_who_finds_that_the_run_to_share_has_just_ended_takes_its_result(two: tuple[Bench, Bench], way: str) -> None:
    bench, other = two
    other.store.submit([sharing("a")])
    (leader,) = other.claim().jobs
    # When results are looked for it runs; when runs are, it has ended.
    end = lambda: other.store.succeed(leader, rows=7, columns=[])  # noqa: E731
    met = after_first(bench, "SELECT", "FROM jobber_finished_jobs", end)
    new = [sharing("b", max_age=60), sharing("c", max_age=60), sharing("d")]

    submit: dict[str, Callable[[], Any]] = {
        "alone": lambda: bench.store.submit(new),
        "group": lambda: bench.store.submit_group(new_group("g", jobs=new)).jobs,
        "bulk": lambda: bench.store.batches.submit(new),
    }
    told: list[Job] = list(submit[way]())

    assert met
    for job in told:
        assert (job.state, job.rows, job.reused and job.reused.run) == (JobState.SUCCESS, 7, leader.run), job.job_id
    assert bench.claim(9, queues=["q"], tasks=TASKS, databases=DATABASES).jobs == ()


def test_who_shares_a_run_is_not_refused_because_its_id_was(bench: Bench) -> None:
    bench.store.submit([sharing("a")])
    lost = new_job("c", depends_on=("nobody",))
    # What is wrong with c comes to light when it is known whose run b shares.
    again, shares, refused = bench.store.batches.submit([sharing("a"), sharing("b"), lost])
    assert isinstance(again, JobIsLive)
    assert isinstance(refused, InvalidRequest)
    assert isinstance(shares, Job)
    assert shares.depends_on == ("a",)


def test_who_would_have_shared_the_run_of_a_job_that_is_refused_runs_by_itself(bench: Bench) -> None:
    refused, runs, shares = bench.store.batches.submit(
        [sharing("a", depends_on=("nobody",)), sharing("b"), sharing("c")]
    )
    assert isinstance(refused, InvalidRequest)
    assert isinstance(runs, Job)
    assert isinstance(shares, Job)
    assert (runs.depends_on, shares.depends_on) == ((), ("b",))
    assert bench.ids(9) == ["b"]
