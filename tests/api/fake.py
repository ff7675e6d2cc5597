"""An in-memory stand-in for ``Service``: the HTTP floor is tested against it, quickly and into every corner.

It keeps the promises that the signatures and docstrings of ``Service`` make; ``test_fake`` holds the signatures to
those of the real one, and ``test_end_to_end`` runs the API over that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from jobber.columns import Column, Kind, Row
from jobber.completion import Completer, GroupRequest, JobRequest, again
from jobber.config import (
    AppSettings,
    BrokerSettings,
    DatabaseSettings,
    ResultsSettings,
    Settings,
    StateSettings,
)
from jobber.errors import (
    Draining,
    GroupIsFinished,
    GroupIsLive,
    IdempotencyConflict,
    JobberError,
    JobIsFinished,
    JobIsLive,
    JobIsStarted,
    ResultsGone,
    ResultsNotReady,
    UnknownGroup,
    UnknownJob,
)
from jobber.jobs import Attempt, Group, Job, JobState, NewGroup, NewJob
from jobber.readiness import Finding, Report
from jobber.service import Page
from jobber.sqltext import parse
from jobber.store import Answered, Hold, Receipt
from jobber.store.progress import Outlook
from jobber.tasks import Param, Task
from tests.factories import make_job

T = TypeVar("T")

#: 2026-11-22 14:00:00 UTC.
NOON = 1_795_356_000_000_000


def settings(app: AppSettings | None = None) -> Settings:
    return Settings(
        app=app or AppSettings(max_body=100_000),
        broker=BrokerSettings(url="filesystem://"),
        state=StateSettings(url="sqlite://"),
        databases={"main": DatabaseSettings(name="main", url="sqlite://", engine="sqlite")},
        results={
            "reports": ResultsSettings(name="reports", url="postgresql+psycopg://u:secret@h/d", engine="postgresql")
        },
    )


def make_task(name: str, sql: str, description: str = "", **tags: object) -> Task:
    return Task(
        name=name,
        description=description,
        sql=sql,
        version="0" * 64,
        file=Path("/srv/queries/reports.sql"),
        line=3,
        statements={"sqlite": parse(sql, "sqlite")},
        databases=("main",),
        results=("reports",),
        **tags,  # type: ignore[arg-type]
    )


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        make_task(
            "get_profit_entries_by_date",
            "SELECT * FROM entries WHERE user_id = ? AND timestamp > ? AND timestamp < ?",
            "Entries of a user between two dates.",
            queue="sqljob_queue",
        ),
        make_task(
            "named",
            "SELECT :since",
            params=(Param("since", "date", required=True), Param("most", "integer", required=False, default=10)),
            priority=8,
            retries=2,
            ttl=60,
            timeout=30,
            cron="0 7 * * *",
            index=("a", "b"),
        ),
        make_task("notify", "SELECT :group_id, :channel, :failed"),
        make_task("slow", "SELECT 1"),
    )
}

COLUMNS = (
    Column("id", Kind.INTEGER),
    Column("total", Kind.NUMERIC, 30, 12),
    Column("ratio", Kind.FLOAT),
    Column("paid", Kind.BOOLEAN),
    Column("day", Kind.DATE),
    Column("doc", Kind.JSON),
    Column("note", Kind.TEXT),
)


class FakeReceipts:
    """Answers by their keys."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, str]] = {}

    def look(self, receipt: Receipt | None) -> None:
        if receipt and receipt.key in self.kept:
            digest, answer = self.kept[receipt.key]
            if digest != receipt.digest:
                raise IdempotencyConflict("Idempotency-Key: came with another request before", field="Idempotency-Key")
            raise Answered(answer)

    def keep(self, receipt: Receipt | None, result: T) -> T:
        if receipt:
            self.kept[receipt.key] = receipt.digest, receipt.render(result)
        return result


class FakeFigures:
    """What is to be expected of every job that is not finished."""

    def __init__(self) -> None:
        self.ahead = Outlook()

    def outlook(self, job: Job) -> Outlook:
        return self.ahead if job.live else Outlook()


