"""Rows of the job tables to ``Job`` objects and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping

from jobber.columns import decode_columns
from jobber.errors import InvalidRequest
from jobber.jobs import NAME_MAX, Job, JobState, Micros, NewJob, Policy, Reused, decode_args, encode_args
from jobber.store.schema import RUN_COLUMNS


def check_names(new: NewJob) -> None:
    """Raise InvalidRequest if a name is longer than every engine takes."""
    for field in ("job_id", "task", "queue", "db", "table", "tenant"):
        if len(getattr(new, field)) > NAME_MAX:
            raise InvalidRequest(f"job {new.job_id}: {field} is longer than {NAME_MAX} characters", field=field)


@dataclass(frozen=True, slots=True)
class Membership:
    """A job's part in a group; the columns of a run say the same."""

    group_id: str = ""
    group_run: int | None = None
    group_limit: int = 0


OUTSIDE = Membership()


#: The columns in which all new runs are the same.
NEW_RUN: Mapping[str, Any] = {
    "reroutes": 0,
    "reused": None,
    "state": JobState.PENDING.value,
    "attempt": 0,
    "failures": 0,
    "rescues": 0,
    "cancel_requested": False,
    "worker": "",
    "rows_so_far": 0,
    "bytes_so_far": 0,
    "rows": None,
    "columns": "[]",
    "error": "",
    "error_code": "",
    "started_at": None,
    "snapshot_at": None,
    "finished_at": None,
    "expires_at": None,
}


def values_of(new: NewJob, run: int, now: Micros, group: Membership = OUTSIDE) -> dict[str, Any]:
    """Return the columns of a new run, but for those in ``NEW_RUN``.

    Raises:
        InvalidRequest: a text holds half a surrogate pair, which no database stores.
    """
    args = encode_args(new.args)
    try:
        args.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"job {new.job_id}: a text in args is not valid Unicode", field="args") from error
    return {
        "run": run,
        "job_id": new.job_id,
        "task": new.task,
        "queue": new.queue,
        "db": new.db,
        "results": new.results,
        "result_table": new.table,
        "args": args,
        "priority": new.priority,
        "retries": new.retries,
        "ttl": new.ttl,
        "timeout": new.timeout,
        "eta": new.eta,
        "tags": json.dumps(dict(new.tags)) if new.tags else "{}",
        "replicas": json.dumps(new.replicas) if new.replicas else None,
        "group_id": group.group_id,
        "group_run": group.group_run,
        "group_limit": group.group_limit,
        "tenant": new.tenant,
        "version": new.version,
        "fingerprint": new.fingerprint,
        "depends_on": json.dumps(new.depends_on) if new.depends_on else None,
        "depends_policy": new.depends_policy.value if new.depends_on else "",
        "schedule": new.schedule,
        "callback_url": new.callback_url or None,
        "created_at": now,
    }


def job_as_submitted(new: NewJob, run: int, now: Micros, group: Membership = OUTSIDE) -> Job:
    """Return a new run as reading it back would, without reading it back."""
    return Job(
        run=run,
        job_id=new.job_id,
        task=new.task,
        queue=new.queue,
        db=new.db,
        results=new.results,
        table=new.table,
        args=new.args,
        priority=new.priority,
        retries=new.retries,
        ttl=new.ttl,
        timeout=new.timeout,
        eta=new.eta,
        tags=dict(new.tags),
        replicas=new.replicas,
        reroutes=0,
        group_id=group.group_id,
        group_run=group.group_run,
        group_limit=group.group_limit,
        tenant=new.tenant,
        version=new.version,
        fingerprint=new.fingerprint,
        depends_on=new.depends_on,
        depends_policy=new.depends_policy,
        schedule=new.schedule,
        callback_url=new.callback_url,
        reused=None,
        state=JobState.PENDING,
        attempt=0,
        failures=0,
        rescues=0,
        cancel_requested=False,
        worker="",
        phase="",
        rows_so_far=0,
        bytes_so_far=0,
        told_at=None,
        total=None,
        total_basis="",
        paused=None,
        rows=None,
        columns=(),
        error="",
        error_code="",
        created_at=now,
        started_at=None,
        snapshot_at=None,
        finished_at=None,
        expires_at=None,
    )


def job_of(
    row: Mapping[str, Any] | RowMapping,
    *,
    phase: str = "",
    told_at: Micros | None = None,
    total: int | None = None,
    total_basis: str = "",
    paused: str | None = None,
) -> Job:
    """Return the job that a row with the columns of a run describes.

    Parameters:
        row: by column name; further keys are ignored.
        phase, told_at, total, total_basis: of the running attempt.
        paused: why it is paused, None if it is not.
    """
    values = {name: row[name] for name in RUN_COLUMNS}
    values["table"] = values.pop("result_table")
    values["state"] = JobState(values["state"])
    values["args"] = decode_args(values["args"])
    values["tags"] = json.loads(values["tags"]) if values["tags"] != "{}" else {}
    values["replicas"] = tuple(json.loads(values["replicas"])) if values["replicas"] else ()
    values["columns"] = _columns_of(values["columns"])
    values["depends_on"] = tuple(json.loads(values["depends_on"])) if values["depends_on"] else ()
    values["depends_policy"] = Policy(values["depends_policy"] or Policy.SUCCESS)
    values["callback_url"] = values["callback_url"] or ""
    values["reused"] = Reused(**json.loads(values["reused"])) if values["reused"] else None
    return Job(**values, phase=phase, told_at=told_at, total=total, total_basis=total_basis, paused=paused)


#: Of one task they are the same in each job.
_columns_of = lru_cache(maxsize=256)(decode_columns)


def storable(message: str) -> str:
    """Return an error text as every engine can store it: PostgreSQL refuses NUL, UTF-8 half a surrogate pair."""
    return message.replace("\x00", "\ufffd").encode(errors="replace").decode()
