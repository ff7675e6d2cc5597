"""Many jobs in one request, an answer for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response

from jobber.answers import Answers
from jobber.api import accepted, jsontext
from jobber.api.blueprint import Blueprint, answers, service
from jobber.api.bulk_schemas import BulkAnswer, BulkBody, Item
from jobber.api.envelopes import respond_text, success
from jobber.api.errors import envelope_of
from jobber.api.idempotency import once
from jobber.api.list_schemas import ChangeAnswer, ChangeBody, cursor_of, job_filter
from jobber.changing import Tally
from jobber.completion import JobRequest
from jobber.errors import Draining, JobberError, StateUnavailable
from jobber.jobs import Job

blueprint = Blueprint("bulk", __name__)


@blueprint.operation(
    "POST", "/jobs", answer=BulkAnswer, body=BulkBody(), errors=(StateUnavailable, Draining), keyed=True
)
def create(body: dict[str, Any]) -> Response:
    """Schedule many jobs

    Each is accepted or refused by itself, as if it came alone; the answer has an envelope for each, in their order.
    Jobs may depend on others of the same request, before or after them; what depends on a refused one is refused.
    """
    items: Sequence[Item] = body["jobs"]
    requests = [item.loaded if isinstance(item.loaded, JobberError) else JobRequest(**item.loaded) for item in items]
    wrong = (item.sent.get("job_id") for item in items if _is_wrong(item))
    lost = {job_id for job_id in wrong if isinstance(job_id, str)}  # of a wrong item, anything may stand there
    return once(
        lambda receipt: service().bulk.create(requests, lost=lost, receipt=receipt),
        lambda outcomes: outcomes_text(outcomes, answers()),
    )


def _is_wrong(item: Item) -> bool:
    return isinstance(item.loaded, JobberError) and isinstance(item.sent, dict)


def outcomes_text(outcomes: Sequence[Job | JobberError], build: Answers) -> str:
    """Return the answer that tells what has become of each item; item by item, as text takes a tenth of objects."""
    refused = sum(isinstance(outcome, JobberError) for outcome in outcomes)
    items = ",".join([_envelope(outcome, build) for outcome in outcomes])
    counts = f'"accepted":{len(outcomes) - refused},"refused":{refused}'
    return f'{{"status":"success","data":[{items}],{counts}}}\n'


def _envelope(outcome: Job | JobberError, build: Answers) -> str:
    if isinstance(outcome, JobberError):
        return jsontext.dumps(envelope_of(outcome, build))
    return f'{{"status":"success","data":{accepted.text_of(build, outcome)}}}'


@blueprint.operation("POST", "/jobs/cancel", answer=ChangeAnswer, body=ChangeBody(), errors=(StateUnavailable,))
def cancel(body: dict[str, Any]) -> Response:
    """Cancel many jobs

    Of some IDs, each with an answer of its own, or all pending and running ones that a filter matches. Some hundred at
    a time: between them claims and submissions go on.
    """
    of = service().changes
    if "job_ids" in body:
        return respond_text(outcomes_text(of.cancel(body["job_ids"]), answers()))
    dry_run = body.get("dry_run", False)
    return _changed(of.cancel_all(job_filter(body["filter"]), dry_run=dry_run, below=body.get("cursor")), dry_run)


@blueprint.operation("POST", "/jobs/retry", answer=ChangeAnswer, body=ChangeBody(), errors=(StateUnavailable, Draining))
def retry(body: dict[str, Any]) -> Response:
    """Run many finished jobs again

    Of some IDs, each with an answer of its own, or all that a filter matches and that were not submitted again since.
    Where the filter names no state, those that failed or were cancelled are meant.
    """
    of = service().changes
    if "job_ids" in body:
        return respond_text(outcomes_text(of.retry(body["job_ids"]), answers()))
    dry_run = body.get("dry_run", False)
    return _changed(of.retry_all(job_filter(body["filter"]), dry_run=dry_run, below=body.get("cursor")), dry_run)


def _changed(tally: Tally, dry_run: bool) -> Response:
    counts = {"matched": tally.matched, "done": tally.done, "refused": dict(tally.refused)}
    named = [
        {"job_id": job_id, "message": error.message, "error": envelope_of(error, answers())["error"]}
        for job_id, error in tally.refusals
    ]
    return success({**counts, "refusals": named, "dry_run": dry_run}, next=cursor_of(tally.below))
