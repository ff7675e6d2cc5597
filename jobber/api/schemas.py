"""The shapes of answers, for OpenAPI.

Answers are built by ``jobber.answers`` and not run through these schemas (that would cost as much as the rest of a
request); the tests hold every answer to its schema instead.
"""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from jobber.api.fields import Arguments
from jobber.jobs import Ending, JobState, Policy

_STATES = [state.value for state in JobState]
_GROUP_STATES = [state for state in _STATES if state != JobState.RETRY]
_PHASES = ["waiting", "querying", "writing", "publishing", "done"]


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
    rows = fields.Integer(metadata={"description": "That have come so far; the count once it is done."})
    bytes = fields.Integer(metadata={"description": "Of these rows as text, about."})
    rate = _optional_integer("Rows per second since the attempt began.")
    total = _optional_integer(
        "Rows that are expected of an attempt that runs for more than a second or two; null if nobody knows, and once "
        "more have come."
    )
    total_basis = fields.String(
        validate=validate.OneOf(["history", "planner", "none"]),
        metadata={"description": "Who expects them: an earlier run of the same had so many; the source's planner."},
    )
    percent = fields.Integer(
        allow_none=True, metadata={"description": "Of total, at most 99 before it is done; null if nobody knows."}
    )
    eta = _time("When a running job should be finished; null if nobody knows.")
    position = _optional_integer(
        "Place among the ready jobs of its queue, 1 is next; null beyond 10,000, while it is not ready, and where it "
        "was not looked up (all but the status of one job)."
    )
    starts_at = _time("When it should start, by how fast its queue has gone of late; null as position is.")
    worker_memory = _optional_integer(
        "Bytes that the process has in use which runs it, other jobs and all; null where position is not looked up."
    )


class HoldPart(_Part):
    """Something that keeps a job from running now."""

    gate = fields.String()
    name = fields.String()
    text = fields.String(metadata={"description": "The same for people."})


class AttemptPart(_Part):
    """One start of a job."""

    attempt = fields.Integer(metadata={"description": "Its number, from 1 on."})
    ending = fields.String(
        validate=validate.OneOf([ending.value for ending in Ending]),
        metadata={
            "description": "`retry`: it failed, and another try follows. `rerouted`: its database could not be "
            "reached, and the next one reads another. `requeued`: its worker stopped. `rescued`: its worker died."
        },
    )
    error = fields.String()
    error_code = fields.String()
    worker = fields.String()
    db = fields.String(metadata={"description": "The database that it read."})
    started_at = _time("Its begin.")
    ended_at = _time("Its end.")


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
    error = fields.String(metadata={"description": "Why the newest attempt that failed did so; SUCCESS empties it."})
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
    rescues = fields.Integer(metadata={"description": "Attempts whose worker died."})
    attempts = fields.List(
        fields.Nested(AttemptPart),
        allow_none=True,
        metadata={
            "description": "Oldest first, of more than a hundred the newest; null where they were not looked up "
            "(lists, submissions)."
        },
    )
    cancel_requested = fields.Boolean()
    group_id = fields.String(allow_none=True)
    created_at = _time("Accepted.")
    started_at = _time("Begin of the newest attempt.")
    finished_at = _time("End of the run.")
    expires_at = _time("When the result is gone: 410 from then on.")
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
    tenant = fields.String(allow_none=True, metadata={"description": "The value of the tag that names tenants."})
    version = fields.String(metadata={"description": "SHA-256 of the SQL that it runs."})
    depends_on = fields.List(fields.String(), metadata={"description": "Jobs that it waits for."})
    depends_policy = fields.String(
        validate=validate.OneOf([policy.value for policy in Policy]),
        metadata={"description": "Whether they must succeed, or only finish."},
    )
    schedule_id = fields.String(allow_none=True, metadata={"description": "The schedule that made it."})
    callback_url = fields.String(allow_none=True, metadata={"description": "What is told when it is finished."})
    paused = fields.Boolean(metadata={"description": "Whether it waits until somebody resumes it."})
    reused = fields.Boolean(metadata={"description": "Whether its result is that of another job."})
    reused_job_id = fields.String(allow_none=True, metadata={"description": "That job."})
    result_age_s = fields.Float(allow_none=True, metadata={"description": "Seconds since its data were read."})
    snapshot_at = _time("When the query began to read.")


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


