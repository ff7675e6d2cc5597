"""Running a finished job again, over HTTP."""

from __future__ import annotations

import pytest

from jobber.jobs import JobState
from tests.api.fake import TASKS, FakeService
from tests.api.http import Http
from tests.api.site import Site

on_sqlite = pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)

#: What a new run has from the one before.
SAME = (
    *("job_id", "task", "queue", "retries", "args", "db", "results_db", "table", "priority", "ttl", "timeout"),
    *("tags", "tenant", "version", "depends_on", "depends_policy"),
)


def test_a_finished_job_runs_again_with_all_that_it_was_given(site: Site) -> None:
    http = site.http
    http.post("/tasks/between/jobs", {"job_id": "first", "args": {"first": 1}})
    site.work()
    body = {
        "job_id": "a",
        "queue": "q",
        "args": {"first": 2},
        "retries": 3,
        "ttl": 77,
        "priority": 8,
        "timeout": 9,
        "tags": {"team": "x"},
        "depends_on": ["first"],
        "depends_policy": "finished",
        "eta": "2001-01-01 00:00:00",
    }
    before = http.post("/tasks/between/jobs", body).data
    site.work()
    again = http.post("/jobs/a/retry").data
    assert {name: again[name] for name in SAME} == {name: before[name] for name in SAME}
    assert (again["state"], again["attempt"], again["eta"]) == ("PENDING", 0, None)
    assert http.get("/jobs/a/results").envelope["newest"] is False
    site.work()
    assert http.get("/jobs/a/results").envelope["newest"] is True
    assert [run.state for run in site.instance.store.finished("a")] == [JobState.SUCCESS] * 2


@on_sqlite
def test_a_retry_waits_anew_for_what_the_job_depends_on(site: Site) -> None:
    http = site.http
    for job_id, parents in (("a", []), ("b", ["a"])):
        http.post("/tasks/between/jobs", {"job_id": job_id, "args": {"first": 1}, "depends_on": parents})
    site.instance.store.fail(site.claim(), error="no", code="query_failed")
    assert http.get("/jobs/b").data["error_code"] == "parent_failed"
    assert http.post("/jobs/b/retry").data["state"] == "FAILURE"
    assert http.post("/jobs/a/retry").data["state"] == "PENDING"
    assert http.post("/jobs/b/retry").data["state"] == "PENDING"
    assert http.get("/jobs/b").data["waiting_for"][0]["text"] == "job a is PENDING"
    site.work()
    site.work()
    assert http.get("/jobs/b").data["state"] == "SUCCESS"
    http.delete("/jobs/a?purge=true")
    refused = http.post("/jobs/b/retry")
    assert (refused.status, refused.message) == (400, "depends_on: there is no job a")


@on_sqlite
def test_a_job_or_the_callback_of_a_group_is_run_again_outside_it(site: Site) -> None:
    jobs = [{"job_id": "a", "task": "between", "args": {"first": 1}}]
    site.http.post("/groups", {"group_id": "g", "jobs": jobs, "callback": {"job_id": "end", "task": "outcome"}})
    site.work()
    site.work()
    before = site.instance.store.group("g")
    for job_id in ("a", "end"):
        assert site.http.post(f"/jobs/{job_id}/retry").data["group_id"] is None
        site.work()
    assert site.instance.store.group("g") == before
    assert site.http.get("/jobs/end/results").envelope["data"][0]["succeeded"] == 1


def test_what_is_not_finished_not_there_or_of_no_task_cannot_be_run_again(http: Http, service: FakeService) -> None:
    http.post("/tasks/slow/jobs", {"job_id": "a"})
    live = http.post("/jobs/a/retry")
    assert (live.status, live.error["code"], live.error["job"]["job_id"]) == (409, "job_is_live", "a")
    assert http.post("/jobs/b/retry").error["code"] == "unknown_job"
    service.finish("a")
    service.runs = [service._change(service.job("a"), task="get_profits")]
    assert "get_profits" not in TASKS
    gone = http.post("/jobs/a/retry")
    assert (gone.status, gone.error["code"]) == (404, "unknown_task")
    assert "no task named 'get_profits' is loaded" in gone.message
