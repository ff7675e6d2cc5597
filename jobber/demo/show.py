"""What the demo prints: live bars on a terminal, plain lines elsewhere, tables on both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from jobber.client import JobStatus, Page

#: Types of result columns that read best aligned to the right.
_NUMBERS = ("BIGINT", "DECIMAL", "NUMERIC", "REAL")
_COLOURS = {"STARTED": "cyan", "SUCCESS": "green", "FAILURE": "red", "CANCELLED": "red", "RETRY": "yellow"}
_MEGABYTE = 1_000_000
_WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo has to tell when it is over."""

    source_rows: int
    source_seconds: float
    start_seconds: float
    jobs: Sequence[JobStatus]
    seconds: float  # from the first submission to the last end
    peak_memory: int  # bytes

    @property
    def rows(self) -> int:
        """Rows of all results."""
        return sum(job.count for job in self.jobs)


class Board(Protocol):
    """Shows jobs while they run."""

    def update(self, job: JobStatus) -> None:
        """Show what is new of ``job``."""
        ...


class Screen:
    """Prints the demo for people; tables are 80 columns wide at least, live bars need a terminal of that width."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        # A bar that is wrapped cannot be drawn over: each turn would print it anew.
        self._live = self._console.is_terminal and self._console.width >= _WIDTH
        if self._console.width < _WIDTH:
            self._console = Console(highlight=False, width=_WIDTH)

    def source(self, rows: int, seconds: float) -> None:
        """Say what the jobs will read."""
        self._fact("source", f"SQLite: a marketplace and its ledger of {rows:,} entries, in {seconds:.1f} s")

    def server(self, url: str, seconds: float) -> None:
        """Say where jobber answers."""
        self._fact("jobber", f"{url}, ready after {seconds:.1f} s; broker and state are files")

    @contextmanager
    def progress(self, expected: Mapping[str, int | None]) -> Iterator[Board]:
        """Give a board for jobs.

        Parameters:
            expected: the rows of each job ID, None where nobody knows.
        """
        self._console.print()
        if not self._live:
            yield _Lines(self._console)
            return
        bars = Progress(
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[queue]:<8}"),
            BarColumn(bar_width=22),
            TextColumn("{task.fields[rows]:>10} rows"),
            TextColumn("{task.fields[rate]:>11}"),
            TextColumn("{task.fields[state]}"),
            console=self._console,
        )
        with bars:
            yield _Bars(bars, expected)

    def result(self, job: JobStatus, page: Page) -> None:
        """Show the rows of a result with the columns' types."""
        table = _table()
        for column in page.columns:
            numeric = column.type.startswith(_NUMBERS)
            table.add_column(f"{column.name}\n[dim]{column.type}[/]", justify="right" if numeric else "left")
        for row in page.rows:
            table.add_row(*(_cell(row[column.name]) for column in page.columns))
        self._console.print(f"\n[bold]Result of {job.job_id}[/], read over HTTP from the table {job.table}\n")
        self._console.print(table)

    def summary(self, outcome: Outcome) -> None:
        """Show the timings of all jobs, and what the whole took."""
        table = _table()
        for name in ("job", "task", "queue"):
            table.add_column(f"\n{name}")
        for name in ("queued\nms", "run\nms", "\nrows", "\nrows/s"):
            table.add_column(name, justify="right")
        for job in outcome.jobs:
            figures = (job.queued_ms, job.run_ms, job.count, _rate(job))
            table.add_row(job.job_id, job.task, job.queue, *("–" if n is None else f"{n:,}" for n in figures))
        queues = len({job.queue for job in outcome.jobs})
        self._console.print("\n[bold]Timings[/]")
        self._console.print(table)
        self._console.print()
        rows = f"{outcome.rows:,} rows in {outcome.seconds:.1f} s"
        self._fact("summary", f"{len(outcome.jobs)} jobs on {queues} queues, {rows}")
        self._fact("memory", f"{outcome.peak_memory / _MEGABYTE:.0f} MB per process at most")
        self._fact("stopped", "nothing is left running, and the temporary folder is gone")

    def invitation(self, url: str, folder: Path, queries: Path) -> None:
        """Say what one can do with the server that is about to start."""
        post = f"curl {url}/tasks/get_profit_summary/jobs -H 'Content-Type: application/json'"
        self._fact("folder", f"{folder} (config.toml, shop.db, results); task files: {queries}")
        self._console.print(
            "\n[bold]Try in another terminal[/]\n"
            f"  curl {url}/tasks\n"
            f"  {post} \\\n"
            '       -d \'{"job_id": "myjob", "args": ["USER1"]}\'\n'
            f"  curl '{url}/jobs/myjob?wait=10'\n"
            f"  curl '{url}/jobs/myjob/results?limit=5'\n",
            markup=True,
            soft_wrap=True,
        )

    def _fact(self, name: str, text: str) -> None:
        self._console.print(f"[cyan]{name:<9}[/]{text}", soft_wrap=True)


