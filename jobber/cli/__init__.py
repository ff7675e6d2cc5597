"""The ``jobber`` command: without a subcommand it serves; the subcommands check, show off, or talk to a server."""

from __future__ import annotations

import errno
import re
import sys
from functools import cached_property
from importlib import resources
from pathlib import Path

import click

import jobber
from jobber.cli.flags import Flags
from jobber.errors import ConfigError, JobberError

_FILE = click.Path(path_type=Path)
#: Where sql-jobber and dungbeetle look when they are told nothing.
_CONFIG, _FOLDER = Path("config.toml"), Path("sql")
#: Flags of theirs that may be given as ``--flag=true``, as Go's programs take them.
_SWITCH = re.compile(r"(--(?:worker-only|new-config|version))=(?:(?P<on>1|t|true)|0|f|false)", re.IGNORECASE)


class _Command(click.Group):
    """Shows jobber's own errors as one clear message, never as a traceback.

    What a command needs is imported when that command is run: this package is part of every process.
    """

    @cached_property
    def _of_others(self) -> dict[str, click.Command]:
        """The commands that other modules define, by their names."""
        from jobber.cli.migrate import migrate_config
        from jobber.cli.remote import commands
        from jobber.demo import demo

        return {command.name or "": command for command in (*commands, demo, migrate_config)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._of_others])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._of_others.get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        taken = []
        for arg in args:
            switch = _SWITCH.fullmatch(arg)
            if switch is None:
                taken.append(arg)
            elif switch["on"]:
                taken.append(switch[1])
        return super().parse_args(ctx, taken)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except JobberError as error:
            message = error.message
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            message = f"{error.filename or 'standard output'}: {error.strerror}"
        click.echo(click.style("error: ", fg="red") + message, err=True)
        sys.exit(1)


def _default_config(_ctx: click.Context, _option: click.Parameter, value: Path | None) -> Path | None:
    return _CONFIG if value is None and _CONFIG.is_file() else value


def _folders(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the task folders: several may stand in one value, with commas between."""
    if not values and _FOLDER.is_dir():
        return (_FOLDER,)
    parts = [[value] if Path(value).exists() else value.split(",") for value in values]
    return tuple(Path(part) for several in parts for part in several if part)


@click.group(
    cls=_Command,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--config",
    type=_FILE,
    callback=_default_config,
    help="Config file.  [default: config.toml, if it is there; else the environment and the embedded defaults]",
)
@click.option(
    "--sql-directory",
    "directories",
    metavar="DIR",
    multiple=True,
    callback=_folders,
    help="Folder of .sql task files; may be repeated.  [default: sql, if it is there]",
)
@click.option(
    "--queue-name",
    "--queue",
    "queues",
    multiple=True,
    metavar="QUEUE",
    help="Queue to serve; may be repeated. One alone also gets the jobs that name no queue.  "
    "[default: the default queue and every queue that the tasks name]",
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
@click.option("--strict", is_flag=True, help="Exit when a database is still missing after start_timeout.")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    help="Seconds that running jobs get when stopping.  [default: drain_timeout of the config, 30]",
)
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
        from jobber.cli.processes import importing, leave

        with importing():
            from jobber.cli.serve import serve
        leave(serve(ctx.obj))


@cli.command(name="check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def check_command(flags: Flags, /, *, as_json: bool) -> None:
    """Check config, task files and every database, without serving.

    \b
    jobber --config config.toml --sql-directory queries check
    """
    from jobber.cli.serve import check

    sys.exit(check(flags, as_json=as_json))


@cli.command(name="reload")
@click.pass_obj
def reload_command(flags: Flags) -> None:
    """Make the running instances of this config load their task files anew."""
    from jobber.cli.serve import reload_all

    sys.exit(reload_all(flags))


def _write_config(path: Path) -> None:
    try:
        with path.open("xb") as file:
            file.write(resources.files("jobber").joinpath("config.sample.toml").read_bytes())
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; move it away first") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}; edit it, then: jobber --config {path} --sql-directory queries")


def main() -> None:
    """Run the ``jobber`` command."""
    cli(prog_name="jobber")
