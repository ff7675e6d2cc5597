"""The table of a run, and its figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.lab import ROOT
from benchmarks.measuring import Figure, Kind, Unit, shown
from benchmarks.parts import PARTS, Part

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(slots=True)
class Outcome:
    """What became of a part.

    Parameters:
        skipped: why it was not measured.
        failed: why it could not be measured.
    """

    part: Part
    figures: list[Figure] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""
    seconds: float = 0


def as_json(scale: str, machine: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return all that a run found."""
    return {
        "scale": scale,
        "machine": machine,
        "parts": [
            {
                "name": outcome.part.name,
                "title": outcome.part.title,
                "seconds": round(outcome.seconds, 1),
                "skipped": outcome.skipped,
                "failed": outcome.failed,
                "figures": [figure.as_json() for figure in outcome.figures],
            }
            for outcome in outcomes
        ],
    }


def together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the parts of several runs as if they were of one: of each part the last run that has it."""
    parts = {part["name"]: part for run in runs for part in run["parts"]}
    servers = {name: version for run in runs for name, version in run["machine"]["servers"].items()}
    order = [part.name for part in PARTS]
    last = runs[-1]
    return {
        **last,
        "machine": last["machine"] | {"servers": servers},
        "parts": sorted(parts.values(), key=lambda part: order.index(part["name"])),
    }


def keep(found: dict[str, Any]) -> Path:
    """Write the figures into a file of the time of the run, and return it."""
    RESULTS.mkdir(exist_ok=True)
    when = found["machine"]["date"].replace(":", "").replace("+0000", "Z")
    path = RESULTS / f"{when}-{found['scale']}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return path


def table(parts: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("work", overflow="fold", ratio=3)
    for name in ("jobber", "baseline", "ratio", "goal", "met?"):
        made.add_column(name, justify="right", no_wrap=True)
    for part in parts:
        made.add_section()
        told = " [red]FAILED[/red]" if part["failed"] else " [yellow]skipped[/yellow]" if part["skipped"] else ""
        made.add_row(f"[bold]{part['title']}[/bold]{told}")
        if why := part["failed"] or part["skipped"]:
            made.add_row(f"  {escape(why)}")
        for figure in part["figures"]:
            made.add_row(*cells(figure))
    return made


def cells(figure: Mapping[str, Any]) -> list[str]:
    """Return what a row says of a figure."""
    unit, kind = Unit(figure["unit"], figure["digits"]), Kind(figure["kind"])
    beside = f"\n    [dim]beside {escape(figure['baseline_is'])}[/dim]" if figure["baseline_is"] else ""
    theirs = "–" if figure["baseline"] is None else unit.show(figure["baseline"])
    value = "–"
    if figure["value"] is not None:
        value = shown(kind, unit, figure["value"])
        if len(figure["rounds"]["jobber"]) > 1:
            low, high = (shown(kind, unit, figure[end]) for end in ("least", "most"))
            value += f"\n[dim]{low} to {high}[/dim]"
    goal = ""
    if figure["goal"] is not None:
        goal = f"{'≥' if kind is Kind.RATIO else '≤'} {shown(kind, unit, figure['goal'])}"
    met = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[figure["met"]]
    return [f"  {escape(figure['work'])}{beside}", unit.show(figure["jobber"]), theirs, value, goal, met]


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print the table, and what it holds for."""
    console.print(table(found["parts"]))
    with_goal = [figure for part in found["parts"] for figure in part["figures"] if figure["met"] is not None]
    missed = [figure["work"] for figure in with_goal if not figure["met"]]
    console.print()
    console.print(f"{len(with_goal) - len(missed)} of {len(with_goal)} goals met" + (":" if missed else ""))
    for work in missed:
        console.print(f"  [red]missed[/red] {escape(work)}")
    machine = found["machine"]
    servers = ", ".join(f"{name} {version}" for name, version in machine["servers"].items())
    console.print(
        f"[dim]{machine['cores']} cores, {machine['ram_gb']} GB, Python {machine['python']}, {servers or 'no server'}, "
        f"commit {machine['commit']}; all on this machine; medians; a ratio of 1 is as fast as the baseline[/dim]"
    )
