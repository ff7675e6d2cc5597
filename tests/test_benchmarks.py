"""``make bench``: what it prints, keeps and draws. How fast anything is says nothing here: too little is measured."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import parts, reporting
from benchmarks.lab import SCALES, Lab, Scale
from benchmarks.measuring import JOBS, MILLISECONDS, PERCENT, SECONDS, Figure, Kind, alternate
from benchmarks.parts import transfers
from tests.servers import MariaDB, Postgres, Redis, Server


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where figures are kept."""
    monkeypatch.setattr(reporting, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, postgres: Postgres, redis_server: Redis, mariadb: MariaDB) -> None:
    """Those of the tests in the place of private ones, which would take longer to start than to be measured."""
    started = {"postgresql": postgres, "redis": redis_server, "mysql": mariadb}
    init = Lab.__init__

    def prepared(self: Lab, *arguments: object) -> None:
        init(self, *arguments)  # type: ignore[arg-type]
        self._servers.update(started)

    monkeypatch.setattr(Lab, "__init__", prepared)
    close = Lab.close

    def spare(self: Lab) -> None:
        self._servers.clear()
        close(self)

    monkeypatch.setattr(Lab, "close", spare)


def figures(found: dict) -> dict[str, dict]:
    return {figure["work"]: figure for part in found["parts"] for figure in part["figures"]}


def test_small_jobs_and_transfers_are_measured_for_real(
    servers: None, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "ENGINES", ["mysql"])  # each pair takes three processes
    words = ["--scale", "tiny", "--only", "jobs", "--only", "transfers", "--json", "--plots", str(tmp_path / "plots")]
    assert bench.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(part["name"], part["failed"], part["skipped"]) for part in found["parts"]] == [
        ("transfers", "", ""),
        ("jobs", "", ""),
    ]
    assert {"cores", "ram_gb", "python", "commit", "date"} <= found["machine"].keys()
    assert {"postgresql", "mariadb", "redis"} == found["machine"]["servers"].keys()
    jobs = figures(found)["small jobs, 8 connections submitting"]
    assert jobs["value"] == pytest.approx(jobs["jobber"] / jobs["baseline"])
    assert jobs["met"] is (jobs["value"] >= 0.6)
    (kept,) = results.iterdir()
    assert json.loads(kept.read_text()) == found
    drawn = sorted(path.name for path in (tmp_path / "plots").glob("*.svg"))
    assert drawn == ["jobs-more.svg", "jobs.svg", "transfers.svg"]


def of(monkeypatch: pytest.MonkeyPatch, *measured: Figure, error: Exception | None = None) -> None:
    """Have one part that gives these figures, and then fails."""

    def measure(_: parts.Part, lab: Lab) -> Iterator[Figure]:
        lab.say("round 1 of 1")
        yield from measured
        if error:
            raise error

    monkeypatch.setattr(bench, "PARTS", [parts.Part("idle", "Doing nothing")])
    monkeypatch.setattr(parts.Part, "measure", measure)


FIGURES = (
    Figure("fast", JOBS, [90, 100, 80], [100, 100, 100], against="by hand", goal=0.6),
    Figure("slow", SECONDS, [4.0], [1.0], against="its tools", goal=0.5),
    Figure("late", MILLISECONDS, [9.0], [3.0], kind=Kind.MORE, goal=5),
    Figure("busy <&>", PERCENT, [0.7], kind=Kind.MOST, goal=1),
    Figure("alone", SECONDS, [2.5]),
)


def test_the_table_tells_ratios_goals_and_what_was_missed_which_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    of(monkeypatch, *FIGURES)
    assert bench.main(["--scale", "tiny", "--no-keep", "--plots", str(tmp_path)]) == 0
    told = capsys.readouterr()
    rows = [line.split() for line in told.out.splitlines()]
    assert ["fast", "90", "jobs/s", "100", "jobs/s", "0.90", "≥", "0.60", "yes"] in rows
    assert ["slow", "4.00", "s", "1.00", "s", "0.25", "≥", "0.50", "no"] in rows
    assert ["late", "9.0", "ms", "3.0", "ms", "+6.0", "ms", "≤", "+5.0", "ms", "no"] in rows
    assert ["busy", "<&>", "0.70", "%", "–", "0.70", "%", "≤", "1.00", "%", "yes"] in rows
    assert ["alone", "2.50", "s", "–", "–"] in rows
    assert "0.80 to 1.00" in told.out
    assert "2 of 4 goals met" in told.out
    assert "round 1 of 1" in told.err
    for path in tmp_path.glob("*.svg"):
        drawing = ET.fromstring(path.read_text())
        assert "prefers-color-scheme: dark" in path.read_text()
        assert drawing.attrib["viewBox"]
    assert {path.name for path in tmp_path.iterdir()} == {"figures.json", "idle.svg", "idle-more.svg", "idle-most.svg"}


def test_a_part_that_fails_is_named_and_the_exit_status_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: Path
) -> None:
    of(monkeypatch, FIGURES[0], error=RuntimeError("3 jobs failed"))
    assert bench.main(["--scale", "tiny"]) == 1
    told = capsys.readouterr().out
    assert "Doing nothing FAILED" in told
    assert "RuntimeError: 3 jobs failed" in told
    assert "fast" in told, "what was measured before is told still"
    # The same from the file.
    (kept,) = results.iterdir()
    assert bench.main(["--from", str(kept)]) == 1
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(("scale", "status", "word"), [("tiny", 0, "skipped"), ("full", 1, "FAILED")])
def test_without_a_server_the_short_form_skips(
    scale: str, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Lab, "has", lambda _, name: name != "redis")
    assert bench.main(["--scale", scale, "--only", "jobs", "--no-keep"]) == status
    told = capsys.readouterr().out
    assert f"Many small jobs {word}" in told
    assert "not installed: redis" in told


@pytest.mark.parametrize(
    ("words", "name", "rounds"),
    [
        ([], "full", None),
        (["--short"], "short", None),
        (["--scale", "tiny"], "tiny", None),
        (["--rounds", "7"], "full", 7),
    ],
)
def test_what_the_options_do_not_say_is_measured_in_full(
    words: list[str], name: str, rounds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], str, Scale]] = []

    def run(wanted: Sequence[parts.Part], name: str, scale: Scale, _: object) -> dict[str, object]:
        asked.append(([part.name for part in wanted], name, scale))
        return reporting.as_json(name, {}, [])

    monkeypatch.setattr(bench, "run", run)
    assert bench.main(["--only", "transfers", "--no-keep", "--json", *words]) == 0
    assert asked == [(["transfers"], name, replace(SCALES[name], **({"rounds": rounds} if rounds else {})))]


def test_rounds_alternate_and_either_is_first_as_often() -> None:
    order: list[str] = []

    def one(name: str) -> float:
        order.append(name)
        return 1.0

    found = alternate(2, lambda: one("ours"), lambda: one("theirs"), lambda _: None)
    assert found == ([1.0, 1.0], [1.0, 1.0])
    assert sorted([order[:2], order[2:]]) == [["ours", "theirs"], ["theirs", "ours"]]


@pytest.mark.parametrize(("kind", "word"), [(Postgres, "fsync"), (MariaDB, "flush-log|doublewrite")])
def test_what_is_measured_on_is_as_durable_as_by_default(
    kind: type[Postgres] | type[MariaDB], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "run", lambda *_: None)  # what it takes to set one up
    for durable in (False, True):
        server = kind(durable=durable)
        assert bool(re.search(word, " ".join(server.command()))) is not durable
        server.remove()
