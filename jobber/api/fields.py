"""Fields of a request: each takes one JSON type, and says what is wrong in words for people.

Blanks are dropped before a field sees them, so the bounds here are those of values that say something.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields

from jobber.completion import MOST_PROBLEMS
from jobber.jobs import (
    JOB_ID_MAX,
    JOB_ID_PATTERN,
    PRIORITIES,
    PRIORITY_HIGHEST,
    PRIORITY_LOWEST,
    RESERVED_JOB_IDS,
    Args,
    Micros,
)

#: The most parameters that PostgreSQL's protocol can bind.
MOST_ARGS = 65_535
MOST_TAGS = 50
#: Jobs that one job may wait for.
MOST_IDS = 1000

#: The names that a ``:name`` placeholder can have.
_ARG_NAME = re.compile(r"[^\W\d]\w{0,99}")
_TAG_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,50}")
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)? ?([Zz]|[+-]\d{2}(:?\d{2})?)?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 2000, 2199


def json_type(value: object) -> str:
    """Return what JSON calls the type of a decoded value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float | Decimal):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


class Text(fields.String):
    """Text of bounded length without NUL, which no database takes in a name."""

    def __init__(self, *, most: int = 200, **kwargs: Any) -> None:
        kwargs["metadata"] = {"maxLength": most} | kwargs.get("metadata", {})
        super().__init__(allow_none=True, **kwargs)
        self.most = most

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        return _text(value, self.most)


def _text(value: object, most: int) -> str:
    if not isinstance(value, str):
        raise ValidationError(f"must be text, not {json_type(value)}")
    if len(value) > most:
        raise ValidationError(f"is longer than {most} characters")
    if "\0" in value:
        raise ValidationError("must not hold the character NUL")
    return value


class Name(Text):
    """A job ID or the name of a queue."""

    def __init__(self, *, reserved: frozenset[str] = frozenset(), **kwargs: Any) -> None:
        kwargs["metadata"] = {"pattern": f"^[A-Za-z0-9_:-]{{0,{JOB_ID_MAX}}}$"} | kwargs.get("metadata", {})
        super().__init__(most=JOB_ID_MAX, **kwargs)
        self.reserved = reserved

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        name = _text(value, self.most)
        if not JOB_ID_PATTERN.fullmatch(name):
            raise ValidationError("may hold letters and digits (ASCII), _, : and - only")
        if name in self.reserved:
            raise ValidationError(f"{name} is a name of the API's own; choose another")
        return name


class JobId(Name):
    """A job ID."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(reserved=RESERVED_JOB_IDS, **kwargs)


class Whole(fields.Integer):
    """An integer between two bounds."""

    def __init__(self, most: int, *, least: int = 0, from_text: bool = False, **kwargs: Any) -> None:
        kwargs["metadata"] = {"minimum": least, "maximum": most} | kwargs.get("metadata", {})
        super().__init__(allow_none=not from_text, **kwargs)
        self.least, self.most, self.from_text = least, most, from_text

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if self.from_text and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            shown = (
                value if isinstance(value, Decimal) else repr(str(value)[:40]) if self.from_text else json_type(value)
            )
            raise ValidationError(f"must be a whole number, not {shown}")
        if not self.least <= value <= self.most:
            raise ValidationError(f"must lie between {self.least} and {self.most}")
        return value


class Priority(Whole):
    """A priority: a number or its name; 0 leaves it out."""

    def __init__(self, **kwargs: Any) -> None:
        names = [{"type": "integer", "minimum": 0, "maximum": PRIORITY_HIGHEST}, {"enum": [*PRIORITIES, "", None]}]
        super().__init__(
            PRIORITY_HIGHEST, least=PRIORITY_LOWEST, metadata={"anyOf": names} | kwargs.pop("metadata", {}), **kwargs
        )

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if isinstance(value, str):
            if value.lower() not in PRIORITIES:
                raise ValidationError(f"must be 1 to 10 or one of {', '.join(PRIORITIES)}, not {value[:40]!r}")
            return PRIORITIES[value.lower()]
        return super()._deserialize(value, *args, **kwargs)


class Choice(Text):
    """One of some words."""

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        super().__init__(metadata={"enum": [*words, "", None]} | kwargs.pop("metadata", {}), **kwargs)
        self.words = words

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        word = _text(value, self.most)
        if word not in self.words:
            raise ValidationError(f"must be {' or '.join(self.words)}, not {word[:40]!r}")
        return word


class Switch(fields.Boolean):
    """true or false in a body."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_none=True, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"must be true or false, not {json_type(value)}")
        return value


