"""Schedules: make, list, look, pause, resume, run now, delete."""

from __future__ import annotations

from typing import Any

from flask import Response

from jobber.answers import rfc3339
from jobber.api.blueprint import Blueprint, answers, path_id, service
from jobber.api.envelopes import success
from jobber.api.idempotency import once
from jobber.api.requests import JobBody, PauseBody
from jobber.api.schedule_schemas import (
    OWN,
    ScheduleAnswer,
    ScheduleBody,
    SchedulesAnswer,
    SchedulesQuery,
)
from jobber.api.schemas import JobAnswer
from jobber.errors import (
    Draining,
    ScheduleExists,
    ScheduleIsTagged,
    StateUnavailable,
    UnknownSchedule,
    UnknownTask,
)
from jobber.scheduling import ScheduleDetails, ScheduleRequest
from jobber.store.schedule_records import Fire, Schedule

blueprint = Blueprint("schedules", __name__)

#: What a client may say of a schedule's jobs, and what stands in answers where it said nothing.
_OF_JOBS: dict[str, Any] = {
    name: [] if name == "args" else {} if name == "tags" else None for name in JobBody().fields
} | {"single_flight": False}
for _name in (*OWN, "task"):
    del _OF_JOBS[_name]


def _known(schedule_id: str) -> str:
    return path_id(schedule_id, UnknownSchedule, "schedule")


@blueprint.operation(
    "POST",
    "/schedules",
    answer=ScheduleAnswer,
    body=ScheduleBody(),
    errors=(UnknownTask, ScheduleExists, ScheduleIsTagged, StateUnavailable, Draining),
    keyed=True,
)
def create(body: dict[str, Any]) -> Response:
    """Make a schedule

    Each of its fire times makes a job `SCHEDULE_ID:yyyymmddThhmmss` (UTC). All fields of a job may be given but its ID,
    its start time and what it depends on.
    """
    job = {name: body.pop(name) for name in list(body) if name in _OF_JOBS}
    request = ScheduleRequest(job=job, **body)
    return once(
        lambda receipt: service().schedules.create(request, receipt=receipt),
        lambda details: {"status": "success", "data": _details(details)},
    )


@blueprint.operation("GET", "/schedules", answer=SchedulesAnswer, query=SchedulesQuery(), errors=(StateUnavailable,))
def schedules(query: dict[str, Any]) -> Response:
    """The schedules, by ID"""
    found, after = service().schedules.page(limit=query["limit"], after=query["cursor"])
    return success([_schedule(schedule) for schedule in found], next=after)


@blueprint.operation(
    "GET", "/schedules/<schedule_id>", answer=ScheduleAnswer, errors=(UnknownSchedule, StateUnavailable)
)
def schedule(schedule_id: str) -> Response:
    """A schedule, with its next fire times"""
    return success(_details(service().schedules.get(_known(schedule_id))))


@blueprint.operation(
    "DELETE",
    "/schedules/<schedule_id>",
    answer=ScheduleAnswer,
    errors=(UnknownSchedule, ScheduleIsTagged, StateUnavailable),
)
def delete(schedule_id: str) -> Response:
    """Delete a schedule

    The jobs that it made stay.
    """
    return success(_details(service().schedules.delete(_known(schedule_id))))


@blueprint.operation(
    "POST",
    "/schedules/<schedule_id>/pause",
    answer=ScheduleAnswer,
    body=PauseBody(),
    errors=(UnknownSchedule, StateUnavailable),
)
def pause(body: dict[str, Any], schedule_id: str) -> Response:
    """Let a schedule fire no more until it is resumed

    The jobs that it made are not touched.
    """
    return success(_details(service().schedules.pause(_known(schedule_id), body.get("reason", ""))))


@blueprint.operation(
    "POST",
    "/schedules/<schedule_id>/resume",
    answer=ScheduleAnswer,
    errors=(UnknownSchedule, StateUnavailable),
)
def resume(schedule_id: str) -> Response:
    """Let a schedule fire again

    Fire times that passed while it was paused are not made up for.
    """
    return success(_details(service().schedules.resume(_known(schedule_id))))


@blueprint.operation(
    "POST",
    "/schedules/<schedule_id>/run",
    answer=JobAnswer,
    errors=(UnknownSchedule, UnknownTask, StateUnavailable, Draining),
    keyed=True,
)
def run(schedule_id: str) -> Response:
    """Make a job of a schedule now

    Also of one that is paused or over. It does not count in `runs`, and changes no fire time.
    """
    return once(
        lambda receipt: service().schedules.run(_known(schedule_id), receipt=receipt),
        lambda job: {"status": "success", "data": answers().job(job)},
    )


def _details(details: ScheduleDetails) -> dict[str, Any]:
    return _schedule(details.schedule) | {
        "next_runs": [rfc3339(at) for at in details.next_runs],
        "fires": [_fire(fire) for fire in details.fires],
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "schedule_id": schedule.schedule_id,
        "source": schedule.source.value,
        "task": schedule.task,
        **_OF_JOBS,
        **schedule.request,
        "cron": schedule.cron or None,
        "interval": schedule.interval or None,
        "timezone": schedule.timezone,
        "max_runs": schedule.max_runs or None,
        "start_at": rfc3339(schedule.start_at),
        "end_at": rfc3339(schedule.end_at),
        "overlap": schedule.overlap.value,
        "missed": schedule.missed.value,
        "jitter": schedule.jitter,
        "paused": schedule.paused is not None,
        "reason": schedule.paused,
        "next_at": rfc3339(schedule.next_at),
        "next_runs": None,
        "runs": schedule.runs,
        "last_at": rfc3339(schedule.last_at),
        "last_job_id": schedule.last_job_id or None,
        "last_error": schedule.last_error,
        "fires": None,
        "created_at": rfc3339(schedule.created_at),
        "updated_at": rfc3339(schedule.updated_at),
    }


def _fire(fire: Fire) -> dict[str, Any]:
    return {
        "at": rfc3339(fire.at),
        "outcome": fire.outcome.value,
        "job_id": fire.job_id or None,
        "reason": fire.reason,
        "done_at": rfc3339(fire.created_at),
    }
