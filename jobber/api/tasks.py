"""Tasks, and the jobs that are made of them."""

from __future__ import annotations

import re
from typing import Any

from flask import Response

from jobber.answers import Answers
from jobber.api import accepted, jsontext
from jobber.api.blueprint import Blueprint, answers, service
from jobber.api.envelopes import success
from jobber.api.idempotency import once
from jobber.api.requests import JobBody, TaskQuery
from jobber.api.schemas import JobAnswer, TaskAnswer, TasksAnswer
from jobber.api.shortcut import Shortcut
from jobber.completion import JobRequest
from jobber.errors import BacklogFull, Draining, InvalidRequest, JobIsLive, StateUnavailable, UnknownTask
from jobber.jobs import Job
from jobber.service import Service

blueprint = Blueprint("tasks", __name__)
_JOB = JobBody()


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
    body=_JOB,
    errors=(UnknownTask, JobIsLive, BacklogFull, StateUnavailable, Draining),
    keyed=True,
)
def submit(body: dict[str, Any], task_name: str) -> Response:
    """Schedule a job

    Once this is answered, the job is stored durably and will run; one that takes an earlier result (`max_age`) is
    finished.
    """
    wanted = _request(body, task_name)
    return once(
        lambda receipt: service().submit(wanted, receipt=receipt),
        lambda job: _accepted(answers(), job),
    )


def _request(body: dict[str, Any], task_name: str) -> JobRequest:
    """Return what is asked for. Raises InvalidRequest."""
    named = body.pop("task", task_name)
    if named != task_name:
        raise InvalidRequest(f"task: the path names {task_name!r}, the body {named!r}", field="task")
    return JobRequest(task=task_name, **body)


def _accepted(build: Answers, job: Job) -> str:
    """Return the text of the answer."""
    return f'{{"status":"success","data":{accepted.text_of(build, job)}}}\n'


def _submit(to: Service, build: Answers, task_name: str, sent: bytes) -> str | None:
    body = jsontext.loads(sent)
    loaded = _JOB.load_plain(body) if type(body) is dict else None
    return None if loaded is None else _accepted(build, to.submit(_request(loaded, task_name)))


SUBMIT = Shortcut("POST", re.compile(r"/tasks/([A-Za-z0-9_.-]{1,100})/jobs"), _submit)
