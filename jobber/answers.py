"""What jobber tells of tasks, jobs and groups, over HTTP and in notifications: objects in, JSON-able values out."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jobber import jobs
from jobber.columns import RESULT_TYPES, Column, result_type
from jobber.config import Settings
from jobber.figures import DatabaseFigures, QueueFigures
from jobber.jobs import Attempt, Group, Job, JobState, Micros
from jobber.store import Hold
from jobber.store.figures import WorkerFigures
from jobber.store.progress import Outlook
from jobber.tasks import Task

#: What the peer's answers hold where a job has not begun: Go's zero time. Its clients decode the field as a time.
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"
#: Of a job of which nobody looked what is to be expected.
NO_OUTLOOK = Outlook()


def rfc3339(at: Micros | None) -> str | None:
    """Return a time as RFC 3339 in UTC, always with six digits after the second, so that text order is time order."""
    if at is None:
        return None
    seconds, micros = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{micros:06}Z"


@lru_cache(maxsize=256)  # what is told of together happened within few seconds
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def _now() -> Micros:
    return time.time_ns() // 1000


class Answers:
    """Builds answers; knows the settings because the type of a column depends on the results database.

    Parameters:
        now: the clock that the durations of jobs that are not finished are measured by.
    """

    def __init__(self, settings: Settings, now: Callable[[], Micros] = _now) -> None:
        self._settings = settings
        self._now = now
        #: Texts that many answers have in common, for who writes them out; may be emptied at any time.
        self.kept: dict[Hashable, Any] = {}

    def job(
        self,
        job: Job,
        holds: Sequence[Hold] | None = None,
        attempts: Sequence[Attempt] | None = None,
        outlook: Outlook = NO_OUTLOOK,
    ) -> dict[str, Any]:
        """Return the job answer.

        Parameters:
            holds: what keeps a pending job from running; None if nobody looked, which is said as null.
            attempts: of the job; None if nobody looked, which is said as null.
            outlook: what is to be expected of the job, if somebody looked.
        """
        waits = job.state in (JobState.PENDING, JobState.RETRY)
        return {
            "job_id": job.job_id,
            "task": job.task,
            "task_name": job.task,
            "queue": job.queue,
            "eta": rfc3339(job.eta),
            "retries": job.retries,
            "state": job.state.value,
            "status": job.state.value,
            "count": job.rows or 0,
            # The name of the Go type is what clients of the first version look for.
            "results": [{"Type": "int64", "Value": job.rows or 0}] if job.state is JobState.SUCCESS else [],
            "error": job.error,
            "error_code": job.error_code,
            "args": job.args,
            "db": job.db,
            "results_db": job.results,
            "table": job.table,
            "columns": self.columns(job),
            "priority": job.priority,
            "ttl": job.ttl,
            "timeout": job.timeout,
            "attempt": job.attempt,
            "rescues": job.rescues,
            "attempts": None if attempts is None else [_attempt(attempt) for attempt in attempts],
            "cancel_requested": job.cancel_requested,
            "group_id": job.group_id or None,
            "created_at": rfc3339(job.created_at),
            "started_at": rfc3339(job.started_at),
            "finished_at": rfc3339(job.finished_at),
            "expires_at": rfc3339(job.expires_at),
            "queued_ms": self.queued_ms(job),
            "run_ms": self._run_ms(job),
            "progress": self._progress(job, outlook),
            "waiting_for": (None if holds is None else [_hold(hold) for hold in holds]) if waits else [],
            "worker": job.worker,
            "tags": dict(job.tags),
            "tenant": job.tenant or None,
            "version": job.version,
            "depends_on": list(job.depends_on),
            "depends_policy": job.depends_policy.value,
            "schedule_id": job.schedule or None,
            "callback_url": job.callback_url or None,
            "paused": job.paused is not None,
            "reused": job.reused is not None,
            "reused_job_id": job.reused.job_id if job.reused else None,
            "result_age_s": self._result_age_s(job),
            "snapshot_at": rfc3339(job.snapshot_at),
        }

    def pending(self, job: Job) -> dict[str, Any]:
        """Return an item of a queue's list: the job answer, and the fields that the peer's Go client decodes.

        Go matches keys without regard to case, so a key that differs from another in case only has the same value.
        """
        return self.job(job) | {
            "ID": job.job_id,
            "Status": job.state.value,
            "Queue": job.queue,
            "Schedule": "",
            "MaxRetry": job.retries,
            "Retried": job.failures,
            "PrevErr": job.error,
            "ProcessedAt": rfc3339(job.started_at) or _GO_ZERO_TIME,
            "Job": {"Task": job.task},
        }

    def group(self, group: Group, holds: Sequence[Hold] | None = None) -> dict[str, Any]:
        """Return the answer about a group and those of its jobs that it lists.

        Parameters:
            holds: what keeps a waiting callback from running; None if nobody looked.
        """
        return {
            "group_id": group.group_id,
            "state": group.state.value,
            "status": group.state.value,
            "concurrency": group.concurrency,
            "counts": {state.value: group.counts[state] for state in JobState},
            "jobs": [self.job(job) for job in group.jobs],
            "callback": self.job(group.callback, holds) if group.callback else None,
            "callback_url": group.callback_url or None,
            "created_at": rfc3339(group.created_at),
            "finished_at": rfc3339(group.finished_at),
        }

    def columns(self, job: Job) -> list[dict[str, str]]:
        """Return the columns of a job's result, each with the type that it has in the results database."""
        backend = self._settings.results.get(job.results)
        engine = backend.engine if backend else ""
        return [{"name": column.name, "type": _type(engine, column)} for column in job.columns]

    def task(self, task: Task, queue: str, *, sql: bool = False) -> dict[str, Any]:
        """Return what is known of a task, defaults filled in; the SQL only where it was asked for."""
        statement = next(iter(task.statements.values()), None)
        answer = {
            "name": task.name,
            "description": task.description,
            "params": [
                {"name": param.name, "type": param.type, "required": param.required, "default": param.default}
                for param in task.params
            ],
            "placeholders": {
                "count": statement.count if statement else 0,
                "names": list(statement.names) if statement else [],
            },
            "queue": queue,
            "db": list(task.databases),
            "results": list(task.results),
            "raw": task.raw,
            "concurrency": task.concurrency,
            "timeout": task.timeout or 0,
            "ttl": self._settings.app.ttl if task.ttl is None else task.ttl,
            "priority": task.priority or jobs.PRIORITY_NORMAL,
            "retries": task.retries or 0,
            "max_rows": task.max_rows,
            "index": list(task.index),
            "cron": task.cron,
            "timezone": task.timezone,
            "version": task.version,
            "file": task.file.name,  # its folder is the server's own business
            "line": task.line,
        }
        return answer | {"sql": task.sql} if sql else answer

    def queued_ms(self, job: Job) -> int:
        """Return how long the job has waited since it might have run: from its start time, if it has one, on."""
        since = max(job.created_at, job.eta or 0)
        return _ms(since, job.started_at or job.finished_at or self._now())

    def _run_ms(self, job: Job) -> int | None:
        if job.started_at is None:
            return None
        if job.finished_at is None and job.state is not JobState.STARTED:
            return None  # between two attempts
        return _ms(job.started_at, job.finished_at or self._now())

    def _result_age_s(self, job: Job) -> float | None:
        """Return how old the data of a published result are, in seconds."""
        at = job.reused.at if job.reused else job.snapshot_at
        if at is None or job.state is not JobState.SUCCESS:
            return None
        return round(max(0, self._now() - at) / 1_000_000, 3)

    def _progress(self, job: Job, outlook: Outlook) -> dict[str, Any]:
        done = job.state is JobState.SUCCESS
        rows = job.rows if done and job.rows is not None else job.rows_so_far
        # Once more have come than were expected, nobody knows.
        total = job.total if job.state is JobState.STARTED and job.total is not None and job.total >= rows else None
        # Until the worker told of them, not until now: between two reports that would be fewer and fewer a second.
        took = self._run_ms(job)
        if job.state is JobState.STARTED:
            took = None if job.told_at is None or job.started_at is None else _ms(job.started_at, job.told_at)
        left = None if total is None or not rows or not took else (total - rows) * took * 1000 // rows
        return {
            "phase": _phase(job),
            "rows": rows,
            "bytes": job.bytes_so_far,
            "rate": rows * 1000 // took if took else None,
            "total": total,
            "total_basis": "none" if total is None else job.total_basis,
            "percent": 100 if done else _percent(rows, total),
            "eta": None if left is None or job.told_at is None else rfc3339(job.told_at + left),
            "position": outlook.position,
            "starts_at": rfc3339(outlook.starts_at),
            "worker_memory": outlook.worker_memory,
        }