class FakeService:
    """Jobs in a list; a test moves them along with ``start`` and ``finish``."""

    def __init__(self, app: AppSettings | None = None) -> None:
        self.settings = settings(app)
        self.completer = Completer(
            self.settings.app, tasks=lambda: TASKS, table_name=lambda _, job_id: f"results_{job_id}"
        )
        self.runs: list[Job] = []
        self.group_runs: list[NewGroup] = []
        self.tables: dict[int, Sequence[Row]] = {}
        self.hold: list[Hold] = []
        self.told: list[Attempt] = []
        self.requests: list[JobRequest | GroupRequest] = []
        #: Raised by every call, as a database that is down would.
        self.broken: Exception | None = None
        self.draining = False
        self.found: tuple[Finding, ...] = ()
        self.changed = threading.Condition()
        self.receipts = FakeReceipts()
        self.figures = FakeFigures()

    # -- what Service has ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        self.draining = True

    def readiness(self) -> Report:
        return Report(self.draining, self.found)

    def release(self) -> None:
        self.released = True

    def tasks(self) -> list[Task]:
        self._check()
        return [TASKS[name] for name in sorted(TASKS)]

    def task(self, name: str) -> Task:
        self._check()
        return self.completer.task(name)

    def queue_of(self, task: Task) -> str:
        return self.completer.queue_of(task)

    def submit(self, request: JobRequest, *, receipt: Receipt | None = None) -> Job:
        self._accept()
        new = self.completer.job(request)
        self.receipts.look(receipt)
        self.requests.append(request)
        self._refuse_live(new)
        return self.receipts.keep(receipt, self._add(new))

    def job(self, job_id: str) -> Job:
        self._check()
        for run in reversed(self.runs):
            if run.job_id == job_id:
                return run
        raise UnknownJob(f"no job {job_id} is live or in the history")

    def wait(self, job_id: str, seconds: float) -> Job:
        job = self.job(job_id)
        with self.changed:
            self.changed.wait_for(lambda: not self.job(job_id).live, min(seconds, self.settings.app.max_wait))
        return self.job(job.job_id)

    def holds(self, job: Job) -> list[Hold]:
        self._check()
        return self.hold if job.state in (JobState.PENDING, JobState.RETRY) else []

    def pending(self, queue: str, *, limit: int = 1000) -> list[Job]:
        self._check()
        found = [run for run in self.runs if run.queue == queue and run.state in (JobState.PENDING, JobState.RETRY)]
        return found[:limit]

    def cancel(self, job_id: str, *, purge: bool = False) -> Job:
        job = self.job(job_id)
        if not job.live:
            if not purge:
                raise JobIsFinished(f"job {job_id} is {job.state} already", job)
            self.runs = [run for run in self.runs if run.job_id != job_id]
            return job
        if job.state is JobState.STARTED:
            return self._change(job, cancel_requested=True)
        return self._change(job, state=JobState.CANCELLED, finished_at=NOON + 2_000_000)

    def pause(self, job_id: str, reason: str) -> Job:
        job = self._waiting(job_id)
        if job.state is JobState.STARTED:
            raise JobIsStarted(f"job {job_id} runs already", job)
        return self._change(job, paused=reason)

    def resume(self, job_id: str) -> Job:
        return self._change(self._waiting(job_id), paused=None)

    def _waiting(self, job_id: str) -> Job:
        job = self.job(job_id)
        if not job.live:
            raise JobIsFinished(f"job {job_id} is {job.state} already", job)
        return job

    def retry(self, job_id: str, *, receipt: Receipt | None = None) -> Job:
        job = self.job(job_id)
        if job.live:
            raise JobIsLive(f"job {job_id} is {job.state}", job)
        return self.submit(again(job), receipt=receipt)

    def attempts(self, job: Job) -> list[Attempt]:
        return [attempt for attempt in self.told if attempt.number <= job.attempt]

    def rows(self, job_id: str, *, offset: int, limit: int) -> Page:
        newest = self.job(job_id)
        runs = [run for run in self.runs if run.job_id == job_id and run.state is JobState.SUCCESS]
        if not runs:
            raise ResultsNotReady(f"job {job_id} is {newest.state}; it has no result to read", newest)
        job = runs[-1]
        if job.run not in self.tables:
            raise ResultsGone(f"the result of job {job_id} has expired")
        return Page(job, self.tables[job.run][offset : offset + limit], newest=job is newest)

    def submit_group(self, request: GroupRequest, *, receipt: Receipt | None = None) -> Group:
        self._accept()
        new = self.completer.group(request)
        self.receipts.look(receipt)
        self.requests.append(request)
        if (known := self._find_group(new.group_id)) and known.live:
            raise GroupIsLive(f"group {new.group_id} is {known.state} already", replace(known, jobs=()))
        for member in (*new.jobs, *([new.callback] if new.callback else [])):
            self._refuse_live(member)
        self.group_runs.append(new)
        for member in new.jobs:
            self._add(member, group_id=new.group_id, group_run=len(self.group_runs), group_limit=new.concurrency)
        if new.callback:
            self._add(new.callback, group_id=new.group_id)
        return self.receipts.keep(receipt, self.group(new.group_id))

    def group(self, group_id: str, *, jobs: bool = True) -> Group:
        self._check()
        if found := self._find_group(group_id):
            return found if jobs else replace(found, jobs=())
        raise UnknownGroup(f"there is no group {group_id}")

    def wait_group(self, group_id: str, seconds: float, *, jobs: bool = True) -> Group:
        self.group(group_id)
        with self.changed:
            self.changed.wait_for(lambda: not self.group(group_id).live, min(seconds, self.settings.app.max_wait))
        return self.group(group_id, jobs=jobs)

    def cancel_group(self, group_id: str, *, purge: bool = False) -> Group:
        group = self.group(group_id)
        if group.live:
            for job in group.jobs:
                if job.live:
                    self.cancel(job.job_id)
            return self.group(group_id)
        if not purge:
            raise GroupIsFinished(f"group {group_id} is {group.state} already", replace(group, jobs=()))
        self.group_runs = [replace(new, group_id="") if new.group_id == group_id else new for new in self.group_runs]
        self.runs = [run for run in self.runs if run.group_id != group_id]
        return group

    # -- what a worker does -------------------------------------------------------------------------------------------

    def start(self, job_id: str) -> Job:
        return self._change(
            self.job(job_id),
            state=JobState.STARTED,
            attempt=1,
            worker="w1",
            phase="querying",
            started_at=NOON + 1_500_000,
            rows_so_far=40,
            bytes_so_far=900,
        )

    def finish(self, job_id: str, rows: Sequence[Row] = (), columns: Sequence[Column] = COLUMNS) -> Job:
        job = self._change(
            self.job(job_id),
            state=JobState.SUCCESS,
            attempt=1,
            worker="w1",
            started_at=NOON + 1_500_000,
            finished_at=NOON + 3_500_000,
            expires_at=NOON + 86_400_000_000,
            rows=len(rows),
            columns=tuple(columns),
        )
        self.tables[job.run] = rows
        return job

    def fail(self, job_id: str, error: JobberError) -> Job:
        return self._change(
            self.job(job_id),
            state=JobState.FAILURE,
            attempt=1,
            failures=1,
            started_at=NOON + 1_500_000,
            finished_at=NOON + 3_500_000,
            error=error.message,
            error_code=error.code,
        )

    def _change(self, job: Job, **changes: object) -> Job:
        changed = replace(job, **changes)  # type: ignore[arg-type]
        with self.changed:
            self.runs[self.runs.index(job)] = changed
            self.changed.notify_all()
        return changed

    def _accept(self) -> None:
        self._check()
        if self.draining:
            raise Draining("this instance is stopping; send the job to another one or try again", retry_after=7)

    def _refuse_live(self, new: NewJob) -> None:
        for run in self.runs:
            if run.job_id == new.job_id and run.live:
                raise JobIsLive(f"job {new.job_id} is {run.state}", run)

    def _add(self, new: NewJob, **facts: object) -> Job:
        asked = {"max_age", "single_flight", "results_named"}  # of a job only as it is submitted
        told = {field.name: getattr(new, field.name) for field in fields(NewJob) if field.name not in asked}
        self.runs.append(make_job(run=len(self.runs) + 1, created_at=NOON, **told, **facts))
        return self.runs[-1]

    def _find_group(self, group_id: str) -> Group | None:
        for number, new in reversed(list(enumerate(self.group_runs, 1))):
            if new.group_id == group_id:
                jobs = tuple(run for run in self.runs if run.group_run == number)
                callbacks = [run for run in self.runs if run.group_id == group_id and run.group_run is None]
                return Group(
                    run=number,
                    group_id=group_id,
                    size=len(jobs),
                    concurrency=new.concurrency,
                    counts={state: sum(job.state is state for job in jobs) for state in JobState},
                    jobs=jobs,
                    callback=callbacks[-1] if new.callback else None,
                    callback_url=new.callback_url,
                    created_at=NOON,
                    finished_at=None if any(job.live for job in jobs) else max(job.finished_at or 0 for job in jobs),
                )
        return None

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken
