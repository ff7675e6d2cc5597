"""The client commands against a server with a service in memory."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from jobber.cli.remote import commands
from tests.api.fake import FakeService
from tests.api.http import application, serving

TASK = "get_profit_entries_by_date"
ROW = (1, "12345678901234567890.120000000000", 0.5, True, "2026-01-31", '{"a": 1.10}', "x\ny\x1b[31m")


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(application(service)) as url:
        yield url


class Program:
    def __init__(self, url: str) -> None:
        self.url = url
        self.group = click.Group("jobber", commands=list(commands))

    def run(self, *words: str, status: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(self.group, words, input, env={"JOBBER_SERVER": self.url, "COLUMNS": "40"})
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        assert "\x1b" not in result.output  # not a terminal: no colour, and no escape from a database either
        return result


@pytest.fixture
def program(url: str) -> Program:
    return Program(url)