class CountsPart(_Part):
    """How many jobs of a group are in each state."""

    PENDING = fields.Integer()
    STARTED = fields.Integer()
    RETRY = fields.Integer()
    SUCCESS = fields.Integer()
    FAILURE = fields.Integer()
    CANCELLED = fields.Integer()


class GroupPart(_Part):
    """A group of jobs: its newest run."""

    group_id = fields.String()
    state = fields.String(
        validate=validate.OneOf(_GROUP_STATES), metadata={"description": "What has become of its jobs."}
    )
    status = fields.String(validate=validate.OneOf(_GROUP_STATES), metadata={"description": "The same as state."})
    concurrency = fields.Integer(metadata={"description": "Of its jobs that run at a time; 0 is no limit."})
    counts = fields.Nested(CountsPart, metadata={"description": "Its jobs by state."})
    jobs = fields.List(fields.Nested(JobPart), metadata={"description": "As they were submitted; empty if unwanted."})
    callback = fields.Nested(JobPart, allow_none=True, metadata={"description": "The job that runs after all others."})
    callback_url = fields.String(allow_none=True, metadata={"description": "What is told when all are finished."})
    created_at = _time("Accepted.")
    finished_at = _time("End of the last of its jobs.")


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
    cron = fields.String(allow_none=True, metadata={"description": "When jobs of it start by themselves."})
    timezone = fields.String(allow_none=True, metadata={"description": "Of cron; UTC if null."})
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


class GroupAnswer(_Success):
    """One group of jobs."""

    data = fields.Nested(GroupPart)


class RowsAnswer(_Success):
    """A page of rows."""

    data = fields.List(fields.Dict(keys=fields.String()))
    columns = fields.List(fields.Nested(ColumnPart))
    count = _optional_integer("Rows of the whole result.")
    next = _optional_integer("Offset of the next page; null on the last one.")
    run = fields.Integer(metadata={"description": "Another number on a later page: the job ran again meanwhile."})
    newest = fields.Boolean(
        metadata={"description": "False while a later run of the job is not finished, or where it did not succeed."}
    )


class ErrorPart(ma.Schema):
    """What went wrong, for machines. Further facts stand beside these, depending on the code."""

    class Meta:
        unknown = ma.INCLUDE

    code = fields.String(required=True, metadata={"description": "Stable; see the table of codes."})
    field = fields.String(metadata={"description": "The first field that is wrong."})
    fields_ = fields.Dict(data_key="fields", metadata={"description": "All fields that are wrong, and why."})
    nearest = fields.String(metadata={"description": "The known name nearest to an unknown one."})
    job = fields.Nested(JobPart, metadata={"description": "The job that stands in the way."})
    group = fields.Nested(GroupPart, metadata={"description": "The group that stands in the way, without its jobs."})
    retry_after = fields.Integer(metadata={"description": "Seconds after which another try makes sense."})


class ErrorAnswer(_Part):
    """The answer to every request that did not succeed."""

    status = fields.String(validate=validate.Equal("error"))
    message = fields.String(metadata={"description": "For people."})
    data = fields.Raw(metadata={"type": "null"})
    error = fields.Nested(ErrorPart)


# -- readiness --------------------------------------------------------------------------------------------------------


class DependencyPart(_Part):
    """A database or server that this instance depends on."""

    kind = fields.String(validate=validate.OneOf(["state", "broker", "events", "results", "database"]))
    name = fields.String(metadata={"description": "Of its section in the config."})
    ok = fields.Boolean(metadata={"description": "Whether it answers."})
    required = fields.Boolean(metadata={"description": "Whether this instance is not ready without it."})
    error = fields.String(metadata={"description": "Why it does not answer; empty if it does."})
    ms = fields.Integer(metadata={"description": "How long it took to answer, or has taken so far."})


class ReadyPart(_Part):
    """Whether jobs can be accepted now."""

    ready = fields.Boolean()
    draining = fields.Boolean(metadata={"description": "Whether this instance is stopping."})
    dependencies = fields.List(fields.Nested(DependencyPart))


class ReadyAnswer(_Success):
    """Readiness; with status 503 the same stands in `error`."""

    data = fields.Nested(ReadyPart)
