"""The shapes of requests and answers about schedules."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from jobber.api.fields import Choice, Name, Text, Timestamp, Whole
from jobber.api.requests import PAGE, JobBody, MemberBody
from jobber.api.schemas import _Part, _Success, _time
from jobber.store.schedule_records import Missed, Outcome, Overlap, Source
from jobber.tasks.cron import SCHEDULE_ID_MAX

_MOST = 2**31 - 1
#: Items of a list, unless the request says otherwise.
_ITEMS = 100
#: What a schedule decides for each of its jobs.
OWN = ("job_id", "eta", "depends_on", "depends_policy")


class ScheduleBody(MemberBody):
    """What a client says of a schedule: when it fires, and what its jobs are."""

    class Meta:
        exclude = OWN

    schedule_id = Name(
        metadata={
            "maxLength": SCHEDULE_ID_MAX,
            "description": f"At most {SCHEDULE_ID_MAX} characters. Made up if absent.",
        }
    )
    cron = Text(
        metadata={
            "description": "MINUTE HOUR DAY MONTH WEEKDAY, as crontab(5) has them. This, or interval.",
            "examples": ["30 2 * * mon-fri"],
        }
    )
    interval = Whole(_MOST, metadata={"description": "Seconds from one fire time to the next."})
    timezone = Text(
        metadata={"description": "IANA name of the time zone of cron; UTC if absent.", "examples": ["Europe/Berlin"]}
    )
    max_runs = Whole(_MOST, metadata={"description": "Jobs that it makes at its times, then it is over."})
    start_at = Timestamp(metadata={"description": "No fire time before this one."})
    end_at = Timestamp(metadata={"description": "No fire time after this one."})
    overlap = Choice(
        [overlap.value for overlap in Overlap],
        metadata={
            "description": "At a fire time at which an earlier job of it is not finished: skip makes none, queue makes "
            "one that waits for the earlier one, allow makes one that may run beside it. skip if absent; queue where "
            "missed is all."
        },
    )
    missed = Choice(
        [missed.value for missed in Missed],
        metadata={
            "description": "Of fire times that passed while nobody could fire: once (if absent) makes one job, for the "
            "newest of them, skip none, all one for each."
        },
    )
    jitter = Whole(86_400, metadata={"description": "Seconds that its jobs start after the fire time, at most."})


class SchedulesQuery(ma.Schema):
    """Options of the list of schedules."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=_ITEMS, metadata={"description": "Most items to list."})
    cursor = Text(load_default="", metadata={"description": "`next` of the page before."})


# -- answers ----------------------------------------------------------------------------------------------------------


class FirePart(_Part):
    """A fire time that was dealt with."""

    at = _time("The fire time.")
    outcome = fields.String(
        validate=validate.OneOf([outcome.value for outcome in Outcome]),
        metadata={
            "description": "`fired`: it made a job. `run`: somebody asked for one then. `skipped`: an earlier job was "
            "not finished. `missed`: nobody could fire in time. `failed`: the job cannot be made."
        },
    )
    job_id = fields.String(allow_none=True)
    reason = fields.String(metadata={"description": "Why there is no job."})
    done_at = _time("When it was dealt with.")


class SchedulePart(_Part):
    """A schedule. What was asked for its jobs stands beside it; null is what was left to the task."""

    schedule_id = fields.String()
    source = fields.String(
        validate=validate.OneOf([source.value for source in Source]),
        metadata={"description": "`api`, or `tag`: the cron tag of the task of its name makes it."},
    )
    task = fields.String()
    cron = fields.String(allow_none=True)
    interval = fields.Integer(allow_none=True)
    timezone = fields.String()
    max_runs = fields.Integer(allow_none=True)
    start_at = _time("No fire time before this one.")
    end_at = _time("No fire time after this one.")
    overlap = fields.String(validate=validate.OneOf([overlap.value for overlap in Overlap]))
    missed = fields.String(validate=validate.OneOf([missed.value for missed in Missed]))
    jitter = fields.Integer()
    paused = fields.Boolean()
    reason = fields.String(allow_none=True, metadata={"description": "Why it is paused."})
    next_at = _time("The next fire time; null once it is over. One of a paused schedule will pass.")
    next_runs = fields.List(
        fields.String(metadata={"format": "date-time"}),
        allow_none=True,
        metadata={"description": "The next five fire times; of a paused schedule those if it were resumed now."},
    )
    runs = fields.Integer(metadata={"description": "Jobs that it made at its times."})
    last_at = _time("The fire time of its last job.")
    last_job_id = fields.String(allow_none=True)
    last_error = fields.String(metadata={"description": "Why its newest fire could not make a job."})
    fires = fields.List(
        fields.Nested(FirePart),
        allow_none=True,
        metadata={"description": "The newest ten, newest first; null in lists."},
    )
    created_at = _time("When it was made.")
    updated_at = _time("When it was last changed.")

    class Meta:
        include = {  # noqa: RUF012
            name: fields.Raw(allow_none=True, metadata={"description": "As it was asked for, for each of its jobs."})
            for name in sorted(set(JobBody().fields) - {*OWN, "task"})
        }
        unknown = ma.INCLUDE


class ScheduleAnswer(_Success):
    """One schedule."""

    data = fields.Nested(SchedulePart)


class SchedulesAnswer(_Success):
    """Schedules by ID."""

    data = fields.List(fields.Nested(SchedulePart))
    next = fields.String(allow_none=True, metadata={"description": "The cursor of the next page."})
