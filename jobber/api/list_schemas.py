"""The shapes of lists of jobs, of cancels and retries of many, and of statistics."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import ValidationError, fields, pre_load, validate

from jobber.api.fields import _TAG_NAME, Name, Object, Span, Switch, Tags, Text, Timestamp, Whole, json_type
from jobber.api.requests import PAGE, _Body
from jobber.api.schemas import JobPart, _optional_integer, _Part, _Success, _time
from jobber.bulk import MOST
from jobber.changing import TOLD
from jobber.jobs import JOB_ID_PATTERN, JobState
from jobber.store.listing import JobFilter
from jobber.store.statistics import MOST_HOURS
from jobber.store.times import NEWEST

_STATES = [state.value for state in JobState]
_TAG = "tag."
#: Other ways to ask for a tag: ``tags.a``, ``tag[a]``, ``tag`` alone.
_TAG_ALIKE = re.compile(r"tags?(?:\.(.+)|\[(.+)\])?", re.IGNORECASE)


# -- fields -----------------------------------------------------------------------------------------------------------


class States(fields.Field[frozenset[JobState]]):
    """One state or several: a text with commas, in a body also a list.

    Parameters:
        listed: whether it stands in a body.
    """

    def __init__(self, *, listed: bool = False, **kwargs: Any) -> None:
        several = f"One or several of {', '.join(_STATES)}"
        shape: dict[str, Any] = {"type": "string", "description": f"{several}, separated by commas."}
        if listed:
            shape = {
                "type": ["string", "array"],
                "minItems": 1,
                "items": {"type": "string"},
                "description": f"{several}: a text, separated by commas, or a list.",
            }
        super().__init__(metadata=shape | kwargs.pop("metadata", {}), **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> frozenset[JobState]:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list):
            raise ValidationError(f"must be text, not {json_type(value)}")
        states = set()
        for word in words:
            name = word.strip().upper() if isinstance(word, str) else ""
            if name not in _STATES:
                shown = repr(word[:40]) if isinstance(word, str) else json_type(word)
                raise ValidationError(f"there is no state {shown}; there are {', '.join(_STATES)}")
            states.add(JobState(name))
        return frozenset(states)


class Cursor(fields.String):
    """Where a page begins: opaque to clients, the number of a run to us."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str):
            raise ValidationError(f"must be text, not {json_type(value)}")
        try:
            raw = base64.b64decode(value, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        run, check = raw[:8], raw[8:]
        number = int.from_bytes(run)
        if len(raw) != 12 or zlib.crc32(run) != int.from_bytes(check) or number > NEWEST:
            raise ValidationError("is no cursor that this API gave out; the first page needs none")
        return number


def cursor_of(below: int | None) -> str | None:
    """Return the cursor of the page below a run; None for None."""
    if below is None:
        return None
    run = below.to_bytes(8)
    return base64.urlsafe_b64encode(run + zlib.crc32(run).to_bytes(4)).decode()


class ManyIds(fields.Field[list[str]]):
    """Job IDs, an answer for each."""

    def __init__(self, **kwargs: Any) -> None:
        shape = {"type": "array", "minItems": 1, "maxItems": MOST, "items": {"type": "string"}}
        super().__init__(allow_none=True, metadata=shape | kwargs.pop("metadata", {}), **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str]:
        if not isinstance(value, list):
            raise ValidationError(f"must be a list of job IDs, not {json_type(value)}")
        if not 1 <= len(value) <= MOST:
            raise ValidationError(f"must hold 1 to {MOST:,} IDs, not {len(value):,}")
        for place, item in enumerate(value):
            if not isinstance(item, str) or not JOB_ID_PATTERN.fullmatch(item):
                shown = repr(item[:40]) if isinstance(item, str) else json_type(item)
                raise ValidationError(f"[{place}] is {shown}, which can be no job ID")
        return value


class TagOptions(fields.Dict):
    """Options of a query string whose names begin with ``tag.``."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str]:
        for name in value:
            if not _TAG_NAME.fullmatch(name):
                raise ValidationError(f"{name[:50]!r} is no name for a tag")
        return dict(value)


# -- requests ---------------------------------------------------------------------------------------------------------


class _Conditions(ma.Schema):
    state = States()
    task = Text(metadata={"description": "The name of their task."})
    queue = Name(metadata={"description": "Their queue."})
    group = Name(metadata={"description": "The ID of a group: its jobs and its callback."})
    since = Timestamp(metadata={"description": "Submitted then or later."})
    until = Timestamp(metadata={"description": "Submitted before."})


#: An option of this name stands for all that begin with ``tag.``; no identifier can be called so.
_Tagged = ma.Schema.from_dict(
    {
        "tag.NAME": TagOptions(
            attribute="tags",
            metadata={"type": "string", "description": "The value of the tag NAME; several tags must all match."},
        )
    }
)


class ListQuery(_Conditions, _Tagged):  # type: ignore[misc, valid-type]
    """Options of a list of jobs; several conditions must all hold."""

    limit = Whole(PAGE, least=1, from_text=True, load_default=100, metadata={"description": "Most jobs of the page."})
    cursor = Cursor(metadata={"description": "`next` of the page before."})

    def guess(self, name: str) -> str | None:
        """Return how a tag is asked for, where somebody tried it in another way."""
        alike = _TAG_ALIKE.fullmatch(name)
        return alike and _TAG + next(filter(None, alike.groups()), "NAME")

    @pre_load
    def _gather_tags(self, data: Mapping[str, str], **_: Any) -> dict[str, Any]:
        tags = {name.removeprefix(_TAG): value for name, value in data.items() if name.startswith(_TAG)}
        rest = {name: value for name, value in data.items() if not name.startswith(_TAG)}
        return rest | {"tag.NAME": tags} if tags else rest


class FilterBody(_Conditions):
    """Which jobs are meant; all conditions must hold, and one at least must be named."""

    state = States(listed=True)
    tags = Tags(metadata={"description": "All of them must match."})

    @pre_load
    def _refuse_blanks(self, data: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        # Elsewhere a blank leaves a field out. Here that would mean more jobs than somebody thought of.
        blank = [name for name, value in data.items() if not value]
        if blank:
            raise ValidationError({name: ["is empty; leave it out if any will do"] for name in blank})
        return data


def job_filter(conditions: Mapping[str, Any]) -> JobFilter:
    """Return the filter of loaded conditions."""
    names = {"state": "states", "task": "task", "queue": "queue", "group": "group", "tags": "tags"}
    given = {field: conditions[name] for name, field in names.items() if conditions.get(name)}
    return JobFilter(**given, since=conditions.get("since"), until=conditions.get("until"))


class ChangeBody(_Body):
    """Which jobs a change is for: those of some IDs, or those that a filter matches."""

    job_ids = ManyIds(metadata={"description": "An answer for each, in this order."})
    filter = Object(FilterBody, metadata={"description": "Instead of IDs."})
    dry_run = Switch(metadata={"description": "Only count what the filter matches."})
    cursor = Cursor(
        allow_none=True,
        metadata={"description": "`next` of the answer that this request goes on from."},
    )

    def _is_blank(self, name: str, value: object) -> bool:
        return super()._is_blank(name, value) and value != {}

    @ma.validates_schema(skip_on_field_errors=True)
    def _either(self, data: Mapping[str, Any], **_: Any) -> None:
        if ("job_ids" in data) == ("filter" in data):
            raise ValidationError("name the jobs by either job_ids or filter", "job_ids")
        if "job_ids" in data and data.get("dry_run"):
            raise ValidationError("goes with filter: a list of IDs is as long as it is", "dry_run")


class StatsQuery(ma.Schema):
    """Options of the statistics."""

    hours = Span(
        MOST_HOURS,
        unit="hours",
        load_default=24.0,
        validate=validate.Range(min=0, min_inclusive=False, error="must be more than 0"),
        metadata={"description": "So many hours until now, rounded: an hour to minutes, a week to hours."},
    )


# -- answers ----------------------------------------------------------------------------------------------------------


class ListedPart(JobPart):
    """A run of a job."""

    run = fields.Integer(metadata={"description": "Its number; the greater was submitted later."})


class ListAnswer(_Success):
    """Runs of jobs, the newest submission first: each run of an ID is an item of its own."""

    data = fields.List(fields.Nested(ListedPart))
    next = fields.String(
        allow_none=True,
        metadata={
            "description": "The cursor of the next page, null on the last one. A page may hold fewer jobs than its "
            "limit and not be the last."
        },
    )


_COUNT = {"type": "integer"}
#: What a filter is told.
_CHANGED = {
    "type": "object",
    "required": ["matched", "done", "refused", "refusals", "dry_run"],
    "properties": {
        "matched": _COUNT | {"description": "Jobs that the filter matched."},
        "done": _COUNT | {"description": "Of those; 0 of a dry run."},
        "refused": {"type": "object", "additionalProperties": _COUNT, "description": "The others, by error code."},
        "refusals": {
            "type": "array",
            "maxItems": TOLD,
            "description": "Of those the first.",
            "items": {
                "type": "object",
                "required": ["job_id", "message", "error"],
                "properties": {
                    "job_id": {"type": "string"},
                    "message": {"type": "string"},
                    "error": {"type": "object", "description": "Its `code`, and what else it tells."},
                },
            },
        },
        "dry_run": {"type": "boolean"},
    },
}
#: What each ID is told.
_OUTCOME = {
    "type": "object",
    "required": ["status", "data"],
    "properties": {"status": {"enum": ["success", "error"]}, "data": {"description": "The job; null of an error."}},
}


class ChangeAnswer(_Success):
    """An envelope for each ID, in their order; or the counts of a filter."""

    data = fields.Raw(metadata={"oneOf": [{"type": "array", "items": _OUTCOME}, _CHANGED]})
    accepted = fields.Integer(metadata={"optional": True, "description": "Of IDs: those that succeeded."})
    refused = fields.Integer(metadata={"optional": True, "description": "Of IDs: those that did not."})
    next = fields.String(
        allow_none=True,
        metadata={
            "optional": True,
            "description": "Of a filter: null if all is done; else the same request goes on with it as its `cursor`.",
        },
    )


class PercentilesPart(_Part):
    """Percentiles in milliseconds, null where no job began."""

    p50 = _optional_integer("Half of the jobs took no longer.")
    p95 = _optional_integer("95 of 100.")
    p99 = _optional_integer("99 of 100.")


class TallyPart(_Part):
    """The finished jobs of a task, a queue or a database."""

    count = fields.Integer()
    states = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "The count by state."})
    failed = fields.Integer()
    failures = fields.Dict(
        keys=fields.String(), values=fields.Integer(), metadata={"description": "Those that failed by error code."}
    )
    rows = fields.Integer(metadata={"description": "Of their results; a reused result counts once."})
    queued_ms = fields.Nested(PercentilesPart)
    run_ms = fields.Nested(PercentilesPart)


class PointPart(_Part):
    """What finished in an interval."""

    at = _time("Its begin.")
    finished = fields.Integer()
    failed = fields.Integer()
    rows = fields.Integer()


def _tallies(what: str) -> fields.Dict:
    return fields.Dict(keys=fields.String(), values=fields.Nested(TallyPart), metadata={"description": f"By {what}."})


class StatsPart(_Part):
    """The figures of the last hours."""

    since = _time("Where they begin.")
    until = _time("When they were made.")
    complete = fields.Boolean(
        metadata={"description": "False where so many jobs finished that `since` is later than was asked for."}
    )
    sample = fields.Integer(
        metadata={"description": "Percentiles of tasks with very many jobs are those of one in so many."}
    )
    states = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "PENDING, STARTED and RETRY as they are now, the others of the window."},
    )
    tasks = _tallies("task")
    queues = _tallies("queue")
    databases = _tallies("source database")
    interval_s = fields.Integer(metadata={"description": "Seconds of each interval of the series."})
    series = fields.List(fields.Nested(PointPart), metadata={"description": "At most 100 intervals, oldest first."})


class StatsAnswer(_Success):
    """Statistics."""

    data = fields.Nested(StatsPart)
