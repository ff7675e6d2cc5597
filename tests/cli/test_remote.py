"""The client commands: text for people, JSON for machines, exit status for scripts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobber.cli.remote import commands
from tests.api.fake import FakeService
from tests.cli.conftest import ROW, Program
from tests.servers import free_port


def test_the_commands_are_those_of_the_design() -> None:
    assert [command.name for command in commands] == [
        "submit",
        "status",
        "events",
        "results",
        "jobs",
        "cancel",
        "retry",
        "tasks",
        "queue",
        "groups",
        "schedules",
        "queues",
        "databases",
        "workers",
        "pause",
        "resume",
        "stats",
    ]
    assert all(command.help for command in commands)


@pytest.mark.parametrize(
    "words",
    [
        ["submit"],
        ["submit", "slow", "a=1", "2"],
        ["submit", "slow", "x", "--args-json", "[]"],
        ["submit", "slow", "--args-json", "nope"],
        ["submit", "slow", "--args-json", "3"],
        ["submit", "slow", "--tag", "x"],
        ["submit", "slow", "--priority", "11"],
        ["status"],
        ["cancel"],
        ["results", "a", "--limit", "0"],
        ["queue"],
        ["tasks", "--server", "nowhere"],
        ["tasks", "--nope"],
    ],
)
def test_wrong_usage_ends_with_2(program: Program, service: FakeService, words: list[str]) -> None:
    program.run(*words, status=2)
    assert service.requests == []


def test_an_error_is_one_json_document_on_standard_error_too(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")

    def error(*words: str) -> Any:
        result = program.run(*words, "--json", status=1)
        assert result.stdout == ""
        document = json.loads(result.stderr)
        assert (document["status"], document["data"]) == ("error", None)
        assert document["message"]
        return document["error"]

    assert error("submit", "nope")["code"] == "unknown_task"
    assert error("status", "b")["code"] == "unknown_job"
    assert error("status", "a", "--watch", "--timeout", "0.05")["code"] == "wait_timeout"
    assert error("results", "a")["job"]["job_id"] == "a"
    service.draining = True
    assert error("submit", "slow") == {"code": "draining", "retry_after": 7}
    program.url = f"http://127.0.0.1:{free_port()}"
    assert error("tasks")["code"] == "server_unreachable"


def test_a_queue_is_listed_in_order(program: Program) -> None:
    for name in ("a", "b"):
        program.run("submit", "slow", "--job-id", name, "--queue", "q")
    lines = program.run("queue", "q").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", "a", "b"]


def test_errors_are_one_line_and_end_with_1(program: Program) -> None:
    result = program.run("submit", "nope", status=1)
    assert result.stderr == "jobber: no task named 'nope' is loaded; GET /tasks lists those that are\n"


@pytest.mark.parametrize(
    "words", [["tasks"], ["cancel", "a", "b"], ["cancel", "a", "b", "--purge"], ["retry", "a", "b"]]
)
def test_a_server_that_is_not_there_ends_with_1_and_one_line(words: list[str]) -> None:
    program = Program(f"http://u:secret@127.0.0.1:{free_port()}")
    result = program.run(*words, status=1)
    assert result.stderr.startswith("jobber: no jobber server answers at http://127.0.0.1:")
    assert (result.stderr.count("\n"), result.stderr.count("no jobber server")) == (1, 1)
    assert "secret" not in result.output


def test_the_option_wins_over_the_environment(program: Program, url: str) -> None:
    program.url = f"http://127.0.0.1:{free_port()}"
    program.run("tasks", "--server", url)


def on_terminal(url: str, script: Path, words: list[str], seen: Callable[[bytes], None]) -> bytes:
    """Run a command on a terminal and return what it wrote there; ``seen`` is told whenever there is more."""
    script.write_text(
        "import click\nfrom jobber.cli.remote import commands\nclick.Group('jobber', commands=list(commands))()\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "JOBBER_SERVER": url, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, str(script), *words], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # how Linux ends the reading side of a terminal
            break
        if not data:
            break
        written += data
        seen(written)
    os.close(ours)
    assert process.wait(20) == 0
    return written


def test_a_terminal_gets_colours_and_a_progress_bar(url: str, service: FakeService, tmp_path: Path) -> None:
    def work(written: bytes) -> None:
        state = service.runs[0].state if service.runs else ""
        if state == "PENDING" and b"waiting" in written:
            service.start("a")
        elif state == "STARTED" and b"querying" in written:
            service.finish("a", [ROW])

    written = on_terminal(url, tmp_path / "program.py", ["submit", "slow", "--job-id", "a", "--wait"], work)
    assert b"querying" in written
    assert b"40 rows" in written
    assert b"\x1b[32mSUCCESS" in written


def test_a_terminal_gets_a_bar_of_the_jobs_of_a_group(url: str, service: FakeService, tmp_path: Path) -> None:
    file = tmp_path / "group.json"
    file.write_text('{"jobs": [{"task": "slow", "job_id": "a"}, {"task": "slow", "job_id": "b"}]}')

    def work(written: bytes) -> None:
        if b"0/2" in written and service.job("a").live:
            service.finish("a")
        elif b"1/2" in written and service.job("b").live:
            service.finish("b")

    written = on_terminal(url, tmp_path / "program.py", ["groups", "submit", str(file), "--wait"], work)
    assert b"STARTED" in written
    assert b"\x1b[32mSUCCESS" in written
