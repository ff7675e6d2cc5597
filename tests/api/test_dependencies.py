"""Jobs that wait for other jobs, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.site import Site

# What the store makes of it is tested on every engine in tests/store.
on_sqlite = pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)


def job(job_id: str, *parents: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a job of a group."""
    body: dict[str, Any] = {"job_id": job_id, "task": "between", "args": {"first": 1}}
    return body | ({"depends_on": list(parents)} if parents else {}) | fields


def submit(site: Site, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = site.http.post(f"/tasks/{body['task']}/jobs", body).data
    return found


def waits_for(site: Site, job_id: str) -> list[str]:
    """Return what a job waits for, but for workers: nobody runs here."""
    return [hold["text"] for hold in site.http.get(f"/jobs/{job_id}").data["waiting_for"]]


@on_sqlite
def test_a_job_says_which_jobs_it_waits_for_and_runs_after_them(site: Site) -> None:
    submit(site, job("a"))
    told = submit(site, job("b", "a", depends_policy="finished"))
    assert (told["state"], told["depends_on"], told["depends_policy"]) == ("PENDING", ["a"], "finished")
    assert site.http.get("/jobs/b").data["waiting_for"] == [{"gate": "parent", "name": "a", "text": "job a is PENDING"}]
    site.work()
    assert waits_for(site, "b") == []
    site.work()
    assert site.http.get("/jobs/b").data["state"] == "SUCCESS"


@on_sqlite
def test_a_job_whose_parent_failed_says_so_and_never_runs(site: Site) -> None:
    submit(site, job("a"))
    submit(site, job("b", "a"))
    site.instance.store.fail(site.claim(), error="no", code="query_failed")
    for told in (site.http.get("/jobs/b").data, submit(site, job("c", "a"))):
        assert (told["state"], told["attempt"], told["error_code"]) == ("FAILURE", 0, "parent_failed")
        assert told["error"] == "job a, which it depends on, failed"
        assert not told["attempts"]
    assert not site.claim_all()
    assert site.http.get("/jobs/b/results").error["code"] == "results_not_ready"


@on_sqlite
def test_parents_that_are_not_there_are_refused_with_their_field(site: Site) -> None:
    one = site.http.post("/tasks/between/jobs", job("a", "nobody"))
    assert (one.status, one.error["code"], one.error["field"]) == (400, "invalid_request", "depends_on")
    assert one.message == "depends_on: there is no job nobody"
    assert site.http.get("/jobs/a").status == 404


@on_sqlite
def test_a_workflow_that_cannot_run_is_refused_with_the_place_and_nothing_of_it_is_stored(site: Site) -> None:
    body = {
        "group_id": "g",
        "jobs": [job("a"), job("b", "a", "c"), job("c", "b"), job("d", "nobody")],
        "callback": {"job_id": "e", "task": "outcome", "depends_on": ["nowhere"]},
    }
    refused = site.http.post("/groups", body)
    assert refused.status == 400
    assert refused.error["fields"] == {
        "jobs[1].depends_on": "these jobs would wait for each other for ever: b → c → b",
        "jobs[3].depends_on": "there is no job nobody",
        "callback.depends_on": "there is no job nowhere",
    }
    assert [site.http.get(f"/jobs/{job_id}").status for job_id in "abcde"] == [404] * 5
    assert site.http.get("/groups/g").status == 404


def test_a_workflow_is_posted_as_one_group_and_its_jobs_run_in_their_order(site: Site) -> None:
    jobs = [job("join", "left", "right"), job("left", "root"), job("right", "root", priority=8), job("root")]
    site.http.post("/groups", {"group_id": "g", "jobs": jobs, "callback": {"job_id": "end", "task": "outcome"}})
    order = []
    for _ in range(5):
        claimed = site.claim()
        order.append(claimed.job_id)
        site.finish(claimed)
    assert order == ["root", "right", "left", "join", "end"]
    told = site.http.get("/groups/g").data
    assert [member["depends_on"] for member in told["jobs"]] == [["left", "right"], ["root"], ["root"], []]
    assert site.http.get("/jobs/end/results").envelope["data"][0]["succeeded"] == 4


@on_sqlite
def test_a_workflow_that_fails_halfway_is_finished_and_its_callback_hears_of_it(site: Site) -> None:
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d", "b", depends_policy="finished")]
    site.http.post("/groups", {"group_id": "g", "jobs": jobs, "callback": {"job_id": "end", "task": "outcome"}})
    site.instance.store.fail(site.claim(), error="no", code="query_failed")
    site.work()
    assert site.http.get("/groups/g").data["counts"] == {
        "PENDING": 0,
        "STARTED": 0,
        "RETRY": 0,
        "SUCCESS": 1,
        "FAILURE": 3,
        "CANCELLED": 0,
    }
    site.work()
    row = site.http.get("/jobs/end/results").envelope["data"][0]
    assert (row["succeeded"], row["failed"]) == (1, 3)


@on_sqlite
def test_cancelling_a_job_cancels_those_that_need_its_success(site: Site) -> None:
    submit(site, job("a"))
    submit(site, job("b", "a"))
    site.http.delete("/jobs/a")
    told = site.http.get("/jobs/b").data
    assert (told["state"], told["error_code"]) == ("CANCELLED", "parent_cancelled")
    assert told["error"] == "job a, which it depends on, was cancelled"
