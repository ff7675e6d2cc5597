"""``results``: tables for people, exact rows for machines, and no page read too many."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from jobber.cli.remote import commands
from jobber.errors import ResultsGone
from tests.api.fake import COLUMNS, FakeService
from tests.cli.conftest import ROW, Program


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
