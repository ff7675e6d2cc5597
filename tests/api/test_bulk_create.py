"""``POST /jobs``: many jobs in one request, an envelope for each."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.api.http import Http
from tests.api.site import Site

on_sqlite = pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)


@on_sqlite
def test_each_item_is_answered_as_if_it_came_alone(site: Site) -> None:
    good = {"task": "entries_of", "job_id": "a", "args": ["U"], "tags": {"by": "me"}}
    items: list[Any] = [
        good,
        {"task": "entries_off", "job_id": "lost"},
        7,
        {"task": "between", "args": {"last": "x"}},
        good,
        {"job_id": "b", "taks": "entries_of"},
        {"task": "entries_of", "priority": 11, "depends_on": "a"},
        {"task": "entries_of", "job_id": "c", "depends_on": ["lost"]},
        {"task": "entries_of", "job_id": "d", "depends_on": ["b"]},
        {"task": "entries_of", "job_id": "e", "args": ["U"], "depends_on": ["f"]},
        {"task": "entries_of", "job_id": "f", "args": ["U"]},
        {"task": "entries_of", "job_id": {}},
    ]
    answer = site.http.post("/jobs", {"jobs": items})
    assert (answer.envelope["accepted"], answer.envelope["refused"]) == (3, 9)
    first, *others = answer.data
    assert (first["status"], first["data"]["job_id"], first["data"]["tags"]) == ("success", "a", {"by": "me"})
    assert site.http.get("/jobs/a").data["run_ms"] is None
    messages = [item.get("message") for item in others]
    assert messages == [
        "no task named 'entries_off' is loaded; did you mean entries_of?",
        "must be an object, not a number",
        "args: first is missing (integer); last must be an integer of at most 64 bits, not 'x'",
        "job_id: a is the ID of jobs[0] already",
        "task: is missing; taks: there is no such field; did you mean task?",
        "priority: must lie between 1 and 10; depends_on: must be a list of job IDs, not text",
        "depends_on: job lost of this request was refused",
        "depends_on: job b of this request was refused",
        None,
        None,
        "job_id: must be text, not an object",
    ]
    assert {item["error"]["code"] for item in others if item["status"] == "error"} == {
        "invalid_request",
        "unknown_task",
    }
    assert all(item["data"] is None for item in others if item["status"] == "error")
    again = site.http.post("/jobs", {"jobs": [good]})
    assert again.data[0]["error"]["code"] == "job_is_live"
    assert again.data[0]["error"]["job"]["job_id"] == "a"
    done = [site.claim().job_id for _ in range(2)]
    assert done == ["a", "f"]


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "jobs"), ({"jobs": None}, "jobs"), ({"jobs": {}}, "jobs"), ({"jobs": []}, "jobs"), ({"job": []}, "jobs")],
)
def test_a_request_that_holds_no_list_is_refused_as_a_whole(http: Http, body: Any, field: str) -> None:
    refused = http.post("/jobs", body)
    assert (refused.status, refused.error["field"]) == (400, field)


def test_more_than_ten_thousand_items_or_too_many_bytes_are_refused_as_a_whole(http: Http) -> None:
    many = http.post("/jobs", b'{"jobs": [' + b"0," * 10_000 + b"0]}")
    assert (many.status, many.message) == (400, "jobs: must hold 1 to 10,000 objects, not 10,001")
    large = http.post("/jobs", b'{"jobs": ["' + b"x" * 100_000 + b'"]}')  # max_body
    assert (large.status, large.error["code"]) == (413, "request_too_large")


@on_sqlite
def test_ten_thousand_jobs_are_taken_at_once_and_wake_their_queue_in_one_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[tuple[str, int]] = []
    monkeypatch.setattr(site.instance.queueing, "wake", lambda queue, slots=1: woken.append((queue, slots)))
    items = [{"task": "entries_of", "job_id": f"j{n}", "args": ["U"]} for n in range(10_000)]
    response = site.http.client.post("/jobs", json={"jobs": items}, headers={"Idempotency-Key": "k"})
    assert response.json is not None
    assert response.json["accepted"] == 10_000
    assert [item["data"]["job_id"] for item in response.json["data"][::1111]] == [
        f"j{n}" for n in range(0, 10_000, 1111)
    ]
    assert woken == [("reports", 10_000)]
    again = site.http.client.post("/jobs", json={"jobs": items}, headers={"Idempotency-Key": "k"})
    assert again.data == response.data
    assert len(woken) == 1


def test_the_schema_takes_what_the_server_takes(http: Http) -> None:
    schema = http.spec["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": http.spec["components"]})
    validator.validate({"jobs": [{"task": "named", "args": {"since": "x"}}]})
    for wrong in ({"jobs": []}, {"jobs": [{}]}, {"jobs": 1}, {}):
        assert not validator.is_valid(wrong), wrong
