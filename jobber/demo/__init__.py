"""``jobber demo``: a real server, real jobs and a believable database, in a few seconds on one machine."""

from __future__ import annotations

import sys

import click

from jobber.demo.data import DEFAULT_ROWS, MAX_ROWS, MIN_ROWS


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(MIN_ROWS, MAX_ROWS),
    default=DEFAULT_ROWS,
    show_default=True,
    help="Rows of the largest table, and of the largest result.",
)
@click.option("--serve", is_flag=True, help="Set up in ./jobber-data/demo and keep serving until Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port on 127.0.0.1.  [default: a free one; with --serve 6060]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def demo(*, rows: int, serve: bool, port: int | None, as_json: bool) -> None:
    """Show jobber at work; needs no server of any kind.

    Makes a SQLite database of a marketplace, starts jobber beside it, submits jobs over HTTP, shows their progress and
    a result, and removes everything again.

    \b
    jobber demo
    jobber demo --rows 1000000
    jobber demo --serve
    """
    # Every process of jobber imports this module; only the demo draws tables.
    from jobber.demo import run

    if serve and as_json:
        raise click.UsageError("--json has nothing to tell while --serve keeps serving")
    if serve:
        run.serve(rows, port or run.SERVE_PORT)
    sys.exit(run.demo(rows, port, as_json=as_json))
