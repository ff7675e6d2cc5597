"""``jobber queues``, ``databases``, ``workers``, ``pause`` and ``resume``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import print_json, show, table, text
from jobber.client import Client

#: What can be paused: the kinds that one may name.
_KINDS = click.Choice(["queue", "database", "schedule", "job"])
_MIB = 2**20


@click.command()
@remote
def queues(client: Client, *, as_json: bool) -> None:
    """List the queues: what waits in them, what runs, who serves them."""
    found = client.queues()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            queue["queue"],
            _standing(queue),
            f"{queue['pending']:,}{_of(queue['max_pending'])}",
            f"{queue['running']:,}{_of(queue['max_concurrent'])}",
            str(queue["workers"]),
            "" if queue["oldest_age_s"] is None else f"{queue['oldest_age_s']:,.0f} s",
        )
        for queue in found
    )
    show(table(["QUEUE", "STATE", "PENDING", "RUNNING", "WORKERS", "OLDEST"], rows, right=[False] * 2 + [True] * 4))


@click.command()
@remote
def databases(client: Client, *, as_json: bool) -> None:
    """List the source databases: what waits for them, what reads them."""
    found = client.databases()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            database["database"],
            _standing(database),
            f"{database['pending']:,}",
            f"{database['running']:,}{_of(database['max_concurrent'])}",
            f"{float(database['max_starts']):g} per s" if database["max_starts"] else "",
        )
        for database in found
    )
    show(table(["DATABASE", "STATE", "PENDING", "RUNNING", "STARTS"], rows, right=[False] * 2 + [True] * 3))


@click.command()
@remote
def workers(client: Client, *, as_json: bool) -> None:
    """List the worker processes, and the jobs that they run."""
    found = client.workers()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            text(worker["name"]),
            Text("alive", style="green") if worker["alive"] else Text("lost", style="red"),
            f"{worker['busy']} of {worker['slots']}",
            "" if worker["memory"] is None else f"{worker['memory'] / _MIB:,.0f} MiB",
            text(", ".join(worker["queues"])),
            text(", ".join(f"{job['job_id']} ({job['phase']})" for job in worker["jobs"])),
        )
        for worker in found
    )
    show(table(["WORKER", "STATE", "BUSY", "MEMORY", "QUEUES", "JOBS"], rows))


@click.command()
@click.argument("kind", type=_KINDS)
@click.argument("name")
@click.option("--reason", default="", help="Shown wherever something waits for it.")
@remote
def pause(client: Client, kind: str, name: str, *, reason: str, as_json: bool) -> None:
    """Let nothing start in a queue or on a database, a schedule not fire, or a pending job not run.

    What runs goes on.
    """
    call = {
        "queue": client.pause_queue,
        "database": client.pause_database,
        "schedule": client.pause_schedule,
        "job": client.pause_job,
    }
    _told(call[kind](name, reason), kind, name, "is paused", as_json)


@click.command()
@click.argument("kind", type=_KINDS)
@click.argument("name")
@remote
def resume(client: Client, kind: str, name: str, *, as_json: bool) -> None:
    """Undo a pause."""
    call = {
        "queue": client.resume_queue,
        "database": client.resume_database,
        "schedule": client.resume_schedule,
        "job": client.resume_job,
    }
    _told(call[kind](name), kind, name, "goes on", as_json)


def _told(answer: Any, kind: str, name: str, what: str, as_json: bool) -> None:
    if as_json:
        print_json(getattr(answer, "raw", answer))
    else:
        click.echo(f"{kind} {text(name)} {what}")


def _standing(it: Mapping[str, Any]) -> Text:
    if it["paused"]:
        return Text(f"paused: {text(it['reason'])}" if it["reason"] else "paused", style="yellow")
    if it.get("slowed_until"):
        until = datetime.fromisoformat(it["slowed_until"]).strftime("%H:%M:%S UTC")
        return Text(f"slowed until {until}: {text(it['slowed_reason'])}", style="yellow")
    return Text("open")


def _of(most: int) -> str:
    return f" of {most:,}" if most else ""
