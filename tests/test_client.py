"""The Python client against a real HTTP server over the fake service."""

from __future__ import annotations

import ast
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

import jobber.client
from jobber.api.errors import STATUS
from jobber.client import Client, Column
from jobber.errors import (
    BrokerUnavailable,
    Draining,
    InvalidRequest,
    JobberError,
    JobIsFinished,
    JobIsLive,
    ResultsGone,
    ResultsNotReady,
    ServerUnreachable,
    StateUnavailable,
    UnknownJob,
    UnknownTask,
)
from jobber.store import Hold
from tests.api.fake import COLUMNS, FakeService
from tests.api.http import application, serving
from tests.servers import free_port

TASK = "get_profit_entries_by_date"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(application(service)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=10) as client:
        yield client


def _answering(respond: Callable[[Request], Response]) -> Any:
    return serving(Request.application(respond))  # type: ignore[arg-type]


def test_a_job_is_submitted_waited_for_and_read(client: Client, service: FakeService) -> None:
    job = client.submit(TASK, ["USER1", "2017-12-01", Decimal("1.10")], job_id="a", tags={"kind": "x"})
    assert (job.job_id, job.task, job.state, job.finished, job.succeeded) == ("a", TASK, "PENDING", False, False)
    assert job.args == ["USER1", "2017-12-01", Decimal("1.10")]
    assert str(service.requests[0].args[2]) == "1.10"  # type: ignore[index]
    assert job.created_at == datetime(2026, 11, 22, 14, tzinfo=UTC)

    threading.Timer(0.1, service.finish, ("a", [(1, "2.50", 0.5, True, "2026-01-01", "{}", "x")])).start()
    job = client.wait("a", 20)
    assert (job.state, job.count, job.succeeded, job.table) == ("SUCCESS", 1, True, "results_a")
    assert job.columns[1] == Column("total", "NUMERIC(30,12)")
    assert job.tags == {"kind": "x"}

    (row,) = client.results("a")
    assert (row["id"], row["total"], row["doc"]) == (1, Decimal("2.50"), {})
    assert str(row["total"]) == "2.50"


def test_every_option_of_a_submission_is_sent(client: Client, service: FakeService) -> None:
    client.submit(
        "named",
        {"since": "2026-01-01"},
        queue="q",
        eta=datetime(2030, 1, 1),
        retries=1,
        ttl=2,
        db="main",
        results="reports",
        priority=3,
        timeout=4,
    )
    (request,) = service.requests
    assert (request.args, request.queue, request.eta) == ({"since": "2026-01-01"}, "q", 1_893_456_000_000_000)
    assert (request.retries, request.ttl, request.priority, request.timeout) == (1, 2, 3, 4)
    assert (request.db, request.results) == ("main", "reports")


def test_what_is_left_out_is_not_sent(client: Client, service: FakeService) -> None:
    client.submit("slow")
    (request,) = service.requests
    assert (request.args, request.job_id, request.eta, request.tags) == ([], None, None, {})


@pytest.mark.parametrize("args", [[object()], [float("nan")], {"a": {1, 2}}])
def test_arguments_that_json_cannot_say_are_refused_before_anything_is_sent(
    client: Client, service: FakeService, args: Any
) -> None:
    with pytest.raises(InvalidRequest):
        client.submit("slow", args)
    assert service.requests == []


