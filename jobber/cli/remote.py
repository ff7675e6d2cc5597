"""Commands that ask a running server: submit, status, results, cancel, tasks, queue.

On a terminal there are colours and a progress bar; anywhere else plain text, a record a line, never cut.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import click
import simplejson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jobber.client import DEFAULT_SERVER, Client, Column, JobStatus
from jobber.errors import JobberError

F = TypeVar("F", bound=Callable[..., Any])

_COLOURS = {"SUCCESS": "green", "FAILURE": "red", "CANCELLED": "yellow", "STARTED": "cyan", "RETRY": "magenta"}
_NUMBERS = ("BIGINT", "NUMERIC", "REAL", "DECIMAL", "DOUBLE")
#: Characters that would steer a terminal; data comes from databases.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: Wider than any row: what is not a terminal gets whole lines.
_ENDLESS = 1_000_000


class Failed(click.ClickException):
    """Raised to end a command with exit status 1 and one line on standard error."""

    exit_code = 1

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        click.echo(f"jobber: {' '.join(self.message.split())}", err=True)


# -- what all commands share ------------------------------------------------------------------------------------------


def _remote(command: F) -> F:
    """Give a command ``--server`` and ``--json``, a client, and errors of one line."""

    @click.option(
        "--server",
        envvar="JOBBER_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="Address of the server.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One exact JSON document for machines.")
    @functools.wraps(command)
    def run(*args: Any, server: str, **kwargs: Any) -> None:
        try:
            client = Client(server)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--server") from None
        with client:
            try:
                command(client, *args, **kwargs)
            except JobberError as error:
                raise Failed(error.message) from None
            except TimeoutError as error:
                raise Failed(str(error)) from None

    return run  # type: ignore[return-value]


def _console(*, err: bool = False) -> Console:
    console = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    return console


def _print_json(value: Any) -> None:
    click.echo(simplejson.dumps(value, use_decimal=True, indent=2))


def _text(value: Any) -> str:
    """Return a value as it is shown: exact, on one line, harmless to the terminal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        value = simplejson.dumps(value, use_decimal=True, ensure_ascii=False)
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(value))


