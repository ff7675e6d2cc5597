"""How far a job is, as its answer tells it."""

from __future__ import annotations

from typing import Any

import pytest

from jobber.answers import Answers
from jobber.jobs import JobState
from jobber.store.progress import Outlook
from tests.api.fake import NOON, FakeService, settings
from tests.api.http import Http
from tests.factories import make_job

SUBMIT = "/tasks/slow/jobs"


SECOND = 1_000_000


def progress(ago: float = 0.7, **facts: Any) -> dict[str, Any]:
    """Return the progress of a job that had run for two seconds when its worker told of it.

    Parameters:
        ago: seconds since then.
    """
    running = {"state": JobState.STARTED, "attempt": 1, "phase": "writing"}
    job = make_job(**{**running, "started_at": NOON, "told_at": NOON + 2 * SECOND, **facts})
    told: dict[str, Any] = Answers(settings(), now=lambda: NOON + int((2 + ago) * SECOND)).job(job)["progress"]
    return told


def test_a_running_job_tells_its_rate_and_from_the_rows_that_are_expected_when_it_should_be_done() -> None:
    told = progress(rows_so_far=500, bytes_so_far=9000, total=2000, total_basis="history")
    assert (told["phase"], told["rows"], told["bytes"], told["rate"]) == ("writing", 500, 9000, 250)
    assert (told["total"], told["total_basis"], told["percent"]) == (2000, "history", 25)
    assert told["eta"] == "2026-11-22T14:00:08.000000Z"  # 1,500 rows at 250 a second


def test_the_rate_and_the_end_that_is_expected_of_a_steady_query_do_not_move_between_reports_nor_with_them() -> None:
    told = [
        progress(ago, rows_so_far=250 * seconds, total=2000, total_basis="history", told_at=NOON + seconds * SECOND)
        for seconds in range(1, 8)
        for ago in (0, 0.5, 0.99)
    ]
    assert {(each["rate"], each["eta"]) for each in told} == {(250, "2026-11-22T14:00:08.000000Z")}


def test_before_its_worker_has_told_of_a_job_nobody_knows_its_rate() -> None:
    told = progress(told_at=None, total=2000, total_basis="history")
    assert (told["rows"], told["rate"], told["percent"], told["eta"]) == (0, None, 0, None)


@pytest.mark.parametrize(
    ("rows", "total", "percent"),
    [(0, 2000, 0), (1999, 2000, 99), (2000, 2000, 99), (0, 0, 99), (2001, 2000, None), (7, None, None)],
)
def test_no_job_is_a_hundred_percent_done_before_it_is_and_nothing_is_said_once_more_rows_came_than_were_expected(
    rows: int, total: int | None, percent: int | None
) -> None:
    told = progress(rows_so_far=rows, total=total, total_basis="planner")
    assert told["percent"] == percent
    assert told["total_basis"] == ("none" if percent is None else "planner")
    assert told["total"] == (None if percent is None else total)
    assert (told["eta"] is None) == (percent is None or rows == 0)


@pytest.mark.parametrize("state", [JobState.RETRY, JobState.FAILURE, JobState.CANCELLED])
def test_of_a_job_that_does_not_run_no_end_is_expected(state: JobState) -> None:
    told = progress(state=state, rows_so_far=500, total=2000, total_basis="planner")
    assert (told["total"], told["total_basis"], told["percent"], told["eta"]) == (None, "none", None, None)


def test_the_status_tells_the_position_and_the_start_that_is_expected_and_lists_do_not(
    http: Http, service: FakeService
) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.figures.ahead = Outlook(3, NOON, 2**31 + 1)
    told = http.get("/jobs/a").data["progress"]
    assert (told["position"], told["starts_at"]) == (3, "2026-11-22T14:00:00.000000Z")
    assert told["worker_memory"] == 2**31 + 1
    (listed,) = http.get("/jobs/queue/default").data
    assert [listed["progress"][name] for name in ("position", "starts_at", "worker_memory")] == [None] * 3
