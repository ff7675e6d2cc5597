"""Worker processes: who they are and what they run."""

from __future__ import annotations

from flask import Response

from jobber import answers
from jobber.api.blueprint import Blueprint, service
from jobber.api.envelopes import success
from jobber.api.figure_schemas import WorkersAnswer
from jobber.errors import StateUnavailable

blueprint = Blueprint("workers", __name__)


@blueprint.operation("GET", "/workers", answer=WorkersAnswer, errors=(StateUnavailable,))
def workers() -> Response:
    """The worker processes of all instances, by name, and what each of them runs

    One that died is listed until its jobs have been taken from it, and some time after.
    """
    return success([answers.worker(figures) for figures in service().figures.workers()])