@pytest.mark.parametrize("args", ["USER1", b"USER1", bytearray(b"x"), {"a", "b"}, 5, datetime(2026, 1, 31)])
def test_what_is_no_list_of_arguments_is_never_taken_apart(client: Client, service: FakeService, args: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"^args: .*not {type(args).__name__}") as caught:
        client.submit("slow", args)
    assert caught.value.details["field"] == "args"
    assert service.requests == []


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (["x", object()], r"args\[1\]: object cannot"),
        ({"day": [1]}, r"args\['day'\]: list cannot"),
        ({1: 2}, r"args: the name 1"),
        ([Decimal("NaN")], r"args\[0\]: JSON has no number NaN"),
        ([float("inf")], r"args\[0\]: JSON has no number inf"),
    ],
)
def test_the_argument_that_cannot_be_sent_is_named(client: Client, args: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{place}"):
        client.submit("slow", args)


def test_dates_and_times_are_sent_as_text_and_zoned_ones_in_utc(client: Client, service: FakeService) -> None:
    berlin = timezone(timedelta(hours=1))
    client.submit("slow", (date(2026, 1, 31), datetime(2026, 1, 31, 18, 30), datetime(2026, 2, 1, 0, 5, tzinfo=berlin)))
    assert service.requests[0].args == ["2026-01-31", "2026-01-31 18:30:00", "2026-01-31 23:05:00+00:00"]
    client.submit("named", {"since": date(2026, 1, 31)})
    assert service.requests[1].args == {"since": "2026-01-31"}


def test_a_pending_job_says_what_it_waits_for(client: Client, service: FakeService) -> None:
    assert client.submit("slow", job_id="a").waiting_for is None
    service.hold = [Hold("paused", "default", "queue default is paused: migration")]  # type: ignore[arg-type]
    (hold,) = client.job("a").waiting_for or ()
    assert (hold.gate, hold.name, hold.text) == ("paused", "default", "queue default is paused: migration")


def test_tasks_are_listed_and_shown(client: Client) -> None:
    assert [task.name for task in client.tasks()] == [TASK, "named", "notify", "slow"]
    task = client.task("named", sql=True)
    assert (task.queue, task.db, task.sql, task.params[0]["name"]) == ("default", ("main",), "SELECT :since", "since")
    assert client.task("named").sql is None


def test_pending_jobs_are_listed_in_order(client: Client) -> None:
    for name in ("a", "b"):
        client.submit("slow", job_id=name, queue="q")
    assert [job.job_id for job in client.pending("q")] == ["a", "b"]
    assert [job.job_id for job in client.pending("q", limit=1)] == ["a"]


def test_jobs_are_cancelled_and_purged(client: Client, service: FakeService) -> None:
    client.submit("slow", job_id="a")
    assert client.cancel("a").state == "CANCELLED"
    with pytest.raises(JobIsFinished) as caught:
        client.cancel("a")
    assert caught.value.job.state == "CANCELLED"
    assert client.cancel("a", purge=True).job_id == "a"
    with pytest.raises(UnknownJob):
        client.job("a")


def test_progress_is_told_while_waiting(client: Client, service: FakeService) -> None:
    client.submit("slow", job_id="a")
    seen: list[str] = []

    def on_progress(job: Any) -> None:
        seen.append(job.progress.phase)
        if len(seen) == 1:
            service.start("a")
        elif len(seen) == 2:
            service.finish("a")

    assert client.wait("a", 20, on_progress).succeeded
    assert seen == ["waiting", "querying", "done"]


def test_a_wait_that_is_too_short_raises_and_the_job_goes_on(client: Client) -> None:
    client.submit("slow", job_id="a")
    with pytest.raises(TimeoutError, match="still PENDING"):
        client.wait("a", 0.05)
    assert client.job("a").state == "PENDING"


def test_waiting_does_not_spin_where_the_server_answers_at_once(url: str, service: FakeService) -> None:
    """Too many waiters make the server answer at once; a loop without a pause would flood it."""
    with Client(url) as client:
        client.submit("slow", job_id="a")
        asked: list[float] = []
        service.wait = lambda job_id, seconds: asked.append(seconds) or service.job(job_id)  # type: ignore[method-assign,func-returns-value]
        with pytest.raises(TimeoutError):
            client.wait("a", 0.6)
    assert len(asked) <= 4


def test_a_restart_of_the_server_does_not_end_a_wait(service: FakeService) -> None:
    away = iter([StateUnavailable("down", retry_after=0), Draining("stopping", retry_after=0)])
    check = service._check

    def failing_twice() -> None:
        if service.runs and not service.runs[0].live and (error := next(away, None)):
            raise error
        check()

    service._check = failing_twice  # type: ignore[method-assign]
    with serving(application(service)) as url, Client(url) as client:
        client.submit("slow", job_id="a")
        service.finish("a")
        assert client.wait("a", 20).succeeded
    assert next(away, None) is None


def test_a_wait_ends_with_its_time_though_the_server_is_away() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", retries=0) as client, pytest.raises(ServerUnreachable):
        client.wait("a", 0.01)


def test_results_are_read_page_by_page(client: Client, service: FakeService) -> None:
    client.submit("slow", job_id="a")
    service.finish("a", [(n,) for n in range(25)], COLUMNS[:1])
    pages = list(client.pages("a", size=10))
    assert [len(page.rows) for page in pages] == [10, 10, 5]
    assert {page.count for page in pages} == {25}
    assert [row["id"] for row in client.results("a")] == list(range(25))
    assert client.page("a", offset=24).rows == [{"id": 24}]


def test_pages_of_two_runs_are_never_mixed(client: Client, service: FakeService) -> None:
    client.submit("slow", job_id="a")
    service.finish("a", [(n,) for n in range(3)], COLUMNS[:1])
    pages = client.pages("a", size=2)
    next(pages)
    client.submit("slow", job_id="a")
    service.finish("a", [(n,) for n in range(3)], COLUMNS[:1])
    with pytest.raises(ResultsGone, match="ran again"):
        next(pages)


def test_errors_come_as_the_class_of_their_code(client: Client, service: FakeService) -> None:
    with pytest.raises(UnknownTask) as unknown:
        client.submit("nope")
    assert unknown.value.details == {"task": "nope"}
    with pytest.raises(UnknownJob):
        client.job("nope")
    with pytest.raises(InvalidRequest) as invalid:
        client.submit("slow", priority=99)
    assert invalid.value.details["field"] == "priority"
    client.submit("slow", job_id="a")
    with pytest.raises(JobIsLive) as live:
        client.submit("slow", job_id="a")
    assert live.value.job.state == "PENDING"
    with pytest.raises(ResultsNotReady) as not_ready:
        client.page("a")
    assert not_ready.value.job.job_id == "a"
    service.drain()
    with pytest.raises(Draining) as draining:
        client.submit("slow")
    assert draining.value.retry_after == 7
    service.broken = BrokerUnavailable("x")
    with pytest.raises(BrokerUnavailable):
        client.tasks()


@pytest.mark.parametrize("code", [*STATUS, "of_a_later_version"])
def test_every_code_becomes_an_error_with_its_message(code: str) -> None:
    body = json.dumps({"status": "error", "message": "said", "data": None, "error": {"code": code, "fact": 1}})
    with _answering(lambda _: Response(body, 400)) as url, Client(url) as client:
        with pytest.raises(JobberError) as caught:
            client.tasks()
        assert caught.value.message == "said"
        assert caught.value.code == code or caught.value.details["server_code"] == code


def test_nobody_there_is_told_without_the_password_of_the_address() -> None:
    with Client(f"http://user:secret@127.0.0.1:{free_port()}", retries=0) as client:
        with pytest.raises(ServerUnreachable) as caught:
            client.tasks()
        assert "secret" not in caught.value.message
        assert "secret" not in client.url
        assert caught.value.message.endswith(": connection refused")


def test_a_name_and_password_in_the_address_are_sent() -> None:
    seen: list[Any] = []

    def respond(request: Request) -> Response:
        seen.append((request.authorization, request.content_type, request.path))
        return Response('{"status": "success", "data": []}')

    with _answering(respond) as url:
        with Client(url.replace("//", "//user:p%40ss@") + "/prefix/", headers={"X-Key": "k"}) as client:
            client.tasks()
            with pytest.raises(TypeError):
                client.submit("x", [1])  # the answer is no job
        assert [(auth.username, auth.password) for auth, *_ in seen] == [("user", "p@ss")] * 2
        assert seen[1][1:] == ("application/json", "/prefix/tasks/x/jobs")


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "", "[]", '{"a": 1}'])
@pytest.mark.parametrize("status", [200, 502])
def test_an_answer_of_something_else_is_no_jobber_server(body: str, status: int) -> None:
    with (
        _answering(lambda _: Response(body, status)) as url,
        Client(url) as client,
        pytest.raises(ServerUnreachable, match="no jobber server"),
    ):
        client.tasks()


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    done = threading.Event()

    def respond(_: Request) -> Response:
        done.wait(10)
        return Response("{}")

    with _answering(respond) as url:
        with Client(url, timeout=0.1, retries=0) as client, pytest.raises(ServerUnreachable, match="in time"):
            client.tasks()
        done.set()


