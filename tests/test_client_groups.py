"""Groups through the Python client, against a real HTTP server over the fake service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from jobber.client import Client, GroupStatus, NewJob
from jobber.completion import GroupRequest
from jobber.errors import (
    GroupIsFinished,
    GroupIsLive,
    InvalidRequest,
    JobIsLive,
    QueryFailed,
    StateUnavailable,
    UnknownGroup,
)
from tests.api.fake import FakeService
from tests.api.http import application, serving

JOBS: list[NewJob] = [{"task": "slow", "job_id": "a"}, {"task": "slow", "job_id": "b"}]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with serving(application(service)) as url, Client(url, timeout=10) as client:
        yield client


def test_a_group_is_submitted_waited_for_and_told(client: Client, service: FakeService) -> None:
    group = client.submit_group(JOBS, group_id="g", concurrency=2, callback={"task": "notify", "job_id": "after"})
    assert (group.group_id, group.state, group.concurrency, group.finished) == ("g", "PENDING", 2, False)
    assert [(job.job_id, job.group_id) for job in group.jobs] == [("a", "g"), ("b", "g")]
    assert group.callback
    assert (group.callback.job_id, group.callback.args) == ("after", {"group_id": None, "failed": None})
    assert (group.created_at, group.finished_at) == (datetime(2026, 11, 22, 14, tzinfo=UTC), None)
    assert client.group("g", jobs=False).jobs == ()

    service.finish("a")
    threading.Timer(0.1, service.finish, ("b",)).start()
    group = client.wait_group("g", 60)
    assert (group.state, group.succeeded, group.counts["SUCCESS"]) == ("SUCCESS", True, 2)
    assert [job.state for job in group.jobs] == ["SUCCESS", "SUCCESS"]
    assert client.group("g", wait=1).raw["state"] == "SUCCESS"


def test_jobs_of_a_group_are_sent_as_those_of_submit_are(client: Client, service: FakeService) -> None:
    job: NewJob = {
        "task": "slow",
        "args": (date(2026, 1, 31), Decimal("1.10")),
        "eta": datetime(2030, 1, 1),
        "tags": {"kind": "x"},
        "queue": None,
    }
    client.submit_group(iter([job]))
    (request,) = service.requests
    assert isinstance(request, GroupRequest)
    (sent,) = request.jobs
    assert (sent.args, sent.eta, sent.tags, sent.queue) == (
        *(["2026-01-31", Decimal("1.10")], 1_893_456_000_000_000, {"kind": "x"}),
        None,
    )
    assert (request.group_id, request.concurrency, request.callback) == (None, 0, None)


@pytest.mark.parametrize(
    ("jobs", "callback", "place"),
    [
        ("slow", None, "jobs"),
        ({"task": "slow"}, None, "jobs"),
        (3, None, "jobs"),
        ([*JOBS, "slow"], None, r"jobs\[2\]"),
        ([{"task": "slow", "args": "USER1"}], None, r"jobs\[0\].args"),
        ([*JOBS, {"task": "slow", "args": [1, object()]}], None, r"jobs\[2\].args\[1\]"),
        (JOBS, {"task": "slow", "args": [float("nan")]}, r"callback.args\[0\]"),
        (JOBS, ["slow"], "callback"),
    ],
)
def test_a_job_that_cannot_be_sent_is_named_before_anything_is(
    client: Client, service: FakeService, jobs: Any, callback: Any, place: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{place}: "):
        client.submit_group(jobs, callback=callback)
    assert service.requests == []


def test_errors_come_with_the_group_or_the_job_and_its_place(client: Client, service: FakeService) -> None:
    with pytest.raises(UnknownGroup):
        client.group("g")
    with pytest.raises(InvalidRequest) as invalid:
        client.submit_group([*JOBS, {"task": "nope"}])
    assert invalid.value.details["field"] == "jobs[2].task"
    client.submit_group(JOBS, group_id="g")
    with pytest.raises(GroupIsLive) as live:
        client.submit_group(JOBS, group_id="g")
    assert (live.value.group.state, live.value.group.jobs) == ("PENDING", ())
    with pytest.raises(JobIsLive) as member:
        client.submit_group(JOBS[1:])
    assert (member.value.job.job_id, member.value.details["field"]) == ("b", "jobs[0].job_id")
    with pytest.raises(InvalidRequest, match="'a/b' is no group ID"):
        client.group("a/b")


def test_a_group_is_cancelled_and_purged(client: Client) -> None:
    client.submit_group(JOBS, group_id="g")
    assert client.cancel_group("g").counts["CANCELLED"] == 2
    with pytest.raises(GroupIsFinished) as finished:
        client.cancel_group("g")
    assert finished.value.group.state == "CANCELLED"
    assert client.cancel_group("g", purge=True).group_id == "g"
    with pytest.raises(UnknownGroup):
        client.group("g")


def test_a_purge_may_take_longer_than_other_answers(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = service.cancel_group

    def slowly(group_id: str, *, purge: bool = False) -> Any:
        time.sleep(1)
        return cancel(group_id, purge=purge)

    with serving(application(service)) as url, Client(url, timeout=0.5) as client:
        client.submit_group(JOBS, group_id="g")
        client.cancel_group("g")
        monkeypatch.setattr(service, "cancel_group", slowly)
        assert client.cancel_group("g", purge=True).group_id == "g"


def test_progress_is_told_while_waiting(client: Client, service: FakeService) -> None:
    client.submit_group(JOBS, group_id="g")
    seen: list[tuple[str, int]] = []

    def on_progress(group: GroupStatus) -> None:
        seen.append((group.state, len(group.jobs)))
        if len(seen) == 1:
            service.finish("a")
        elif len(seen) == 2:
            service.fail("b", QueryFailed("x"))

    assert client.wait_group("g", 60, on_progress).state == "FAILURE"
    assert seen == [("PENDING", 0), ("STARTED", 0), ("FAILURE", 2)]


def test_a_wait_that_is_too_short_raises_and_an_outage_does_not_end_it(client: Client, service: FakeService) -> None:
    client.submit_group(JOBS[:1], group_id="g")
    with pytest.raises(TimeoutError, match="group g is still PENDING"):
        client.wait_group("g", 0.05)
    service.broken = StateUnavailable("down", retry_after=0)

    def restore() -> None:
        service.broken = None
        service.finish("a")

    threading.Timer(0.2, restore).start()
    assert client.wait_group("g", 60).succeeded
