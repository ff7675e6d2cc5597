"""The shapes of requests and answers: what comes in is validated by them, and both are described by them in OpenAPI.

Answers are built by ``jobber.api.answers`` and not run through their schemas (that would cost as much as the rest of a
request); the tests hold every answer to its schema instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import fields, pre_load, validate

from jobber.api.fields import Arguments, Flag, JobId, Name, Seconds, Tags, Text, Timestamp, Whole
from jobber.jobs import PRIORITY_HIGHEST, PRIORITY_LOWEST, JobState

_STATES = [state.value for state in JobState]
_PHASES = ["waiting", "querying", "writing", "publishing", "done"]
#: 32 bits hold every count; a time limit must also fit PostgreSQL's statement_timeout, which is in milliseconds.
_MOST = 2**31 - 1
_MOST_TIMEOUT = _MOST // 1000
_MOST_RETRIES = 1000
#: Rows or items of one page.
PAGE = 1000


# -- requests ---------------------------------------------------------------------------------------------------------


class JobBody(ma.Schema):
    """What a client says of a job. Every field may be left out; null, "" and, for numbers, 0 leave it out too."""

    task = Text(metadata={"description": "The task's name again, as in the path."})
    job_id = JobId(metadata={"description": "Unique among pending and running jobs. Made up if absent."})
    queue = Name(metadata={"description": "Served or not; the task's or the default one if absent."})
    eta = Timestamp(
        metadata={
            "description": "Not before: yyyy-mm-dd hh:mm:ss in UTC, or ISO 8601.",
            "examples": ["2030-01-31 18:30:00", "2030-01-31T18:30:00+02:00"],
        }
    )
    retries = Whole(_MOST_RETRIES, metadata={"description": "Failed attempts that are tried again."})
    ttl = Whole(_MOST, metadata={"description": "Seconds that the result lives."})
    args = Arguments()
    db = Text(metadata={"description": "One of the task's databases; any of them if absent."})
    results = Text(metadata={"description": "One of the task's results databases; any of them if absent."})
    priority = Whole(
        PRIORITY_HIGHEST,
        least=PRIORITY_LOWEST,
        # 0 leaves it out.
        metadata={"minimum": 0, "description": "1 low, 5 normal, 8 high, 10 critical."},
    )
    timeout = Whole(_MOST_TIMEOUT, metadata={"description": "Seconds that the query may run."})
    tags = Tags(metadata={"description": "Names and short texts to find the job by."})

    @pre_load
    def _drop_blanks(self, data: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {
            name: value
            for name, value in data.items()
            if name not in self.fields or not (value is None or value == "" or self._is_zero(name, value))
        }

    def _is_zero(self, name: str, value: object) -> bool:
        return value == 0 and value is not False and isinstance(self.fields[name], Whole)


class TaskQuery(ma.Schema):
    """Options of a task's description."""

    sql = Flag(load_default=False, metadata={"description": "With the task's SQL."})


class StatusQuery(ma.Schema):
    """Options of a job's status."""

    wait = Seconds(
        load_default=0.0,
        metadata={
            "description": "Answer when the job is finished, at most so many seconds later.",
            "maximum": 60,
        },
    )


class CancelQuery(ma.Schema):
    """Options of a cancellation."""

    purge = Flag(load_default=False, metadata={"description": "Remove a finished job, its history and its result."})


class QueueQuery(ma.Schema):
    """Options of a queue's list."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=PAGE, metadata={"description": "Most items to list."})


class RowsQuery(ma.Schema):
    """Options of a page of rows."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=PAGE, metadata={"description": "Most rows of the page."})
    offset = Whole(2**62, from_text=True, load_default=0, metadata={"description": "Rows to skip."})


# -- parts of answers -------------------------------------------------------------------------------------------------


class _Part(ma.Schema):
    """Base of what answers consist of: every field is always there, and a later version may add some."""

    class Meta:
        unknown = ma.INCLUDE

    def on_bind_field(self, _: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)


