"""``jobber migrate-config``: a config file of sql-jobber or dungbeetle in jobber's own form."""

from __future__ import annotations

import os
from pathlib import Path

import click

from jobber.errors import ConfigError


@click.command(name="migrate-config")
@click.argument("old", metavar="OLD.toml", type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="NEW.toml",
    type=click.Path(path_type=Path),
    help="Write a new file, mode 0600; - is standard output.",
)
def migrate_config(old: Path, output: Path | None) -> None:
    """Write a config file of sql-jobber or dungbeetle in jobber's own form.

    Such a file works as it is; this makes it one that can be read beside the documentation. Without --output it is
    printed, passwords and all. Comments stay, what means nothing here becomes a comment that says why, and addresses
    in the environment or in files (file:/path) stay there.

    \b
    jobber migrate-config config.toml --output jobber.toml
    jobber --config jobber.toml --sql-directory sql check
    """
    from jobber import config

    text = config.migrate(config.read(old), old, os.environ)
    if text is None:
        click.echo(f"{old} is in jobber's own form already; use it as it is: jobber --config {old}", err=True)
    elif output in (None, Path("-")):
        click.echo(text, nl=False)
    else:
        _write(output, text)
        click.echo(f"wrote {output}; check it: jobber --config {output} --sql-directory DIR check")


def _write(path: Path, text: str) -> None:
    """Write a file that is not there yet and that only its owner may read: it holds passwords."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; name another file with --output") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
