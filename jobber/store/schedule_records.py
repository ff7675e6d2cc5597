"""What a schedule is, and its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import simplejson
from sqlalchemy import Row

from jobber.jobs import Micros


class Source(StrEnum):
    """Who says what a schedule is."""

    API = "api"
    TAG = "tag"  # the ``cron`` tag of the task of its name


class Overlap(StrEnum):
    """What happens at a fire time while an earlier job of the schedule is not finished."""

    SKIP = "skip"  # nothing
    QUEUE = "queue"  # its job is made, and waits for the earlier one
    ALLOW = "allow"  # its job is made, and may run beside it


class Missed(StrEnum):
    """What becomes of fire times that passed while nobody could fire."""

    ONCE = "once"  # one job, for the newest of them
    SKIP = "skip"  # nothing
    ALL = "all"  # a job for each


class Outcome(StrEnum):
    """What became of a fire time."""

    FIRED = "fired"
    RUN = "run"  # it was no fire time: somebody asked for a job now
    SKIPPED = "skipped"  # an earlier job was not finished
    MISSED = "missed"
    FAILED = "failed"  # its job could not be made


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Something that makes jobs at set times."""

    schedule_id: str
    source: Source = Source.API
    task: str
    request: Mapping[str, Any] = field(default_factory=dict)  # the other fields of its jobs, as they were asked for
    cron: str = ""  # "" where there is an interval
    interval: int = 0  # seconds; 0 where there is a cron expression
    timezone: str = "UTC"  # of the cron expression
    max_runs: int = 0  # 0 is any number
    start_at: Micros | None = None
    end_at: Micros | None = None
    overlap: Overlap = Overlap.SKIP
    missed: Missed = Missed.ONCE
    jitter: int = 0  # seconds that its jobs start later, at most
    paused: str | None = None  # why ("" for no reason), None if it is not
    next_at: Micros | None = None  # None once it is over
    runs: int = 0  # jobs that it made at its times
    last_at: Micros | None = None  # when it made the last one
    last_job_id: str = ""
    last_error: str = ""  # why its newest fire made none
    created_at: Micros = 0
    updated_at: Micros = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A fire time that was dealt with."""

    at: Micros
    outcome: Outcome
    job_id: str  # "" where there is none
    reason: str  # why there is none
    created_at: Micros  # when it was dealt with


#: Columns that hold what the field of their name does.
_SAME = (
    *("schedule_id", "task", "cron", "timezone", "max_runs", "start_at", "end_at", "jitter", "paused", "next_at"),
    *("runs", "last_at", "last_job_id", "last_error", "created_at", "updated_at"),
)


def values_of(schedule: Schedule) -> dict[str, Any]:
    """Return the row of a schedule."""
    return {name: getattr(schedule, name) for name in _SAME} | {
        "source": schedule.source.value,
        "request": simplejson.dumps(dict(schedule.request), use_decimal=True, separators=(",", ":")),
        "interval_s": schedule.interval,
        "overlap": schedule.overlap.value,
        "missed": schedule.missed.value,
    }


def schedule_of(row: Row[Any]) -> Schedule:
    """Return the schedule of a row."""
    same: dict[str, Any] = {name: getattr(row, name) for name in _SAME}
    return Schedule(
        **same | {"last_error": row.last_error or ""},
        source=Source(row.source),
        request=json.loads(row.request, parse_float=Decimal),
        interval=row.interval_s,
        overlap=Overlap(row.overlap),
        missed=Missed(row.missed),
    )
