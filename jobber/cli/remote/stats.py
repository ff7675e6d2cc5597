"""``jobber stats``: what the last hours were like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import console, print_json, show, state, table, text
from jobber.client import Client

#: Eighths of a line, for a chart of one line.
_BARS = " ▁▂▃▄▅▆▇█"
_HEADINGS = ["JOBS", "FAILED", "ROWS", "WAIT P50", "P95", "P99", "RUN P50", "P95", "P99"]


@click.command()
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=24, show_default=True)
@remote
def stats(client: Client, *, hours: float, as_json: bool) -> None:
    """Show the jobs of the last hours: how many, how long they waited and ran, what failed."""
    found = client.stats(hours)
    if as_json:
        print_json(found)
        return
    show(
        table(
            ["STATE", "JOBS"], ((state(name), f"{count:,}") for name, count in found["states"].items()), [False, True]
        )
    )
    for title, key in (("TASK", "tasks"), ("QUEUE", "queues"), ("DATABASE", "databases")):
        if found[key]:
            click.echo()
            right = [False] + [True] * len(_HEADINGS)
            show(table([title, *_HEADINGS], (_row(name, of) for name, of in found[key].items()), right))
    failures = {name: of["failures"] for name, of in found["tasks"].items() if of.get("failures")}
    if failures:
        click.echo()
        rows = ((text(task), code, f"{count:,}") for task, codes in failures.items() for code, count in codes.items())
        show(table(["TASK", "ERROR", "JOBS"], rows, [False, False, True]))
    if console().is_terminal and found["series"]:
        click.echo()
        _chart(found["series"])


def _row(name: str, of: Mapping[str, Any]) -> list[str | Text]:
    failed = Text(f"{of['failed']:,}", style="red" if of["failed"] else "")
    times = [_time(of[what][part]) for what in ("queued_ms", "run_ms") for part in ("p50", "p95", "p99")]
    return [text(name), f"{of['count']:,}", failed, f"{of['rows']:,}", *times]


def _time(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{float(ms):,.0f} ms" if ms < 10_000 else f"{float(ms) / 1000:,.1f} s"


def _chart(series: list[Mapping[str, Any]]) -> None:
    """Draw the jobs that finished in each interval."""
    most = max((point["finished"] for point in series), default=0) or 1
    line = "".join(_BARS[(point["finished"] * (len(_BARS) - 1) + most - 1) // most] for point in series)
    console().print(Text(f"finished  {line}  (most: {most:,} at a time)", style="cyan"))
