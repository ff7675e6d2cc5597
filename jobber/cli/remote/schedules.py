"""``jobber schedules``: list, show, make, run now, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from jobber.cli.remote.command import named, remote
from jobber.cli.remote.jobs import args_of, priority
from jobber.cli.remote.terminal import facts, print_json, show, table, text, time
from jobber.client import Client


@click.group()
def schedules() -> None:
    """Recurring jobs: list them, make them, run one now. `jobber pause schedule ID` stops one."""


@schedules.command("list")
@remote
def list_(client: Client, *, as_json: bool) -> None:
    """List all schedules."""
    found = list(client.schedules())
    if as_json:
        print_json(found)
        return
    rows = (
        (it["schedule_id"], it["task"], _when(it), _standing(it), _at(it["next_at"]), text(it["last_job_id"] or ""))
        for it in found
    )
    show(table(["SCHEDULE", "TASK", "WHEN", "STATE", "NEXT", "LAST JOB"], rows))


@schedules.command("show")
@click.argument("schedule_id")
@remote
def show_(client: Client, schedule_id: str, *, as_json: bool) -> None:
    """Show a schedule, its next times and what became of its last ones."""
    _end(client.schedule(schedule_id), as_json)


@schedules.command()
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option("--args-json", metavar="JSON", help="Arguments with their types.")
@click.option("--id", "schedule_id", help="Made up by the server if absent.")
@click.option("--cron", metavar="EXPRESSION", help="'MINUTE HOUR DAY MONTH WEEKDAY'; this, or --every.")
@click.option("--every", "interval", type=click.IntRange(min=1), metavar="SECONDS", help="From one to the next.")
@click.option("--timezone", help="IANA name, of --cron; UTC if absent.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Jobs that it makes, then it is over.")
@click.option("--start-at", metavar="TIME", help="No time before this one.")
@click.option("--end-at", metavar="TIME", help="No time after this one.")
@click.option("--overlap", type=click.Choice(["skip", "queue", "allow"]), help="While an earlier job is not finished.")
@click.option("--missed", type=click.Choice(["once", "skip", "all"]), help="Times at which nobody could fire.")
@click.option("--jitter", type=click.IntRange(min=0), metavar="SECONDS", help="Start so much later, at most.")
@click.option("--queue", help="Queue to send the jobs to.")
@click.option("--priority", callback=priority, metavar="1…10", help="1 low, 5 normal, 8 high, 10 critical, or a word.")
@click.option("--tag", "tags", multiple=True, callback=named, metavar="NAME=VALUE", help="May be repeated.")
@remote
def create(
    client: Client, task: str, args: tuple[str, ...], *, args_json: str | None, as_json: bool, **options: Any
) -> None:
    """Make a job of TASK again and again.

    ARGS are the values of positional placeholders, or NAME=VALUE for named ones; they are sent as text.
    """
    if (options["cron"] is None) == (options["interval"] is None):
        raise click.UsageError("give --cron or --every")
    _end(client.create_schedule(task, args=args_of(args, args_json), **options), as_json)


@schedules.command()
@click.argument("schedule_id")
@remote
def run(client: Client, schedule_id: str, *, as_json: bool) -> None:
    """Make a job of a schedule now."""
    job = client.run_schedule(schedule_id)
    if as_json:
        print_json(job.raw)
    else:
        click.echo(job.job_id)


@schedules.command()
@click.argument("schedule_id")
@remote
def delete(client: Client, schedule_id: str, *, as_json: bool) -> None:
    """Delete a schedule; the jobs that it made stay."""
    gone = client.delete_schedule(schedule_id)
    if as_json:
        print_json(gone)
    else:
        click.echo(f"schedule {text(schedule_id)} is deleted")


def _end(schedule: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(schedule)
        return
    pairs: list[tuple[str, str | Text]] = [
        ("schedule", schedule["schedule_id"]),
        ("task", schedule["task"]),
        ("when", _when(schedule)),
        ("state", _standing(schedule)),
        ("args", text(schedule["args"]) if schedule["args"] else "none"),
        ("overlap", schedule["overlap"]),
        ("missed", schedule["missed"]),
        ("runs", f"{schedule['runs']:,}" + (f" of {schedule['max_runs']:,}" if schedule["max_runs"] else "")),
    ]
    pairs += [("next", _at(at)) for at in schedule["next_runs"] or ()]
    pairs += [(f"at {_at(fire['at'])}", _fire(fire)) for fire in schedule["fires"] or ()]
    show(facts(pairs))


def _fire(fire: Mapping[str, Any]) -> Text:
    said = f"{fire['outcome']}: {text(fire['job_id'] or fire['reason'])}"
    return Text(said, style="red" if fire["outcome"] == "failed" else "")


def _when(schedule: Mapping[str, Any]) -> str:
    if schedule["cron"]:
        return f"{schedule['cron']} ({schedule['timezone']})"
    return f"every {schedule['interval']:,} s"


def _standing(schedule: Mapping[str, Any]) -> Text:
    if schedule["paused"]:
        return Text(f"paused: {text(schedule['reason'])}" if schedule["reason"] else "paused", style="yellow")
    return Text("over") if schedule["next_at"] is None else Text("on", style="green")


def _at(at: str | None) -> str:
    return time(datetime.fromisoformat(at)) if at else ""
