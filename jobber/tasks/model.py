"""What a task is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobber.columns import Column
from jobber.errors import QueryFailed
from jobber.jobs import Args
from jobber.sqltext import Statement
from jobber.tasks.params import Param, check


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named query with its tags."""

    name: str
    description: str
    sql: str
    version: str  # SHA-256 of the SQL, hex
    file: Path
    line: int  # of its ``-- name:``
    statements: Mapping[str, Statement]  # by engine ("postgresql", "sqlite", …) of the databases it may run on
    databases: tuple[str, ...]  # names it may run on: its ``db`` tag, or all
    results: tuple[str, ...]  # results databases it may write to: its tag, or all
    queue: str | None = None  # its ``queue`` tag, None is the default queue
    raw: bool = False  # not prepared at start
    concurrency: int = 0  # running at a time over all workers; 0 is no limit
    timeout: int | None = None  # seconds
    ttl: int | None = None  # seconds
    priority: int | None = None  # 1–10
    retries: int | None = None
    retry_on: str | None = None  # "transient" or "any"; None is the config's
    max_rows: int = 0  # 0 is no limit
    params: tuple[Param, ...] = ()
    index: tuple[str, ...] = ()  # columns to index in the result
    cron: str | None = None
    timezone: str | None = None  # of ``cron``; None is UTC

    def check_columns(self, columns: Sequence[Column]) -> None:
        """Raise QueryFailed if the ``index`` tag names a column that the result does not have."""
        names = [column.name for column in columns]
        for wanted in self.index:
            if wanted not in names:
                raise QueryFailed(
                    f'the index tag names the column "{wanted}", but the query gives {", ".join(names)}',
                    retryable=False,
                )

    def check_args(self, args: Args) -> Args:
        """Return the args of a job with every ``param`` converted to its type and defaults filled in.

        A task without ``param`` tags takes any args as they are; what does not fit its placeholders fails the job.

        Raises:
            InvalidRequest: ``field="args"``; the message names every value that is missing, unknown or of a wrong type.
        """
        if not self.params:
            return args
        statement = next(iter(self.statements.values()))
        return check(self.params, args, statement.names)
