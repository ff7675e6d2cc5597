"""The shapes of requests about many jobs, and of their answers."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import ValidationError, fields, validate

from jobber.api.blueprint import complaint
from jobber.api.fields import Objects, json_type
from jobber.api.requests import MemberBody
from jobber.api.schemas import ErrorPart, JobPart
from jobber.bulk import MOST
from jobber.errors import InvalidRequest


class Items(Objects):
    """A list of objects, each of which is right or wrong by itself: loads to a list of values and InvalidRequest."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        return [Item(item, self._one(item)) for item in self.listed(value)]

    def _one(self, item: object) -> Any:
        if not isinstance(item, dict):
            return InvalidRequest(f"must be an object, not {json_type(item)}")
        try:
            return self.schema.load(item, many=False)
        except ValidationError as error:
            return complaint(error.messages_dict, self.schema)


class Item:
    """An item of a list: what was sent, and what it loads to, an InvalidRequest where it is wrong."""

    __slots__ = ("loaded", "sent")

    def __init__(self, sent: Any, loaded: Any) -> None:
        self.sent = sent
        self.loaded = loaded


class BulkBody(ma.Schema):
    """What a client says of many jobs."""

    jobs = Items(
        MemberBody,
        most=MOST,
        required=True,
        error_messages={"required": "is missing", "null": "must be a list of objects, not null"},
        metadata={"description": "Each is accepted or refused by itself. They may depend on each other."},
    )


class OutcomePart(ma.Schema):
    """An envelope: what has become of one item."""

    class Meta:
        unknown = ma.INCLUDE

    status = fields.String(required=True, validate=validate.OneOf(["success", "error"]))
    data = fields.Nested(
        JobPart, required=True, allow_none=True, metadata={"description": "The job; null of an error."}
    )
    message = fields.String(metadata={"description": "Of an error: for people."})
    error = fields.Nested(ErrorPart, metadata={"description": "Of an error: for machines."})


class BulkAnswer(ma.Schema):
    """What has become of each item, in the order of the request."""

    class Meta:
        unknown = ma.INCLUDE

    status = fields.String(required=True, validate=validate.Equal("success"))
    data = fields.List(fields.Nested(OutcomePart), required=True)
    accepted = fields.Integer(required=True, metadata={"description": "Items that succeeded."})
    refused = fields.Integer(required=True, metadata={"description": "Items that did not."})
