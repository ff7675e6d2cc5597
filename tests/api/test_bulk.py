"""POST /jobs/cancel and /jobs/retry: many jobs, by their IDs or by a filter."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import pytest

from jobber import changing
from jobber.client.wire import error_of
from jobber.errors import BacklogFull
from jobber.store import batches
from jobber.store.changing import CancelledMany
from jobber.store.parts import parts
from tests.api.http import Http
from tests.api.site import Site


def submit(site: Site, *job_ids: str, **fields: Any) -> None:
    jobs = [{"task": "entries_of", "job_id": job_id, "args": ["U"], **fields} for job_id in job_ids]
    assert site.http.post("/jobs", {"jobs": jobs}).envelope["refused"] == 0


def told(answer: Any) -> list[tuple[str, str]]:
    """Return the state or the error code of each item."""
    return [(item["status"], item["data"]["state"] if item["data"] else item["error"]["code"]) for item in answer.data]


def states(http: Http, *job_ids: str) -> list[str]:
    return [http.get(f"/jobs/{job_id}").data["state"] for job_id in job_ids]


def test_ids_are_cancelled_each_with_an_answer_in_their_order(site: Site) -> None:
    http = site.http
    submit(site, "done", "running", "a", "b")
    site.work()
    site.claim()
    answer = http.post("/jobs/cancel", {"job_ids": ["b", "done", "none", "running", "b"]})
    assert answer.status == 200
    cancelled, finished, unknown = ("success", "CANCELLED"), ("error", "job_is_finished"), ("error", "unknown_job")
    assert told(answer) == [cancelled, finished, unknown, ("success", "STARTED"), cancelled]
    assert (answer.envelope["accepted"], answer.envelope["refused"]) == (3, 2)
    assert answer.data[1]["error"]["job"]["job_id"] == "done"
    assert answer.data[3]["data"]["cancel_requested"]
    assert states(http, "a", "b", "done") == ["PENDING", "CANCELLED", "SUCCESS"]


def test_a_filter_cancels_what_it_matches_and_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "PART", 3)
    http = site.http
    members = [{"task": "entries_of", "job_id": f"m{n}", "args": ["U"], "tags": {"batch": "1"}} for n in range(7)]
    callback = {"task": "outcome", "job_id": "after", "queue": "q"}
    http.post("/groups", {"group_id": "g", "jobs": members, "callback": callback})
    submit(site, "child", depends_on=["m6"])
    submit(site, "other", tags={"batch": "2"})
    running = site.claim()
    body = {"filter": {"tags": {"batch": "1"}, "state": "PENDING,STARTED,SUCCESS"}}
    counts = {"matched": 7, "refused": {}, "refusals": []}
    assert http.post("/jobs/cancel", body | {"dry_run": True}).data == counts | {"done": 0, "dry_run": True}
    assert states(http, "m1") == ["PENDING"]
    answer = http.post("/jobs/cancel", body)
    assert (answer.data, answer.envelope["next"]) == (counts | {"done": 7, "dry_run": False}, None)
    assert states(http, "m1", "m6", "other") == ["CANCELLED", "CANCELLED", "PENDING"]
    # What depended on one of them ended with it; the group is counted, and its callback runs after the last.
    assert states(http, "child", "after") == ["CANCELLED", "PENDING"]
    assert http.get(f"/jobs/{running.job_id}").data["cancel_requested"]
    assert http.get("/groups/g").data["counts"]["CANCELLED"] == 6
    site.instance.store.cancelled(running)
    assert {job.job_id for job in site.claim_all()} == {"other", "after"}
    again = http.post("/jobs/cancel", {"filter": {"tags": {"batch": "1"}}})
    assert (again.data["matched"], again.data["done"]) == (0, 0)


def test_finished_jobs_run_again_by_id_and_by_filter(site: Site) -> None:
    http = site.http
    submit(site, "ok", "waits", tags={"run": "1"})
    submit(site, "bad", "worse", tags={"run": "1"}, args=[1, 2])
    for _ in range(4):
        site.finish(site.claim())
    submit(site, "waits", tags={"run": "1"})
    answer = http.post("/jobs/retry", {"job_ids": ["ok", "waits", "none", "bad"]})
    assert told(answer) == [
        ("success", "PENDING"),
        ("error", "job_is_live"),
        ("error", "unknown_job"),
        ("success", "PENDING"),
    ]
    assert answer.data[0]["data"]["args"] == ["U"]
    # By a filter: those that did not succeed, unless it says otherwise, and only the newest run of a job.
    wanted = {"filter": {"tags": {"run": "1"}}}
    assert http.post("/jobs/retry", wanted | {"dry_run": True}).data["matched"] == 1
    counts = {"matched": 1, "done": 1, "refused": {}, "refusals": [], "dry_run": False}
    assert http.post("/jobs/retry", wanted).data == counts
    assert states(http, "worse") == ["PENDING"]
    for _ in range(4):
        site.finish(site.claim())
    assert http.post("/jobs/retry", {"filter": {"state": "SUCCESS", "task": "entries_of"}}).data["done"] == 2


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_what_a_filter_fits_and_could_not_be_changed_is_counted_and_the_first_of_it_are_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "PART", 2)
    monkeypatch.setattr(changing, "TOLD", 3)
    submit(site, *(f"j{n}" for n in range(5)))
    store, cancel = site.instance.store, site.instance.store.changes.cancel

    def too_late(runs: Collection[int]) -> CancelledMany:
        for run in runs:  # all but one end in the moment before
            if store.run(run).job_id != "j2":
                store.cancel(store.run(run).job_id)
        return cancel(runs)

    monkeypatch.setattr(store.changes, "cancel", too_late)
    told = site.http.post("/jobs/cancel", {"filter": {"task": "entries_of"}}).data
    assert (told["matched"], told["done"], told["refused"]) == (5, 1, {"job_is_finished": 4})
    assert [refusal["job_id"] for refusal in told["refusals"]] == ["j4", "j3", "j1"]
    assert told["refusals"][0] == {
        "job_id": "j4",
        "message": "job j4 has finished meanwhile",
        "error": {"code": "job_is_finished", "job": told["refusals"][0]["error"]["job"]},
    }
    assert told["refusals"][0]["error"]["job"]["state"] == "CANCELLED"


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_what_a_filter_fits_and_has_no_room_is_told_when_there_should_be_some(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(site, "a")
    site.http.post("/jobs/cancel", {"job_ids": ["a"]})

    full = BacklogFull("full", retry_after=17, queue="reports", limit=1)
    monkeypatch.setattr(site.instance.store.batches, "submit", lambda new, **_: [full for _ in new])
    (refusal,) = site.http.post("/jobs/retry", {"filter": {"task": "entries_of"}}).data["refusals"]
    assert refusal["error"] == {"code": "backlog_full", "queue": "reports", "limit": 1, "retry_after": 17}
    error = error_of(refusal)
    assert isinstance(error, BacklogFull)
    assert error.retry_after == 17


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_an_operation_that_takes_too_long_goes_on_from_its_cursor(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "PART", 2)
    monkeypatch.setattr(changing, "PATIENCE", 0.0)
    submit(site, *(f"j{n}" for n in range(5)))
    body, done = {"filter": {"task": "entries_of"}}, []
    while True:
        answer = site.http.post("/jobs/cancel", body)
        done.append(answer.data["done"])
        if answer.envelope["next"] is None:
            break
        body["cursor"] = answer.envelope["next"]
    assert done == [2, 2, 1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "job_ids"),
        ({"job_ids": ["a"], "filter": {"task": "t"}}, "job_ids"),
        ({"job_ids": []}, "job_ids"),
        ({"job_ids": ["a b"]}, "job_ids"),
        ({"job_ids": ["a"] * 10_001}, "job_ids"),
        ({"job_ids": ["a"], "dry_run": True}, "dry_run"),
        ({"filter": {"task": ""}}, "filter.task"),
        ({"filter": {"task": None, "state": "PENDING"}}, "filter.task"),
        ({"filter": {"tags": {}}}, "filter.tags"),
        ({"filter": {"status": "PENDING"}}, "filter.status"),
        ({"filter": {"state": ["DONE"]}}, "filter.state"),
        ({"filter": {"task": "t"}, "cursor": "nonsense"}, "cursor"),
    ],
)
@pytest.mark.parametrize("path", ["/jobs/cancel", "/jobs/retry"])
def test_a_request_that_could_mean_more_than_it_says_is_refused(
    http: Http, path: str, body: dict[str, Any], field: str
) -> None:
    answer = http.post(path, body)
    assert (answer.status, answer.error["field"]) == (400, field), answer.envelope


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_a_filter_names_a_condition_and_states_in_which_something_can_be_done(site: Site) -> None:
    http = site.http
    submit(site, "a")
    for path, impossible in (("/jobs/cancel", "SUCCESS,FAILURE"), ("/jobs/retry", "PENDING")):
        empty = http.post(path, {"filter": {}})
        assert (empty.status, "at least one condition" in empty.envelope["message"]) == (400, True)
        none = http.post(path, {"filter": {"state": impossible}})
        assert (none.status, none.error["field"]) == (400, "filter.state")
    assert states(http, "a") == ["PENDING"]


@pytest.mark.parametrize("chosen", [{"job_ids": ["third", "second", "first"]}, {"filter": {"state": "FAILURE"}}])
def test_jobs_of_one_retry_wait_for_each_other_in_whatever_order_they_come(
    site: Site, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]
) -> None:
    monkeypatch.setattr(changing, "PART", 1)
    monkeypatch.setattr(batches, "parts", partial(parts, most=1))
    submit(site, "first", args=[])  # too few: it fails
    submit(site, "second", depends_on=["first"])
    submit(site, "third", depends_on=["second"])
    site.work()
    site.http.post("/jobs/first/retry")  # of two runs the newest is younger than those that depend on it
    site.work()
    names = ("first", "second", "third")
    assert states(site.http, *names) == ["FAILURE"] * 3
    site.http.post("/jobs/retry", chosen)
    assert states(site.http, *names) == ["PENDING"] * 3
