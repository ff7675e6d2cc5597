"""What holds a single job back by itself: a pause, its start time, its parents, its group. In words, for people.

What holds many back at once (limits, pauses of queues and databases) is told in ``gates``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from jobber.jobs import Job, JobState, Micros, Policy
from jobber.store.engines import Engine
from jobber.store.exchange import Answer
from jobber.store.gates import Hold
from jobber.store.schema import dependencies, groups, jobs

#: Parents of a job that are named.
_NAMED = 20


@lru_cache(maxsize=4)
def holding(engine: Engine) -> Select[Any]:
    """Return what asks for that which holds a job back; ``own_holds`` reads the answer."""
    return select(jobs.c.paused, jobs.c.ready_at, engine.now).where(jobs.c.run == bindparam("of_run"))


def own_holds(connection: Connection, job: Job, answer: Answer) -> list[Hold]:
    """Return what holds a waiting job back that is its own; empty if nothing does, or it does not wait any more."""
    for reason, ready_at, now in answer.rows:
        return [
            *_paused(job, reason),
            *_start(job, ready_at if ready_at is not None and ready_at > now else None),
            *_parents(connection, job),
            *_group(connection, job),
        ]
    return []


def _paused(job: Job, reason: str | None) -> list[Hold]:
    if reason is None:
        return []
    return [Hold("paused", job.job_id, f"the job is paused: {reason}" if reason else "the job is paused")]


def _start(job: Job, at: Micros | None) -> list[Hold]:
    if at is None:
        return []
    time = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
    what = "the next attempt" if job.state is JobState.RETRY else "its start time"
    return [Hold("start", time, f"{what} is due at {time}")]


def _parents(connection: Connection, job: Job) -> list[Hold]:
    if not job.depends_on:
        return []
    of = dependencies.c.child == job.run
    unfinished = dependencies.join(jobs, jobs.c.run == dependencies.c.parent)
    wanted = select(dependencies.c.parent_id, dependencies.c.policy, jobs.c.state).select_from(unfinished).where(of)
    rows = connection.execute(wanted.order_by(dependencies.c.parent).limit(_NAMED + 1)).all()
    holds = [
        Hold(
            "parent",
            row.parent_id,
            f"job {row.parent_id}{', whose run it shares,' if row.policy == Policy.SHARE else ''} is {row.state}",
        )
        for row in rows[:_NAMED]
    ]
    if len(rows) > _NAMED:
        count = connection.execute(select(func.count()).select_from(dependencies).where(of)).scalar_one()
        holds.append(Hold("parent", "", f"and {count - _NAMED} more"))
    return holds


def _group(connection: Connection, job: Job) -> list[Hold]:
    """Say so if the job is the callback of a group that is not finished."""
    if not job.group_id or job.group_run is not None:
        return []
    done = groups.c.succeeded + groups.c.failed + groups.c.cancelled
    callback = groups.c.live_id == job.group_id, groups.c.callback_run == job.run
    row = connection.execute(select(done, groups.c.size).where(*callback)).one_or_none()
    return [Hold("parent", job.group_id, f"group {job.group_id}: {row[0]} of {row[1]} jobs finished")] if row else []
