"""Pausing and resuming a single job, over HTTP."""

from __future__ import annotations

import pytest

from tests.api.fake import FakeService
from tests.api.http import Http
from tests.api.site import Site

ARGS = {"args": {"first": 1}}


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)  # on every engine: tests/store/test_pauses.py
def test_a_paused_job_says_why_and_runs_once_it_is_resumed(site: Site) -> None:
    http = site.http
    http.post("/tasks/between/jobs", {"job_id": "a", **ARGS})
    told = http.post("/jobs/a/pause", {"reason": "month end"}).data
    assert (told["state"], told["paused"]) == ("PENDING", True)
    assert told["waiting_for"] == [{"gate": "paused", "name": "a", "text": "the job is paused: month end"}]
    assert http.get("/jobs/a").data["waiting_for"] == told["waiting_for"]
    assert http.post("/jobs/a/pause", {"reason": "still"}).data["waiting_for"][0]["text"].endswith("still")
    assert not site.claim_all()
    told = http.post("/jobs/a/resume").data
    assert (told["paused"], told["waiting_for"]) == (False, [])
    site.work()
    assert http.get("/jobs/a").data["state"] == "SUCCESS"


def test_what_runs_is_finished_or_is_not_there_cannot_be_paused(http: Http, service: FakeService) -> None:
    http.post("/tasks/slow/jobs", {"job_id": "a"})
    assert http.post("/jobs/a/pause", {}).data["paused"]
    http.post("/jobs/a/resume")
    service.start("a")
    started = http.post("/jobs/a/pause", {"reason": "too late"})
    assert (started.status, started.error["code"], started.error["job"]["state"]) == (409, "job_is_started", "STARTED")
    service.finish("a")
    for path in ("/jobs/a/pause", "/jobs/a/resume"):
        finished = http.post(path, {})
        assert (finished.status, finished.error["code"]) == (409, "job_is_finished")
        assert finished.error["job"]["state"] == "SUCCESS"
    for path in ("/jobs/b/pause", "/jobs/b/resume", "/jobs/*/pause"):
        assert http.post(path, {}).error["code"] == "unknown_job"
    wrong = http.post("/jobs/a/pause", {"why": "x"})
    assert (wrong.status, wrong.error["field"]) == (400, "why")
