"""The shapes of what is told of a job's past."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from jobber.api.fields import Choice, Whole
from jobber.api.schemas import _optional_integer, _Part, _Success, _time
from jobber.store.events import Level

_LEVELS = [level.name.lower() for level in Level]
_OF_NOBODY = "Null if nobody knows, or it has not come to that."


class RunQuery(ma.Schema):
    """Which run of a job."""

    run = Whole(2**62, from_text=True, metadata={"description": "The newest if absent."})


class EventsQuery(RunQuery):
    """Options of a job's events."""

    level = Choice(_LEVELS, load_default=_LEVELS[0], metadata={"description": "Without those that matter less."})


class EventPart(_Part):
    """Something that happened to a run."""

    at = _time("By the clock of the state database.")
    event = fields.String(metadata={"description": "What happened; a later version may know more."})
    attempt = fields.Integer(metadata={"description": "That it happened to; 0 if to none."})
    level = fields.String(validate=validate.OneOf(_LEVELS))
    message = fields.String(metadata={"description": "For people."})
    worker = fields.String(metadata={"description": "Whose doing it was; empty if no worker's."})


class EventsAnswer(_Success):
    """The events of a run, oldest first."""

    data = fields.List(fields.Nested(EventPart))
    run = fields.Integer(metadata={"description": "The run that they are of."})
    runs = fields.List(
        fields.Integer(),
        metadata={"description": "All runs of the job that are not forgotten, newest first; at most a hundred."},
    )


class ReusedPart(_Part):
    """The run whose result a job took over."""

    job_id = fields.String()
    run = fields.Integer()


class ProvenancePart(_Part):
    """Where the result of a run comes from."""

    job_id = fields.String()
    run = fields.Integer()
    task = fields.String()
    version = fields.String(metadata={"description": "SHA-256 of the task's SQL, hex."})
    sql = fields.String(allow_none=True, metadata={"description": "That SQL; null if it is not kept any more."})
    args: fields.Field[Any] = fields.Raw(metadata={"type": ["array", "object"], "description": "As the job has them."})
    db = fields.String(metadata={"description": "The source database that was read."})
    results_db = fields.String()
    table = fields.String(metadata={"description": "In the results database."})
    count = _optional_integer("Rows of the result; null if there is none.")
    attempt = _optional_integer(f"That read it. {_OF_NOBODY}")
    worker = fields.String(allow_none=True, metadata={"description": f"That read it. {_OF_NOBODY}"})
    started_at = _time("Start of that attempt.")
    snapshot_at = _time("When its query began to read: the data are as they were then.")
    finished_at = _time("End of the run.")
    reused = fields.Nested(ReusedPart, allow_none=True, metadata={"description": "Whose result it is, if another's."})


class ProvenanceAnswer(_Success):
    """Where the result of a run comes from."""

    data = fields.Nested(ProvenancePart)