class Silence(Screen):
    """Prints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(quiet=True)


class _Bars:
    """One live bar per job."""

    def __init__(self, bars: Progress, expected: Mapping[str, int | None]) -> None:
        self._bars = bars
        width = max(map(len, expected))
        self._tasks: dict[str, TaskID] = {
            job_id: bars.add_task(f"{job_id:<{width}}", total=rows, start=False, queue="", rows="", rate="", state="")
            for job_id, rows in expected.items()
        }

    def update(self, job: JobStatus) -> None:
        task = self._tasks[job.job_id]
        rows = job.count if job.succeeded else job.progress.rows
        rate = _rate(job) if job.succeeded else job.progress.rate
        if job.started_at:
            self._bars.start_task(task)
        self._bars.update(
            task,
            completed=rows,
            queue=job.queue,
            rows=f"{rows:,}",
            rate=f"{rate:,}/s" if rate else "",
            state=f"[{_COLOURS.get(job.state, 'dim')}]{job.state}",
        )
        if job.finished:
            self._bars.update(task, total=max(rows, 1), completed=max(rows, 1))


class _Lines:
    """One line whenever a job begins or ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._states: dict[str, str] = {}

    def update(self, job: JobStatus) -> None:
        if job.state == "PENDING" or self._states.get(job.job_id) == job.state:
            return
        self._states[job.job_id] = job.state
        rows = f"{job.count:>10,} rows" if job.succeeded else ""
        self._console.print(
            f"{time.monotonic() - self._began:6.2f} s  {job.job_id:<14} {job.queue:<8} {job.state:<8} {rows}".rstrip()
        )


def print_json(outcome: Outcome) -> None:
    """Print the outcome as one JSON document."""
    jobs = [
        {
            "job_id": job.job_id,
            "task": job.task,
            "queue": job.queue,
            "state": job.state,
            "rows": job.count,
            "queued_ms": job.queued_ms,
            "run_ms": job.run_ms,
            "rows_per_second": _rate(job),
        }
        for job in outcome.jobs
    ]
    document = {
        "source_rows": outcome.source_rows,
        "source_seconds": round(outcome.source_seconds, 3),
        "start_seconds": round(outcome.start_seconds, 3),
        "jobs": jobs,
        "rows": outcome.rows,
        "seconds": round(outcome.seconds, 3),
        "peak_memory_bytes": outcome.peak_memory,
    }
    click.echo(json.dumps(document, indent=2))


def error(message: str, log: Sequence[str] = ()) -> None:
    """Say on standard error what went wrong, with the end of the server's log."""
    click.echo(click.style("error: ", fg="red") + message, err=True)
    if log:
        click.echo("\nThe server's last lines:\n  " + "\n  ".join(log), err=True)


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)


def _rate(job: JobStatus) -> int | None:
    """Return rows per second of a job, None where it was too short to tell."""
    return job.count * 1000 // job.run_ms if job.run_ms else None


def _cell(value: object) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