def _time(description: str) -> fields.String:
    return fields.String(allow_none=True, metadata={"format": "date-time", "description": description})


def _optional_integer(description: str) -> fields.Integer:
    return fields.Integer(allow_none=True, metadata={"description": description})


class ColumnPart(_Part):
    """A column of a result."""

    name = fields.String()
    type = fields.String(metadata={"description": "Its SQL type in the results database."})


class CountPart(_Part):
    """The number of rows, as the first version of the API told it."""

    Type = fields.String(validate=validate.Equal("int64"))
    Value = fields.Integer()


class ProgressPart(_Part):
    """How far a job is."""

    phase = fields.String(validate=validate.OneOf(_PHASES))
    rows = fields.Integer()
    bytes = fields.Integer()
    rate = _optional_integer("Rows per second.")
    total = _optional_integer("Rows that are expected; null if nobody knows.")
    total_basis = fields.String(validate=validate.OneOf(["history", "planner", "none"]))
    percent = fields.Float(allow_none=True)
    eta = _time("When it should be finished.")
    position = _optional_integer("Place in the queue while it waits.")


class HoldPart(_Part):
    """Something that keeps a job from running now."""

    gate = fields.String()
    name = fields.String()
    text = fields.String(metadata={"description": "The same for people."})


class JobPart(_Part):
    """A job: its newest run."""

    job_id = fields.String()
    task = fields.String()
    task_name = fields.String(metadata={"description": "The same as task."})
    queue = fields.String()
    eta = _time("Not before.")
    retries = fields.Integer(metadata={"description": "Failed attempts that are tried again."})
    state = fields.String(validate=validate.OneOf(_STATES))
    status = fields.String(validate=validate.OneOf(_STATES), metadata={"description": "The same as state."})
    count = fields.Integer(metadata={"description": "Rows of the published result."})
    results = fields.List(fields.Nested(CountPart), metadata={"description": "The count again; empty until SUCCESS."})
    error = fields.String(metadata={"description": "Why the last attempt failed; empty if it did not."})
    error_code = fields.String(metadata={"description": "The same for machines."})
    args = Arguments()
    db = fields.String(metadata={"description": "The database that it reads."})
    results_db = fields.String(metadata={"description": "The database that holds its result."})
    table = fields.String(metadata={"description": "The table there."})
    columns = fields.List(fields.Nested(ColumnPart), metadata={"description": "Of the published result."})
    priority = fields.Integer()
    ttl = fields.Integer(metadata={"description": "Seconds that the result lives; 0 is for ever."})
    timeout = fields.Integer(metadata={"description": "Seconds that the query may run; 0 is the database's limit."})
    attempt = fields.Integer(metadata={"description": "Attempts begun so far."})
    cancel_requested = fields.Boolean()
    group_id = fields.String(allow_none=True)
    created_at = _time("Accepted.")
    started_at = _time("Begin of the newest attempt.")
    finished_at = _time("End of the run.")
    expires_at = _time("When the result is dropped.")
    queued_ms = fields.Integer(metadata={"description": "From when it might run until it began, or until now."})
    run_ms = _optional_integer("Of the newest attempt, until its end or until now.")
    progress = fields.Nested(ProgressPart)
    waiting_for = fields.List(
        fields.Nested(HoldPart),
        allow_none=True,
        metadata={"description": "What holds it back; null where it was not looked up (lists, submissions)."},
    )
    worker = fields.String()
    tags = fields.Dict(keys=fields.String(), values=fields.String())


class GoJobPart(_Part):
    """What the Go client decodes as a job."""

    Task = fields.String()


class PendingPart(JobPart):
    """A pending job, and the fields under which the Go client looks for it."""

    ID = fields.String()
    Status = fields.String()
    Queue = fields.String()
    Schedule = fields.String()
    MaxRetry = fields.Integer()
    Retried = fields.Integer()
    PrevErr = fields.String()
    ProcessedAt = fields.String(metadata={"format": "date-time"})
    Job = fields.Nested(GoJobPart)


