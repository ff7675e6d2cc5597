"""The shapes of requests: what comes in is validated by them, and they describe it in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import pre_load

from jobber.api.fields import (
    Arguments,
    Choice,
    Flag,
    JobId,
    JobIds,
    Name,
    Object,
    Objects,
    Priority,
    Span,
    Switch,
    Tags,
    Text,
    Timestamp,
    Url,
    Whole,
)
from jobber.jobs import OUTCOME_ARGS, Policy

#: 32 bits hold every count; a time limit must also fit PostgreSQL's statement_timeout, which is in milliseconds.
_MOST = 2**31 - 1
_MOST_TIMEOUT = _MOST // 1000
_MOST_RETRIES = 1000
#: Longest ``?wait=``, whatever the settings say; where they say less, the answer comes earlier.
_MOST_WAIT = 60
#: Jobs of one group.
MOST_JOBS = 10_000
#: Rows or items of one page.
PAGE = 1000


class _Body(ma.Schema):
    """Base of what clients say: null, "" and, for numbers, 0 leave a field out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        fields = self.load_fields.items()
        # A schema that looks at its fields together always goes marshmallow's own way.
        hooks = {name for hooked in self._hooks.values() for name, *_ in hooked}
        self._plain = {name: field for name, field in fields if hooks == {"_drop_blanks"} and _is_plain(field)}
        self._needed = {name for name, field in fields if field.required or field.load_default is not ma.missing}

    def load(self, data: Any, *, many: bool | None = None, **options: Any) -> Any:
        """Return what is said; marshmallow's own way, which asks after every field, where something is not plain."""
        if not many and not options and type(data) is dict:
            loaded = self.load_plain(data)
            if loaded is not None:
                return loaded
        return super().load(data, many=many, **options)

    def load_plain(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return what ``load`` does; None where it has to look at more than what was sent, or something is wrong."""
        loaded: dict[str, Any] = {}
        try:
            for name, value in data.items():
                field = self._plain.get(name)
                if field is None:
                    return None
                if not self._is_blank(name, value):
                    loaded[name] = field.deserialize(value, name, data)
        except ma.ValidationError:
            return None
        return loaded if self._needed <= loaded.keys() and (loaded or self._plain) else None

    @pre_load
    def _drop_blanks(self, data: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if not self._is_blank(name, value)}

    def _is_blank(self, name: str, value: object) -> bool:
        if name not in self.fields:
            # Clients written in Go send every field that their version of the API has: one that was not set says
            # nothing, also where it is not known here.
            return not value
        is_zero = value == 0 and value is not False and isinstance(self.fields[name], Whole)
        return value is None or value == "" or is_zero


def _is_plain(field: ma.fields.Field[Any]) -> bool:
    """Whether a field is called what it is called in the schema, and cheap to look at twice."""
    return field.attribute is None and field.data_key is None and not isinstance(field, ma.fields.Nested)


class JobBody(_Body):
    """What a client says of a job. Every field may be left out."""

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
    priority = Priority(metadata={"description": "1 low, 5 normal, 8 high, 10 critical; or one of these words."})
    timeout = Whole(_MOST_TIMEOUT, metadata={"description": "Seconds that the query may run."})
    tags = Tags(metadata={"description": "Names and short texts to find the job by."})
    depends_on = JobIds(metadata={"description": "IDs of jobs that must be finished before it may run."})
    depends_policy = Choice(
        [Policy.SUCCESS.value, Policy.FINISHED.value],
        metadata={"description": "Whether those jobs must succeed (the default), or only finish."},
    )
    max_age = Whole(
        _MOST, metadata={"description": "Take the result of an equal job whose data are at most so many seconds old."}
    )
    single_flight = Switch(
        metadata={"description": "Share the run of a pending or running job that asks for the same."}
    )
    callback_url = Url(metadata={"description": "What is told when it is finished."})


class MemberBody(JobBody):
    """What a client says of a job of a group, or of its callback."""

    task = Text(
        required=True, error_messages={"required": "is missing"}, metadata={"description": "The name of its task."}
    )


class GroupBody(_Body):
    """What a client says of a group of jobs."""

    group_id = Name(metadata={"description": "Unique among groups that are not finished. Made up if absent."})
    concurrency = Whole(_MOST, metadata={"description": "Of its jobs that run at a time; no limit if absent."})
    jobs = Objects(
        MemberBody,
        most=MOST_JOBS,
        required=True,
        error_messages={"required": "is missing"},
        metadata={"description": "Accepted all together or not at all."},
    )
    callback = Object(
        MemberBody,
        metadata={
            "description": "A job that runs once, when all others are finished, whatever has become of them. jobber "
            f"fills those of the named args {', '.join(OUTCOME_ARGS)} that its SQL names."
        },
    )

    callback_url = Url(metadata={"description": "What is told when all its jobs are finished."})


class PauseBody(_Body):
    """Why something is paused."""

    reason = Text(metadata={"description": "For people; shown by whatever waits for it."})


class TaskQuery(ma.Schema):
    """Options of a task's description."""

    sql = Flag(load_default=False, metadata={"description": "With the task's SQL."})


class StatusQuery(ma.Schema):
    """Options of a job's status."""

    wait = Span(
        _MOST_WAIT,
        load_default=0.0,
        metadata={"description": "Answer when the job is finished, at most so many seconds later."},
    )


class GroupQuery(ma.Schema):
    """Options of a group's status."""

    wait = Span(
        _MOST_WAIT,
        load_default=0.0,
        metadata={"description": "Answer when all jobs are finished, at most so many seconds later."},
    )
    jobs = Flag(load_default=True, metadata={"description": "With the jobs; false leaves the list empty."})


class CancelQuery(ma.Schema):
    """Options of a cancellation."""

    purge = Flag(load_default=False, metadata={"description": "Remove a finished job, its history and its result."})


class CancelGroupQuery(ma.Schema):
    """Options of the cancellation of a group."""

    purge = Flag(
        load_default=False, metadata={"description": "Remove a finished group, its jobs, its callback, their results."}
    )


class QueueQuery(ma.Schema):
    """Options of a queue's list."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=PAGE, metadata={"description": "Most items to list."})


class RowsQuery(ma.Schema):
    """Options of a page of rows."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=PAGE, metadata={"description": "Most rows of the page."})
    offset = Whole(2**62, from_text=True, load_default=0, metadata={"description": "Rows to skip."})
