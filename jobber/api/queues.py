"""Queues: look, pause, resume."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber import answers
from jobber.api.blueprint import Blueprint, path_queue, service
from jobber.api.envelopes import success
from jobber.api.figure_schemas import QueueAnswer, QueuesAnswer
from jobber.api.requests import PauseBody
from jobber.errors import StateUnavailable

blueprint = Blueprint("queues", __name__)


@blueprint.operation("GET", "/queues", answer=QueuesAnswer, errors=(StateUnavailable,))
def queues() -> Response:
    """The queues, by name: those with jobs, workers, limits or a pause, and those that tasks name

    The jobs are counted at most once a second, and less often the longer that takes.
    """
    return success([answers.queue(figures) for figures in service().figures.queues()])


@blueprint.operation("GET", "/queues/<queue>", answer=QueueAnswer, errors=(StateUnavailable,))
def queue(queue: str) -> Response:
    """One queue; any name may be one"""
    return success(answers.queue(service().figures.queue(path_queue(queue))))


@blueprint.operation("POST", "/queues/<queue>/pause", answer=QueueAnswer, body=PauseBody(), errors=(StateUnavailable,))
def pause(body: dict[str, Any], queue: str) -> Response:
    """Let no job of a queue start until it is resumed

    What runs goes on. Another pause changes the reason.
    """
    return success(answers.queue(service().figures.pause_queue(path_queue(queue), body.get("reason", ""))))


@blueprint.operation("POST", "/queues/<queue>/resume", answer=QueueAnswer, errors=(StateUnavailable,))
def resume(queue: str) -> Response:
    """Let the jobs of a queue start again"""
    return success(answers.queue(service().figures.resume_queue(path_queue(queue))))
