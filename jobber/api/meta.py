"""The server itself: who it is and whether it is alive."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response

import jobber
from jobber.api.blueprint import Blueprint, service
from jobber.api.envelopes import success
from jobber.api.schemas import HealthAnswer, ReadyAnswer, ServerAnswer
from jobber.errors import NotReady

blueprint = Blueprint("server", __name__)


@blueprint.operation("GET", "/", answer=ServerAnswer)
def server() -> Response:
    """Name and version"""
    return success({"name": "jobber", "version": jobber.__version__})


@blueprint.operation("GET", "/healthz", answer=HealthAnswer)
def health() -> Response:
    """Whether this process answers; it asks no database"""
    return success({"alive": True})


@blueprint.operation("GET", "/readyz", answer=ReadyAnswer, errors=(NotReady,))
def readiness() -> Response:
    """Whether this instance can accept jobs now, and which of its databases and servers do not answer

    503 while the state database does not answer or this instance is stopping, else 200. It answers within about 2 s.
    """
    report = service().readiness()
    facts: dict[str, Any] = {
        "ready": report.ready,
        "draining": report.draining,
        "dependencies": [asdict(found) for found in report.dependencies],
    }
    if not report.ready:
        raise NotReady(f"not ready: {report.why}", **facts)
    return success(facts)
