"""``jobber jobs``, ``cancel`` and ``retry``: many jobs at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar

import click
from rich.text import Text

from jobber.cli.remote.command import Failed, facts, named, remote
from jobber.cli.remote.terminal import print_json, show, state, table, time
from jobber.client import Client, JobStatus, Tally
from jobber.errors import JobberError, JobIsFinished

F = TypeVar("F", bound=Callable[..., None])


def _conditions(command: F) -> F:
    """Give a command options that say which jobs are meant; it gets them as ``conditions``."""

    @click.option("--state", help="PENDING, STARTED, RETRY, SUCCESS, FAILURE, CANCELLED, or several with commas.")
    @click.option("--task", help="Jobs of this task.")
    @click.option("--queue", help="Jobs of this queue.")
    @click.option("--group", help="Jobs of this group.")
    @click.option("--tag", "tags", multiple=True, callback=named, metavar="NAME=VALUE", help="May be repeated.")
    @click.option("--since", metavar="TIME", help="Submitted then or later; UTC, or ISO 8601.")
    @click.option("--until", metavar="TIME", help="Submitted before.")
    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        names = ("state", "task", "queue", "group", "tags", "since", "until")
        # A blank one is sent, too: without it more jobs would fit than somebody thought of.
        conditions = {name: value for name in names if (value := options.pop(name)) not in (None, {})}
        command(*args, conditions=conditions, **options)

    return run  # type: ignore[return-value]


@click.command()
@_conditions
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most jobs to list.")
@remote
def jobs(client: Client, *, conditions: dict[str, Any], limit: int, as_json: bool) -> None:
    """List jobs, those submitted last first."""
    found = list(client.jobs(**conditions, limit=limit))
    if as_json:
        print_json([job.raw for job in found])
        return
    rows = ((j.job_id, j.task, j.queue, state(j.state), str(j.count), time(j.created_at)) for j in found)
    show(table(["JOB", "TASK", "QUEUE", "STATE", "ROWS", "ACCEPTED"], rows, right=[False] * 4 + [True]))


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID...]")
@_conditions
@click.option("--dry-run", is_flag=True, help="Only count the jobs that the conditions fit.")
@click.option("--purge", is_flag=True, help="Remove finished jobs of these IDs with their history and their results.")
@remote
def cancel(
    client: Client,
    job_ids: tuple[str, ...],
    *,
    conditions: dict[str, Any],
    dry_run: bool,
    purge: bool,
    as_json: bool,
) -> None:
    """Cancel jobs that are not finished: those of some IDs, or all that some conditions fit."""
    _either(job_ids, conditions)
    if conditions:
        if purge:
            raise click.UsageError("--purge takes IDs, not conditions")
        _counted(client.cancel_where(**conditions, dry_run=dry_run), "cancelled or asked to stop", dry_run, as_json)
        return
    if dry_run:
        raise click.UsageError("--dry-run goes with conditions")
    answers, gone = client.cancel_many(job_ids), set[str]()
    if purge:
        for place, (job_id, answer) in enumerate(zip(job_ids, answers, strict=True)):
            if isinstance(answer, JobIsFinished):
                answers[place] = _purged(client, job_id)
                gone.add(job_id)
    _tell(answers, job_ids, as_json, gone)


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID...]")
@_conditions
@click.option("--dry-run", is_flag=True, help="Only count the jobs that the conditions fit.")
@remote
def retry(
    client: Client, job_ids: tuple[str, ...], *, conditions: dict[str, Any], dry_run: bool, as_json: bool
) -> None:
    """Run finished jobs again: those of some IDs, or all that some conditions fit."""
    _either(job_ids, conditions)
    if conditions:
        _counted(client.retry_where(**conditions, dry_run=dry_run), "will run again", dry_run, as_json)
        return
    if dry_run:
        raise click.UsageError("--dry-run goes with conditions")
    _tell(client.retry_many(job_ids), job_ids, as_json)


def _either(job_ids: tuple[str, ...], conditions: dict[str, Any]) -> None:
    if bool(job_ids) == bool(conditions):
        raise click.UsageError("give IDs of jobs, or conditions such as --state and --queue")


def _purged(client: Client, job_id: str) -> JobStatus | JobberError:
    """Remove a finished job; return it, or why it could not be removed."""
    try:
        return client.cancel(job_id, purge=True)
    except JobberError as error:
        return error


def _tell(
    answers: Sequence[JobStatus | JobberError], job_ids: Sequence[str], as_json: bool, gone: Collection[str] = ()
) -> None:
    """Show what has become of jobs; leave with status 1 if something could not be done."""
    done = [answer for answer in answers if isinstance(answer, JobStatus)]
    if as_json:
        print_json([job.raw for job in done])
    elif done:
        rows = ((job.job_id, Text("purged") if job.job_id in gone else _shown(job)) for job in done)
        show(table(["JOB", "STATE"], rows))
    failures = [(job_id, it) for job_id, it in zip(job_ids, answers, strict=True) if isinstance(it, JobberError)]
    if failures:
        _refuse(failures, as_json)


def _refuse(failures: Sequence[tuple[str, JobberError]], as_json: bool, *more: str) -> NoReturn:
    """Leave with status 1 because of some jobs.

    Parameters:
        more: what is said besides, "" for nothing.
    """
    failed = [{"job_id": job_id, "message": error.message, **facts(error)} for job_id, error in failures]
    document = {"code": failed[0]["code"], "failed": failed} if as_json else None
    # Most messages name their job; others are about its task, or a queue.
    said = [
        error.message if job_id in error.message else f"job {job_id}: {error.message}" for job_id, error in failures
    ]
    raise Failed("; ".join([*said, *filter(None, more)]), document)


def _shown(job: JobStatus) -> Text:
    return Text("stops soon", style="yellow") if job.cancel_requested and not job.finished else state(job.state)


def _counted(tally: Tally, what: str, dry_run: bool, as_json: bool) -> None:
    """Show how many jobs were dealt with; leave with status 1 if something could not be done."""
    if as_json:
        print_json({"matched": tally.matched, "done": tally.done, "refused": dict(tally.refused)})
    elif dry_run:
        click.echo(f"{tally.matched:,} jobs fit")
    else:
        click.echo(f"{tally.done:,} of {tally.matched:,} jobs {what}")
    if tally.refused:
        more = sum(tally.refused.values()) - len(tally.errors)
        _refuse(list(tally.errors.items()), as_json, f"and {more:,} more" if more else "")
