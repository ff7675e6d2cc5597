"""``groups``: what people and machines write and read of groups."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from jobber.completion import GroupRequest
from jobber.errors import QueryFailed
from tests.api.fake import FakeService
from tests.cli.conftest import Program
from tests.servers import wait_until

GROUP = {
    "group_id": "g",
    "concurrency": 2,
    "jobs": [{"task": "slow", "job_id": "a"}, {"task": "slow", "job_id": "b", "args": [1.10]}],
    "callback": {"task": "notify", "job_id": "after"},
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "group.json"
    path.write_text(json.dumps(GROUP).replace("1.1", "1.10"))
    return str(path)


def test_submit_prints_the_id_alone(program: Program, service: FakeService, file: str) -> None:
    assert program.run("groups", "submit", file).stdout == "g\n"
    (request,) = service.requests
    assert isinstance(request, GroupRequest)
    assert (request.concurrency, [job.job_id for job in request.jobs]) == (2, ["a", "b"])
    assert [str(arg) for arg in request.jobs[1].args] == ["1.10"]
    assert request.callback
    assert request.callback.task == "notify"


def test_a_group_is_read_from_standard_input(program: Program, service: FakeService) -> None:
    text = json.dumps({"jobs": [{"task": "slow"}], "callback": None, "group_id": "", "concurrency": 0})
    document = json.loads(program.run("groups", "submit", "-", "--json", input=text).stdout)
    assert (document["state"], document["group_id"]) == ("PENDING", service.group_runs[0].group_id)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no valid JSON"),
        ("[]", "must hold a JSON object"),
        (
            '{"jobs": [], "concurency": 2}',
            "concurency: a group has group_id, concurrency, jobs, callback, ",
        ),
        ('{"jobs": ' + "[" * 100_000, "nested too deeply"),
        ('{"jobs": [{"task": "slow", "task": "other"}]}', "task stands twice in one object"),
        ('{"jobs": [], "concurrency": NaN}', "NaN is no number of JSON"),
    ],
)
def test_a_file_that_holds_no_group_is_wrong_usage(
    program: Program, service: FakeService, text: str, words: str
) -> None:
    assert words in program.run("groups", "submit", "-", input=text, status=2).stderr
    program.run("groups", "submit", "no-such-file", status=2)
    assert service.requests == []


@pytest.mark.parametrize(
    ("callback", "words"), [("{}", "callback.task: is missing"), ("[]", "callback: must be a mapping, not list")]
)
def test_a_callback_that_says_nothing_is_not_dropped(program: Program, callback: str, words: str) -> None:
    text = f'{{"jobs": [{{"task": "slow"}}], "callback": {callback}}}'
    assert words in program.run("groups", "submit", "-", input=text, status=1).stderr


def test_a_byte_order_mark_is_skipped(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "group.json"
    path.write_text(json.dumps(GROUP), encoding="utf-8-sig")
    assert program.run("groups", "submit", str(path)).stdout == "g\n"


def test_errors_are_one_line_or_one_document(program: Program, file: str) -> None:
    result = program.run("groups", "submit", "-", input="{}", status=1)
    assert result.stderr == "jobber: jobs: must hold 1 to 10,000 objects, not 0\n"
    program.run("groups", "submit", file)
    error = json.loads(program.run("groups", "submit", file, "--json", status=1).stderr)["error"]
    assert (error["code"], error["group"]["state"]) == ("group_is_live", "PENDING")
    result = program.run("groups", "status", "g", "--watch", "--timeout", "0.05", status=1)
    assert result.stderr == "jobber: group g is still PENDING after 0.05 s\n"


def test_status_shows_a_group_and_its_jobs(program: Program, service: FakeService, file: str) -> None:
    program.run("groups", "submit", file)
    service.finish("a", [(1,), (2,)], ())
    lines = program.run("groups", "status", "g").stdout.splitlines()
    assert "state      STARTED" in lines
    assert "jobs       1 PENDING, 1 SUCCESS" in lines
    assert "at a time  2" in lines
    assert "callback   after (PENDING)" in lines
    assert "accepted   2026-11-22 14:00:00 UTC" in lines
    assert lines[-3:] == ["JOB  TASK  STATE    ROWS  ERROR", "a    slow  SUCCESS     2", "b    slow  PENDING"]
    assert json.loads(program.run("groups", "status", "g", "--json").stdout)["counts"]["SUCCESS"] == 1


def test_a_group_with_a_job_that_fails_while_one_waits_ends_with_1(
    program: Program, service: FakeService, file: str
) -> None:
    def work() -> None:
        wait_until(lambda: len(service.runs) == 3)
        service.finish("a")
        service.fail("b", QueryFailed("no\nsuch table"))

    worker = threading.Thread(target=work)
    worker.start()
    lines = program.run("groups", "submit", file, "--wait", status=1).stdout.splitlines()
    worker.join()
    assert "state      FAILURE" in lines
    assert lines[-1].split(maxsplit=3) == ["b", "slow", "FAILURE", "no\\nsuch table"]


def test_cancel_says_what_became_of_the_group(program: Program, service: FakeService, file: str) -> None:
    program.run("groups", "submit", file)
    service.start("a")
    assert program.run("groups", "cancel", "g").stdout.splitlines()[1:] == ["g      stops soon"]
    service.finish("a")
    assert program.run("groups", "cancel", "g", status=1).stderr == "jobber: group g is CANCELLED already\n"
    assert program.run("groups", "cancel", "g", "--purge").stdout.splitlines()[1:] == ["g      purged"]
    program.run("groups", "status", "g", status=1)
