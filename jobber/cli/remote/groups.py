"""``jobber groups submit``, ``status`` and ``cancel``."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any, NoReturn, TextIO

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import console, facts, print_json, show, state, table, text, time
from jobber.client import Client, GroupStatus, JobStatus
from jobber.errors import GroupIsFinished

_KEYS = ("group_id", "concurrency", "jobs", "callback", "callback_url")
_FINISHED = ("SUCCESS", "FAILURE", "CANCELLED")


@click.group()
def groups() -> None:
    """Jobs that belong together: submit them as one, watch them, cancel them."""


@groups.command()
@click.argument("file", type=click.File(encoding="utf-8-sig"))  # some shells put a byte order mark in front
@click.option("--wait", is_flag=True, help="Wait until all its jobs are finished.")
@remote
def submit(client: Client, file: TextIO, *, wait: bool, as_json: bool) -> None:
    """Schedule the group of jobs that the JSON document in FILE (- is standard input) describes.

    \b
    {"group_id": "profits", "concurrency": 2,
     "jobs": [{"task": "get_profit_entries", "args": ["USER1"]}, …],
     "callback": {"task": "profits_done"}}
    """
    document = _document(file)
    group = client.submit_group(
        document.get("jobs", []),
        group_id=document.get("group_id"),
        concurrency=document.get("concurrency"),
        callback=document.get("callback"),
        callback_url=document.get("callback_url"),
    )
    if wait:
        group = _watch(client, group.group_id, None)
    if wait or as_json:
        _end(group, as_json)
    else:
        click.echo(group.group_id)


@groups.command()
@click.argument("group_id")
@click.option("--watch", is_flag=True, help="Wait until all its jobs are finished.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Watch for so long at most.")
@remote
def status(client: Client, group_id: str, *, watch: bool, timeout: float | None, as_json: bool) -> None:
    """Show a group. The exit status is 1 if one of its jobs failed or was cancelled."""
    _end(_watch(client, group_id, timeout) if watch else client.group(group_id), as_json)


@groups.command()
@click.argument("group_id")
@click.option("--purge", is_flag=True, help="Remove a finished group with its jobs, its callback and their results.")
@remote
def cancel(client: Client, group_id: str, *, purge: bool, as_json: bool) -> None:
    """Cancel the jobs of a group that are not finished. Its callback runs then."""
    purged = False
    try:
        group = client.cancel_group(group_id)
    except GroupIsFinished:
        if not purge:
            raise
        group, purged = client.cancel_group(group_id, purge=True), True
    if as_json:
        print_json(group.raw)
        return
    stopping = any(job.cancel_requested and not job.finished for job in group.jobs)
    shown = Text("purged") if purged else Text("stops soon", style="yellow") if stopping else state(group.state)
    show(table(["GROUP", "STATE"], [(group.group_id, shown)]))


def _document(file: TextIO) -> dict[str, Any]:
    """Return the group that a file describes, without what it leaves blank."""
    try:
        document = json.load(file, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_object)
    except RecursionError:
        raise click.BadParameter("no valid JSON: it is nested too deeply", param_hint="FILE") from None
    except ValueError as error:
        raise click.BadParameter(f"no valid JSON: {error}", param_hint="FILE") from None
    if not isinstance(document, dict):
        raise click.BadParameter("must hold a JSON object with the jobs of the group", param_hint="FILE")
    if unknown := next((key for key in document if key not in _KEYS), None):
        raise click.BadParameter(f"{text(unknown)}: a group has {', '.join(_KEYS)} only", param_hint="FILE")
    return {key: value for key, value in document.items() if value not in (None, "")}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one that names a key twice is refused, as the server would, which cannot see it any more."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{text(key)} stands twice in one object")
        found[key] = value
    return found


def _watch(client: Client, group_id: str, timeout: float | None) -> GroupStatus:
    """Wait for a group, with a bar on standard error if that is a terminal."""
    err = console(err=True)
    if not err.is_terminal:
        return client.wait_group(group_id, timeout)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        line = bar.add_task("waiting", total=None)

        def update(group: GroupStatus) -> None:
            finished = sum(group.counts[name] for name in _FINISHED)
            bar.update(line, description=group.state, completed=finished, total=sum(group.counts.values()))

        return client.wait_group(group_id, timeout, update)


def _end(group: GroupStatus, as_json: bool) -> None:
    """Show a group; leave with status 1 if it ended and not all of its jobs succeeded."""
    if as_json:
        print_json(group.raw)
    else:
        _show_group(group)
    if group.finished and not group.succeeded:
        sys.exit(1)


def _show_group(group: GroupStatus) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in group.counts.items() if count)
    pairs: list[tuple[str, str | Text]] = [
        ("group", group.group_id),
        ("state", state(group.state)),
        ("jobs", counts),
        ("at a time", str(group.concurrency) if group.concurrency else "no limit"),
    ]
    if group.callback:
        pairs.append(("callback", f"{group.callback.job_id} ({group.callback.state})"))
    pairs += [(name, time(at)) for name, at in (("accepted", group.created_at), ("finished", group.finished_at)) if at]
    show(facts(pairs))
    click.echo()
    rows = [(job.job_id, job.task, state(job.state), _rows(job), text(job.error)) for job in group.jobs]
    show(table(["JOB", "TASK", "STATE", "ROWS", "ERROR"], rows, right=[False, False, False, True, False]))


def _rows(job: JobStatus) -> str:
    return str(job.count) if job.succeeded else ""
