"""Source databases: look, pause, resume."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber import answers
from jobber.api.blueprint import Blueprint, service
from jobber.api.envelopes import success
from jobber.api.figure_schemas import DatabaseAnswer, DatabasesAnswer
from jobber.api.requests import PauseBody
from jobber.errors import StateUnavailable, UnknownDatabase

blueprint = Blueprint("databases", __name__)
_ERRORS = (UnknownDatabase, StateUnavailable)


@blueprint.operation("GET", "/databases", answer=DatabasesAnswer, errors=(StateUnavailable,))
def databases() -> Response:
    """The databases that jobs read, by name

    The jobs are counted at most once a second, and less often the longer that takes.
    """
    return success([answers.database(figures) for figures in service().figures.databases()])


@blueprint.operation("GET", "/databases/<database>", answer=DatabaseAnswer, errors=_ERRORS)
def database(database: str) -> Response:
    """One database"""
    return success(answers.database(service().figures.database(database)))


@blueprint.operation("POST", "/databases/<database>/pause", answer=DatabaseAnswer, body=PauseBody(), errors=_ERRORS)
def pause(body: dict[str, Any], database: str) -> Response:
    """Let no job start that reads a database until it is resumed

    What runs goes on. Another pause changes the reason. Jobs that may read another database are not sent there.
    """
    return success(answers.database(service().figures.pause_database(database, body.get("reason", ""))))


@blueprint.operation("POST", "/databases/<database>/resume", answer=DatabaseAnswer, errors=_ERRORS)
def resume(database: str) -> Response:
    """Let jobs start again that read a database"""
    return success(answers.database(service().figures.resume_database(database)))
