"""Lists of jobs."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.api.blueprint import Blueprint, answers, service
from jobber.api.envelopes import success
from jobber.api.list_schemas import ListAnswer, ListQuery, cursor_of, job_filter
from jobber.errors import StateUnavailable

blueprint = Blueprint("lists", __name__)


@blueprint.operation("GET", "/jobs", answer=ListAnswer, query=ListQuery(), errors=(StateUnavailable,))
def jobs(query: dict[str, Any]) -> Response:
    """Jobs, the newest submission first

    Pending, running and finished ones, every run of an ID; all conditions must hold. `next` leads to the next page,
    whatever is submitted meanwhile. What holds a job back and its attempts are not looked up: its own status tells.
    """
    build = answers()
    page = service().lists.page(job_filter(query), below=query.get("cursor"), limit=query["limit"])
    return success([build.job(job) | {"run": job.run} for job in page.jobs], next=cursor_of(page.below))
