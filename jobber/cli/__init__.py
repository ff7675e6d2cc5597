"""The ``jobber`` command: without a subcommand it serves; the subcommands check, show off, or talk to a server."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import click

import jobber
from jobber.cli.processes import leave
from jobber.cli.remote import commands
from jobber.cli.serve import Flags, check, reload_all, serve
from jobber.demo import demo
from jobber.errors import JobberError

_FILE = click.Path(path_type=Path)


class _Command(click.Group):
    """Shows jobber's own errors as one clear message, never as a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except JobberError as error:
            click.echo(click.style("error: ", fg="red") + error.message, err=True)
            ctx.exit(1)


@click.group(
    cls=_Command,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--config", type=_FILE, help="Config file; without it, the environment and the embedded defaults.")
@click.option(
    "--sql-directory", "directories", type=_FILE, multiple=True, help="Folder of .sql task files; may be repeated."
)
@click.option(
    "--queue-name",
    "--queue",
    "queues",
    multiple=True,
    metavar="QUEUE",
    help="Queue to serve; may be repeated.  [default: the default queue and every queue that the tasks name]",
)
@click.option("--worker-name", default="worker", show_default=True, help="Name of the workers, as job answers show it.")
@click.option(
    "--worker-concurrency",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Jobs that one worker process runs at a time.",
)
@click.option("--worker-processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes.")
@click.option("--worker-only", is_flag=True, help="Do not answer HTTP.")
@click.option("--server", default="127.0.0.1:6060", show_default=True, metavar="HOST:PORT", help="Listen here.")
@click.option(
    "--insecure", is_flag=True, help="Allow an address that other machines reach; there is no authentication."
)
@click.option("--strict", is_flag=True, help="Exit when a database is down at start, instead of trying on.")
@click.option("--drain-timeout", type=click.FloatRange(min=0), help="Seconds that running jobs get when stopping.")
@click.option("--new-config", is_flag=True, help="Write a commented config.toml into this folder, and exit.")
@click.version_option(jobber.__version__, prog_name="jobber")
@click.pass_context
def cli(ctx: click.Context, /, *, new_config: bool, **flags: object) -> None:
    """A distributed job queue for SQL read queries.

    Without a command, serves: answers HTTP and runs jobs, until SIGTERM or Ctrl-C. SIGHUP (or `jobber reload`) loads
    the task files anew.
    """
    ctx.obj = Flags(**flags)  # type: ignore[arg-type]  # click checked them
    if new_config:
        _write_config(Path("config.toml"))
    elif ctx.invoked_subcommand is None:
        leave(serve(ctx.obj))


@cli.command(name="check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def check_command(flags: Flags, /, *, as_json: bool) -> None:
    """Check config, task files and every database, without serving.

    \b
    jobber --config config.toml --sql-directory queries check
    """
    sys.exit(check(flags, as_json=as_json))


@cli.command(name="reload")
@click.pass_obj
def reload_command(flags: Flags) -> None:
    """Make the running instances of this config load their task files anew."""
    sys.exit(reload_all(flags))


for command in (*commands, demo):
    cli.add_command(command)


def _write_config(path: Path) -> None:
    try:
        with path.open("x") as file:
            file.write(resources.files("jobber").joinpath("config.sample.toml").read_text())
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; move it away first") from None
    click.echo(f"wrote {path}; edit it, then: jobber --config {path} --sql-directory queries")


def main() -> None:
    """Run the ``jobber`` command."""
    cli(prog_name="jobber")