def test_only_calls_that_change_nothing_are_sent_again_after_a_lost_connection() -> None:
    asked: list[bytes] = []

    class Dropping(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().split()[0])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dropping) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_address[1]}", retries=2) as client:
            for call in (client.tasks, lambda: client.submit("slow"), lambda: client.cancel("a")):
                with pytest.raises(ServerUnreachable, match="broke"):
                    call()
        server.shutdown()
    assert asked == [b"GET", b"GET", b"GET", b"POST", b"DELETE"]


def test_connections_are_used_again() -> None:
    ports: set[int] = set()

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.add(self.client_address[1])
            body = b'{"status": "success", "data": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            for _ in range(3):
                client.tasks()
        server.shutdown()
    assert len(ports) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_a_name_that_would_be_another_path_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^'{name}' is no job ID$"):
        client.job(name)
    with pytest.raises(InvalidRequest, match="is no task name"):
        client.submit(name)
    with pytest.raises(InvalidRequest, match="is no queue name"):
        client.pending(name)


def test_a_job_in_the_place_of_its_id_is_refused(client: Client) -> None:
    job = client.submit("slow")
    with pytest.raises(InvalidRequest, match="a job ID is text, not JobStatus"):
        client.job(job)  # type: ignore[arg-type]


def test_names_are_quoted_into_the_path(client: Client) -> None:
    with pytest.raises(UnknownTask) as caught:
        client.task("x?y#z%41 ä")
    assert caught.value.details["task"] == "x?y#z%41 ä"


@pytest.mark.parametrize("url", ["", "localhost:6060", "ftp://h", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="http://HOST:PORT"):
        Client(url)


def test_the_client_imports_nothing_else_of_jobber_but_errors() -> None:
    folder = Path(jobber.client.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobber"):
                assert node.module == "jobber.errors" or node.module.startswith("jobber.client.")
