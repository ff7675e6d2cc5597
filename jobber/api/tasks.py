"""Tasks, and the jobs that are made of them."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.api.blueprint import Blueprint, answers, service
from jobber.api.envelopes import success
from jobber.api.idempotency import once
from jobber.api.requests import JobBody, TaskQuery
from jobber.api.schemas import JobAnswer, TaskAnswer, TasksAnswer
from jobber.completion import JobRequest
from jobber.errors import BacklogFull, Draining, InvalidRequest, JobIsLive, StateUnavailable, UnknownTask

blueprint = Blueprint("tasks", __name__)


@blueprint.operation("GET", "/tasks", answer=TasksAnswer, query=TaskQuery())
def tasks(query: dict[str, Any]) -> Response:
    """The registered tasks, by name"""
    of = service()
    return success([answers().task(task, of.queue_of(task), sql=query["sql"]) for task in of.tasks()])


@blueprint.operation("GET", "/tasks/<task_name>", answer=TaskAnswer, query=TaskQuery(), errors=(UnknownTask,))
def task(query: dict[str, Any], task_name: str) -> Response:
    """One task"""
    of = service()
    found = of.task(task_name)
    return success(answers().task(found, of.queue_of(found), sql=query["sql"]))


@blueprint.operation(
    "POST",
    "/tasks/<task_name>/jobs",
    answer=JobAnswer,
    body=JobBody(),
    errors=(UnknownTask, JobIsLive, BacklogFull, StateUnavailable, Draining),
    keyed=True,
)
def submit(body: dict[str, Any], task_name: str) -> Response:
    """Schedule a job

    Once this is answered, the job is stored durably and will run; one that takes an earlier result (`max_age`) is
    finished.
    """
    named = body.pop("task", task_name)
    if named != task_name:
        raise InvalidRequest(f"task: the path names {task_name!r}, the body {named!r}", field="task")
    return once(
        lambda receipt: service().submit(JobRequest(task=task_name, **body), receipt=receipt),
        lambda job: {"status": "success", "data": answers().job(job)},
    )
