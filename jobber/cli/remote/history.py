"""``jobber events``: what happened to a job, and where its result comes from."""

from __future__ import annotations

from datetime import datetime

import click
from rich.text import Text

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import print_json, show, table, text
from jobber.client import Client

_COLOURS = {"error": "red", "warning": "yellow", "debug": "dim"}


@click.command()
@click.argument("job_id")
@click.option(
    "--level", type=click.Choice(["debug", "info", "warning", "error"]), help="Without those that matter less."
)
@remote
def events(client: Client, job_id: str, *, level: str | None, as_json: bool) -> None:
    """Tell what happened to a job: every change of its state, every attempt, what its worker logged."""
    found = client.events(job_id, level=level)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            _at(event["at"]),
            Text(event["event"], style=_COLOURS.get(event["level"], "")),
            str(event["attempt"] or ""),
            text(event["worker"]),
            text(event["message"]),
        )
        for event in found
    )
    show(table(["AT (UTC)", "EVENT", "ATTEMPT", "WORKER", "MESSAGE"], rows))


def _at(at: str) -> str:
    """Return a time to the millisecond: what happens within a second has an order, too."""
    return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
