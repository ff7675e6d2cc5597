"""What the server tells, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from jobber.errors import JobberError

_FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELLED"})

#: A JSON scalar; send a Decimal where digits count.
Scalar = str | int | float | Decimal | bool | None
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result, with its SQL type in the results database."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that keeps a pending job from running; ``text`` says it for people."""

    gate: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; None where the server does not know."""

    phase: str  # waiting, querying, writing, publishing, done
    rows: int
    bytes: int
    rate: int | None  # rows per second
    total: int | None  # rows expected
    percent: float | None
    eta: datetime | None  # when it should be finished
    position: int | None  # in the queue, 1 is next; where a single pending job was asked for
    total_basis: str = "none"  # history, planner, none: where ``total`` comes from
    starts_at: datetime | None = None  # when it should start
    worker_memory: int | None = None  # bytes, of the process that runs it


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a job."""

    attempt: int  # its number, from 1 on
    ending: str  # running, success, failure, cancelled, retry, rerouted, requeued, rescued
    error: str
    error_code: str
    worker: str
    db: str  # that it read
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as the server last told it."""

    job_id: str
    task: str
    queue: str
    state: str  # PENDING, STARTED, RETRY, SUCCESS, FAILURE, CANCELLED
    count: int  # rows of the published result
    error: str  # why the last attempt failed, "" if it did not
    error_code: str
    args: list[Scalar] | dict[str, Scalar]
    db: str
    results_db: str
    table: str  # of the result, in results_db
    columns: tuple[Column, ...]
    priority: int
    retries: int
    attempt: int
    rescues: int  # attempts whose worker died
    attempts: tuple[Attempt, ...] | None  # None where the server did not look
    cancel_requested: bool
    eta: datetime | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    queued_ms: int
    run_ms: int | None
    progress: Progress
    waiting_for: tuple[Hold, ...] | None  # None where the server did not look
    worker: str
    tags: Mapping[str, str]
    group_id: str | None
    tenant: str | None
    depends_on: tuple[str, ...]
    depends_policy: str  # success, finished, share
    schedule_id: str | None
    paused: bool
    reused: bool  # whether its result is that of another job, ``reused_job_id``
    reused_job_id: str | None
    result_age_s: float | None  # seconds since its data were read
    raw: Mapping[str, Any]  # the answer as it came, with whatever a newer server adds

    @property
    def finished(self) -> bool:
        """Whether the run is over for good."""
        return self.state in _FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether its result is published."""
        return self.state == "SUCCESS"


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group of jobs as the server last told it."""

    group_id: str
    state: str  # PENDING, STARTED, SUCCESS (all did), FAILURE (one failed), CANCELLED (none failed, one was cancelled)
    concurrency: int  # of its jobs that run at a time, 0 is no limit
    counts: Mapping[str, int]  # jobs by state, every state
    jobs: tuple[JobStatus, ...]  # as they were submitted; empty where they were not asked for
    callback: JobStatus | None
    created_at: datetime | None
    finished_at: datetime | None
    raw: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether all its jobs are; the callback may still run."""
        return self.state in _FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether all its jobs did."""
        return self.state == "SUCCESS"


@dataclass(frozen=True, slots=True)
class Task:
    """A query that the server offers, with the defaults that its jobs get."""

    name: str
    description: str
    queue: str
    db: tuple[str, ...]
    results: tuple[str, ...]
    params: tuple[Mapping[str, Any], ...]
    sql: str | None  # only where it was asked for
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of all jobs that some conditions fit."""

    matched: int  # jobs that they fit
    done: int  # of those
    refused: Mapping[str, int]  # the others, by the code of the error
    errors: Mapping[str, JobberError]  # why they were, by job ID; of very many the first hundred of each part


@dataclass(frozen=True, slots=True)
class Page:
    """A page of rows, in the order of the query."""

    rows: list[Row]
    columns: tuple[Column, ...]
    count: int | None  # rows of the whole result
    next: int | None  # offset of the next page, None on the last one
    run: int
    newest: bool  # False while a later run of the job has not replaced them


_TIMES = ("eta", "created_at", "started_at", "finished_at", "expires_at")


def columns_of(items: Sequence[Mapping[str, str]]) -> tuple[Column, ...]:
    """Return the columns that an answer lists."""
    return tuple(Column(item["name"], item["type"]) for item in items)


def task_of(item: Mapping[str, Any]) -> Task:
    """Return the task that an answer tells."""
    lists = {name: tuple(item[name]) for name in ("db", "results", "params")}
    return Task(**{**_known(Task, item), **lists, "sql": item.get("sql"), "raw": item})


def job_of(item: Mapping[str, Any]) -> JobStatus:
    """Return the job that an answer tells."""
    holds, attempts = item["waiting_for"], item.get("attempts")
    return JobStatus(
        **{
            **_known(JobStatus, item),
            **{name: _time(item[name]) for name in _TIMES},
            "columns": columns_of(item["columns"]),
            "progress": Progress(
                **{
                    **_known(Progress, item["progress"]),
                    **{name: _time(item["progress"].get(name)) for name in ("eta", "starts_at")},
                },
            ),
            "tenant": item.get("tenant"),
            "depends_on": tuple(item.get("depends_on", ())),
            "depends_policy": item.get("depends_policy", "success"),
            "schedule_id": item.get("schedule_id"),
            "paused": item.get("paused", False),
            "reused": item.get("reused", False),
            "reused_job_id": item.get("reused_job_id"),
            "result_age_s": None if item.get("result_age_s") is None else float(item["result_age_s"]),
            "rescues": item.get("rescues", 0),
            "attempts": None if attempts is None else tuple(map(_attempt_of, attempts)),
            "waiting_for": None if holds is None else tuple(Hold(**_known(Hold, hold)) for hold in holds),
            "raw": item,
        }
    )


def _attempt_of(item: Mapping[str, Any]) -> Attempt:
    return Attempt(**{**_known(Attempt, item), **{name: _time(item[name]) for name in ("started_at", "ended_at")}})


def group_of(item: Mapping[str, Any]) -> GroupStatus:
    """Return the group that an answer tells."""
    return GroupStatus(
        **{
            **_known(GroupStatus, item),
            **{name: _time(item[name]) for name in ("created_at", "finished_at")},
            "jobs": tuple(job_of(job) for job in item["jobs"]),
            "callback": None if item["callback"] is None else job_of(item["callback"]),
            "raw": item,
        }
    )


def _known(kind: type, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer says of the fields of ``kind``; a newer server may say more."""
    return {field.name: item[field.name] for field in fields(kind) if field.name in item}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
