"""Commands that ask a running server: submit, status, results, cancel, queues, schedules, stats and the like.

On a terminal there are colours and a progress bar; anywhere else plain text, a record a line, never cut.
"""

from __future__ import annotations

import click

from jobber.cli.remote.groups import groups
from jobber.cli.remote.history import events
from jobber.cli.remote.jobs import queue, status, submit
from jobber.cli.remote.lists import cancel, jobs, retry
from jobber.cli.remote.operations import databases, pause, queues, resume, workers
from jobber.cli.remote.rows import results
from jobber.cli.remote.schedules import schedules
from jobber.cli.remote.stats import stats
from jobber.cli.remote.tasks import tasks

#: For the program's group of commands.
commands: tuple[click.Command, ...] = (
    submit,
    status,
    events,
    results,
    jobs,
    cancel,
    retry,
    tasks,
    queue,
    groups,
    schedules,
    queues,
    databases,
    workers,
    pause,
    resume,
    stats,
)

__all__ = ["commands"]