def _time(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[bool] = ()) -> Table:
    console = _console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(headings):
        justify = "right" if position < len(right) and right[position] else "left"
        table.add_column(_text(heading), justify=justify, no_wrap=not console.is_terminal, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return table


def _show(table: Table) -> None:
    """Print a table; without the blanks that would fill its last column up."""
    console = _console()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _state(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _show_job(job: JobStatus) -> None:
    facts: list[tuple[str, str | Text]] = [
        ("job", job.job_id),
        ("task", job.task),
        ("state", _state(job.state)),
        ("queue", job.queue),
    ]
    if job.error:
        facts.append(("error", _text(job.error)))
    facts += [("waits for", _text(hold.text)) for hold in job.waiting_for or ()]
    if job.cancel_requested and not job.finished:
        facts.append(("cancel", "requested"))
    if job.succeeded:
        facts += [("rows", str(job.count)), ("table", f"{job.table} in {job.results_db}")]
    elif not job.finished and job.progress.rows:
        facts.append(("rows so far", str(job.progress.rows)))
    facts += [
        (name, _time(at))
        for name, at in [
            ("not before", job.eta if not job.started_at else None),
            ("accepted", job.created_at),
            ("started", job.started_at),
            ("finished", job.finished_at),
            ("expires", job.expires_at),
        ]
        if at
    ]
    if job.run_ms is not None:
        facts.append(("ran for", f"{job.run_ms / 1000:.3f} s after {job.queued_ms / 1000:.3f} s in the queue"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, value)
    _show(grid)


def _watch(client: Client, job_id: str, timeout: float | None) -> JobStatus:
    """Wait for a job, with a bar on standard error if that is a terminal."""
    console = _console(err=True)
    if not console.is_terminal:
        return client.wait(job_id, timeout)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        line: TaskID = bar.add_task("waiting", total=None, rows=0)

        def update(job: JobStatus) -> None:
            known = job.progress.percent is not None
            bar.update(
                line,
                description=job.progress.phase,
                rows=job.progress.rows,
                total=100 if known else None,
                completed=job.progress.percent or 0,
            )

        return client.wait(job_id, timeout, update)


def _end(job: JobStatus, as_json: bool) -> None:
    """Show a job; leave with status 1 if it ended without a result."""
    if as_json:
        _print_json(job.raw)
    else:
        _show_job(job)
    if job.finished and not job.succeeded:
        sys.exit(1)


# -- the commands -----------------------------------------------------------------------------------------------------


def _pairs(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param=param)
        pairs[name] = text
    return pairs


def _args(words: tuple[str, ...], text: str | None) -> Any:
    """Return the arguments of a job, from words or from JSON text."""
    if text is not None:
        if words:
            raise click.UsageError("give arguments as words or with --args-json, not both")
        try:
            args = json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise click.BadParameter(f"no valid JSON: {error}", param_hint="--args-json") from None
        if not isinstance(args, list | dict):
            raise click.BadParameter("must be a list or an object", param_hint="--args-json")
        return args
    named = [re.fullmatch(r"([^\W\d]\w*)=(.*)", word, re.DOTALL) for word in words]
    if words and all(named):
        return {match[1]: match[2] for match in named if match}
    if any(named):
        raise click.UsageError("some arguments are NAME=VALUE and some are not; use --args-json for text with a =")
    return list(words)


@click.command()
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option(
    "--args-json", metavar="JSON", help="Arguments with their types: '[1, 2.50, null]' or '{\"day\": \"…\"}'."
)
@click.option("--job-id", help="Made up by the server if absent.")
@click.option("--queue", help="Queue to send the job to.")
@click.option("--eta", metavar="TIME", help="Not before: 'yyyy-mm-dd hh:mm:ss' in UTC, or ISO 8601.")
@click.option("--retries", type=click.IntRange(min=0), help="Failed attempts that are tried again.")
@click.option("--ttl", type=click.IntRange(min=0), metavar="SECONDS", help="How long the result lives.")
@click.option("--timeout", type=click.IntRange(min=0), metavar="SECONDS", help="How long the query may run.")
@click.option("--priority", type=click.IntRange(1, 10), help="1 low, 5 normal, 8 high, 10 critical.")
@click.option("--db", help="One of the task's databases.")
@click.option("--results", "results_db", metavar="DB", help="One of the task's results databases.")
@click.option("--tag", "tags", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--wait", is_flag=True, help="Wait until the job is finished.")
@_remote
def submit(
    client: Client,
    task: str,
    args: tuple[str, ...],
    *,
    args_json: str | None,
    results_db: str | None,
    wait: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Schedule a job of TASK.

    ARGS are the values of positional placeholders, or NAME=VALUE for named ones; they are sent as text.
    """
    job = client.submit(task, _args(args, args_json), results=results_db, **options)
    if wait:
        job = _watch(client, job.job_id, None)
    if wait or as_json:
        _end(job, as_json)
    else:
        click.echo(job.job_id)


@click.command()
@click.argument("job_id")
@click.option("--watch", is_flag=True, help="Wait until the job is finished.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Watch for so long at most.")
@_remote
def status(client: Client, job_id: str, *, watch: bool, timeout: float | None, as_json: bool) -> None:
    """Show a job. The exit status is 1 if it failed or was cancelled."""
    _end(_watch(client, job_id, timeout) if watch else client.job(job_id), as_json)


@click.command()
@click.argument("job_id")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most rows to show.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Rows to skip.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
@_remote
def results(client: Client, job_id: str, *, limit: int, offset: int, everything: bool, as_json: bool) -> None:
    """Show the rows of a job."""
    rows: list[dict[str, Any]] = []
    columns: tuple[Column, ...] = ()
    count: int | None = None
    for page in client.pages(job_id, offset=offset, size=1000 if everything else min(limit, 1000)):
        rows += page.rows
        columns, count = page.columns, page.count
        if not everything and len(rows) >= limit:
            rows = rows[:limit]
            break
    if as_json:
        shown = [{"name": column.name, "type": column.type} for column in columns]
        _print_json({"columns": shown, "count": count, "rows": rows})
        return
    _show_rows(columns, rows)
    if count is not None and rows and offset + len(rows) < count:
        click.echo(f"rows {offset + 1} to {offset + len(rows)} of {count}; --all shows all", err=True)


def _show_rows(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> None:
    right = [column.type.startswith(_NUMBERS) for column in columns]
    body = ([_cell(row[column.name]) for column in columns] for row in rows)
    types = [Text(_text(column.type), style="dim") for column in columns]
    _show(_table([column.name for column in columns], (types, *body), right))


def _cell(value: Any) -> Text:
    return Text(_text(value), style="dim" if value is None else "")


@click.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")
@click.option("--purge", is_flag=True, help="Remove a finished job with its history and its result.")
@_remote
def cancel(client: Client, job_ids: tuple[str, ...], *, purge: bool, as_json: bool) -> None:
    """Cancel pending or running jobs."""
    jobs, failures = [], []
    for job_id in job_ids:
        try:
            jobs.append(client.cancel(job_id, purge=purge))
        except JobberError as error:
            failures.append(error.message)
    if as_json:
        _print_json([job.raw for job in jobs])
    elif jobs:
        _show(_table(["JOB", "STATE"], ((job.job_id, _cancelled(job)) for job in jobs)))
    if failures:
        raise Failed("; ".join(failures))


def _cancelled(job: JobStatus) -> Text:
    return Text("stops soon", style="yellow") if job.cancel_requested and not job.finished else _state(job.state)


@click.command()
@click.argument("task", required=False)
@click.option("--sql", is_flag=True, help="With the SQL of TASK.")
@_remote
def tasks(client: Client, task: str | None, *, sql: bool, as_json: bool) -> None:
    """List the tasks of the server, or show one."""
    found = [client.task(task, sql=sql)] if task else client.tasks()
    if as_json:
        _print_json(found[0].raw if task else [item.raw for item in found])
        return
    rows = ((item.name, item.queue, ", ".join(item.db), _text(item.description)) for item in found)
    _show(_table(["TASK", "QUEUE", "DB", "DESCRIPTION"], rows))
    if found and found[0].sql is not None:
        click.echo("\n" + "\n".join(_text(line) for line in found[0].sql.splitlines()))


@click.command()
@click.argument("queue")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Most jobs to list.")
@_remote
def queue(client: Client, queue: str, *, limit: int, as_json: bool) -> None:
    """List the pending jobs of QUEUE, in the order in which they will run."""
    jobs = client.pending(queue, limit=limit)
    if as_json:
        _print_json([job.raw for job in jobs])
        return
    rows = ((j.job_id, j.task, _state(j.state), str(j.priority), _time(j.eta), _time(j.created_at)) for j in jobs)
    _show(_table(["JOB", "TASK", "STATE", "PRIORITY", "NOT BEFORE", "ACCEPTED"], rows))


#: For the program's group of commands.
commands: tuple[click.Command, ...] = (submit, status, results, cancel, tasks, queue)
