"""Jobs: look, wait, cancel, read the rows."""

from __future__ import annotations

import re
from typing import Any

from flask import Response

from jobber.answers import Answers
from jobber.api import rows as json_rows
from jobber.api.blueprint import Blueprint, answers, path_id, path_queue, service
from jobber.api.envelopes import success, text_of
from jobber.api.idempotency import once
from jobber.api.requests import CancelQuery, PauseBody, QueueQuery, RowsQuery, StatusQuery
from jobber.api.schemas import JobAnswer, PendingAnswer, RowsAnswer
from jobber.api.shortcut import Shortcut
from jobber.errors import (
    BacklogFull,
    Draining,
    JobIsFinished,
    JobIsLive,
    JobIsStarted,
    ResultsGone,
    ResultsNotReady,
    ResultsUnavailable,
    StateUnavailable,
    UnknownJob,
    UnknownTask,
)
from jobber.jobs import JOB_ID_PATTERN, Job
from jobber.service import Service

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
    return success(_told(of, answers(), job))


def _told(of: Service, build: Answers, job: Job) -> dict[str, Any]:
    """Return all that is known of a job."""
    return build.job(job, of.holds(job), of.attempts(job), of.figures.outlook(job))


def _status(of: Service, build: Answers, job_id: str, _: bytes) -> str:
    return text_of({"status": "success", "data": _told(of, build, of.job(job_id))})


STATUS = Shortcut("GET", re.compile(rf"/jobs/({JOB_ID_PATTERN.pattern})"), _status)


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


@blueprint.operation(
    "POST",
    "/jobs/<job_id>/pause",
    answer=JobAnswer,
    body=PauseBody(),
    errors=(UnknownJob, JobIsStarted, JobIsFinished, StateUnavailable),
)
def pause(body: dict[str, Any], job_id: str) -> Response:
    """Hold a pending job back until it is resumed

    It keeps its place and all that it waits for. Another pause changes the reason.
    """
    job = service().pause(_known(job_id), body.get("reason", ""))
    return success(answers().job(job, service().holds(job)))


@blueprint.operation(
    "POST", "/jobs/<job_id>/resume", answer=JobAnswer, errors=(UnknownJob, JobIsFinished, StateUnavailable)
)
def resume(job_id: str) -> Response:
    """Let a paused job go on

    One that is not paused stays as it is.
    """
    job = service().resume(_known(job_id))
    return success(answers().job(job, service().holds(job)))


@blueprint.operation(
    "POST",
    "/jobs/<job_id>/retry",
    answer=JobAnswer,
    errors=(UnknownJob, UnknownTask, JobIsLive, BacklogFull, StateUnavailable, Draining),
    keyed=True,
)
def retry(job_id: str) -> Response:
    """Run a finished job again

    A new run under the same ID, with the task, the arguments and the options of its newest run, from now on: outside
    its group, and without its start time. It waits anew for what it depends on. An older result stays readable until
    the new one is published.
    """
    return once(
        lambda receipt: service().retry(_known(job_id), receipt=receipt),
        lambda job: {"status": "success", "data": answers().job(job)},
    )


@blueprint.operation("GET", "/jobs/queue/<queue>", answer=PendingAnswer, query=QueueQuery(), errors=(StateUnavailable,))
def pending(query: dict[str, Any], queue: str) -> Response:
    """The pending jobs of a queue, in the order in which they will run"""
    build = answers()
    return success([build.pending(job) for job in service().pending(path_queue(queue), limit=query["limit"])])


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
