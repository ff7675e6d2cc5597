"""``jobber submit``, ``status`` and ``queue``."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from typing import Any

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobber.cli.remote.command import named, remote
from jobber.cli.remote.terminal import console, print_json, show, state, table, text, time
from jobber.cli.remote.terminal import facts as fact_table
from jobber.client import Attempt, Client, JobStatus

_PRIORITIES = ("low", "normal", "high", "critical")
#: How an attempt stands that runs, or has ended its job: the other lines tell what became of it.
_LAST = ("running", "success", "failure", "cancelled")


def _show_job(job: JobStatus) -> None:
    pairs: list[tuple[str, str | Text]] = [
        ("job", job.job_id),
        ("task", job.task),
        ("state", state(job.state)),
        ("queue", job.queue),
        ("args", text(job.args) if job.args else "none"),
        ("db", job.db),
        ("priority", str(job.priority)),
    ]
    if job.worker:
        pairs.append(("worker", text(job.worker)))
    if job.attempt:
        pairs.append(("attempt", f"{job.attempt} ({_retries(job)})"))
    pairs += [(f"attempt {past.attempt}", text(_past(past))) for past in job.attempts or () if past.ending not in _LAST]
    if job.error:
        pairs += [("error", text(job.error)), ("code", text(job.error_code))]
    pairs += [("waits for", text(hold.text)) for hold in job.waiting_for or ()]
    if job.depends_on:
        pairs.append(("after", ", ".join(job.depends_on)))
    pairs += [(name, text(said)) for name, said in (("tenant", job.tenant), ("schedule", job.schedule_id)) if said]
    if job.cancel_requested and not job.finished:
        pairs.append(("cancel", "requested"))
    if job.succeeded:
        pairs.append(("rows", str(job.count)))
        if job.reused and job.result_age_s is not None:
            pairs.append(("reused", f"the result of {job.reused_job_id}, {job.result_age_s:,.0f} s old"))
    elif not job.finished:
        pairs.append(("progress", _progress(job)))
    pairs.append(("table", f"{job.table} in {job.results_db}"))
    pairs += [
        (name, time(at))
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
        pairs.append(("ran for", f"{job.run_ms / 1000:.3f} s after {job.queued_ms / 1000:.3f} s in the queue"))
    pairs += [("tag", text(f"{name}={value}")) for name, value in job.tags.items()]
    show(fact_table(pairs))


def _retries(job: JobStatus) -> str:
    """Say how many retries a job may have, and how often it lost its worker: an attempt need not have spent a retry."""
    most = f"at most {job.retries} {'retry' if job.retries == 1 else 'retries'}" if job.retries else "no retries"
    return f"{most}; lost its worker {'once' if job.rescues == 1 else f'{job.rescues} times'}" if job.rescues else most


def _past(attempt: Attempt) -> str:
    at = f" at {time(attempt.ended_at)}" if attempt.ended_at else ""
    where = f"{attempt.ending} on {attempt.db}{at}, worker {attempt.worker}"
    return f"{where}: {attempt.error}" if attempt.error else where


def _progress(job: JobStatus) -> str:
    """Return how far a job is, without what its way of copying does not tell."""
    progress = job.progress
    parts = [progress.phase]
    if progress.position is not None:
        parts.append(f"place {progress.position:,} in its queue")
    if progress.starts_at is not None:
        parts.append(f"should start at {time(progress.starts_at)}")
    if progress.rows:
        of = f" of about {progress.total:,}" if progress.total else ""
        parts.append(f"{progress.rows:,}{of} rows")
    if progress.bytes:
        parts.append(f"{progress.bytes:,} bytes")
    if progress.rate:
        parts.append(f"{progress.rate:,} rows/s")
    if progress.percent is not None:
        parts.append(f"{progress.percent:.0f} %")
    if progress.eta is not None:
        parts.append(f"should end at {time(progress.eta)}")
    return ", ".join(parts)


def _watch(client: Client, job_id: str, timeout: float | None) -> JobStatus:
    """Wait for a job, with a bar on standard error if that is a terminal."""
    err = console(err=True)
    if not err.is_terminal:
        return client.wait(job_id, timeout)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        console=err,
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
        print_json(job.raw)
    else:
        _show_job(job)
    if job.finished and not job.succeeded:
        sys.exit(1)


def args_of(words: tuple[str, ...], text: str | None) -> Any:
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


def priority(_: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Return a priority as the server takes it. Raises BadParameter."""
    if value is None or value.lower() in _PRIORITIES:
        return value
    if not re.fullmatch("[0-9]{1,2}", value) or not 1 <= int(value) <= 10:
        raise click.BadParameter(f"{value!r} is no number from 1 to 10, nor {', '.join(_PRIORITIES)}", param=param)
    return int(value)


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
@click.option("--priority", callback=priority, metavar="1…10", help="1 low, 5 normal, 8 high, 10 critical, or a word.")
@click.option("--db", help="One of the task's databases.")
@click.option("--results", "results_db", metavar="DB", help="One of the task's results databases.")
@click.option("--tag", "tags", multiple=True, callback=named, metavar="NAME=VALUE", help="May be repeated.")
@click.option(
    "--after", "depends_on", multiple=True, metavar="JOB_ID", help="A job that must succeed first. May be repeated."
)
@click.option("--whatever", is_flag=True, help="Those jobs need only finish.")
@click.option("--max-age", type=click.IntRange(min=1), metavar="SECONDS", help="Take a result that is not older.")
@click.option("--single-flight", is_flag=True, help="Share the run of a job that asks for the same.")
@click.option("--callback-url", metavar="URL", help="What the server calls when the job is finished.")
@click.option("--idempotency-key", metavar="TEXT", help="The same request with the same key does nothing twice.")
@click.option("--wait", is_flag=True, help="Wait until the job is finished.")
@remote
def submit(
    client: Client,
    task: str,
    args: tuple[str, ...],
    *,
    args_json: str | None,
    results_db: str | None,
    depends_on: tuple[str, ...],
    whatever: bool,
    single_flight: bool,
    wait: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Schedule a job of TASK.

    ARGS are the values of positional placeholders, or NAME=VALUE for named ones; they are sent as text.
    """
    job = client.submit(
        task,
        args_of(args, args_json),
        results=results_db,
        depends_on=depends_on or None,
        depends_policy="finished" if whatever else None,
        single_flight=single_flight or None,
        **options,
    )
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
@remote
def status(client: Client, job_id: str, *, watch: bool, timeout: float | None, as_json: bool) -> None:
    """Show a job. The exit status is 1 if it failed or was cancelled."""
    _end(_watch(client, job_id, timeout) if watch else client.job(job_id), as_json)


@click.command()
@click.argument("queue")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Most jobs to list.")
@remote
def queue(client: Client, queue: str, *, limit: int, as_json: bool) -> None:
    """List the pending jobs of QUEUE, in the order in which they will run."""
    jobs = client.pending(queue, limit=limit)
    if as_json:
        print_json([job.raw for job in jobs])
        return
    rows = ((j.job_id, j.task, state(j.state), str(j.priority), time(j.eta), time(j.created_at)) for j in jobs)
    show(table(["JOB", "TASK", "STATE", "PRIORITY", "NOT BEFORE", "ACCEPTED"], rows))
