"""``status``: what people and machines read of a job."""

from __future__ import annotations

import json
from dataclasses import replace

from jobber.errors import QueryFailed
from jobber.jobs import Attempt, Ending
from jobber.store import Hold
from tests.api.fake import NOON, FakeService
from tests.cli.conftest import ROW, Program


def test_status_shows_what_a_job_waits_for(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.hold = [Hold("paused", "default", "queue default is paused: migration of the year, back at noon")]  # type: ignore[arg-type]
    lines = program.run("status", "a").stdout.splitlines()
    assert "waits for  queue default is paused: migration of the year, back at noon" in lines
    assert "accepted   2026-11-22 14:00:00 UTC" in lines


def test_status_of_a_failed_job_ends_with_1(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.fail("a", QueryFailed("x"))
    program.run("status", "a", status=1)
    program.run("status", "a", "--json", status=1)


def test_watching_a_job_for_too_long_ends_with_1(program: Program) -> None:
    program.run("submit", "slow", "--job-id", "a")
    result = program.run("status", "a", "--watch", "--timeout", "0.05", status=1)
    assert result.stderr == "jobber: job a is still PENDING after 0.05 s\n"


def test_json_is_one_exact_document(program: Program, service: FakeService) -> None:
    first = json.loads(program.run("submit", "slow", "--job-id", "a", "--args-json", "[1.10]", "--json").stdout)
    assert first["state"] == "PENDING"
    service.finish("a", [ROW])
    text = program.run("status", "a", "--json").stdout
    assert json.loads(text)["results"] == [{"Type": "int64", "Value": 1}]
    assert "1.10" in text
    text = program.run("results", "a", "--json").stdout
    document = json.loads(text)
    assert (document["count"], document["rows"][0]["note"]) == (1, ROW[-1])
    assert document["columns"][0] == {"name": "id", "type": "BIGINT"}
    assert "12345678901234567890.120000000000" in text
    assert isinstance(json.loads(program.run("tasks", "--json").stdout), list)
    assert json.loads(program.run("tasks", "named", "--json").stdout)["name"] == "named"
    assert json.loads(program.run("queue", "default", "--json").stdout) == []


def test_status_tells_what_a_running_job_does(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "x", "2", "--job-id", "a", "--retries", "1", "--tag", "tenant=acme")
    running = service.start("a")
    lines = program.run("status", "a").stdout.splitlines()
    assert 'args      ["x", "2"]' in lines
    assert "db        main" in lines
    assert "worker    w1" in lines
    assert "attempt   1 (at most 1 retry)" in lines
    assert "table     results_a in reports" in lines
    assert "tag       tenant=acme" in lines
    assert any(line.startswith("progress  querying, 40 rows, 900 bytes") for line in lines)
    service._change(running, bytes_so_far=0)
    assert "bytes" not in program.run("status", "a").stdout


def test_status_tells_every_attempt_that_did_not_end_the_job_with_its_time(
    program: Program, service: FakeService
) -> None:
    program.run("submit", "slow", "--job-id", "a", "--retries", "2")
    service._change(service.start("a"), attempt=2, rescues=1)
    rescued = Attempt(
        number=1,
        ending=Ending.RESCUED,
        worker="w1",
        db="main",
        error="worker w1 died",
        error_code="worker_lost",
        started_at=NOON,
        ended_at=NOON + 1_000_000,
    )
    service.told = [rescued, replace(rescued, number=2, ending=Ending.REQUEUED, error="", error_code="")]
    lines = program.run("status", "a").stdout.splitlines()
    assert "attempt    2 (at most 2 retries; lost its worker once)" in lines
    assert "attempt 1  rescued on main at 2026-11-22 14:00:01 UTC, worker w1: worker w1 died" in lines
    assert "attempt 2  requeued on main at 2026-11-22 14:00:01 UTC, worker w1" in lines


def test_status_tells_the_code_of_an_error(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.fail("a", QueryFailed("x"))
    assert "code      query_failed" in program.run("status", "a", status=1).stdout.splitlines()
