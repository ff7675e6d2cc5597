"""The server itself: who it is and whether it is alive."""

from __future__ import annotations

from flask import Response

import jobber
from jobber.api.answers import success
from jobber.api.blueprint import Blueprint
from jobber.api.schemas import HealthAnswer, ServerAnswer

blueprint = Blueprint("server", __name__)


@blueprint.operation("GET", "/", answer=ServerAnswer)
def server() -> Response:
    """Name and version"""
    return success({"name": "jobber", "version": jobber.__version__})


@blueprint.operation("GET", "/healthz", answer=HealthAnswer)
def health() -> Response:
    """Whether this process answers; it asks no database"""
    return success({"alive": True})
