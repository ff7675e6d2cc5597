"""Tasks, and the jobs that are made of them."""

from __future__ import annotations

import difflib
from typing import Any

from flask import Response

from jobber.api.answers import success
from jobber.api.blueprint import Blueprint, answers, service
from jobber.api.schemas import JobAnswer, JobBody, TaskAnswer, TaskQuery, TasksAnswer
from jobber.errors import Draining, InvalidRequest, JobIsLive, StateUnavailable, UnknownTask
from jobber.service import JobRequest, Service
from jobber.tasks import Task

blueprint = Blueprint("tasks", __name__)

#: Names of tasks are not longer; a longer one is not compared with them.
_LONGEST_NAME = 100


@blueprint.operation("GET", "/tasks", answer=TasksAnswer, query=TaskQuery())
def tasks(query: dict[str, Any]) -> Response:
    """The registered tasks, by name"""
    of = service()
    return success([answers().task(task, of.queue_of(task), sql=query["sql"]) for task in of.tasks()])


@blueprint.operation("GET", "/tasks/<task_name>", answer=TaskAnswer, query=TaskQuery(), errors=(UnknownTask,))
def task(query: dict[str, Any], task_name: str) -> Response:
    """One task"""
    of = service()
    found = _task(of, task_name)
    return success(answers().task(found, of.queue_of(found), sql=query["sql"]))


@blueprint.operation(
    "POST",
    "/tasks/<task_name>/jobs",
    answer=JobAnswer,
    body=JobBody(),
    errors=(UnknownTask, JobIsLive, StateUnavailable, Draining),
)
def submit(body: dict[str, Any], task_name: str) -> Response:
    """Schedule a job

    Once this is answered, the job is stored durably and will run.
    """
    named = body.pop("task", task_name)
    if named != task_name:
        raise InvalidRequest(f"task: the path names {task_name!r}, the body {named!r}", field="task")
    of, request = service(), JobRequest(**body)
    try:
        job = of.submit(task_name, request)
    except UnknownTask:
        raise _unknown(of, task_name) from None
    except InvalidRequest as error:
        raise _all_databases(of, task_name, request) or error from None
    return success(answers().job(job))


def _task(of: Service, name: str) -> Task:
    try:
        return of.task(name)
    except UnknownTask:
        raise _unknown(of, name) from None


def _unknown(of: Service, name: str) -> UnknownTask:
    """Return the error that a name without a task deserves, with the nearest one that has one."""
    near = difflib.get_close_matches(name[:_LONGEST_NAME], [task.name for task in of.tasks()], n=1)
    message = f"no task named {name[:_LONGEST_NAME]!r} is loaded"
    if near:
        return UnknownTask(f"{message}; did you mean {near[0]}?", task=name, nearest=near[0])
    return UnknownTask(f"{message}; GET /tasks lists those that are", task=name)


def _all_databases(of: Service, name: str, request: JobRequest) -> InvalidRequest | None:
    """Return one error for both databases, where both are wrong: the service stops at the first."""
    task = of.task(name)
    if request.db in (None, *task.databases) or request.results in (None, *task.results):
        return None
    problems = {
        "db": f"task {name} does not run on {request.db!r}; it may use {', '.join(task.databases)}",
        "results": f"task {name} does not write to {request.results!r}; it may use {', '.join(task.results)}",
    }
    message = "; ".join(f"{field}: {problem}" for field, problem in problems.items())
    return InvalidRequest(message, field="db", fields=problems)
