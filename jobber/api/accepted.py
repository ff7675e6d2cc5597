"""The text of a job's answer when it has just been accepted.

Jobs of one task differ in little then, and thousands of them come in a second. The text of one with all that they have
in common is kept, and what differs is put in: the answer stands in ``Answers.job`` alone.
"""

from __future__ import annotations

import re
from dataclasses import fields
from operator import attrgetter
from typing import NamedTuple

from jobber.answers import Answers, rfc3339
from jobber.api import jsontext
from jobber.jobs import Job, JobState

#: Kept texts, before all are forgotten; their keys hold what clients say.
_MOST = 256
#: What stands in a kept text where jobs differ; no request can hold NUL in what it keeps.
_FIELDS = ("job_id", "args", "table", "created_at", "queued_ms")
_MARKS = {name: f"\0{name}" for name in _FIELDS}
#: All else that a job is, but for what no answer tells, and its tags, of which it may have none.
_same = attrgetter(*(field.name for field in fields(Job) if field.name not in {*_FIELDS, "run", "fingerprint", "tags"}))
_MARK = re.compile(r'"\\u0000([a-z_]+)"')


class _Kept(NamedTuple):
    """The text of an answer, cut at the fields that differ, and the order in which these come."""

    pieces: tuple[str, ...]
    order: tuple[str, ...]


def text_of(answers: Answers, job: Job) -> str:
    """Return the JSON text of a job's answer, as ``Answers.job`` has it."""
    if job.state is not JobState.PENDING or job.eta is not None or job.tags or job.callback_url or job.depends_on:
        return jsontext.dumps(answers.job(job))
    key = _same(job)
    kept = answers.kept.get(key)
    if kept is None:
        kept = _cut(answers, job)
        if len(answers.kept) >= _MOST:
            answers.kept.clear()
        answers.kept[key] = kept
    differs = {
        "job_id": jsontext.dumps(job.job_id),
        "args": jsontext.dumps(job.args) if job.args else "[]" if isinstance(job.args, list) else "{}",
        "table": jsontext.dumps(job.table),
        "created_at": f'"{rfc3339(job.created_at)}"',
        "queued_ms": str(answers.queued_ms(job)),
    }
    first, *rest = kept.pieces
    return first + "".join([differs[name] + piece for name, piece in zip(kept.order, rest, strict=True)])


def _cut(answers: Answers, job: Job) -> _Kept:
    """Return the text of a job's answer, cut."""
    parts = _MARK.split(jsontext.dumps({**answers.job(job), **_MARKS}))
    return _Kept(tuple(parts[::2]), tuple(parts[1::2]))
