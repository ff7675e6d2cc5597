"""Errors: one table, one shape, no secret and no traceback; and the routes that are always there."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import jobber
from jobber.api import create_app
from jobber.api.errors import STATUS
from jobber.errors import JobberError, StateUnavailable
from tests.api.fake import FakeService
from tests.api.http import Http


def _tree(kind: type[JobberError]) -> Iterator[type[JobberError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


@pytest.mark.parametrize("kind", [kind for kind in _tree(JobberError) if kind.__module__.startswith("jobber.")])
def test_every_error_has_a_status(kind: type[JobberError]) -> None:
    assert 400 <= STATUS[kind.code] < 600


def test_the_table_holds_no_code_that_nothing_raises() -> None:
    assert set(STATUS) - {kind.code for kind in _tree(JobberError)} == {
        "not_found",
        "method_not_allowed",
        "request_too_large",
    }


def test_who_answers(http: Http) -> None:
    assert http.get("/").data == {"name": "jobber", "version": jobber.__version__}


def test_health_asks_no_database(http: Http, service: FakeService) -> None:
    service.broken = StateUnavailable("down")
    assert http.get("/healthz").data == {"alive": True}


@pytest.mark.parametrize("path", ["/nope", "/tasks/", "/jobs//a", "/jobs/queue/", "/jobs/a/b", "/static/x"])
def test_an_unknown_route_is_404_in_the_envelope(http: Http, path: str) -> None:
    answer = http.get(path)
    assert (answer.status, answer.error["code"]) in [(404, "not_found"), (404, "unknown_job")]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs/a", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "/tasks/slow/jobs", "OPTIONS, POST"),
        ("POST", "/tasks", "GET, HEAD, OPTIONS"),
        ("BREW", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(http: Http, method: str, path: str, allowed: str) -> None:
    answer = http.send(method, path)
    assert (answer.status, answer.error["code"], answer.headers["Allow"]) == (405, "method_not_allowed", allowed)


def test_an_unreachable_state_database_is_503_and_says_when_to_come_back(http: Http, service: FakeService) -> None:
    service.broken = StateUnavailable("the state database cannot be reached", retry_after=3)
    for method, path in [
        ("GET", "/jobs/a"),
        ("DELETE", "/jobs/a"),
        ("GET", "/jobs/queue/q"),
        ("GET", "/jobs/a/results"),
    ]:
        answer = http.send(method, path)
        assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "state_unavailable", "3")
    assert http.post("/tasks/slow/jobs", {}).status == 503


def test_a_bug_is_answered_without_a_word_of_it_and_logged_with_all(
    http: Http, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.broken = ValueError("postgresql://u:secret@h/d")
    answer = http.get("/jobs/a")
    assert (answer.status, answer.error) == (500, {"code": "internal_error"})
    assert "postgresql" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is service.broken


def test_an_error_of_ours_that_is_no_fault_of_the_client_is_logged(
    http: Http, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.broken = JobberError("something odd", fact=1)
    answer = http.get("/jobs/a")
    assert (answer.status, answer.message, answer.error["fact"]) == (500, "something odd", 1)
    assert "something odd" in caplog.text


def test_details_cannot_take_the_place_of_the_code(http: Http, service: FakeService) -> None:
    service.broken = JobberError("x", code="other")
    assert http.get("/jobs/a").error["code"] == "internal_error"


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/tasks/slow/jobs"])
@pytest.mark.parametrize("query", ["x=1", "x=", "wait=1"])
def test_a_route_without_options_refuses_every_option(http: Http, service: FakeService, path: str, query: str) -> None:
    method = "POST" if path.endswith("jobs") else "GET"
    answer = http.send(method, f"{path}?{query}")
    name = query.partition("=")[0]
    assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "invalid_request", name)
    assert answer.message == f"{name}: there is no such option"
    assert service.requests == []


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/jobs/a?wait=1&wait=2", "wait"),
        ("GET", "/jobs/a?wait=1&wait=1", "wait"),
        ("GET", "/tasks?sql=&sql=1", "sql"),
        ("DELETE", "/jobs/a?purge=true&purge=false", "purge"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(http: Http, method: str, path: str, name: str) -> None:
    http.post("/tasks/slow/jobs", {"job_id": "a"})
    answer = http.send(method, path)
    assert (answer.status, answer.message, answer.error["field"]) == (400, f"{name}: is given twice", name)


def test_an_unknown_option_without_a_value_is_refused_and_a_known_one_left_out(http: Http) -> None:
    assert http.get("/tasks?x=").status == 400
    assert http.get("/tasks?sql=").status == 200


def test_what_takes_no_body_refuses_one_that_says_anything(http: Http) -> None:
    routes = [
        (method, path.format(**dict.fromkeys(("job_id", "group_id", "schedule_id", "queue", "database"), "x")))
        for path, item in http.spec["paths"].items()
        for method in ("post", "delete")
        if method in item and "requestBody" not in item[method]
    ]
    assert {("post", "/jobs/x/retry"), ("post", "/schedules/x/run"), ("delete", "/groups/x")} <= {*routes}
    for method, path in routes:
        refused = http.send(method.upper(), path, data=b'{"priority": "high"}')
        assert (refused.status, refused.error["field"]) == (400, "priority"), path
    for nothing in (b"", b"{}", b'{"priority": ""}'):
        assert http.send("DELETE", "/jobs/x", data=nothing).error["code"] == "unknown_job"


def test_options_says_which_methods_are_right_and_has_no_body(http: Http) -> None:
    response = http.client.options("/jobs/a")
    assert (response.status_code, response.data) == (200, b"")
    assert set(response.headers["Allow"].split(", ")) >= {"DELETE", "GET", "OPTIONS"}
    assert http.send("OPTIONS", "/nope").error["code"] == "not_found"


def test_head_has_no_body(http: Http) -> None:
    response = http.client.head("/tasks")
    assert (response.status_code, response.data) == (200, b"")


def test_two_applications_do_not_share_a_service() -> None:
    first, second = FakeService(), FakeService()
    apps = [Http(create_app(service)) for service in (first, second)]  # type: ignore[arg-type]
    apps[0].post("/tasks/slow/jobs", {"job_id": "a"})
    assert apps[0].get("/jobs/a").status == 200
    assert apps[1].get("/jobs/a").status == 404
