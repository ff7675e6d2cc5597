"""Jobs: look, wait, cancel, read the rows."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.api import rows as json_rows
from jobber.api.blueprint import Blueprint, answers, path_id, service
from jobber.api.envelopes import success
from jobber.api.requests import CancelQuery, QueueQuery, RowsQuery, StatusQuery
from jobber.api.schemas import JobAnswer, PendingAnswer, RowsAnswer
from jobber.errors import (
    InvalidRequest,
    JobIsFinished,
    ResultsGone,
    ResultsNotReady,
    ResultsUnavailable,
    StateUnavailable,
    UnknownJob,
)
from jobber.jobs import JOB_ID_PATTERN

blueprint = Blueprint("jobs", __name__)


def _known(job_id: str) -> str:
    return path_id(job_id, UnknownJob, "job")


@blueprint.operation(
    "GET", "/jobs/<job_id>", answer=JobAnswer, query=StatusQuery(), errors=(UnknownJob, StateUnavailable)
)
def status(query: dict[str, Any], job_id: str) -> Response:
    """The status of a job

    With `wait`, the answer comes as soon as the job is finished; at once where too many callers wait already.
    """
    of, wait = service(), query["wait"]
    job = of.wait(_known(job_id), wait) if wait else of.job(_known(job_id))
    return success(answers().job(job, of.holds(job), of.attempts(job)))


@blueprint.operation(
    "DELETE",
    "/jobs/<job_id>",
    answer=JobAnswer,
    query=CancelQuery(),
    errors=(UnknownJob, JobIsFinished, StateUnavailable),
)
def cancel(query: dict[str, Any], job_id: str) -> Response:
    """Cancel a pending or running job

    A pending job is CANCELLED at once. A running one is asked to stop: the answer says `cancel_requested`, and the job
    is CANCELLED once its query is gone.
    """
    return success(answers().job(service().cancel(_known(job_id), purge=query["purge"])))


@blueprint.operation("GET", "/jobs/queue/<queue>", answer=PendingAnswer, query=QueueQuery(), errors=(StateUnavailable,))
def pending(query: dict[str, Any], queue: str) -> Response:
    """The pending jobs of a queue, in the order in which they will run"""
    if not JOB_ID_PATTERN.fullmatch(queue):
        raise InvalidRequest(
            f"queue: {queue[:100]!r} can be no queue; names hold letters and digits (ASCII), _, : and -", field="queue"
        )
    build = answers()
    return success([build.pending(job) for job in service().pending(queue, limit=query["limit"])])


@blueprint.operation(
    "GET",
    "/jobs/<job_id>/results",
    answer=RowsAnswer,
    query=RowsQuery(),
    errors=(UnknownJob, ResultsNotReady, ResultsGone, ResultsUnavailable, StateUnavailable),
)
def results(query: dict[str, Any], job_id: str) -> Response:
    """A page of a job's rows, in the order of its query

    While a job runs again, and when that run fails or is cancelled, the rows stay those of the run before.
    """
    offset, limit = query["offset"], query["limit"]
    page = service().rows(_known(job_id), offset=offset, limit=limit)
    job, after = page.job, offset + len(page.rows)
    return success(
        json_rows.objects(job.columns, page.rows),
        columns=answers().columns(job),
        count=job.rows,
        next=after if page.rows and after < (job.rows or 0) else None,
        run=job.run,
        newest=page.newest,
    )
