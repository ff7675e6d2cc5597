"""The shapes of what operators are told: queues, databases, workers."""

from __future__ import annotations

from marshmallow import fields

from jobber.api.schemas import _optional_integer, _Part, _Success, _time

_LIMIT = "0 is no limit."


def _reason() -> fields.String:
    return fields.String(allow_none=True, metadata={"description": "Why it is paused; null if it is not."})


class QueuePart(_Part):
    """A queue."""

    queue = fields.String()
    paused = fields.Boolean(metadata={"description": "Whether none of its jobs may start."})
    reason = _reason()
    pending = fields.Integer(metadata={"description": "Jobs that wait, for whatever."})
    running = fields.Integer()
    oldest_age_s = fields.Float(
        allow_none=True,
        metadata={"description": "Seconds since the oldest of its jobs could have started; null if none could."},
    )
    workers = fields.Integer(metadata={"description": "Live worker processes that serve it."})
    max_concurrent = fields.Integer(metadata={"description": f"Of its jobs that run at a time; {_LIMIT}"})
    max_pending = fields.Integer(metadata={"description": f"Of its jobs that wait; {_LIMIT}"})


class DatabasePart(_Part):
    """A source database."""

    database = fields.String()
    paused = fields.Boolean(metadata={"description": "Whether no job may start that reads it."})
    reason = _reason()
    pending = fields.Integer(metadata={"description": "Jobs that wait, for whatever, and will read it."})
    running = fields.Integer()
    max_concurrent = fields.Integer(metadata={"description": f"Jobs that read it at a time; {_LIMIT}"})
    max_starts = fields.Float(metadata={"description": f"Jobs that start on it per second; {_LIMIT}"})
    slowed_until = _time("Until then only half as many start, because it was overloaded; null if it was not.")
    slowed_reason = fields.String(allow_none=True, metadata={"description": "What it said."})


class RunningPart(_Part):
    """A job that a worker runs."""

    job_id = fields.String()
    attempt = fields.Integer()
    task = fields.String()
    queue = fields.String()
    db = fields.String()
    phase = fields.String()
    rows = fields.Integer()
    started_at = _time("Begin of this attempt.")


class WorkerPart(_Part):
    """A worker process."""

    id = fields.Integer(metadata={"description": "Never used again."})
    name = fields.String()
    queues = fields.List(fields.String(), metadata={"description": "That it serves."})
    slots = fields.Integer(metadata={"description": "Jobs that it runs at a time."})
    busy = fields.Integer(metadata={"description": "Jobs that it runs now."})
    memory = _optional_integer("Bytes that it has in use; null before its first heartbeat.")
    registered_at = _time("When it began to work.")
    seen_at = _time("Its last heartbeat.")
    alive = fields.Boolean(metadata={"description": "Whether its lease lasts."})
    jobs = fields.List(fields.Nested(RunningPart), metadata={"description": "That it runs."})


class QueueAnswer(_Success):
    """One queue."""

    data = fields.Nested(QueuePart)


class QueuesAnswer(_Success):
    """Queues, by name."""

    data = fields.List(fields.Nested(QueuePart))


class DatabaseAnswer(_Success):
    """One database."""

    data = fields.Nested(DatabasePart)


class DatabasesAnswer(_Success):
    """Databases, by name."""

    data = fields.List(fields.Nested(DatabasePart))


class WorkersAnswer(_Success):
    """Worker processes, by name."""

    data = fields.List(fields.Nested(WorkerPart))
