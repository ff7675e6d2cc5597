"""The keys of each section, as marshmallow schemas; docs/configuration.md describes them and a test compares.

A field whose metadata has ``legacy`` is a key of older config files: ``"mapped"`` still works, ``"ignored"`` is
accepted with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from jobber.config.durations import seconds

#: Names of queues: the alphabet of job IDs.
QUEUE_NAME = re.compile(r"[A-Za-z0-9_:-]{1,100}\Z")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class FromEnvironment(str):
    """A value from an environment variable: text, whatever its key wants."""

    __slots__ = ()


class Text(fields.Field[str]):
    """Text that is not empty."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be text in quotes")
        if not value.strip() and not self.metadata.get("may_be_empty"):
            raise ValidationError("is empty")
        return str(value)


class LogLevel(Text):
    """A log level, in capitals or not."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        level = super()._deserialize(value).strip().lower()
        if level not in LOG_LEVELS:
            raise ValidationError(f"must be one of {', '.join(LOG_LEVELS)}")
        return level


class Whole(fields.Field[int]):
    """A whole number."""

    def __init__(self, at_least: int, at_most: int = 2**31 - 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at_least, self.at_most = at_least, at_most

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if isinstance(value, FromEnvironment) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError("must be a whole number")
        if not self.at_least <= value <= self.at_most:
            raise ValidationError(f"must be between {self.at_least} and {self.at_most}")
        return value


class Duration(fields.Field[float]):
    """Seconds, or text such as ``30s``."""

    def __init__(self, *, at_least: float = 0, whole: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at_least, self.whole = at_least, whole

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        try:
            duration = seconds(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        if duration < self.at_least:
            raise ValidationError(f"must be at least {self.at_least:g} s")
        if not self.whole:
            return duration
        if duration != int(duration):
            raise ValidationError("must be whole seconds")
        return int(duration)


_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Flag(fields.Field[bool]):
    """true or false."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if isinstance(value, FromEnvironment):
            value = _FLAGS.get(value.strip().lower())
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Names(fields.Field[tuple[str, ...]]):
    """A list of texts; one text with commas in the environment."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        if isinstance(value, FromEnvironment):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise ValidationError('must be a list of texts, such as ["one", "two"]')
        return tuple(value)


_MAPPED = {"legacy": "mapped"}
_IGNORED = {"legacy": "ignored"}


class Section(Schema):
    """Base of all sections: an unknown key is an error."""

    class Meta:
        unknown = RAISE


class AppSchema(Section):
    """``[app]``."""

    data_dir = Text()
    default_queue = Text(validate=validate.Regexp(QUEUE_NAME, error="must be 1 to 100 of A-Z a-z 0-9 _ : -"))
    ttl = Duration(whole=True)
    history = Duration(whole=True, at_least=1)
    lease = Duration(whole=True, at_least=1)
    heartbeat = Duration(at_least=0.1)
    sweep = Duration(at_least=0.1)
    max_rescues = Whole(0)
    drain_timeout = Duration()
    start_timeout = Duration()
    max_wait = Duration(whole=True)
    max_body = Whole(1024)
    log_level = LogLevel()
    default_job_ttl = Duration(metadata=_IGNORED)


class _RedisKeys(Section):
    """What older files say of a Redis server."""

    type = Text(metadata=_MAPPED)
    addresses = Names(metadata=_MAPPED)
    db = Whole(0, metadata=_MAPPED)
    max_active = Whole(0, metadata=_IGNORED)
    max_idle = Whole(0, metadata=_IGNORED)
    dial_timeout = Duration(metadata=_IGNORED)
    connect_timeout = Duration(metadata=_IGNORED)
    read_timeout = Duration(metadata=_IGNORED)
    write_timeout = Duration(metadata=_IGNORED)
    expiry = Duration(metadata=_IGNORED)
    meta_expiry = Duration(metadata=_IGNORED)


class BrokerSchema(_RedisKeys):
    """``[job_queue.broker]``."""

    url = Text()
    password = Text(metadata={"may_be_empty": True})
    key_prefix = Text()


class StateSchema(_RedisKeys):
    """``[job_queue.state]``."""

    url = Text()
    password = Text(metadata={"may_be_empty": True})
    pool_size = Whole(1, 1000)


class _DatabaseKeys(Section):
    url = Text()
    type = Text()
    dsn = Text()
    password = Text()
    pool_size = Whole(1, 1000)
    connect_timeout = Duration(at_least=0.1)
    max_active = Whole(0, metadata=_MAPPED)
    max_idle = Whole(0, metadata=_IGNORED)


class DatabaseSchema(_DatabaseKeys):
    """``[db.NAME]``."""

    max_concurrent = Whole(0)
    timeout = Duration(whole=True)
    server_side_cursors = Flag()
    zero_dates = Text(validate=validate.OneOf(["fail", "null"], error="must be fail or null"))


class ResultsSchema(_DatabaseKeys):
    """``[results.NAME]``."""

    results_table = Text()
    unlogged = Flag()
    grant_select_to = Names()


#: Every section by the form of its heading.
SECTIONS: Mapping[str, type[Section]] = {
    "app": AppSchema,
    "job_queue.broker": BrokerSchema,
    "job_queue.state": StateSchema,
    "results.NAME": ResultsSchema,
    "db.NAME": DatabaseSchema,
}


def legacy_keys(schema: type[Section]) -> Mapping[str, str]:
    """Return the legacy keys of a section and what becomes of each: ``mapped`` or ``ignored``."""
    declared = schema._declared_fields
    return {key: field.metadata["legacy"] for key, field in declared.items() if "legacy" in field.metadata}
