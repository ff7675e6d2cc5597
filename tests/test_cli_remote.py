"""The client commands: text for people, JSON for machines, exit status for scripts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from jobber.api import create_app
from jobber.cli.remote import commands
from jobber.cli.remote.tasks import _param
from jobber.errors import QueryFailed, ResultsGone
from jobber.store import Hold
from tests.api.fake import COLUMNS, FakeService
from tests.api.http import serving
from tests.servers import free_port, wait_until

TASK = "get_profit_entries_by_date"
ROW = (1, "12345678901234567890.120000000000", 0.5, True, "2026-01-31", '{"a": 1.10}', "x\ny\x1b[31m")


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(create_app(service)) as url:  # type: ignore[arg-type]
        yield url


class Program:
    def __init__(self, url: str) -> None:
        self.url = url
        self.group = click.Group("jobber", commands=list(commands))

    def run(self, *words: str, status: int = 0) -> Result:
        result = CliRunner().invoke(self.group, words, env={"JOBBER_SERVER": self.url, "COLUMNS": "40"})
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        assert "\x1b" not in result.output  # not a terminal: no colour, and no escape from a database either
        return result


@pytest.fixture
def program(url: str) -> Program:
    return Program(url)


def test_the_commands_are_those_of_the_design() -> None:
    assert [command.name for command in commands] == ["submit", "status", "results", "cancel", "tasks", "queue"]
    assert all(command.help for command in commands)


def test_submit_prints_the_id_alone(program: Program, service: FakeService) -> None:
    assert program.run("submit", TASK, "USER1", "2017-12-01", "7", "--job-id", "a").stdout == "a\n"
    assert service.requests[0].args == ["USER1", "2017-12-01", "7"]


def test_named_arguments_are_sent_as_an_object(program: Program, service: FakeService) -> None:
    program.run("submit", "named", "since=2026-01-01", "most=a=b")
    assert service.requests[0].args == {"since": "2026-01-01", "most": "a=b"}


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


def test_results_are_a_table_with_types_that_is_never_cut(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.finish("a", [ROW, (None,) * 7])
    headings, types, first, second = program.run("results", "a").stdout.splitlines()
    assert headings.split() == ["id", "total", "ratio", "paid", "day", "doc", "note"]
    assert types.split() == ["BIGINT", "NUMERIC(30,12)", "NUMERIC", "BOOLEAN", "DATE", "JSONB", "TEXT"]
    assert first.endswith(
        '12345678901234567890.120000000000      0.5  true     2026-01-31  {"a": 1.10}  x\\ny\\x1b[31m'
    )
    assert second.split() == ["NULL"] * 7
    assert headings.index("total") + len("total") == first.index("0000  ") + 4


def test_results_stop_at_the_limit_and_say_so(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.finish("a", [(n,) for n in range(1500)], COLUMNS[:1])
    result = program.run("results", "a")
    assert len(result.stdout.splitlines()) == 102
    assert result.stderr == "rows 1 to 100 of 1500; --all shows all\n"
    assert len(program.run("results", "a", "--limit", "1200").stdout.splitlines()) == 1202
    everything = program.run("results", "a", "--all")
    assert len(everything.stdout.splitlines()) == 1502
    assert everything.stderr == ""
    assert program.run("results", "a", "--offset", "1499").stdout.split() == ["id", "BIGINT", "1499"]


def test_lines_stay_aligned_over_pages_and_characters_of_two_columns(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    rows = [(n, "1.50", None, True, "2026-01-31", "{}", "日本" if n % 2 else "x") for n in range(1500)]
    rows.append((10**12, "1.50", None, True, "2026-01-31", "{}", ""))
    service.finish("a", [(row[6], *row[1:6], row[0]) for row in rows], (COLUMNS[6], *COLUMNS[1:6], COLUMNS[0]))
    lines = program.run("results", "a", "--all").stdout.splitlines()
    assert len(lines) == 1503
    assert {cell_len(line) for line in lines[:1002]} == {cell_len(lines[2])}
    assert {cell_len(line) for line in lines[1002:]} == {cell_len(lines[-1])}
    assert [line.split()[-1] for line in lines[2:]] == [str(row[0]) for row in rows]


def test_a_terminal_gets_a_table_per_page_and_all_rows_as_plain_lines(url: str, service: FakeService) -> None:
    group = click.Group("jobber", commands=list(commands))
    # FORCE_COLOR is how rich is told that it writes to a terminal.
    terminal = {"JOBBER_SERVER": url, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    Program(url).run("submit", "slow", "--job-id", "a")
    service.finish("a", [(n,) for n in range(1500)], COLUMNS[:1])
    tables = CliRunner().invoke(group, ["results", "a", "--limit", "1200"], env=terminal, color=True).stdout
    assert tables.count("BIGINT") == 2
    assert "\x1b[1m" in tables
    lines = CliRunner().invoke(group, ["results", "a", "--all"], env=terminal, color=True).stdout
    assert lines.split() == ["id", "BIGINT", *map(str, range(1500))]


def test_an_empty_result_shows_its_columns(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.finish("a")
    assert len(program.run("results", "a").stdout.splitlines()) == 2
    document = json.loads(program.run("results", "a", "--all", "--json").stdout)
    assert (len(document["columns"]), document["count"], document["rows"]) == (7, 0, [])


def test_all_rows_as_json_are_one_document_and_exact(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.finish("a", [ROW] * 2500)
    text = program.run("results", "a", "--all", "--json").stdout
    document = json.loads(text)
    assert (document["count"], len(document["rows"])) == (2500, 2500)
    assert text.count("12345678901234567890.120000000000") == 2500
    assert len(json.loads(program.run("results", "a", "--json", "--limit", "1001").stdout)["rows"]) == 1001


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_rows_are_printed_before_the_last_page_is_read(flags: list[str], url: str, service: FakeService) -> None:
    """What needs all rows before the first line needs the memory for them too."""
    program = Program(url)
    program.run("submit", "slow", "--job-id", "a")
    service.finish("a", [(n,) for n in range(2500)], COLUMNS[:1])
    asked = service.rows

    def rows(job_id: str, *, offset: int, limit: int) -> Any:
        if offset == 2000:
            raise ResultsGone("the result was purged meanwhile")
        return asked(job_id, offset=offset, limit=limit)

    service.rows = rows  # type: ignore[method-assign]
    result = program.run("results", "a", "--all", *flags, status=1)
    assert "1999" in result.stdout
    assert "purged meanwhile" in result.stderr
    if flags:
        assert json.loads(result.stderr)["error"]["code"] == "results_gone"
        with pytest.raises(json.JSONDecodeError):  # half a result must not look like one
            json.loads(result.stdout)


def test_results_of_a_job_without_any_end_with_1_and_one_line(program: Program) -> None:
    program.run("submit", "slow", "--job-id", "a")
    result = program.run("results", "a", status=1)
    assert (result.stdout, result.stderr) == ("", "jobber: job a is PENDING; it has no result to read\n")


def test_cancel_says_what_became_of_each_job(program: Program, service: FakeService) -> None:
    for name in ("a", "b", "c"):
        program.run("submit", "slow", "--job-id", name)
    service.start("b")
    service.finish("c")
    result = program.run("cancel", "a", "b", "c", status=1)
    assert result.stdout.splitlines()[1:] == ["a    CANCELLED", "b    stops soon"]
    assert result.stderr == "jobber: job c is SUCCESS already\n"
    lines = program.run("cancel", "c", "d", "--purge", status=1).stdout.splitlines()
    assert lines[1:] == ["c    purged"]
    program.run("status", "c", status=1)


def test_purging_a_pending_job_cancels_it_and_does_not_say_that_it_is_gone(program: Program) -> None:
    program.run("submit", "slow", "--job-id", "a")
    assert program.run("cancel", "a", "--purge").stdout.splitlines()[1:] == ["a    CANCELLED"]
    assert program.run("cancel", "a", "--purge").stdout.splitlines()[1:] == ["a    purged"]


def test_tasks_are_listed_and_one_is_shown_with_its_sql(program: Program) -> None:
    lines = program.run("tasks").stdout.splitlines()
    assert lines[0].split() == ["TASK", "QUEUE", "DB", "DESCRIPTION"]
    assert lines[1].endswith("Entries of a user between two dates.")
    assert program.run("tasks", "slow", "--sql").stdout.endswith("\n\nSELECT 1\n")
    assert "SELECT" not in program.run("tasks", "slow").stdout
    program.run("tasks", "--sql", status=2)


def test_a_task_shows_all_that_a_submission_needs(program: Program) -> None:
    assert [line.split(maxsplit=1) for line in program.run("tasks", "named").stdout.splitlines()] == [
        ["task", "named"],
        ["params", "since date (required)"],
        ["most", "integer = 10"],
        ["placeholders", ":since"],
        ["queue", "default"],
        ["databases", "main"],
        ["results", "reports"],
        ["ttl", "60 s"],
        ["timeout", "30 s"],
        ["priority", "8"],
        ["retries", "2"],
        ["max", "rows      no limit"],
        ["concurrency", "no limit"],
        ["index", "a, b"],
        ["file", "reports.sql:3"],
    ]
    lines = program.run("tasks", TASK).stdout.splitlines()
    assert "description   Entries of a user between two dates." in lines
    assert "placeholders  3 positional" in lines


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ({"name": "a", "type": "text", "required": False, "default": None}, "a text = null"),
        ({"name": "a", "type": "text", "required": False, "default": ""}, "a text = ''"),
        ({"name": "a", "type": "boolean", "required": False, "default": True}, "a boolean = true"),
        ({"name": "a", "type": "number", "required": False, "default": Decimal("0.10")}, "a number = 0.10"),
    ],
)
def test_a_param_is_shown_in_the_words_of_its_tag(param: dict[str, Any], shown: str) -> None:
    assert _param(param) == shown


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


def test_status_tells_the_code_of_an_error(program: Program, service: FakeService) -> None:
    program.run("submit", "slow", "--job-id", "a")
    service.fail("a", QueryFailed("x"))
    assert "code      query_failed" in program.run("status", "a", status=1).stdout.splitlines()


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
    result = program.run("cancel", "a", "b", "c", "--json", status=1)
    assert [job["state"] for job in json.loads(result.stdout)] == ["CANCELLED"]
    failed = json.loads(result.stderr)["error"]["failed"]
    assert [(one["job_id"], one["code"]) for one in failed] == [("b", "unknown_job"), ("c", "unknown_job")]
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


def test_a_server_that_is_not_there_ends_with_1_and_one_line() -> None:
    program = Program(f"http://u:secret@127.0.0.1:{free_port()}")
    result = program.run("tasks", status=1)
    assert result.stderr.startswith("jobber: no jobber server answers at http://127.0.0.1:")
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.output


def test_the_option_wins_over_the_environment(program: Program, url: str) -> None:
    program.url = f"http://127.0.0.1:{free_port()}"
    program.run("tasks", "--server", url)


def test_a_terminal_gets_colours_and_a_progress_bar(url: str, service: FakeService, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import click\nfrom jobber.cli.remote import commands\nclick.Group('jobber', commands=list(commands))()\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "JOBBER_SERVER": url, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, str(script), "submit", "slow", "--job-id", "a", "--wait"],
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # how Linux ends the reading side of a terminal
            break
        if not data:
            break
        seen += data
        state = service.runs[0].state if service.runs else ""
        if state == "PENDING" and b"waiting" in seen:
            service.start("a")
        elif state == "STARTED" and b"querying" in seen:
            service.finish("a", [ROW])
    os.close(ours)
    assert process.wait(20) == 0
    assert b"querying" in seen
    assert b"40 rows" in seen
    assert b"\x1b[32mSUCCESS" in seen
