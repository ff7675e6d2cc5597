"""POST /tasks/{task}/jobs: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobber.completion import Completer, JobRequest
from tests.api.fake import FakeService
from tests.api.http import Http, application, serving

JOBS = "/tasks/get_profit_entries_by_date/jobs"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_the_seeds_first_request_gets_what_the_seed_shows(http: Http) -> None:
    answer = http.post(JOBS, '{"job_id": "myjob", "args": ["USER1", "2017-12-01", "2017-01-01"]}')
    seed = {
        "job_id": "myjob",
        "task_name": "get_profit_entries_by_date",
        "queue": "sqljob_queue",
        "eta": None,
        "retries": 0,
    }
    assert answer.data | seed == answer.data
    assert answer.data["task"] == "get_profit_entries_by_date"
    assert answer.text.startswith('{"status":"success","data":{"job_id":"myjob",')


def test_a_body_that_curl_declares_to_be_a_form_is_read_as_json(http: Http) -> None:
    answer = http.post(
        JOBS, '{"job_id": "myjob", "queue": "low_priority"}', content_type="application/x-www-form-urlencoded"
    )
    assert answer.data["queue"] == "low_priority"


@pytest.mark.parametrize("body", ["", "  \n", "{}", "\ufeff{}"])
def test_an_empty_body_is_a_job_without_arguments(http: Http, body: str) -> None:
    assert http.post("/tasks/slow/jobs", body.encode()).data["args"] == []


def test_every_field_reaches_the_service(http: Http, service: FakeService) -> None:
    http.post(
        JOBS,
        {
            "job_id": "a:b_c-D9",
            "queue": "q",
            "eta": "2030-01-31 18:30:00",
            "retries": 3,
            "ttl": 60,
            "args": {"since": "2026-01-01"},
            "db": "main",
            "results": "reports",
            "priority": 10,
            "timeout": 5,
            "tags": {"tenant": "acme", "report.kind": ""},
        },
    )
    (request,) = service.requests
    eta = (datetime(2030, 1, 31, 18, 30, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    assert (request.job_id, request.queue, request.eta, request.retries, request.ttl) == ("a:b_c-D9", "q", eta, 3, 60)
    assert (request.args, request.db, request.results) == ({"since": "2026-01-01"}, "main", "reports")
    assert (request.priority, request.timeout) == (10, 5)
    assert request.tags == {"tenant": "acme", "report.kind": ""}


def test_the_unset_fields_of_the_go_client_mean_absent(http: Http, service: FakeService) -> None:
    http.post(JOBS, {"task": "", "job_id": "", "queue": "", "eta": "", "retries": 0, "ttl": 0, "args": None, "db": ""})
    (request,) = service.requests
    assert (request.job_id, request.queue, request.eta, request.retries, request.ttl) == (None,) * 5
    assert (request.args, request.db, request.results, request.priority, request.timeout) == ([], *(None,) * 4)


FIELDS = ("task", "job_id", "queue", "eta", "retries", "ttl", "args", "db", "results", "priority", "timeout", "tags")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("blank", [None, ""])
def test_null_and_empty_text_mean_absent_in_every_field(http: Http, field: str, blank: object) -> None:
    assert http.post(JOBS, {field: blank}).status == 200


@pytest.mark.parametrize("blank", [None, "", 0, 0.0, False, [], {}])
def test_an_unknown_field_that_says_nothing_is_left_out(http: Http, blank: object) -> None:
    # A client of another version, written in Go, sends every field that it knows.
    assert http.post(JOBS, {"retires": blank}).status == 200


def test_the_paths_task_may_be_named_again_but_no_other(http: Http) -> None:
    assert http.post(JOBS, {"task": "get_profit_entries_by_date"}).status == 200
    answer = http.post(JOBS, {"task": "slow"})
    assert (answer.status, answer.error["field"]) == (400, "task")
    assert "slow" in answer.message


def test_an_unknown_task_is_404(http: Http) -> None:
    answer = http.post("/tasks/nope/jobs", {})
    assert (answer.status, answer.error["code"], answer.error["task"]) == (404, "unknown_task", "nope")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31 18:30:00", datetime(2030, 1, 31, 18, 30, tzinfo=UTC)),
        ("2030-01-31T18:30:00Z", datetime(2030, 1, 31, 18, 30, tzinfo=UTC)),
        ("2030-01-31t18:30:00.123456789z", datetime(2030, 1, 31, 18, 30, 0, 123456, tzinfo=UTC)),
        ("2030-01-31T18:30:00,5", datetime(2030, 1, 31, 18, 30, 0, 500000, tzinfo=UTC)),
        ("2030-01-31T18:30:00+02:00", datetime(2030, 1, 31, 16, 30, tzinfo=UTC)),
        ("2030-01-31T18:30-0530", datetime(2030, 2, 1, 0, 0, tzinfo=UTC)),
        ("2030-01-31 18:30:00 Z", datetime(2030, 1, 31, 18, 30, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_start_time_is_read_to_the_microsecond(http: Http, service: FakeService, text: str, moment: datetime) -> None:
    answer = http.post(JOBS, {"eta": text})
    assert service.requests[0].eta == (moment - EPOCH) // timedelta(microseconds=1)
    assert datetime.fromisoformat(answer.data["eta"]) == moment
    assert answer.data["eta"].endswith("Z")


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "2030-13-01 00:00:00",
        "2030-02-30 00:00:00",
        "2030-01-31 25:00:00",
        "2030-01-31x18:30:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31 00:00:00",
        "1999-12-31 23:59:59",
        "2200-01-01 00:00:00",
        "٢٠٣٠-01-31 18:30:00",
        "2030-W05-4",
        "1893456000",
        "2030-01-31T18:30:00+99:00",
        "2030-01-31T18:30:00Z\n",
    ],
)
def test_no_start_time_is_guessed(http: Http, service: FakeService, text: str) -> None:
    answer = http.post(JOBS, {"eta": text})
    assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "invalid_request", "eta")
    assert service.requests == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"job_id": 5}, "job_id"),
        ({"job_id": "a b"}, "job_id"),
        ({"job_id": "a/b"}, "job_id"),
        ({"job_id": "ä"}, "job_id"),
        ({"job_id": "x\n"}, "job_id"),
        ({"job_id": "a\0"}, "job_id"),
        ({"job_id": "x" * 101}, "job_id"),
        ({"job_id": "queue"}, "job_id"),
        ({"job_id": "cancel"}, "job_id"),
        ({"job_id": "retry"}, "job_id"),
        ({"queue": "a b"}, "queue"),
        ({"queue": ["q"]}, "queue"),
        ({"retries": "3"}, "retries"),
        ({"retries": -1}, "retries"),
        ({"retries": 1001}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": False}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"ttl": 2**31}, "ttl"),
        ({"ttl": -5}, "ttl"),
        ({"timeout": 2_147_484}, "timeout"),
        ({"priority": 11}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": "highest"}, "priority"),
        ({"eta": 0}, "eta"),
        ({"eta": 1893456000}, "eta"),
        ({"args": "USER1"}, "args"),
        ({"args": 0}, "args"),
        ({"args": False}, "args"),
        ({"db": 7}, "db"),
        ({"db": "nope"}, "db"),
        ({"db": "a\0"}, "db"),
        ({"db": "x" * 201}, "db"),
        ({"results": {}}, "results"),
        ({"tags": ["a"]}, "tags"),
        ({"tags": {"a": 1}}, "tags"),
        ({"tags": {"a": "\0"}}, "tags"),
        ({"tags": {"a": "x" * 201}}, "tags"),
        ({"tags": {"": "x"}}, "tags"),
        ({"tags": {"a b": "x"}}, "tags"),
        ({"tags": {f"t{n}": "" for n in range(51)}}, "tags"),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(
    http: Http, service: FakeService, body: dict[str, Any], field: str
) -> None:
    answer = http.post(JOBS, body)
    assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "invalid_request", field)
    assert answer.message.startswith(f"{field}:")
    assert service.requests == []


def test_the_greatest_values_are_accepted(http: Http) -> None:
    body = {"job_id": "x" * 100, "retries": 1000, "ttl": 2**31 - 1, "timeout": 2_147_483, "priority": 10}
    assert http.post(JOBS, body).status == 200


def test_all_wrong_fields_are_named_at_once(http: Http) -> None:
    answer = http.post(JOBS, {"retries": "x", "job_id": "a b"})
    assert answer.error["fields"].keys() == {"retries", "job_id"}


@pytest.mark.parametrize(
    ("field", "nearest"), [("job_idd", "job_id"), ("jobid", "job_id"), ("Priority", "priority"), ("retry", "retries")]
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(http: Http, field: str, nearest: str) -> None:
    answer = http.post(JOBS, {field: "x"})
    assert (answer.status, answer.error["field"], answer.error["nearest"]) == (400, field, nearest)
    assert f"did you mean {nearest}?" in answer.message


def test_an_unknown_field_that_is_near_to_none_is_refused_too(http: Http) -> None:
    answer = http.post(JOBS, {"zzzzz": 1})
    assert (answer.status, answer.error["field"]) == (400, "zzzzz")
    assert "nearest" not in answer.error


def test_a_body_that_is_wrong_all_over_gets_a_short_answer(http: Http) -> None:
    answer = http.post(JOBS, {"x" * 10_000: 1, **{f"field_{n}": 1 for n in range(5000)}})
    assert answer.status == 400
    assert len(answer.text) < 10_000
    assert len(answer.error["fields"]) == 20


@pytest.mark.parametrize(("args", "position"), [([1, [2]], "[1]"), ([{}], "[0]"), ({"a": 1, "b": []}, "[b]")])
def test_a_nested_argument_is_refused_and_its_position_named(http: Http, args: object, position: str) -> None:
    answer = http.post(JOBS, {"args": args})
    assert (answer.status, answer.error["field"]) == (400, "args")
    assert position in answer.message


@pytest.mark.parametrize("name", ["$decimal", "", "a b", "1a", "x" * 101, "a-b", "a\n"])
def test_an_argument_that_no_placeholder_can_be_named_for_is_refused(http: Http, name: str) -> None:
    answer = http.post(JOBS, {"args": {name: "1"}})
    assert (answer.status, answer.error["field"]) == (400, "args")


def test_more_arguments_than_any_database_binds_are_refused(service: FakeService, http: Http) -> None:
    http.app.config["MAX_CONTENT_LENGTH"] = 1_000_000
    assert http.post(JOBS, {"args": [1] * 65_535}).status == 200
    assert http.post(JOBS, {"args": [1] * 65_536}).error["field"] == "args"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.10", Decimal("1.10")),
        ("12345678901234567890.12345678901234567890", Decimal("12345678901234567890.12345678901234567890")),
        ("100000000000000000000000000000000000001", 10**38 + 1),
        ("1e400", Decimal("1e400")),
        ("-0.0", Decimal("-0.0")),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_numbers_keep_every_digit_on_the_way_in_and_out(
    http: Http, service: FakeService, text: str, value: object
) -> None:
    answer = http.post(JOBS, f'{{"args": [{text}]}}')
    (arg,) = service.requests[0].args
    assert (arg, str(arg)) == (value, str(value))
    assert answer.data["args"] == [value]
    assert f'"args":[{value}]' in answer.text


@pytest.mark.parametrize("text", ["1e131072", "1e-16384", "1e999999999999999999999", "1." + "0" * 16_384])
def test_numbers_that_no_database_holds_are_refused(http: Http, text: str) -> None:
    answer = http.post(JOBS, f'{{"args": [{text}]}}')
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert len(answer.message) < 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"args": [NaN]}', "NaN"),
        (b'{"args": [-Infinity]}', "-Infinity"),
        (b'{"args": [1,\n 2,,3]}', "line 2, column 4"),
        (b'{"job_id": "a"', "line 1, column 15"),
        (b"{'job_id': 'a'}", "line 1, column 2"),
        (b"[]", "not a list"),
        (b"null", "not null"),
        (b'"text"', "not text"),
        (b"3", "not a number"),
        (b"1.5", "not a number"),
        (b"true", "not a boolean"),
        (b"job_id=a&queue=b", "line 1, column 1"),
        (b'{"job_id": "\xff"}', "UTF-8"),
        ('{"job_id": "a"}'.encode("utf-16"), "UTF-8"),
        (b'{"job_id": "a", "job_id": "b"}', "job_id stands twice"),
        (b'{"tags": {"a": "x", "a": "y"}}', "a stands twice"),
        (b'{"args": ["\\ud800"]}', "surrogate"),
        (b'{"job_id": "\\uDFFF"}', "surrogate"),
        (b'{"args": {"\\ud800": 1}}', "surrogate"),
        (b'{"args": [' + b"9" * 5000 + b"]}", "too many digits"),
        (b'{"args": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", "nested too deeply"),
        (b'{"args": ' + b'{"a":' * 10_000, "nested too deeply"),
        (b'{"a": "\n"}', "line 1"),
    ],
)
def test_a_malformed_body_is_refused_and_the_place_named(http: Http, body: bytes, words: str) -> None:
    answer = http.post(JOBS, body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert words in answer.message


def test_a_pair_of_surrogates_is_a_character(http: Http, service: FakeService) -> None:
    http.post(JOBS, b'{"args": ["\\ud83d\\ude00"]}')
    assert service.requests[0].args == ["\U0001f600"]


def test_the_place_of_a_syntax_error_is_told_to_machines_too(http: Http) -> None:
    answer = http.post(JOBS, b'{\n"a" 1}')
    assert (answer.error["line"], answer.error["column"]) == (2, 5)


def test_a_body_that_is_too_large_is_413(http: Http) -> None:
    answer = http.post(JOBS, b'{"args": ["' + b"x" * 100_000 + b'"]}')
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("blanks", [-1, 0, 1, 500_000])
def test_the_limit_of_a_body_holds_for_one_in_chunks(service: FakeService, blanks: int) -> None:
    """It announces no length; blanks after the JSON must count, too."""
    most = service.settings.app.max_body
    body = b'{"args": [1]}'.ljust(most + blanks)
    with serving(application(service)) as url:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        parts = (body[at : at + 9_999] for at in range(0, len(body), 9_999))
        with suppress(ConnectionError):  # refused before all was sent
            connection.request("POST", "/tasks/slow/jobs", parts, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
    if blanks > 0:
        assert (answer.status, document["error"]["code"]) == (413, "request_too_large")
        assert service.requests == []
    else:
        assert answer.status == 200
        assert service.requests[0].args == [1]


def test_a_priority_out_of_range_is_told_the_range_of_priorities(http: Http) -> None:
    assert http.post(JOBS, {"priority": 11}).message == "priority: must lie between 1 and 10"
    assert http.post(JOBS, {"priority": 0}).data["priority"] == 5


def test_both_databases_are_named_where_both_are_wrong(http: Http) -> None:
    answer = http.post(JOBS, {"db": "x", "results": "y"})
    assert (answer.status, answer.error["field"]) == (400, "db")
    assert set(answer.error["fields"]) == {"db", "results"}
    assert "does not run on 'x'; it may use main" in answer.message
    assert "does not write to 'y'; it may use reports" in answer.message


def test_the_answer_of_a_live_job_comes_with_the_refusal_of_its_id(http: Http, service: FakeService) -> None:
    http.post(JOBS, {"job_id": "a"})
    service.start("a")
    answer = http.post(JOBS, {"job_id": "a"})
    assert (answer.status, answer.error["code"]) == (409, "job_is_live")
    assert (answer.error["job"]["job_id"], answer.error["job"]["state"]) == ("a", "STARTED")


def test_a_draining_instance_answers_503_and_says_when_to_come_back(http: Http, service: FakeService) -> None:
    service.drain()
    answer = http.post(JOBS, {})
    assert (answer.status, answer.error["code"], answer.error["retry_after"]) == (503, "draining", 7)
    assert answer.headers["Retry-After"] == "7"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
BODIES = st.dictionaries(st.sampled_from([*FIELDS, "depends_on", "x"]), VALUES) | VALUES


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=BODIES.map(json.dumps).map(str.encode)
    | st.binary(max_size=50)
    | st.text().map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_no_body_whatever_brings_the_server_down(body: bytes) -> None:
    answer = Http(APP).post(JOBS, body)
    assert answer.status in (200, 400, 409)
    if answer.status == 400:
        assert answer.error["code"] == "invalid_request"


APP = application(FakeService())


def test_each_run_of_an_id_goes_to_the_same_results_database_and_ids_to_all_of_them(service: FakeService) -> None:
    task = service.completer.task("slow")
    several = replace(task, results=("one", "two", "three"))
    completer = Completer(
        service.settings.app, tasks=lambda: {"slow": several}, table_name=lambda _, job_id: f"results_{job_id}"
    )
    picked = {
        n: {completer.job(JobRequest(task="slow", job_id=f"job{n}")).results for _ in range(5)} for n in range(30)
    }
    assert all(len(names) == 1 for names in picked.values())
    assert set.union(*picked.values()) == {"one", "two", "three"}
    assert completer.job(JobRequest(task="slow", job_id="job1", results="two")).results == "two"
