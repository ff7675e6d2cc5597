"""GET and DELETE /jobs/…: status, waiting, cancelling, queues."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from jobber.answers import Answers
from jobber.api.schemas import JobPart, PendingPart
from jobber.columns import Column, Kind
from jobber.errors import QueryFailed
from jobber.store import Hold
from tests.api.fake import NOON, FakeService, settings
from tests.api.http import Http
from tests.servers import wait_until

SUBMIT = "/tasks/slow/jobs"


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]


def test_a_finished_job_says_all_that_the_seed_shows(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "myjob"})
    service.finish("myjob", [(1, "2", 0.5, True, "2026-01-01", "{}", "x")] * 2)
    data = http.get("/jobs/myjob").data
    seed = {"job_id": "myjob", "status": "SUCCESS", "results": [{"Type": "int64", "Value": 2}], "error": ""}
    assert data | seed == data
    # What the peer's Go client decodes.
    assert (data["state"], data["count"]) == ("SUCCESS", 2)


def test_a_job_answer_has_every_documented_field_and_no_other(http: Http) -> None:
    data = http.post(SUBMIT, {}).data
    assert set(data) == set(JobPart().fields)
    assert set(http.get("/jobs/queue/default").data[0]) == set(PendingPart().fields)


def test_a_job_is_told_through_its_life(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a", "eta": "2030-01-01 00:00:00"})
    service.hold = [Hold("start", "", "starts at 2030-01-01 00:00:00 UTC")]  # type: ignore[arg-type]
    pending = http.get("/jobs/a").data
    assert (pending["state"], pending["progress"]["phase"], pending["started_at"]) == ("PENDING", "waiting", None)
    assert pending["waiting_for"] == [{"gate": "start", "name": "", "text": "starts at 2030-01-01 00:00:00 UTC"}]
    assert (pending["queued_ms"], pending["run_ms"], pending["results"]) == (0, None, [])

    service.start("a")
    running = http.get("/jobs/a").data
    assert (running["state"], running["worker"], running["attempt"]) == ("STARTED", "w1", 1)
    assert (running["progress"]["phase"], running["progress"]["rows"], running["progress"]["bytes"]) == (
        "querying",
        40,
        900,
    )
    assert running["waiting_for"] == []

    service.finish("a", [])
    done = http.get("/jobs/a").data
    assert (done["state"], done["progress"]["phase"], done["progress"]["percent"]) == ("SUCCESS", "done", 100)
    assert (done["started_at"], done["finished_at"]) == ("2026-11-22T14:00:01.500000Z", "2026-11-22T14:00:03.500000Z")
    assert (done["created_at"], done["expires_at"]) == ("2026-11-22T14:00:00.000000Z", "2026-11-23T14:00:00.000000Z")
    assert done["run_ms"] == 2000
    assert done["columns"][:2] == [{"name": "id", "type": "BIGINT"}, {"name": "total", "type": "NUMERIC(30,12)"}]


def test_the_time_in_the_queue_counts_from_creation_or_start_time(service: FakeService, http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.start("a")
    assert http.get("/jobs/a").data["queued_ms"] == 1500
    answers = Answers(settings(), now=lambda: NOON + 60_000_000)
    http.post(SUBMIT, {"job_id": "b"})
    job = service.job("b")
    assert answers.job(job)["queued_ms"] == 60_000
    assert answers.job(service.start("b"))["run_ms"] == 58_500
    assert Answers(settings(), now=lambda: NOON - 5).job(job)["queued_ms"] == 0  # clocks of two machines differ


def test_a_failed_job_says_why(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.fail("a", QueryFailed('relation "x" does not exist'))
    data = http.get("/jobs/a").data
    assert (data["state"], data["error"], data["error_code"]) == (
        "FAILURE",
        'relation "x" does not exist',
        "query_failed",
    )
    assert (data["count"], data["results"]) == (0, [])


def test_columns_of_a_results_database_that_is_gone_have_the_name_of_their_kind(
    service: FakeService, http: Http
) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.finish("a", [], [Column("n", Kind.NUMERIC, 5, 2)])
    service.settings = settings()
    service.settings.results.clear()  # type: ignore[attr-defined]
    job = service.job("a")
    assert Answers(service.settings).columns(job) == [{"name": "n", "type": "NUMERIC"}]


@pytest.mark.parametrize(
    "path", ["/jobs/nope", "/jobs/nope/results", "/jobs/a%00b", "/jobs/%ff", "/jobs/a%20b", "/jobs/" + "x" * 101]
)
def test_an_unknown_job_is_404(http: Http, path: str) -> None:
    answer = http.get(path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_job")


def test_an_id_that_can_be_none_never_reaches_the_service(http: Http, service: FakeService) -> None:
    service.broken = AssertionError("asked")
    for method in ("GET", "DELETE"):
        assert http.send(method, "/jobs/a%00b").status == 404


def test_waiting_ends_with_the_job(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(http.get("/jobs/a?wait=30").data["state"]))
    begun = time.monotonic()
    waiter.start()
    time.sleep(0.05)
    assert not found
    service.finish("a")
    wait_until(lambda: found)
    waiter.join()
    assert found == ["SUCCESS"]
    assert time.monotonic() - begun < 20


def test_waiting_ends_with_its_time(http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    begun = time.monotonic()
    assert http.get("/jobs/a?wait=0.1").data["state"] == "PENDING"
    assert time.monotonic() - begun >= 0.1


@pytest.mark.parametrize("wait", ["x", "-1", "61", "nan", "inf", "1e9", "1,5"])
def test_a_wait_that_makes_no_sense_is_refused(http: Http, wait: str) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    answer = http.get(f"/jobs/a?wait={wait}")
    assert (answer.status, answer.error["field"]) == (400, "wait")


@pytest.mark.parametrize("wait", ["", "0", "0.0"])
def test_no_wait_answers_at_once(http: Http, wait: str) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    assert http.get(f"/jobs/a?wait={wait}").data["state"] == "PENDING"


@pytest.mark.parametrize(
    ("method", "path", "nearest"),
    [
        ("GET", "/jobs/a?wiat=1", "wait"),
        ("DELETE", "/jobs/a?purg=true", "purge"),
        ("GET", "/jobs/a/results?offest=1", "offset"),
        ("GET", "/jobs/queue/q?limt=1", "limit"),
        ("GET", "/tasks?sq=1", "sql"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_known_one(
    http: Http, method: str, path: str, nearest: str
) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    answer = http.send(method, path)
    assert (answer.status, answer.error["code"], answer.error["nearest"]) == (400, "invalid_request", nearest)


def test_a_pending_job_is_cancelled_at_once(http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    assert http.delete("/jobs/a").data["state"] == "CANCELLED"
    assert http.get("/jobs/a").data["state"] == "CANCELLED"


def test_a_running_job_is_asked_to_stop(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.start("a")
    data = http.delete("/jobs/a?purge=false").data
    assert (data["state"], data["cancel_requested"]) == ("STARTED", True)


def test_cancelling_what_is_finished_is_409_with_the_job(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.finish("a")
    answer = http.delete("/jobs/a")
    assert (answer.status, answer.error["code"], answer.error["job"]["state"]) == (409, "job_is_finished", "SUCCESS")


@pytest.mark.parametrize("purge", ["true", "True", "1"])
def test_purge_removes_a_finished_job(http: Http, service: FakeService, purge: str) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.finish("a")
    assert http.delete(f"/jobs/a?purge={purge}").data["job_id"] == "a"
    assert http.get("/jobs/a").status == 404


def test_a_purge_that_is_neither_true_nor_false_is_refused(http: Http, service: FakeService) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    answer = http.delete("/jobs/a?purge=maybe")
    assert (answer.status, answer.error["field"]) == (400, "purge")
    assert service.job("a").live


def test_cancelling_an_unknown_job_is_404(http: Http) -> None:
    assert http.delete("/jobs/nope?purge=true").error["code"] == "unknown_job"


def test_a_queue_lists_its_pending_jobs_in_order(http: Http, service: FakeService) -> None:
    for name in ("a", "b", "c"):
        http.post(SUBMIT, {"job_id": name, "queue": "q"})
    http.post(SUBMIT, {"job_id": "d"})
    service.start("a")
    assert [item["job_id"] for item in http.get("/jobs/queue/q").data] == ["b", "c"]
    assert [item["job_id"] for item in http.get("/jobs/queue/q?limit=1").data] == ["b"]
    assert http.get("/jobs/queue/unheard-of").data == []


def test_a_queue_may_bear_the_name_of_a_route(http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a", "queue": "results"})
    assert [item["job_id"] for item in http.get("/jobs/queue/results").data] == ["a"]


@pytest.mark.parametrize("limit", ["0", "1001", "x", "1.5", "-1", "9" * 30])
def test_a_limit_out_of_bounds_is_refused(http: Http, limit: str) -> None:
    answer = http.get(f"/jobs/queue/q?limit={limit}")
    assert (answer.status, answer.error["field"]) == (400, "limit")


def test_a_name_that_no_queue_can_have_is_refused(http: Http, service: FakeService) -> None:
    service.broken = AssertionError("asked")
    answer = http.get("/jobs/queue/a%00b")
    assert (answer.status, answer.error["field"]) == (400, "queue")


def test_pending_items_carry_what_the_go_client_decodes(http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a", "retries": 3})
    (item,) = http.get("/jobs/queue/default").data
    go = {
        "ID": "a",
        "Status": "PENDING",
        "Queue": "default",
        "Schedule": "",
        "MaxRetry": 3,
        "Retried": 0,
        "PrevErr": "",
        "ProcessedAt": "0001-01-01T00:00:00Z",
        "Job": {"Task": "slow"},
    }
    assert item | go == item


def test_keys_that_differ_in_case_only_have_the_same_value(http: Http, service: FakeService) -> None:
    """Go decodes a key into a field whatever its case, the last one wins; another type there is an error."""
    http.post(SUBMIT, {"job_id": "a"})
    item = http.get("/jobs/queue/default").data[0]
    service.start("a")
    for answer in (item, http.get("/jobs/a").data):
        seen: dict[str, Any] = {}
        for key, value in answer.items():
            assert seen.setdefault(key.lower(), value) == value
    # The types that the peer's client declares for the fields of a list's item.
    declared = {
        **dict.fromkeys(("id", "status", "queue", "schedule", "preverr", "processedat"), "string"),
        **dict.fromkeys(("maxretry", "retried"), "number"),
        "job": "object",
    }
    for key, value in item.items():
        assert declared.get(key.lower(), _json_type(value)) == _json_type(value)
