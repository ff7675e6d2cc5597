"""``submit``: what it sends, what it prints, and how it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

from jobber.errors import QueryFailed
from tests.api.fake import FakeService
from tests.cli.conftest import ROW, TASK, Program
from tests.servers import wait_until


def test_submit_prints_the_id_alone(program: Program, service: FakeService) -> None:
    assert program.run("submit", TASK, "USER1", "2017-12-01", "7", "--job-id", "a").stdout == "a\n"
    assert service.requests[0].args == ["USER1", "2017-12-01", "7"]


def test_named_arguments_are_sent_as_an_object(program: Program, service: FakeService) -> None:
    program.run("submit", "notify", "channel=2026-01-01", "failed=a=b")
    assert service.requests[0].args == {"channel": "2026-01-01", "failed": "a=b"}


def test_arguments_in_json_keep_their_types_and_digits(program: Program, service: FakeService) -> None:
    program.run("submit", TASK, "--args-json", '[1, 2.50, null, "x"]')
    args = service.requests[0].args
    assert args == [1, Decimal("2.50"), None, "x"]
    assert str(args[1]) == "2.50"  # type: ignore[index]


def test_every_option_of_submit_reaches_the_server(program: Program, service: FakeService) -> None:
    options = {
        "--queue": "q",
        "--eta": "2030-01-01 00:00:00",
        "--retries": "1",
        "--ttl": "2",
        "--timeout": "3",
        "--priority": "4",
        "--db": "main",
        "--results": "reports",
    }
    program.run("submit", "slow", *(part for pair in options.items() for part in pair), "--tag", "a=b", "--tag", "c=")
    (request,) = service.requests
    assert (request.queue, request.eta, request.retries, request.ttl) == ("q", 1_893_456_000_000_000, 1, 2)
    assert (request.timeout, request.priority, request.db, request.results) == (3, 4, "main", "reports")
    assert request.tags == {"a": "b", "c": ""}


def _once_submitted(service: FakeService, end: Callable[[], object]) -> threading.Thread:
    """Let a worker end the job as soon as there is one."""

    def work() -> None:
        wait_until(lambda: service.runs)
        end()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_submit_with_wait_shows_the_end(program: Program, service: FakeService) -> None:
    worker = _once_submitted(service, lambda: service.finish("a", [ROW]))
    lines = program.run("submit", "slow", "--job-id", "a", "--wait").stdout.splitlines()
    worker.join()
    assert "state     SUCCESS" in lines
    assert "rows      1" in lines
    assert "table     results_a in reports" in lines
    assert "ran for   2.000 s after 1.500 s in the queue" in lines


def test_a_job_that_fails_while_one_waits_ends_with_1(program: Program, service: FakeService) -> None:
    worker = _once_submitted(service, lambda: service.fail("a", QueryFailed("no\nsuch table")))
    result = program.run("submit", "slow", "--job-id", "a", "--wait", status=1)
    worker.join()
    assert "state     FAILURE\n" in result.stdout
    assert "no\\nsuch table\n" in result.stdout
