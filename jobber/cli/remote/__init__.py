"""Commands that ask a running server: submit, status, results, cancel, tasks, queue, groups.

On a terminal there are colours and a progress bar; anywhere else plain text, a record a line, never cut.
"""

from __future__ import annotations

import click

from jobber.cli.remote.groups import groups
from jobber.cli.remote.jobs import cancel, queue, status, submit
from jobber.cli.remote.rows import results
from jobber.cli.remote.tasks import tasks

#: For the program's group of commands.
commands: tuple[click.Command, ...] = (submit, status, results, cancel, tasks, queue, groups)

__all__ = ["commands"]
