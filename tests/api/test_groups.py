"""POST, GET and DELETE /groups: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from jobber.api.requests import MemberBody
from jobber.api.schemas import CountsPart, GroupPart, JobPart
from jobber.completion import GroupRequest
from jobber.errors import QueryFailed
from jobber.jobs import JobState
from jobber.store import Hold
from tests.api.fake import FakeService
from tests.api.http import Http, application
from tests.servers import wait_until

TASK = "get_profit_entries_by_date"
PAIR = [{"task": "slow", "job_id": "a"}, {"task": "slow", "job_id": "b"}]


def group_request(service: FakeService) -> GroupRequest:
    (request,) = service.requests
    assert isinstance(request, GroupRequest)
    return request


def test_the_seeds_group_gets_what_the_seed_shows(http: Http) -> None:
    args = ["USER1", "2017-12-01", "2017-01-01"]
    jobs = [{"job_id": name, "task": TASK, "args": args} for name in ("myjob", "myjob2")]
    data = http.post("/groups", {"group_id": "mygroup", "concurrency": 3, "jobs": jobs}).data
    seed = {"task": TASK, "queue": "sqljob_queue", "eta": None, "retries": 0}
    assert (data["group_id"], data["concurrency"]) == ("mygroup", 3)
    for name, job in zip(("myjob", "myjob2"), data["jobs"], strict=True):
        assert job | seed | {"job_id": name, "group_id": "mygroup"} == job


def test_what_the_go_client_sends_is_accepted_and_its_blanks_mean_absent(http: Http, service: FakeService) -> None:
    job = {"task": "slow", "job_id": "", "queue": "", "eta": "", "retries": 0, "ttl": 0, "args": None, "db": ""}
    http.post("/groups", {"group_id": "", "concurrency": 0, "jobs": [job, job], "callback": None})
    request = group_request(service)
    assert (request.group_id, request.concurrency, request.callback) == (None, 0, None)
    assert [(job.job_id, job.queue, job.eta, job.args) for job in request.jobs] == [(None, None, None, [])] * 2
    assert service.group_runs[0].group_id


def test_a_group_answer_has_every_documented_field_and_no_other(http: Http) -> None:
    data = http.post("/groups", {"jobs": PAIR, "callback": {"task": "slow"}}).data
    assert set(data) == set(GroupPart().fields)
    assert set(data["counts"]) == set(CountsPart().fields) == set(JobState)
    assert set(data["jobs"][0]) == set(data["callback"]) == set(JobPart().fields)


def test_a_group_is_told_through_its_life(http: Http, service: FakeService) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    pending = http.get("/groups/g").data
    assert (pending["state"], pending["status"], pending["counts"]["PENDING"]) == ("PENDING", "PENDING", 2)
    assert (pending["finished_at"], pending["callback"]) == (None, None)
    assert pending["created_at"] == "2026-11-22T14:00:00.000000Z"
    service.finish("a")
    running = http.get("/groups/g").data
    assert (running["state"], running["counts"]["SUCCESS"]) == ("STARTED", 1)
    service.fail("b", QueryFailed("no such table"))
    done = http.get("/groups/g").data
    assert (done["state"], done["finished_at"]) == ("FAILURE", "2026-11-22T14:00:03.500000Z")
    assert [(job["job_id"], job["state"], job["error"]) for job in done["jobs"]] == [
        ("a", "SUCCESS", ""),
        ("b", "FAILURE", "no such table"),
    ]


def test_the_jobs_are_left_out_where_nobody_wants_them(http: Http) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    for query in ("?jobs=false", "?jobs=false&wait=0.01"):
        answer = http.get("/groups/g" + query).data
        assert (answer["jobs"], answer["counts"]["PENDING"]) == ([], 2)
    assert len(http.get("/groups/g?jobs=true").data["jobs"]) == 2


def test_a_waiting_callback_says_what_it_waits_for(http: Http, service: FakeService) -> None:
    service.hold = [Hold("parent", "g", "group g is not finished")]
    submitted = http.post("/groups", {"group_id": "g", "jobs": PAIR, "callback": {"task": "slow"}}).data
    assert submitted["callback"]["waiting_for"] is None
    data = http.get("/groups/g").data
    assert data["callback"]["waiting_for"] == [{"gate": "parent", "name": "g", "text": "group g is not finished"}]
    assert [job["waiting_for"] for job in data["jobs"]] == [None, None]


def test_waiting_ends_with_the_last_job(http: Http, service: FakeService) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    service.finish("a")
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(http.get("/groups/g?wait=60").data["state"]))
    waiter.start()
    service.finish("b")
    wait_until(lambda: found)
    waiter.join()
    assert found == ["SUCCESS"]


@pytest.mark.parametrize("query", ["wait=61", "wait=x", "jobs=maybe", "wiat=1"])
def test_an_option_that_makes_no_sense_is_refused(http: Http, query: str) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    answer = http.get(f"/groups/g?{query}")
    assert (answer.status, answer.error["field"]) == (400, query.partition("=")[0])


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "jobs", "is missing"),
        ({"jobs": None}, "jobs", "is missing"),
        ({"jobs": []}, "jobs", "must hold 1 to 10,000 objects, not 0"),
        ({"jobs": [0] * 10_001}, "jobs", "must hold 1 to 10,000 objects, not 10,001"),
        ({"jobs": {}}, "jobs", "must be a list of objects, not an object"),
        ({"jobs": ["slow"]}, "jobs[0]", "must be an object, not text"),
        ({"jobs": [*PAIR, None]}, "jobs[2]", "must be an object, not null"),
        ({"jobs": [{}]}, "jobs[0].task", "is missing"),
        ({"jobs": [{"task": ""}]}, "jobs[0].task", "is missing"),
        ({"jobs": [*PAIR, {"task": "slow", "args": [1, [2]]}]}, "jobs[2].args", "[1] is a list"),
        ({"jobs": [{"task": "slow", "retries": "3"}]}, "jobs[0].retries", "whole number"),
        ({"jobs": [{"task": "slow", "db": "x"}]}, "jobs[0].db", "it may use main"),
        ({"jobs": [{"task": "named"}]}, "jobs[0].args", "since is missing"),
        ({"jobs": PAIR, "callback": {}}, "callback.task", "is missing"),
        ({"jobs": PAIR, "callback": []}, "callback", "must be an object, not a list"),
        ({"jobs": PAIR, "callback": {"task": "nope"}}, "callback.task", "no task named 'nope'"),
        ({"jobs": PAIR, "callback": {"task": "slow", "db": "x"}}, "callback.db", "it may use main"),
        ({"jobs": PAIR, "concurrency": -1}, "concurrency", "must lie between"),
        ({"jobs": PAIR, "group_id": "a b"}, "group_id", "letters and digits"),
        ({"jobs": [*PAIR, *PAIR[1:]]}, "jobs[2].job_id", "b is the ID of jobs[1] already"),
        ({"jobs": PAIR, "callback": PAIR[0]}, "callback.job_id", "a is the ID of jobs[0] already"),
    ],
)
def test_a_wrong_group_is_refused_and_the_place_named(
    http: Http, service: FakeService, body: dict[str, Any], field: str, words: str
) -> None:
    answer = http.post("/groups", body)
    assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "invalid_request", field)
    assert answer.message.startswith(f"{field}: ")
    assert words in answer.message
    assert service.runs == []


def test_an_unknown_task_is_400_with_the_nearest_known_one(http: Http) -> None:
    answer = http.post("/groups", {"jobs": [*PAIR[:1], {"task": "get_profit_entries"}]})
    assert (answer.status, answer.error["field"], answer.error["nearest"]) == (400, "jobs[1].task", TASK)
    assert f"did you mean {TASK}?" in answer.message


@pytest.mark.parametrize(
    ("body", "field", "nearest"),
    [
        ({"jobs": [{"task": "slow", "job_idd": "x"}]}, "jobs[0].job_idd", "job_id"),
        ({"jobs": PAIR, "callback": {"task": "slow", "arg": [1]}}, "callback.arg", "args"),
        ({"jobs": PAIR, "concurency": 3}, "concurency", "concurrency"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(
    http: Http, body: dict[str, Any], field: str, nearest: str
) -> None:
    answer = http.post("/groups", body)
    assert (answer.status, answer.error["field"], answer.error["nearest"]) == (400, field, nearest)


def test_all_that_is_wrong_is_told_at_once(http: Http) -> None:
    wrong = [{"task": "slow", "retries": -1, "priority": 99}, {}, 3]
    answer = http.post("/groups", {"jobs": wrong, "callback": {"queue": "a b"}, "group_id": "a b"})
    assert set(answer.error["fields"]) == {
        *("group_id", "jobs[0].retries", "jobs[0].priority", "jobs[1].task", "jobs[2]"),
        *("callback.task", "callback.queue"),
    }
    wrong = [{"task": "slow", "db": "x", "results": "y"}, {"task": "nope"}, {"task": "named", "args": {"since": "x"}}]
    answer = http.post("/groups", {"jobs": wrong, "callback": {"task": "nope"}})
    assert set(answer.error["fields"]) == {
        *("jobs[0].db", "jobs[0].results", "jobs[1].task", "jobs[2].args", "callback.task")
    }


@pytest.mark.parametrize(
    "job",
    [
        {"task": "nope"},
        {"task": "x" * 200},
        {"task": "named", "db": "x", "results": "y"},
        {"task": "slow", "nope": 1},
        0,
    ],
)
def test_a_group_that_is_wrong_all_over_gets_a_short_answer(http: Http, job: object) -> None:
    http.app.config["MAX_CONTENT_LENGTH"] = 10_000_000
    answer = http.post("/groups", {"jobs": [job] * 10_000})
    assert answer.status == 400
    assert len(answer.error["fields"]) == 20
    assert len(answer.text) < 10_000


def test_a_body_that_is_wrong_all_over_is_checked_no_further_than_it_is_told(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = MemberBody.load

    def counting(self: MemberBody, data: Any, **options: Any) -> Any:
        loaded.append(data)
        return load(self, data, **options)

    monkeypatch.setattr(MemberBody, "load", counting)
    assert len(http.post("/groups", {"jobs": [{}] * 100}).error["fields"]) == 20
    assert len(loaded) == 20


def test_a_live_member_is_409_with_its_place_and_nothing_is_created(http: Http, service: FakeService) -> None:
    http.post("/tasks/slow/jobs", {"job_id": "b"})
    answer = http.post("/groups", {"group_id": "g", "jobs": PAIR})
    assert (answer.status, answer.error["code"], answer.error["field"]) == (409, "job_is_live", "jobs[1].job_id")
    assert answer.message == "jobs[1].job_id: job b is PENDING"
    assert answer.error["job"]["job_id"] == "b"
    answer = http.post("/groups", {"jobs": PAIR[:1], "callback": {"task": "slow", "job_id": "b"}})
    assert answer.error["field"] == "callback.job_id"
    assert len(service.runs) == 1


def test_a_live_group_is_409_with_the_group(http: Http) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    answer = http.post("/groups", {"group_id": "g", "jobs": [{"task": "slow"}]})
    assert (answer.status, answer.error["code"]) == (409, "group_is_live")
    assert (answer.error["group"]["state"], answer.error["group"]["jobs"]) == ("PENDING", [])


def test_a_draining_instance_takes_no_group(http: Http, service: FakeService) -> None:
    service.drain()
    answer = http.post("/groups", {"jobs": PAIR})
    assert (answer.status, answer.error["code"]) == (503, "draining")


@pytest.mark.parametrize("path", ["/groups/nope", "/groups/a%00b", "/groups/" + "x" * 101])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_group_is_404(http: Http, method: str, path: str) -> None:
    answer = http.send(method, path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_group")


# -- the callback -----------------------------------------------------------------------------------------------------


def test_the_outcome_that_the_callback_asks_for_is_null_until_there_is_one(http: Http, service: FakeService) -> None:
    data = http.post("/groups", {"jobs": PAIR, "callback": {"task": "notify", "args": {"channel": "x"}}}).data
    assert data["callback"]["args"] == {"group_id": None, "channel": "x", "failed": None}
    data = http.post("/groups", {"jobs": [{"task": "slow"}], "callback": {"task": TASK, "args": [1, 2, 3]}}).data
    assert data["callback"]["args"] == [1, 2, 3]
    data = http.post("/groups", {"jobs": [{"task": "notify", "args": {"channel": "x"}}]}).data
    assert data["jobs"][0]["args"] == {"channel": "x"}  # no callback: nothing is filled in


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"channel": "x", "failed": 3}, "failed: jobber fills in the outcome of the group"),
        ({"tables": "[]"}, "tables: jobber fills in the outcome of the group"),
        (["x"], "must be an object: task notify names its placeholders (channel, failed, group_id)"),
    ],
)
def test_args_that_take_the_place_of_the_outcome_are_refused(http: Http, args: object, words: str) -> None:
    answer = http.post("/groups", {"jobs": PAIR, "callback": {"task": "notify", "args": args}})
    assert (answer.status, answer.error["field"]) == (400, "callback.args")
    assert words in answer.message


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_cancelling_a_group_cancels_its_jobs_and_not_its_callback(http: Http, service: FakeService) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR, "callback": {"task": "slow"}})
    service.start("b")
    data = http.delete("/groups/g?purge=true").data  # of a live group this only cancels
    assert [(job["state"], job["cancel_requested"]) for job in data["jobs"]] == [
        ("CANCELLED", False),
        ("STARTED", True),
    ]
    assert data["callback"]["state"] == "PENDING"


def test_cancelling_what_is_finished_is_409_with_the_group(http: Http, service: FakeService) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR[:1]})
    service.finish("a")
    answer = http.delete("/groups/g")
    assert (answer.status, answer.error["code"]) == (409, "group_is_finished")
    assert answer.error["group"]["state"] == "SUCCESS"
    assert http.delete("/groups/g?purge=true").data["jobs"][0]["job_id"] == "a"
    assert http.get("/groups/g").status == http.get("/jobs/a").status == 404


# -- the description --------------------------------------------------------------------------------------------------


def test_the_request_schema_takes_what_the_server_takes(http: Http) -> None:
    body = http.spec["paths"]["/groups"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**body, "components": http.spec["components"]})
    job = {"task": "slow", "job_id": "", "queue": "", "eta": "", "retries": 0, "ttl": 0, "args": None, "db": ""}
    validator.validate({"group_id": "", "concurrency": 0, "jobs": [job], "callback": None})
    validator.validate({"jobs": [{"task": "slow"}], "callback": {"task": "notify", "args": {"channel": "x"}}})
    for wrong in ({}, {"jobs": []}, {"jobs": [{}]}, {"jobs": ["slow"]}, {"jobs": [job], "callback": {}}):
        assert not validator.is_valid(wrong), wrong


def test_no_key_of_a_group_has_a_type_that_clashes_with_what_the_go_client_declares(http: Http) -> None:
    http.post("/groups", {"group_id": "g", "jobs": PAIR})
    data = json.loads(http.get("/groups/g").text)["data"]
    declared = {"group_id": str, "state": str, "jobs": list}
    of_a_job = {"job_id": str, "state": str, "count": int, "error": str, "task": str, "queue": str, "retries": int}
    for types, said in ((declared, data), (of_a_job, data["jobs"][0])):
        assert {key: type(value) for key, value in said.items() if key.lower() in types} == types


BLANKS = st.sampled_from([None, "", 0, [], {}, "slow", "a b", 1.5, True])
ITEMS = BLANKS | st.dictionaries(st.sampled_from(["task", "job_id", "args", "tags", "retries", "x", "_schema"]), BLANKS)
BODIES = st.dictionaries(
    st.sampled_from(["group_id", "concurrency", "jobs", "callback", "_schema"]), st.lists(ITEMS, max_size=4) | ITEMS
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_no_group_whatever_brings_the_server_down(body: dict[str, Any]) -> None:
    answer = Http(APP).post("/groups", body)
    assert answer.status in (200, 400, 409)
    if answer.status == 400:
        assert answer.error["code"] == "invalid_request"
        assert answer.error["fields"][answer.error["field"]]


APP = application(FakeService())
