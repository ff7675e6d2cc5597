"""The options of the ``jobber`` command, and what follows from them."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jobber.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The command line's options, as the README of the project describes them."""

    config: Path | None
    directories: tuple[Path, ...]
    queues: tuple[str, ...]
    worker_name: str
    worker_concurrency: int
    worker_processes: int
    worker_only: bool
    server: str
    insecure: bool
    strict: bool
    drain_timeout: float | None

    def settings(self) -> Settings:
        """Return the settings of file, environment and flags. Raises ConfigError."""
        # Only here: commands that ask a server need no settings, and these take long to import.
        from jobber import config
        from jobber.config import AppSettings

        settings = config.load(self.config, os.environ)
        if len(self.queues) == 1 and settings.app.default_queue == AppSettings().default_queue:
            # As sql-jobber and dungbeetle do; else jobs without a queue would wait for a worker that nobody started.
            settings = replace(settings, app=replace(settings.app, default_queue=self.queue_names()[0]))
        if self.drain_timeout is not None:
            settings = replace(settings, app=replace(settings.app, drain_timeout=self.drain_timeout))
        return settings

    def queue_names(self) -> tuple[str, ...]:
        """Return the queues to serve. Raises UsageError for a name that no job could have."""
        from jobber.jobs import JOB_ID_PATTERN

        for name in self.queues:
            if not JOB_ID_PATTERN.fullmatch(name):
                raise click.UsageError(f"--queue-name {name!r}: names hold letters, digits, _, : and -, at most 100")
        return self.queues

    def folders(self) -> tuple[Path, ...]:
        """Return the task folders. Raises UsageError if none is given."""
        if not self.directories:
            raise click.UsageError("--sql-directory is missing: name the folder that holds your .sql task files")
        return self.directories

    def address(self) -> tuple[str, int]:
        """Return host and port to listen on. Raises UsageError, also for an address that needs ``--insecure``."""
        host, colon, port = self.server.rpartition(":")
        host = host.strip("[]")
        if not colon or not port.isdigit() or not 0 < int(port) < 65536:
            raise click.UsageError(f"--server {self.server}: write it as HOST:PORT, like 127.0.0.1:6060")
        host = host or "0.0.0.0"  # noqa: S104  # ":6060" means every address, and is refused below
        if not self.insecure and not self.worker_only and not _is_loopback(host):
            raise click.UsageError(
                f"--server {self.server}: other machines could reach this address, and jobber has no authentication "
                "yet; listen on 127.0.0.1 behind a proxy of yours, or accept the risk with --insecure"
            )
        return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
