"""The keys of each section, as marshmallow schemas; docs/configuration.md describes them and a test compares.

A field whose metadata has ``legacy`` is a key of older config files: ``"mapped"`` still works, ``"ignored"`` is
accepted with a warning, which says ``why``.
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
#: Failures that are tried again: those that may pass by themselves, or every one.
RETRY_ON = ("transient", "any")


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


class Rate(fields.Field[float]):
    """A number of times per second, 0 for any."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        if isinstance(value, FromEnvironment) and re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number, such as 10 or 0.5")
        if value and not 0.001 <= value <= 100_000:
            raise ValidationError("must be between 0.001 and 100000, or 0 for no limit")
        return float(value)


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


class ConnectTimeout(Duration):
    """A duration, or 0 for the default: in older files it was no limit."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        return 0 if value == 0 and not isinstance(value, bool) else super()._deserialize(value)


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


class OlderPoolSize(Whole):
    """An older file's limit of connections; 0 and less were no limit there, and are none here."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(-(2**31), **kwargs)


class Ignored(fields.Field[Any]):
    """A key of older files that means nothing here, whatever stands there.

    Parameters:
        why: the rest of a sentence that begins with the key and "ignored".
    """

    def __init__(self, why: str) -> None:
        super().__init__(allow_none=True, metadata={"legacy": "ignored", "why": why})


_MAPPED = {"legacy": "mapped"}


class Section(Schema):
    """Base of all sections: an unknown key is an error."""

    class Meta:
        unknown = RAISE


class AppSchema(Section):
    """``[app]``."""

    data_dir = Text()
    default_queue = Text(validate=validate.Regexp(QUEUE_NAME, error="must be 1 to 100 of A-Z a-z 0-9 _ : -"))
    max_jobs = Whole(0)
    tenant_tag = Text(
        validate=validate.Regexp(r"[A-Za-z0-9_.:-]{0,50}\Z", error="must be 1 to 50 of letters, digits, _ . : -"),
        metadata={"may_be_empty": True},
    )
    tenant_max_concurrent = Whole(0)
    tenant_max_pending = Whole(0)
    ttl = Duration(whole=True)
    history = Duration(whole=True, at_least=1)
    lease = Duration(whole=True, at_least=1)
    heartbeat = Duration(at_least=0.1)
    sweep = Duration(at_least=0.1)
    max_rescues = Whole(0)
    retry_on = Text(validate=validate.OneOf(RETRY_ON, error="must be transient or any"))
    retry_delay = Duration()
    retry_delay_max = Duration()
    drain_timeout = Duration()
    start_timeout = Duration()
    max_wait = Duration(whole=True)
    max_body = Whole(1024)
    log_level = LogLevel()
    default_job_ttl = Ignored("dungbeetle never applied it; see app.ttl for results, and db.NAME.timeout for queries")


_OF_REDIS = "jobber chooses the number and the timeouts of its connections to Redis"
#: Why an older limit on the time that a finished job is remembered means nothing.
OF_STATE = "finished jobs stay visible for app.history"


class _RedisKeys(Section):
    """What older files say of a Redis server."""

    type = Text(metadata=_MAPPED)
    addresses = Names(metadata=_MAPPED)
    db = Whole(0, metadata=_MAPPED)
    max_active = Ignored(_OF_REDIS)
    max_idle = Ignored(_OF_REDIS)
    dial_timeout = Ignored(_OF_REDIS)
    connect_timeout = Ignored(_OF_REDIS)
    read_timeout = Ignored(_OF_REDIS)
    write_timeout = Ignored(_OF_REDIS)
    expiry = Ignored(OF_STATE)
    meta_expiry = Ignored(OF_STATE)


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


#: Connections that one process may keep.
POOL_MAX = 1000
_OF_RESULTS = "it is a matter of databases for results"
_OF_LOADING = "rows are always loaded in bulk"


class _DatabaseKeys(Section):
    url = Text()
    type = Text()
    dsn = Text()
    password = Text()
    pool_size = Whole(0, POOL_MAX)
    connect_timeout = ConnectTimeout(at_least=0.1)
    max_active = OlderPoolSize(metadata=_MAPPED)
    max_idle = Ignored("connections are opened when a job needs one")


class DatabaseSchema(_DatabaseKeys):
    """``[db.NAME]``."""

    max_concurrent = Whole(0)
    max_starts = Rate()
    timeout = Duration(whole=True)
    server_side_cursors = Flag()
    zero_dates = Text(validate=validate.OneOf(["fail", "null"], error="must be fail or null"))
    unlogged = Ignored(_OF_RESULTS)
    batch_insert = Ignored(_OF_RESULTS)
    batch_size = Ignored(_OF_RESULTS)


class ResultsSchema(_DatabaseKeys):
    """``[results.NAME]``."""

    results_table = Text()
    unlogged = Flag()
    grant_select_to = Names()
    publish_timeout = Duration()
    results_ttl = Ignored("no result was ever removed for it; app.ttl says how long results live")
    batch_insert = Ignored(_OF_LOADING)
    batch_size = Ignored(_OF_LOADING)


class LimitSchema(Section):
    """``[queue.NAME]`` and ``[tenant.NAME]``."""

    max_concurrent = Whole(0)
    max_pending = Whole(0)


class WebhookSchema(Section):
    """``[webhooks]``."""

    secret = Text(metadata={"may_be_empty": True})
    allow = Names()


class EventSchema(Section):
    """``[events]``."""

    enabled = Flag()
    exchange = Text()
    url = Text(metadata={"may_be_empty": True})


#: Every section by the form of its heading.
SECTIONS: Mapping[str, type[Section]] = {
    "app": AppSchema,
    "job_queue.broker": BrokerSchema,
    "job_queue.state": StateSchema,
    "results.NAME": ResultsSchema,
    "db.NAME": DatabaseSchema,
    "queue.NAME": LimitSchema,
    "tenant.NAME": LimitSchema,
    "webhooks": WebhookSchema,
    "events": EventSchema,
}


def why_ignored(schema: type[Section], key: str) -> str:
    """Return why an ``"ignored"`` legacy key means nothing here: the rest of a sentence."""
    why: str = schema._declared_fields[key].metadata["why"]
    return why


def legacy_keys(schema: type[Section]) -> Mapping[str, str]:
    """Return the legacy keys of a section and what becomes of each: ``mapped`` or ``ignored``."""
    declared = schema._declared_fields
    return {key: field.metadata["legacy"] for key, field in declared.items() if "legacy" in field.metadata}