class ParamPart(_Part):
    """A declared parameter of a task."""

    name = fields.String()
    type = fields.String()
    required = fields.Boolean()
    default = fields.Raw(metadata={"type": ["string", "number", "boolean", "null"]})


class PlaceholdersPart(_Part):
    """The placeholders of a task's SQL."""

    count = fields.Integer()
    names = fields.List(fields.String(), metadata={"description": "Empty where they are positional."})


class TaskPart(_Part):
    """A task, with the defaults that its jobs get."""

    name = fields.String()
    description = fields.String()
    params = fields.List(fields.Nested(ParamPart))
    placeholders = fields.Nested(PlaceholdersPart)
    queue = fields.String()
    db = fields.List(fields.String())
    results = fields.List(fields.String())
    raw = fields.Boolean()
    concurrency = fields.Integer()
    timeout = fields.Integer(metadata={"description": "Seconds; 0 is the database's limit."})
    ttl = fields.Integer()
    priority = fields.Integer()
    retries = fields.Integer()
    max_rows = fields.Integer()
    index = fields.List(fields.String())
    cron = fields.String(allow_none=True)
    version = fields.String(metadata={"description": "SHA-256 of the SQL."})
    file = fields.String()
    line = fields.Integer()
    sql = fields.String(metadata={"optional": True, "description": "Only with ?sql=1."})


class ServerPart(_Part):
    """Who answers."""

    name = fields.String()
    version = fields.String()


class HealthPart(_Part):
    """That it answers."""

    alive = fields.Boolean()


# -- answers ----------------------------------------------------------------------------------------------------------


class _Success(_Part):
    status = fields.String(validate=validate.Equal("success"))


class ServerAnswer(_Success):
    """Name and version."""

    data = fields.Nested(ServerPart)


class HealthAnswer(_Success):
    """Liveness."""

    data = fields.Nested(HealthPart)


class TaskAnswer(_Success):
    """One task."""

    data = fields.Nested(TaskPart)


class TasksAnswer(_Success):
    """All tasks, by name."""

    data = fields.List(fields.Nested(TaskPart))


class JobAnswer(_Success):
    """One job."""

    data = fields.Nested(JobPart)


class PendingAnswer(_Success):
    """Pending jobs, in the order in which they will run."""

    data = fields.List(fields.Nested(PendingPart))


class RowsAnswer(_Success):
    """A page of rows."""

    data = fields.List(fields.Dict(keys=fields.String()))
    columns = fields.List(fields.Nested(ColumnPart))
    count = _optional_integer("Rows of the whole result.")
    next = _optional_integer("Offset of the next page; null on the last one.")
    run = fields.Integer(metadata={"description": "Another number on a later page: the job ran again meanwhile."})


class ErrorPart(ma.Schema):
    """What went wrong, for machines. Further facts stand beside these, depending on the code."""

    class Meta:
        unknown = ma.INCLUDE

    code = fields.String(required=True, metadata={"description": "Stable; see the table of codes."})
    field = fields.String(metadata={"description": "The first field that is wrong."})
    fields_ = fields.Dict(data_key="fields", metadata={"description": "All fields that are wrong, and why."})
    nearest = fields.String(metadata={"description": "The known name nearest to an unknown one."})
    job = fields.Nested(JobPart, metadata={"description": "The job that stands in the way."})
    retry_after = fields.Integer(metadata={"description": "Seconds after which another try makes sense."})


class ErrorAnswer(_Part):
    """The answer to every request that did not succeed."""

    status = fields.String(validate=validate.Equal("error"))
    message = fields.String(metadata={"description": "For people."})
    data = fields.Raw(metadata={"type": "null"})
    error = fields.Nested(ErrorPart)
