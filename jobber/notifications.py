"""What is told to those who asked to be told: the same to brokers and to the URLs of webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import simplejson

from jobber.answers import Answers, rfc3339
from jobber.config import Settings
from jobber.jobs import Group, Job, Micros


def of_job(settings: Settings, event: str, at: Micros, job: Job) -> dict[str, Any]:
    """Return what is told of a job.

    Parameters:
        event: what happened to it: ``success``.
        at: when it did; durations are counted until then.
    """
    answers = Answers(settings, lambda: at)
    return {"event": f"job.{event}", "at": rfc3339(at), "job": answers.job(job)}


def of_group(settings: Settings, event: str, at: Micros, group: Group) -> dict[str, Any]:
    """Return what is told of a group that has ended: all but its jobs."""
    answers = Answers(settings, lambda: at)
    return {"event": f"group.{event}", "at": rfc3339(at), "group": answers.group(group)}


def without_args(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without the arguments of its job, or of its group's callback, and with a word that it is so."""
    if "job" in message:
        return {**message, "job": _lean(message["job"])}
    callback = message["group"]["callback"]
    return {**message, "group": {**message["group"], "callback": callback and _lean(callback)}}


def _lean(job: Mapping[str, Any]) -> dict[str, Any]:
    return {**job, "args": None, "args_left_out": True}


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as JSON in UTF-8; numbers keep all their digits.

    ASCII with escapes would be up to three times as large. Half a surrogate pair, which UTF-8 cannot hold, is escaped:
    Python writes it as JSON does.
    """
    text: str = simplejson.dumps(message, use_decimal=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")
