"""Every task prepared on every database that it may run on, before the first job needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jobber.columns import named
from jobber.errors import AttemptError, SourceUnavailable
from jobber.sources.base import Source
from jobber.tasks.model import Task

#: Databases asked at a time.
_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What came of it.

    Parameters:
        prepared: statements that a database took; a task counts once for each of its databases.
        problems: file, line, task, database and the engine's words for each one that was refused.
        unavailable: databases that could not be asked (to the end), with the reason. No fault of a task.
    """

    prepared: int
    problems: list[str]
    unavailable: dict[str, str]


def prepare(tasks: Iterable[Task], sources: Mapping[str, Source]) -> Preparation:
    """Prepare ``tasks`` (but ``raw`` ones), the databases beside each other, the tasks of one after each other.

    Parameters:
        tasks: what to prepare.
        sources: every database that one of them may run on, by name.
    """
    by_database: dict[str, list[Task]] = {}
    for task in tasks:
        if not task.raw:
            for name in task.databases:
                by_database.setdefault(name, []).append(task)
    names = sorted(by_database)
    if not names:
        return Preparation(prepared=0, problems=[], unavailable={})
    with ThreadPoolExecutor(min(_THREADS, len(names)), thread_name_prefix="prepare") as pool:
        outcomes = list(pool.map(lambda name: _prepare_on(name, sources[name], by_database[name]), names))
    return Preparation(
        prepared=sum(prepared for prepared, _, _ in outcomes),
        problems=[problem for _, problems, _ in outcomes for problem in problems],
        unavailable={name: why for name, (_, _, why) in zip(names, outcomes, strict=True) if why is not None},
    )


def _prepare_on(name: str, source: Source, tasks: Sequence[Task]) -> tuple[int, list[str], str | None]:
    """Return how many were prepared, the problems, and why the database could not be asked if it could not."""
    prepared = 0
    problems: list[str] = []
    for task in tasks:
        try:
            columns = source.describe(task.statements[source.engine])
            if columns is not None:
                task.check_columns(named(columns))
        except SourceUnavailable as error:
            return prepared, problems, error.message
        except AttemptError as error:
            problems.append(f"{task.file}:{task.line}: task {task.name} on database {name}: {error.message}")
        else:
            prepared += 1
    return prepared, problems, None
