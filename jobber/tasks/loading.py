"""From directories of ``.sql`` files to a set of tasks, or to one error that tells everything that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jobber.config import Settings
from jobber.config.problems import nearest
from jobber.errors import TaskFileError
from jobber.sqltext import Statement, parse
from jobber.tasks import files, lint, tags
from jobber.tasks.cron import schedule_problems
from jobber.tasks.model import Task


class TaskSet(Mapping[str, Task]):
    """The tasks of an instance by name, in alphabetical order.

    Parameters:
        tasks: no two of one name.
        default_queue: where jobs of a task without a queue go.
        warn: gives the ``warnings``.
    """

    def __init__(self, tasks: Iterable[Task], default_queue: str, warn: Callable[[], Iterable[str]] = tuple) -> None:
        self._warn = warn
        self._tasks = {task.name: task for task in sorted(tasks, key=lambda task: task.name)}
        named = {task.queue for task in self._tasks.values() if task.queue is not None}
        #: The default queue, then every other one that a task names.
        self.queues: tuple[str, ...] = (default_queue, *sorted(named - {default_queue}))
        #: SHA-256, hex, of all that the files say; equal for equal files wherever they lie.
        self.version: str = _digest(self._tasks.values())

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is no mistake, but should be told at start: text with file and line.

        Looked for when it is first asked for, so that processes that do not tell it do not pay for it.
        """
        return tuple(self._warn())

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _digest(tasks: Iterable[Task]) -> str:
    digest = hashlib.sha256()
    for task in tasks:
        told = [(field.name, getattr(task, field.name)) for field in fields(task) if field.name not in _NOT_TOLD]
        digest.update(repr(told).encode())
    return digest.hexdigest()


#: Where a task was found, and what follows from its SQL.
_NOT_TOLD = frozenset({"file", "line", "statements", "version"})


def load(directories: Sequence[Path], settings: Settings) -> TaskSet:
    """Read every ``*.sql`` file of ``directories`` (not of folders inside of them).

    Raises:
        TaskFileError: with every problem found, each with its file and line; ``details["problems"]`` lists them.
    """
    loader = _Loader(settings)
    if not directories:
        loader.problems.append("no directory of .sql files is named; give one with --sql-directory")
    for directory in dict.fromkeys(path.resolve() for path in directories):
        loader.read_directory(directory)
    if loader.problems:
        raise TaskFileError(
            loader.problems[0]
            if len(loader.problems) == 1
            else f"{len(loader.problems)} problems in task files\n"
            + "\n".join(f"  {text}" for text in loader.problems),
            problems=loader.problems,
        )
    tasks = [task for task, _ in loader.loaded]
    return TaskSet(tasks, settings.app.default_queue, partial(_warnings, loader.loaded))


