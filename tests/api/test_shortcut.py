"""The short way past Flask answers exactly as the general one does, whatever is asked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import flask
import pytest
import simplejson
from hypothesis import given, settings
from hypothesis import strategies as st

from jobber import identities
from jobber.answers import Answers
from jobber.api import accepted, jsontext
from jobber.api.requests import JobBody
from jobber.api.shortcut import App
from jobber.completion import JobRequest
from jobber.jobs import JobState
from tests.api.fake import NOON, FakeService
from tests.api.http import application
from tests.factories import make_job

Told = tuple[str, list[tuple[str, str]], bytes]

SIMPLE = {"REQUEST_METHOD": "POST", "PATH_INFO": "/tasks/slow/jobs", "HTTP_HOST": "localhost"}
PATHS = [
    *("/tasks/slow/jobs", "/tasks/named/jobs", "/tasks/nope/jobs", "/tasks/a b/jobs", "/tasks/slow/jobs/"),
    *("//tasks/slow/jobs", "/tasks//jobs", "/tasks/./jobs", "/tasks/slow/jobs\n", "/tasks/\xc3\xa9/jobs"),
    *("/jobs/live", "/jobs/nope", "/jobs/queue", "/jobs/a b", f"/jobs/{'x' * 101}", "/jobs/live/", "/jobs/", ""),
]
HOSTS = [
    *("localhost", "example.com:8000", "127.0.0.1:80", "[::1]:8000", "", "a..b", "a" * 64, "a b", "\xe9", "a:x"),
    *("xn--a", ".", "-", "a" * 63, "localhost:999999", "a_b:80", "_", "a.b.c.d.e.local"),
]
VALUES = st.one_of(
    st.none(),
    st.integers(-2, 12) | st.sampled_from([2**31, True, 1.5, "", "a", "a b", "high", "live", "slow", "2030-01-31"]),
    st.lists(st.sampled_from(["a", "live", 1, 1.25, None, {}]), max_size=3),
    st.dictionaries(st.sampled_from(["since", "most", "a b"]), st.sampled_from(["2030-01-31", 1, "\0"]), max_size=2),
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from([*JobBody().fields, "ID"]), VALUES, max_size=4).map(json.dumps).map(str.encode),
    st.sampled_from([b"", b"[]", b"nul", b"\xff", b"\xef\xbb\xbf{}", b'{"a": 1, "a": 2}', b'{"args": [NaN]}']),
    st.sampled_from([b"{" * 2000, b" " * 100_001, b'{"args": ["' + b"x" * 70_000 + b'"]}', b'{"job_id": "live"}']),
    st.binary(max_size=20),
)
REQUESTS = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT", "OPTIONS"]),
        "PATH_INFO": st.sampled_from(PATHS[:2]) | st.sampled_from(PATHS),
        "HTTP_HOST": st.just("localhost") | st.sampled_from(HOSTS),
        "body": BODIES,
    },
    optional={
        "QUERY_STRING": st.sampled_from(["", "a=1", "wait=0", "wait=", "&"]),
        "HTTP_IDEMPOTENCY_KEY": st.sampled_from(["k", ""]),
        "HTTP_TRANSFER_ENCODING": st.sampled_from(["chunked", ""]),
        "HTTP_X_FORWARDED_HOST": st.just("elsewhere"),
        "HTTP_UPGRADE": st.just("websocket"),
        "HTTP_CONNECTION": st.just("Upgrade"),
        "CONTENT_TYPE": st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=a"]),
        "CONTENT_LENGTH": st.sampled_from(["", "0", "1", "+2", "-1", "x", "100001", "9" * 30, None]),
        "SCRIPT_NAME": st.sampled_from(["", "/under"]),
    },
)


def ask(app: flask.Flask, said: Mapping[str, Any]) -> Told:
    """Send a request as the server does."""
    told: list[tuple[str, list[tuple[str, str]]]] = []
    body = said.get("body", b"")
    environ = {
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **{name: value for name, value in said.items() if name != "body"},
    }
    if environ["CONTENT_LENGTH"] is None:
        del environ["CONTENT_LENGTH"]
    elif environ["CONTENT_LENGTH"].isdigit():  # a server passes on no more than was announced
        environ["wsgi.input"] = io.BytesIO(body[: int(environ["CONTENT_LENGTH"])])
    pieces: Iterable[bytes] = app.wsgi_app(
        environ, lambda status, headers, _=None: told.append((status, list(headers)))
    )  # type: ignore[arg-type, return-value]
    whole = b"".join(pieces)
    getattr(pieces, "close", lambda: None)()
    ((status, headers),) = told
    return status, headers, whole


def both(said: Mapping[str, Any], broken: Exception | None = None) -> tuple[Told, Told]:
    """Return what is told on the short way, and on the general one alone."""
    answers = []
    for short in (True, False):
        service, numbers = FakeService(), count(1)
        service.submit(JobRequest(task="slow", job_id="live"))
        service.broken = broken
        app = application(service)
        assert isinstance(app, App)
        if not short:
            app.shortcuts = []
        clock = SimpleNamespace(time_ns=lambda: (NOON + 5_000_000) * 1000)  # of errors, too
        with (
            patch.object(identities, "fresh", lambda numbers=numbers: f"made-up-{next(numbers)}"),
            patch("jobber.answers.time", clock),
        ):
            answers.append(ask(app, said))
            # Sent again, it finds what it did.
            answers.append(ask(app, said))
    return (answers[0], answers[1]), (answers[2], answers[3])  # type: ignore[return-value]


@settings(deadline=None, max_examples=200)
@given(said=REQUESTS)
def test_both_ways_tell_the_same(said: Mapping[str, Any]) -> None:
    short, general = both(said)
    assert short == general


@pytest.mark.parametrize("broken", [RuntimeError("a bug"), KeyError("a bug")])
def test_both_ways_tell_the_same_of_a_bug(broken: Exception) -> None:
    short, general = both({**SIMPLE, "body": b"{}"}, broken)
    assert short == general
    assert short[0][0].startswith("500")  # type: ignore[index]


def test_the_simplest_requests_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService()
    app = application(service)
    monkeypatch.setattr(flask.Flask, "wsgi_app", None)
    status, headers, body = ask(app, {**SIMPLE, "body": b'{"args": [1, 2.50], "job_id": "a", "priority": "high"}'})
    assert status == "200 OK"
    assert dict(headers)["Content-Length"] == str(len(body))
    assert simplejson.loads(body, use_decimal=True)["data"]["args"] == [1, Decimal("2.50")]
    assert ask(app, {**SIMPLE, "REQUEST_METHOD": "GET", "PATH_INFO": "/jobs/a"})[0] == "200 OK"


def test_what_a_short_way_did_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService()
    submit, calls = service.submit, []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(submit(*arguments, **options))
        raise RuntimeError("after it was stored")

    monkeypatch.setattr(service, "submit", failing)
    assert ask(application(service), {**SIMPLE, "body": b"{}"})[0].startswith("500")
    assert len(calls) == len(service.runs) == 1


def test_no_hook_is_passed_by() -> None:
    app = application(FakeService())
    assert not any((app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs))
    assert not any((app.teardown_appcontext_funcs, app.url_value_preprocessors))


def test_kept_texts_are_what_would_be_written() -> None:
    service = FakeService()
    answers = Answers(service.settings, lambda: NOON)
    for number in range(600):
        for args in ([], {}, ['é"\\', Decimal("1.50")], {"a": None}):
            job = make_job(
                state=JobState.PENDING,
                job_id=f"j{number}",
                table=f'results_{number}"é',
                args=args,
                priority=number % 300,
                created_at=NOON - number,
                eta=NOON if number % 7 == 0 else None,
                tags={"a": "b"} if number % 5 == 0 else {},
                paused="why" if number % 3 == 0 else None,
            )
            assert accepted.text_of(answers, job) == jsontext.dumps(answers.job(job))
    assert 0 < len(answers.kept) <= 256
