"""The past of a job: its events, and where its result comes from."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.answers import rfc3339
from jobber.api.blueprint import Blueprint, path_id, service
from jobber.api.envelopes import success
from jobber.api.event_schemas import EventsAnswer, EventsQuery, ProvenanceAnswer, RunQuery
from jobber.errors import StateUnavailable, UnknownJob
from jobber.history import Provenance
from jobber.store.events import Event, Level

blueprint = Blueprint("events", __name__)


@blueprint.operation(
    "GET", "/jobs/<job_id>/events", answer=EventsAnswer, query=EventsQuery(), errors=(UnknownJob, StateUnavailable)
)
def events(query: dict[str, Any], job_id: str) -> Response:
    """What happened to a job, oldest first

    Every transition, attempt and error, and what its workers logged about it.
    """
    history = service().history
    job = history.run(path_id(job_id, UnknownJob, "job"), query.get("run"))
    told = [_event(event) for event in history.events(job, Level[query["level"].upper()])]
    return success(told, run=job.run, runs=history.runs(job_id))


@blueprint.operation(
    "GET",
    "/jobs/<job_id>/provenance",
    answer=ProvenanceAnswer,
    query=RunQuery(),
    errors=(UnknownJob, StateUnavailable),
)
def provenance(query: dict[str, Any], job_id: str) -> Response:
    """Where the result of a job comes from

    The SQL that was run, its arguments, the database, and since when the data are as the result shows them.
    """
    history = service().history
    job = history.run(path_id(job_id, UnknownJob, "job"), query.get("run"))
    return success(_provenance(history.provenance(job)))


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": rfc3339(event.at),
        "event": event.event,
        "attempt": event.attempt,
        "level": event.level.name.lower(),
        "message": event.message,
        "worker": event.worker,
    }


def _provenance(found: Provenance) -> dict[str, Any]:
    job, source = found.job, found.source
    return {
        "job_id": job.job_id,
        "run": job.run,
        "task": job.task,
        "version": job.version,
        "sql": found.sql,
        "args": job.args,
        "db": job.db,
        "results_db": job.results,
        "table": job.table,
        "count": job.rows,
        "attempt": (source.attempt or None) if source else None,
        "worker": (source.worker or None) if source else None,
        "started_at": rfc3339(source.started_at) if source else None,
        "snapshot_at": rfc3339(job.reused.at if job.reused else job.snapshot_at),
        "finished_at": rfc3339(job.finished_at),
        "reused": {"job_id": job.reused.job_id, "run": job.reused.run} if job.reused else None,
    }
