"""Every task prepared on every database that it may run on, before the first job needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jobber import sources as source_databases
from jobber.columns import named
from jobber.errors import AttemptError, SourceUnavailable
from jobber.sources.base import Source
from jobber.sqltext import Statement
from jobber.tasks.model import Task

#: Databases asked at a time.
_THREADS = 16
#: Seconds in which a database must show that it answers, connecting included.
ANSWER_TIME = 30.0


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
        sources: every database that one of them may run on, by name. One that needs to prepare nothing is asked a
            query of its own, so that ``unavailable`` speaks of all of them.
    """
    by_database: dict[str, list[Task]] = {name: [] for name in sources}
    for task in tasks:
        if not task.raw:
            for name in task.databases:
                by_database[name].append(task)
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


def prepare_on(name: str, source: Source, tasks: Iterable[Task], progress: Callable[[], None]) -> Preparation:
    """Prepare those of ``tasks`` that may run on one database, one after the other.

    Parameters:
        progress: called before each of them.
    """
    mine = [task for task in tasks if not task.raw and name in task.databases]
    prepared, problems, why = _prepare_on(name, source, mine, progress)
    return Preparation(prepared=prepared, problems=problems, unavailable={} if why is None else {name: why})


def _prepare_on(
    name: str, source: Source, tasks: Sequence[Task], progress: Callable[[], None] = lambda: None
) -> tuple[int, list[str], str | None]:
    """Return how many were prepared, the problems, and why the database could not be asked if it could not."""
    prepared = 0
    problems: list[str] = []
    answered = False
    for task in tasks:
        progress()
        statement = task.statements[source.engine]
        try:
            columns = source.describe(statement)
            if columns is not None:
                answered = True
                task.check_columns(named(columns))
        except SourceUnavailable as error:
            return prepared, problems, error.message
        except AttemptError as error:
            answered = True
            said = error.message.removeprefix(f"{name}: ") + _hint(statement, source.engine)
            problems.append(f"{task.file}:{task.line}: task {task.name} on database {name}: {said}")
        else:
            prepared += 1
    return prepared, problems, None if answered else _silence(source)


def _silence(source: Source) -> str | None:
    """Return why a database does not answer; None if it does, whatever it says."""
    try:
        source_databases.ping(source, ANSWER_TIME)
    except SourceUnavailable as error:
        return error.message
    return None


def _hint(statement: Statement, engine: str) -> str:
    """Return what the words of PostgreSQL do not tell those who come from MySQL."""
    if engine == "postgresql" and not statement.count and "?" in statement.sql:
        return "; if ? stands for an argument: on PostgreSQL it is an operator, and placeholders are $1 or :name"
    return ""