def queue(figures: QueueFigures) -> dict[str, Any]:
    """Return the answer about a queue."""
    age = None if figures.oldest_at is None else round(max(0, figures.at - figures.oldest_at) / 1_000_000, 3)
    return {
        "queue": figures.queue,
        "paused": figures.reason is not None,
        "reason": figures.reason,
        "pending": figures.pending,
        "running": figures.running,
        "oldest_age_s": age,
        "workers": figures.workers,
        "max_concurrent": figures.max_concurrent,
        "max_pending": figures.max_pending,
    }


def database(figures: DatabaseFigures) -> dict[str, Any]:
    """Return the answer about a source database."""
    return {
        "database": figures.database,
        "paused": figures.reason is not None,
        "reason": figures.reason,
        "pending": figures.pending,
        "running": figures.running,
        "max_concurrent": figures.max_concurrent,
        "max_starts": figures.max_starts,
        "slowed_until": rfc3339(figures.slowed_until),
        "slowed_reason": figures.slowed_reason or None,
    }


def worker(figures: WorkerFigures) -> dict[str, Any]:
    """Return the answer about a worker process."""
    return {
        "id": figures.id,
        "name": figures.name,
        "queues": list(figures.queues),
        "slots": figures.slots,
        "busy": len(figures.jobs),
        "memory": figures.memory,
        "registered_at": rfc3339(figures.registered_at),
        "seen_at": rfc3339(figures.seen_at),
        "alive": figures.alive,
        "jobs": [
            {
                "job_id": job.job_id,
                "attempt": job.attempt,
                "task": job.task,
                "queue": job.queue,
                "db": job.db,
                "phase": job.phase,
                "rows": job.rows,
                "started_at": rfc3339(job.started_at),
            }
            for job in figures.jobs
        ],
    }


def _percent(rows: int, total: int | None) -> int | None:
    if total is None:
        return None
    # The last of it is to publish the rows.
    return min(99, rows * 100 // total) if total else 99


def _phase(job: Job) -> str:
    if job.state.finished:
        return "done"
    if job.state is JobState.STARTED:
        return job.phase or "querying"
    return "waiting"


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "ending": attempt.ending.value,
        "error": attempt.error,
        "error_code": attempt.error_code,
        "worker": attempt.worker,
        "db": attempt.db,
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at),
    }


def _hold(hold: Hold) -> dict[str, str]:
    return {"gate": hold.kind, "name": hold.name, "text": hold.text}


def _ms(start: Micros, end: Micros) -> int:
    return max(0, (end - start) // 1000)  # the clocks of two machines may disagree


def _type(engine: str, column: Column) -> str:
    # A job of an earlier day may have gone to a database that the config no longer names.
    return result_type(engine, column) if engine in RESULT_TYPES else column.kind.value.upper()
