"""Groups of jobs: schedule, look, wait, cancel."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.api.blueprint import Blueprint, answers, path_id, service
from jobber.api.envelopes import success
from jobber.api.idempotency import once
from jobber.api.requests import CancelGroupQuery, GroupBody, GroupQuery
from jobber.api.schemas import GroupAnswer
from jobber.completion import GroupRequest, JobRequest
from jobber.errors import (
    BacklogFull,
    Draining,
    GroupIsFinished,
    GroupIsLive,
    JobIsLive,
    StateUnavailable,
    UnknownGroup,
)
from jobber.jobs import Group
from jobber.store import Receipt

blueprint = Blueprint("groups", __name__)


def _known(group_id: str) -> str:
    return path_id(group_id, UnknownGroup, "group")


@blueprint.operation(
    "POST",
    "/groups",
    answer=GroupAnswer,
    body=GroupBody(),
    errors=(JobIsLive, GroupIsLive, BacklogFull, StateUnavailable, Draining),
    keyed=True,
)
def submit(body: dict[str, Any]) -> Response:
    """Schedule a group of jobs

    Once this is answered, all of them are stored durably and will run; after an error none is, except that nobody can
    tell after `state_unavailable` or a lost connection: all are, or none. The callback runs when the others are
    finished, whatever has become of them.
    """
    jobs = [JobRequest(**job) for job in body.pop("jobs")]
    callback = JobRequest(**body.pop("callback")) if "callback" in body else None
    request = GroupRequest(jobs=jobs, callback=callback, **body)

    def act(receipt: Receipt | None) -> Group:
        try:
            return service().submit_group(request, receipt=receipt)
        except JobIsLive as live:
            raise _placed(live, request) from None

    return once(act, lambda group: {"status": "success", "data": answers().group(group)})


def _placed(live: JobIsLive, request: GroupRequest) -> JobIsLive:
    """Return an error about a live job with the place that its ID has in the request."""
    ids = {f"jobs[{place}].job_id": job.job_id for place, job in enumerate(request.jobs)}
    if request.callback:
        ids["callback.job_id"] = request.callback.job_id
    field = next(place for place, job_id in ids.items() if job_id == live.job.job_id)
    placed = JobIsLive(f"{field}: {live.message}", live.job)
    placed.details["field"] = field
    return placed


@blueprint.operation(
    "GET", "/groups/<group_id>", answer=GroupAnswer, query=GroupQuery(), errors=(UnknownGroup, StateUnavailable)
)
def status(query: dict[str, Any], group_id: str) -> Response:
    """The status of a group and its jobs

    With `wait`, the answer comes as soon as all jobs are finished; at once where too many callers wait already. The
    callback is not waited for.
    """
    of, wait, jobs = service(), query["wait"], query["jobs"]
    group = of.wait_group(_known(group_id), wait, jobs=jobs) if wait else of.group(_known(group_id), jobs=jobs)
    return success(answers().group(group, of.holds(group.callback) if group.callback else None))


@blueprint.operation(
    "DELETE",
    "/groups/<group_id>",
    answer=GroupAnswer,
    query=CancelGroupQuery(),
    errors=(UnknownGroup, GroupIsFinished, JobIsLive, StateUnavailable),
)
def cancel(query: dict[str, Any], group_id: str) -> Response:
    """Cancel the jobs of a group

    Pending jobs are CANCELLED at once, running ones asked to stop. The callback is not cancelled: it runs when all jobs
    are finished.
    """
    return success(answers().group(service().cancel_group(_known(group_id), purge=query["purge"])))
