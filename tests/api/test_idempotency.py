"""``Idempotency-Key`` over HTTP: every request that makes jobs takes one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.fake import FakeService
from tests.api.http import Answer, Http
from tests.api.site import Site

KEY = {"Idempotency-Key": "a key"}
JOB = "/tasks/get_profit_entries_by_date/jobs"


def post(http: Http, path: str, body: Any, key: str = "a key") -> Answer:
    return http.post(path, body, headers={"Idempotency-Key": key})


def test_a_repeated_request_gets_the_first_answer_byte_by_byte_and_says_so(http: Http, service: FakeService) -> None:
    first = post(http, JOB, {"args": ["é", 1.50]})
    assert "Idempotent-Replayed" not in first.headers
    job_id = first.data["job_id"]
    service.start(job_id)
    again = post(http, JOB, {"args": ["é", 1.50]})
    assert (again.text, again.headers["Idempotent-Replayed"]) == (first.text, "true")
    assert len(service.runs) == 1
    assert http.post(JOB, {"args": ["é", 1.50]}).data["job_id"] != job_id  # without a key it is another one


@pytest.mark.parametrize(
    ("path", "body"),
    [(JOB, b'{"args": [ 1]}'), (JOB, b'{"args": [2]}'), ("/tasks/named/jobs", b'{"args": [1]}')],
    ids=["another spelling", "other args", "another path"],
)
def test_a_key_with_another_request_is_a_conflict_that_names_the_header(http: Http, path: str, body: bytes) -> None:
    post(http, JOB, b'{"args": [1]}')
    refused = post(http, path, body)
    assert (refused.status, refused.error["code"]) == (422, "idempotency_conflict")
    assert refused.error["field"] == "Idempotency-Key"
    assert refused.message.startswith("Idempotency-Key: ")


def test_a_body_that_says_nothing_is_part_of_the_request_where_none_is_looked_for(
    http: Http, service: FakeService
) -> None:
    http.post(JOB, {"job_id": "a"})
    service.finish("a")
    first = post(http, "/jobs/a/retry", b"")
    assert post(http, "/jobs/a/retry", b"").text == first.text
    refused = post(http, "/jobs/a/retry", b"{}")
    assert (refused.status, refused.error["code"]) == (422, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "x" * 151, "tab\tkey", "clé", "\x7f"])
def test_a_key_must_be_short_printable_ascii(http: Http, key: str) -> None:
    refused = post(http, JOB, {}, key)
    assert (refused.status, refused.error["field"]) == (400, "Idempotency-Key")
    assert "1 to 150 printable ASCII characters" in refused.message


def test_an_error_is_not_remembered_and_a_draining_instance_still_tells_what_it_answered(
    http: Http, service: FakeService
) -> None:
    assert post(http, JOB, {"job_id": "a", "nonsense": 1}).status == 400
    first = post(http, JOB, {"job_id": "a"})
    service.draining = True
    assert post(http, JOB, {"job_id": "a"}).text == first.text
    assert post(http, JOB, {"job_id": "b"}, "new").error["code"] == "draining"
    service.draining = False
    assert post(http, JOB, {"job_id": "b"}, "new").status == 200


def test_every_request_that_makes_jobs_says_that_it_takes_a_key(http: Http) -> None:
    takes = {
        path
        for path, item in http.spec["paths"].items()
        if any(given.get("name") == "Idempotency-Key" for given in item.get("post", {}).get("parameters", []))
    }
    assert takes >= {"/tasks/{task_name}/jobs", "/groups", "/jobs", "/schedules", "/jobs/{job_id}/retry"}
    for path in takes:
        assert "422" in http.spec["paths"][path]["post"]["responses"]


def test_jobs_groups_bulks_and_retries_are_made_once_and_answered_as_often_as_asked(site: Site) -> None:
    job = {"task": "entries_of", "args": ["U"]}
    requests = {
        "job": ("/tasks/entries_of/jobs", {"job_id": "a", "args": ["U"]}),
        "group": ("/groups", {"group_id": "g", "jobs": [job, job]}),
        "bulk": ("/jobs", {"jobs": [job, {"task": "no such"}, job | {"job_id": "a"}]}),
    }
    first = {key: post(site.http, *request, key) for key, request in requests.items()}
    assert (first["bulk"].envelope["accepted"], first["bulk"].envelope["refused"]) == (1, 2)
    assert len(site.http.get("/jobs/queue/reports").data) == 4
    site.work()
    first["retry"] = post(site.http, "/jobs/a/retry", b"", "retry")
    requests["retry"] = ("/jobs/a/retry", b"")
    for key, request in requests.items():
        again = post(site.http, *request, key)
        assert (again.status, again.text) == (200, first[key].text), key
        assert again.headers["Idempotent-Replayed"] == "true"
    assert first["retry"].data["state"] == "PENDING"
    assert len(site.http.get("/jobs/queue/reports").data) == 4


def test_of_requests_with_one_key_at_once_one_makes_a_job_and_all_tell_of_it(site: Site) -> None:
    def ask(number: int) -> str:
        body = json.dumps({"job_id": "a", "args": ["U"]} if number < 6 else {"args": ["U"]})
        key = "with an ID" if number < 6 else "without"
        response = site.http.app.test_client().post(
            "/tasks/entries_of/jobs", data=body, headers={"Idempotency-Key": key}
        )
        assert response.status_code == 200, response.text
        return response.text

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(12)))
    assert len(set(answers[:6])) == len(set(answers[6:])) == 1
    assert len(site.http.get("/jobs/queue/reports").data) == 2