class Url(Text):
    """An address of the web: http or https, with a host, without a user and a password."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(most=2000, metadata={"format": "uri"} | kwargs.pop("metadata", {}), **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        text = _text(value, self.most)
        try:
            parts = urlsplit(text)
            valid = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        except ValueError:
            valid = False
        if not valid or not text.isascii() or any(character.isspace() for character in text):
            raise ValidationError("must be an address like https://example.com/path, in ASCII and without spaces")
        if parts.username is not None or parts.password is not None:
            raise ValidationError("must not hold a user or a password: what is sent is signed instead")
        return text


class JobIds(fields.Field[tuple[str, ...]]):
    """A list of job IDs."""

    def __init__(self, **kwargs: Any) -> None:
        shape = {"type": "array", "maxItems": MOST_IDS, "items": {"type": "string"}}
        super().__init__(allow_none=True, metadata=shape | kwargs.pop("metadata", {}), **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValidationError(f"must be a list of job IDs, not {json_type(value)}")
        if len(value) > MOST_IDS:
            raise ValidationError(f"holds more than {MOST_IDS} IDs")
        for place, item in enumerate(value):
            if not isinstance(item, str) or not JOB_ID_PATTERN.fullmatch(item):
                shown = repr(item[:40]) if isinstance(item, str) else json_type(item)
                raise ValidationError(f"[{place}] is {shown}, which can be no job ID")
        return tuple(dict.fromkeys(value))


class Span(fields.Float):
    """A duration in a query string, of at most ``most`` seconds or other units."""

    def __init__(self, most: int, *, unit: str = "seconds", **kwargs: Any) -> None:
        super().__init__(metadata={"minimum": 0, "maximum": most} | kwargs.pop("metadata", {}), **kwargs)
        self.most = most
        self.unit = unit

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        try:
            span = float(value)
        except ValueError:
            span = math.nan
        if not 0 <= span < math.inf:
            raise ValidationError(f"must be a number of {self.unit}, not {value[:40]!r}")
        if span > self.most:
            raise ValidationError(f"must lie between 0 and {self.most} {self.unit}")
        return span


class Flag(fields.Boolean):
    """A switch in a query string."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if value.lower() not in known:
            raise ValidationError(f"must be true or false, not {value[:40]!r}")
        return known[value.lower()]


class Timestamp(fields.String):
    """A time, loaded as microseconds since the epoch."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_none=True, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        text = _text(value, 50)
        if not _TIME.fullmatch(text):
            raise ValidationError("must be a time like 2030-01-31 18:30:00 (UTC) or 2030-01-31T18:30:00+02:00")
        try:
            moment = datetime.fromisoformat(text.upper().replace(" Z", "Z").replace(",", "."))
        except ValueError as error:
            raise ValidationError(f"there is no such time: {error}") from None
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise ValidationError(f"must lie in the years {_FIRST_YEAR} to {_LAST_YEAR}")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        micros: Micros = (moment - _EPOCH) // timedelta(microseconds=1)
        return micros


class Arguments(fields.Raw):
    """Arguments of a job: a list for positional placeholders, an object for named ones; JSON scalars."""

    def __init__(self) -> None:
        scalar = {"type": ["string", "number", "boolean", "null"]}
        shapes: list[dict[str, Any]] = [
            {"type": "array", "items": scalar, "maxItems": MOST_ARGS},
            {"type": "object", "additionalProperties": scalar},
            {"type": "null"},
            {"const": ""},
        ]
        super().__init__(
            metadata={
                "anyOf": shapes,
                "description": "A list for positional placeholders, an object for named ones; numbers are exact.",
            }
        )

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Args:
        if not isinstance(value, list | dict):
            raise ValidationError(f"must be a list or an object, not {json_type(value)}")
        if len(value) > MOST_ARGS:
            raise ValidationError(f"holds more than {MOST_ARGS} arguments")
        if isinstance(value, dict):
            for name in value:
                if not _ARG_NAME.fullmatch(name):
                    raise ValidationError(f"no placeholder can be named {name[:40]!r}")
        for position, arg in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(arg, list | dict):
                raise ValidationError(
                    f"[{position}] is {json_type(arg)}; arguments are text, numbers, booleans or null"
                )
        return value


class Object(fields.Nested):
    """An object of a schema of its own."""

    def __init__(self, schema: type[Schema], **kwargs: Any) -> None:
        super().__init__(schema, allow_none=True, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return _object(value, self.schema)


class Objects(fields.Nested):
    """A list of 1 to ``most`` objects of a schema of their own."""

    def __init__(self, schema: type[Schema], *, most: int, **kwargs: Any) -> None:
        kwargs["metadata"] = {"minItems": 1, "maxItems": most} | kwargs.get("metadata", {})
        super().__init__(schema, many=True, **kwargs)
        self.most = most

    def listed(self, value: object) -> list[Any]:
        """Return the items of a list, unlooked at. Raises ValidationError: it is no list, or of another length."""
        if not isinstance(value, list):
            raise ValidationError(f"must be a list of objects, not {json_type(value)}")
        if not 1 <= len(value) <= self.most:
            raise ValidationError(f"must hold 1 to {self.most:,} objects, not {len(value):,}")
        return value

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        loaded: list[Any] = []
        problems: dict[str | int, Any] = {}
        for place, item in enumerate(self.listed(value)):
            try:
                loaded.append(_object(item, self.schema))
            except ValidationError as error:
                problems[place] = error.messages
            if len(problems) == MOST_PROBLEMS:  # no more are told
                break
        if problems:
            raise ValidationError(problems)
        return loaded


def _object(value: object, schema: Schema) -> Any:
    if not isinstance(value, dict):
        raise ValidationError(f"must be an object, not {json_type(value)}")
    return schema.load(value, many=False)


class Tags(fields.Dict):
    """Names and short texts that a client finds its jobs by."""

    def __init__(self, **kwargs: Any) -> None:
        shape = {"maxProperties": MOST_TAGS, "additionalProperties": {"type": "string", "maxLength": 200}}
        super().__init__(allow_none=True, metadata=shape | kwargs.pop("metadata", {}), **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise ValidationError(f"must be an object of texts, not {json_type(value)}")
        if len(value) > MOST_TAGS:
            raise ValidationError(f"holds more than {MOST_TAGS} tags")
        for name, text in value.items():
            if not _TAG_NAME.fullmatch(name):
                raise ValidationError(
                    f"{name[:50]!r} is no name for a tag; it holds 1 to 50 of letters, digits, _ . : -"
                )
            try:
                _text(text, 200)
            except ValidationError as error:
                raise ValidationError(f"{name} {error.messages[0]}") from None
        return value