class _Loader:
    """Collects tasks and problems, file after file."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[str] = []
        self.loaded: list[tuple[Task, files.Query]] = []  # what is right
        self._places: dict[str, tuple[Path, int]] = {}  # of every name, its task right or wrong

    def read_directory(self, directory: Path) -> None:
        try:
            found = sorted(path for path in directory.iterdir() if path.suffix == ".sql" and path.name[0] != ".")
        except OSError as error:
            self.problems.append(f"{directory}: cannot be read: {error.strerror}")
            return
        names, problems = len(self._places), len(self.problems)
        for file in found:
            if file.is_file():
                self.read_file(file)
        if len(self._places) == names and len(self.problems) == problems:
            self.problems.append(
                f"{directory}: holds no task; a task is a query after a line '-- name: NAME' in a file *.sql"
            )

    def read_file(self, file: Path) -> None:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            self.problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError:
            self.problems.append(f"{file}: is not UTF-8 text")
            return
        queries, errors = files.split(text)
        noted = [(error.details["line"], error.details.get("task"), error.message) for error in errors]
        for query in queries:
            if earlier := self._places.get(query.name):
                place = f"line {earlier[1]}" if earlier[0] == file else f"{earlier[0]}:{earlier[1]}"
                noted.append((query.line, query.name, f"a task of this name stands in {place} already"))
                continue
            self._places[query.name] = (file, query.line)
            task, problems = self._task(query, file)
            noted += [(line, query.name, problem) for line, problem in problems]
            if task is not None:
                self.loaded.append((task, query))
        for line, name, problem in sorted(noted, key=lambda note: note[0]):
            self.problems.append(f"{file}:{line}: {f'task {name}: ' if name else ''}{problem}")

    def _task(self, query: files.Query, file: Path) -> tuple[Task | None, list[tuple[int, str]]]:
        comments = (*query.comments, *(comment for comment in query.inner if tags.counts_anywhere(comment[1])))
        values, description, problems = tags.read(comments, self.settings)
        wrong_db = "db" in values and not values["db"]
        databases: tuple[str, ...] = values.pop("db", None) or tuple(self.settings.databases)
        results: tuple[str, ...] = values.pop("results", None) or tuple(self.settings.results)
        params = tuple(values.pop("param", ()))
        engines = tuple(dict.fromkeys(self.settings.databases[name].engine for name in databases))
        statements, wrong = _statements(query, engines, any_of_them=wrong_db)
        problems += wrong
        if statements and not problems:
            any_statement = next(iter(statements.values()))
            problems += [(query.line, problem) for problem in _param_problems(params, any_statement)]
            problems += [(query.line, problem) for problem in _parameter_problems(query, any_statement)]
            problems += [
                (query.line, problem) for problem in schedule_problems(query.name, values, params, any_statement)
            ]
        if problems:
            return None, problems
        sql = next(iter(statements.values())).sql
        return (
            Task(
                name=query.name,
                description="\n".join(description).strip(),
                sql=sql,
                version=hashlib.sha256(sql.encode()).hexdigest(),
                file=file,
                line=query.line,
                statements=statements,
                databases=databases,
                results=results,
                params=params,
                **values,
            ),
            [],
        )


def _warnings(loaded: Iterable[tuple[Task, files.Query]]) -> Iterator[str]:
    for task, query in loaded:
        # The statement begins where the query's text does: that has no empty lines in front.
        in_sql = [(query.sql_line + line - 1, text) for line, text in lint.warnings(task.statements)]
        for line, text in (*tags.warnings(query.comments), *in_sql):
            yield f"{task.file}:{line}: task {task.name}: {text}"


def _statements(
    query: files.Query, engines: Sequence[str], *, any_of_them: bool
) -> tuple[dict[str, Statement], list[tuple[int, str]]]:
    """Return the statement for each engine, and line and text of what is wrong with them.

    With ``any_of_them`` it is not known which engines are meant: only what is wrong on every one is told.
    """
    statements: dict[str, Statement] = {}
    refused: dict[tuple[int, str], list[str]] = {}
    for engine in engines:
        try:
            statements[engine] = parse(query.sql, engine)
        except TaskFileError as error:
            refused.setdefault((query.sql_line + error.details["line"] - 1, error.message), []).append(engine)
    if any_of_them:
        refused = {problem: by for problem, by in refused.items() if len(by) == len(engines)}
    if refused:
        only = bool(statements) or len(refused) > 1
        return {}, [
            (line, f"{message} (on {', '.join(engines)})" if only else message)
            for (line, message), engines in refused.items()
        ]
    counts = {engine: statement.count for engine, statement in statements.items()}
    if len(set(counts.values())) > 1 and not any_of_them:
        seen = ", ".join(f"{count} on {engine}" for engine, count in counts.items())
        return {}, [
            (
                query.line,
                f"the number of placeholders depends on the engine ({seen}); write them as :name, which is the same "
                "everywhere, or name the databases with a db tag",
            )
        ]
    return statements, []


def _param_problems(params: Sequence[Any], statement: Statement) -> Iterator[str]:
    """Hold the ``param`` tags against the placeholders."""
    seen: set[str] = set()
    for param in params:
        if param.name in seen:
            yield f"param: {param.name} is declared twice"
        elif statement.names and param.name not in statement.names:
            yield f"param: there is no placeholder :{param.name}{nearest(param.name, statement.names)}"
        seen.add(param.name)
    if params and not statement.names and len(params) != statement.count:
        yield (
            f"param: {len(params)} {'is' if len(params) == 1 else 'are'} declared, but the query has {statement.count} "
            f"{'placeholder' if statement.count == 1 else 'placeholders'}; where these are positional each needs one, "
            "in their order"
        )


def _parameter_problems(query: files.Query, statement: Statement) -> Iterator[str]:
    """Hold the list after the name, ``-- name: x(a, b)``, against the placeholders."""
    if query.parameters is not None and statement.names and set(query.parameters) != set(statement.names):
        yield (
            f"the list after the name says ({', '.join(query.parameters)}), but the query's placeholders are "
            f"{', '.join(statement.names)}"
        )
