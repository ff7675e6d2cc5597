"""``tasks``: what there is to submit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from jobber.cli.remote.tasks import _param
from tests.cli.conftest import TASK, Program


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
        ["cron", "0 7 * * * (UTC)"],
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
