"""Commands about many jobs, schedules and queues, against a real instance."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.api.site import Site
from tests.cli.conftest import Program
from tests.operators_site import real_server

ARGS = ("first=1", "last=2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    with real_server(tmp_path_factory.mktemp("cli")) as server:
        yield server


@pytest.fixture
def site(server: tuple[Site, str]) -> Site:
    return server[0]


@pytest.fixture
def program(server: tuple[Site, str]) -> Program:
    return Program(server[1])


def submit(program: Program, *options: str) -> str:
    return program.run("submit", "between", *ARGS, *options).stdout.strip()


def test_jobs_are_listed_by_conditions(program: Program) -> None:
    ids = [submit(program, "--queue", "listed", "--tag", f"n={n}") for n in range(3)]
    lines = program.run("jobs", "--queue", "listed").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", *reversed(ids)]
    assert "PENDING" in lines[1]
    found = json.loads(program.run("jobs", "--tag", "n=1", "--json").stdout)
    assert [job["job_id"] for job in found] == [ids[1]]


def test_jobs_are_counted_cancelled_and_run_again_by_conditions(program: Program) -> None:
    for _ in range(2):
        submit(program, "--queue", "many")
    assert program.run("cancel", "--queue", "many", "--dry-run").stdout == "2 jobs fit\n"
    assert program.run("cancel", "--queue", "many").stdout == "2 of 2 jobs cancelled or asked to stop\n"
    assert program.run("retry", "--queue", "many", "--state", "CANCELLED").stdout == "2 of 2 jobs will run again\n"
    assert json.loads(program.run("cancel", "--queue", "many", "--json").stdout)["done"] == 2


def test_jobs_that_conditions_fit_and_that_are_refused_are_named_with_the_reason(program: Program, site: Site) -> None:
    ids = [submit(program, "--queue", "gone") for _ in range(3)]
    program.run("cancel", "--queue", "gone")
    change = text("UPDATE jobber_finished_jobs SET task = 'lost' WHERE job_id = :id")
    site.instance.store._database.write(lambda connection: connection.execute(change, {"id": ids[0]}))
    said = program.run("retry", "--queue", "gone", "--state", "CANCELLED", status=1)
    assert said.stdout == "2 of 3 jobs will run again\n"
    assert f"job {ids[0]}: no task named 'lost' is loaded" in said.stderr
    said = program.run("retry", "--queue", "gone", "--state", "CANCELLED", "--json", status=1)
    assert json.loads(said.stdout) == {"matched": 1, "done": 0, "refused": {"unknown_task": 1}}
    error = json.loads(said.stderr)["error"]
    assert [(failed["job_id"], failed["code"]) for failed in error["failed"]] == [(ids[0], "unknown_task")]


@pytest.mark.parametrize(
    "words",
    [["cancel"], ["retry"], ["cancel", "a", "--queue", "q"], ["retry", "a", "--dry-run"], ["cancel", "--purge"]],
)
def test_either_ids_or_conditions_are_to_be_given(program: Program, words: list[str]) -> None:
    assert "--state" in program.run(*words, status=2).stderr or "--dry-run" in program.run(*words, status=2).stderr


@pytest.mark.parametrize("command", ["cancel", "retry"])
@pytest.mark.parametrize("option", ["--state", "--task", "--queue", "--group", "--since", "--until"])
def test_a_blank_condition_is_refused_and_not_left_out(program: Program, command: str, option: str) -> None:
    job_id = submit(program, "--queue", "kept", "--tag", "kept=1")
    said = program.run(command, "--tag", "kept=1", option, "", "--json", status=1)
    assert json.loads(said.stderr)["error"]["field"] == f"filter.{option[2:]}"
    assert json.loads(program.run("status", job_id, "--json").stdout)["state"] == "PENDING"


def test_cancel_says_what_became_of_each_job(program: Program, site: Site) -> None:
    submit(program, "--queue", "q", "--job-id", "done")
    site.work()
    submit(program, "--queue", "q", "--job-id", "runs")
    running = site.claim()
    submit(program, "--queue", "ended", "--job-id", "waits")
    result = program.run("cancel", "waits", "runs", "done", "none", "--json", status=1)
    assert [job["job_id"] for job in json.loads(result.stdout)] == ["waits", "runs"]
    failed = json.loads(result.stderr)["error"]["failed"]
    assert [(one["job_id"], one["code"]) for one in failed] == [("done", "job_is_finished"), ("none", "unknown_job")]
    assert failed[0]["job"]["state"] == "SUCCESS"
    result = program.run("cancel", "runs", "waits", status=1)
    assert result.stdout.splitlines()[1:] == ["runs  stops soon"]
    assert result.stderr == "jobber: job waits is finished already (CANCELLED)\n"
    site.instance.store.cancelled(running)


def test_purging_removes_finished_jobs_and_cancels_the_others(program: Program, site: Site) -> None:
    submit(program, "--queue", "q", "--job-id", "over")
    site.work()
    submit(program, "--queue", "ended", "--job-id", "open")
    result = program.run("cancel", "over", "none", "open", "--purge", status=1)
    assert result.stdout.splitlines()[1:] == ["over  purged", "open  CANCELLED"]
    assert result.stderr == "jobber: there is no job none\n"
    program.run("status", "over", status=1)
    assert program.run("cancel", "open", "--purge").stdout.splitlines()[1:] == ["open  purged"]


def test_single_jobs_run_again_and_one_that_lives_does_not(program: Program) -> None:
    job_id = submit(program, "--queue", "again")
    program.run("cancel", job_id)
    assert program.run("retry", job_id).stdout.splitlines()[1].split() == [job_id, "PENDING"]
    assert f"job {job_id} is PENDING" in program.run("retry", job_id, status=1).stderr


def test_what_is_paused_says_why_until_it_is_resumed(program: Program) -> None:
    job_id = submit(program, "--queue", "held")
    assert program.run("pause", "queue", "held", "--reason", "migration").stdout == "queue held is paused\n"
    assert "paused: migration" in program.run("queues").stdout
    assert "queue held is paused: migration" in program.run("status", job_id).stdout
    assert program.run("resume", "queue", "held").stdout == "queue held goes on\n"
    assert program.run("pause", "database", "main").stdout == "database main is paused\n"
    assert "paused" in program.run("databases").stdout
    program.run("resume", "database", "main")
    program.run("pause", "job", job_id, "--reason", "later")
    assert "the job is paused: later" in program.run("status", job_id).stdout
    program.run("resume", "job", job_id)
    assert "there is no database" in program.run("pause", "database", "mian", status=1).stderr


def test_a_job_waits_for_another_and_has_a_word_for_its_priority(program: Program) -> None:
    parent = submit(program, "--queue", "parents")
    child = submit(program, "--queue", "parents", "--after", parent, "--priority", "high")
    shown = [line.split() for line in program.run("status", child).stdout.splitlines()]
    assert ["after", parent] in shown
    assert ["priority", "8"] in shown


def test_schedules_are_made_shown_run_paused_and_deleted(program: Program) -> None:
    options = ("--id", "night", "--cron", "30 2 * * *", "--priority", "high")
    made = program.run("schedules", "create", "between", *ARGS, *options).stdout
    assert "30 2 * * * (UTC)" in made
    assert made.count("02:30:00 UTC") == 5
    program.run("pause", "schedule", "night", "--reason", "holidays")
    listed = program.run("schedules", "list").stdout.splitlines()
    assert listed[1].split()[:2] == ["night", "between"]
    assert "paused: holidays" in listed[1]
    assert program.run("schedules", "run", "night").stdout.startswith("night:")
    assert program.run("schedules", "delete", "night").stdout == "schedule night is deleted\n"
    program.run("schedules", "show", "night", status=1)
    program.run("schedules", "create", "between", status=2)


def test_a_job_tells_its_history(program: Program, site: Site) -> None:
    program.run("submit", "entries_of", "U", "--job-id", "told", "--queue", "reports")
    site.work()
    lines = program.run("events", "told").stdout.splitlines()
    assert lines[0].split()[:2] == ["AT", "(UTC)"]
    assert "submitted" in lines[1]
    assert "success" in lines[-1]
    reused = program.run("submit", "entries_of", "U", "--max-age", "600", "--wait").stdout
    assert "the result of told" in reused


def test_workers_and_figures_are_shown(program: Program) -> None:
    assert "w1" in program.run("workers").stdout
    shown = program.run("stats", "--hours", "1").stdout
    assert "STATE" in shown
    assert "entries_of" in shown
    assert json.loads(program.run("stats", "--json").stdout)["states"]["SUCCESS"] >= 1
