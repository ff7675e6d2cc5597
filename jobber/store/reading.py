"""Questions about jobs; nothing here changes a row.

"The job" of an ID is the live one, else the newest finished one. The live table is asked first: a job only ever moves
from there to the history, so one that is not found in the one is in the other by then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, Select, and_, bindparam, case, func, or_, select

from jobber.errors import JobIsLive, ResultsUnavailable, UnknownJob
from jobber.jobs import Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.gates import VERSION, GateBook, Hold
from jobber.store.holding import holding, own_holds
from jobber.store.records import job_of
from jobber.store.schema import (
    RUN_COLUMNS,
    finished_jobs,
    jobs,
    rates,
    running,
    schedules,
    workers,
)
from jobber.store.surveying import open_queues, usage_of, usage_requests
from jobber.store.workers import is_out, is_served, serving

#: Columns of a live run: progress comes from its running row while it has one.
_LIVE = (
    *(jobs.c[name] for name in RUN_COLUMNS if name not in ("rows_so_far", "bytes_so_far")),
    func.coalesce(running.c.rows, jobs.c.rows_so_far).label("rows_so_far"),
    func.coalesce(running.c.bytes, jobs.c.bytes_so_far).label("bytes_so_far"),
    func.coalesce(running.c.phase, "").label("phase"),
    # The heartbeat tells how far all jobs of a worker are; one that was claimed since has not been told of.
    case((workers.c.seen_at > jobs.c.started_at, workers.c.seen_at)).label("told_at"),
    running.c.total,
    func.coalesce(running.c.total_basis, "").label("total_basis"),
    jobs.c.paused,
)


def select_live() -> Select[Any]:
    """Return a SELECT of live jobs with their progress, for ``live_jobs``."""
    held = jobs.outerjoin(running, running.c.run == jobs.c.run).outerjoin(workers, workers.c.id == running.c.worker)
    return select(*_LIVE).select_from(held)


def live_jobs(connection: Connection, statement: Select[Any], values: Mapping[str, Any] | None = None) -> list[Job]:
    """Return the jobs that a ``select_live`` finds."""
    return [_live_job(row) for row in connection.execute(statement, values).mappings()]


def _live_job(row: Mapping[str, Any] | RowMapping) -> Job:
    return job_of(row, **{name: row[name] for name in ("phase", "told_at", "total", "total_basis", "paused")})


def _newest_by(live: ColumnElement[Any], finished: ColumnElement[Any]) -> tuple[Select[Any], Select[Any]]:
    """Return what asks for the live run, and for the newest finished one, whose columns have the value ``wanted``."""
    history = select(finished_jobs).where(finished == bindparam("wanted")).order_by(finished_jobs.c.run.desc())
    return select_live().where(live == bindparam("wanted")), history.limit(1)


#: Built once: who polls asks for little else, and building them costs more than running them.
_BY_ID = _newest_by(jobs.c.job_id, finished_jobs.c.job_id)
_BY_RUN = _newest_by(jobs.c.run, finished_jobs.c.run)
_SUCCESS = _BY_ID[1].where(finished_jobs.c.state == JobState.SUCCESS.value)


def newest(connection: Connection, live: ColumnElement[bool], finished: ColumnElement[bool]) -> Job | None:
    """Return the live run that a condition finds, else the newest finished one that another finds, else None."""
    for job in live_jobs(connection, select_live().where(live)):
        return job
    history = select(finished_jobs).where(finished).order_by(finished_jobs.c.run.desc()).limit(1)
    row = connection.execute(history).mappings().one_or_none()
    return None if row is None else job_of(row)


def finished_runs(database: Database, connection: Connection, runs: Collection[int]) -> dict[int, Job]:
    """Return those of some runs that are finished."""
    history = select(finished_jobs).where(database.engine.among(finished_jobs.c.run, "runs"))
    rows = connection.execute(history, {"runs": database.engine.many(runs)}).mappings()
    return {row["run"]: job_of(row) for row in rows}


def known(database: Database, column: Column[Any], ids: Collection[str]) -> set[str]:
    """Return which of these IDs a column of live ones holds; one query for all."""
    if not ids:
        return set()
    request = Request(_known(database.engine, column), {"ids": database.engine.many(ids)})

    def work(connection: Connection) -> set[str]:
        (found,) = database.exchange(connection, request)
        return {id_ for (id_,) in found.rows}

    return database.read(work)


@lru_cache(maxsize=16)
def _known(engine: Engine, column: Column[Any]) -> Select[Any]:
    return select(column).where(engine.among(column, "ids"))


@dataclass(frozen=True, slots=True)
class Due:
    """In how many seconds time will bring something: 0 if it has, None if nothing is to come.

    Parameters:
        jobs: a delayed job becomes ready.
        schedules: a schedule fires.
        starts: a database that has had its share of starts takes another one.
    """

    jobs: float | None
    schedules: float | None
    starts: float | None


class Reader:
    """Reads jobs."""

    def __init__(self, database: Database, gates: GateBook) -> None:
        self._database = database
        self._gates = gates

    def now(self) -> Micros:
        """Return the state database's clock."""
        return self._database.read(
            lambda connection: connection.execute(select(self._database.engine.now)).scalar_one()
        )

    def get(self, job_id: str) -> Job:
        """Return the job of an ID. Raises UnknownJob."""
        job = self._find(_BY_ID, job_id)
        if job is None:
            raise UnknownJob(f"there is no job {job_id}")
        return job

    def run(self, run: int) -> Job:
        """Return one run. Raises UnknownJob."""
        job = self._find(_BY_RUN, run)
        if job is None:
            raise UnknownJob(f"there is no run {run} of any job any more")
        return job

    def _find(self, statements: tuple[Select[Any], Select[Any]], wanted: str | int) -> Job | None:
        """Return the job of one of ``_newest_by``, in one round trip."""
        requests = [Request(statement, {"wanted": wanted}) for statement in statements]
        live, finished = self._database.read(lambda connection: self._database.exchange(connection, *requests))
        for row in live.mappings():
            return _live_job(row)
        return next((job_of(row) for row in finished.mappings()), None)

    def finished(self, job_id: str) -> list[Job]:
        """Return all finished runs of an ID, newest first.

        Raises:
            JobIsLive: a run of it is not finished.
            UnknownJob: there is none of that ID.
        """
        history = select(finished_jobs).where(finished_jobs.c.job_id == job_id).order_by(finished_jobs.c.run.desc())

        def work(connection: Connection) -> list[Job]:
            for job in live_jobs(connection, select_live().where(jobs.c.job_id == job_id)):
                raise JobIsLive(f"job {job_id} is {job.state.value}; cancel it first", job)
            return [job_of(row) for row in connection.execute(history).mappings()]

        runs = self._database.read(work)
        if not runs:
            raise UnknownJob(f"there is no job {job_id}")
        return runs

    def last_success(self, job_id: str) -> Job | None:
        """Return the newest run of an ID that succeeded, whatever came after it; None if there is none."""
        request = Request(_SUCCESS, {"wanted": job_id})
        (found,) = self._database.read(lambda connection: self._database.exchange(connection, request))
        return next((job_of(row) for row in found.mappings()), None)

    def doubtful(self, since: Micros, after: int, limit: int) -> list[Job]:
        """Return runs that ended without success since then and may have published all the same, oldest first.

        Of an attempt that lost its worker, or its results database, nobody heard how far it came.

        Parameters:
            after: of those that ended at that very moment, as all jobs of a group may, only greater runs.
        """
        ended = finished_jobs.c
        statement = (
            select(finished_jobs)
            .where(
                or_(ended.finished_at > since, and_(ended.finished_at == since, ended.run > after)),
                ended.state != JobState.SUCCESS.value,
                ended.attempt > 0,  # some end as others did, without having run
                or_(ended.rescues > 0, ended.attempt > 1, ended.error_code == ResultsUnavailable.code),
            )
            .order_by(ended.finished_at, ended.run)
            .limit(limit)
        )
        return self._database.read(lambda connection: [job_of(row) for row in connection.execute(statement).mappings()])

    def live(self, job_ids: Collection[str]) -> set[str]:
        """Return which of these IDs have a live job; one query for all."""
        return known(self._database, jobs.c.job_id, job_ids)

    def running(self, attempts: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return which of these (run, attempt) a worker holds, alive or not; one query for all."""
        if not attempts:
            return set()
        held = select(running.c.run, running.c.attempt).where(self._database.engine.among(running.c.run, "runs"))
        wanted = {"runs": self._database.engine.many({run for run, _ in attempts})}
        found = self._database.read(lambda connection: connection.execute(held, wanted).all())
        return {(run, attempt) for run, attempt in found}.intersection(attempts)

    def pending(self, queue: str, *, limit: int) -> list[Job]:
        """Return the waiting jobs of a queue as they will run, but for turns among tenants.

        The ready ones in order, then the delayed ones by time, then those that wait for others, or are paused. What
        holds many back at once (a limit, a pause) is not looked at.
        """
        ready = select_live().where(jobs.c.queue == queue, jobs.c.ord.is_not(None)).order_by(jobs.c.ord)
        waiting = jobs.c.queue == queue, jobs.c.ord.is_(None), jobs.c.state != JobState.STARTED.value
        later = select_live().where(*waiting).order_by(jobs.c.due.is_(None), jobs.c.due, jobs.c.run)

        def work(connection: Connection) -> list[Job]:
            found = live_jobs(connection, ready.limit(limit))
            if len(found) < limit:
                seen = {job.run for job in found}
                more = live_jobs(connection, later.limit(limit - len(found)))
                # One that became ready between the two statements is in both.
                found += [job for job in more if job.run not in seen]
            return found

        return self._database.read(work)

    def waiting_for(self, job: Job) -> list[Hold]:
        """Return all that keeps a waiting job from running now; empty if it may, runs, or is finished."""
        if job.state not in (JobState.PENDING, JobState.RETRY):
            return []

        engine, exchange = self._database.engine, self._database.exchange

        def work(connection: Connection) -> list[Hold]:
            gates = self._gates.newest
            own, served, version, *full = exchange(
                connection,
                Request(holding(engine), {"of_run": job.run}),
                Request(serving(engine)),
                Request(VERSION),
                *usage_requests(engine, gates, job),
            )
            now = self._gates.at(connection, version.rows[0][0])
            if now is not gates:
                gates, again = now, usage_requests(engine, now, job)
                full = exchange(connection, *again) if again else []
            holds = own_holds(connection, job, own)
            if not is_served(served, job.queue):
                # Nothing else will ever make it run.
                holds.append(Hold("queue", job.queue, f"no worker serves the queue {job.queue}"))
            return holds + usage_of(gates, job, full).holds(job)

        return self._database.read(work)

    def runnable_queues(self) -> frozenset[str]:
        """Return the queues with a job that could run now, if any worker serves it."""

        def work(connection: Connection) -> frozenset[str]:
            return open_queues(self._database, connection, self._gates.current(connection))

        return self._database.read(work)

    def due(self, tasks: Collection[str] | None = None) -> Due:
        """Return what time will bring next; one query for all of it.

        Parameters:
            tasks: whose schedules are looked at; None for all.
        """
        engine = self._database.engine
        statement = _due(engine, among=tasks is not None)
        wanted = None if tasks is None else {"tasks": engine.many(tasks)}
        now, *times = self._database.read(lambda connection: connection.execute(statement, wanted).one())
        return Due(*(None if at is None else max(0.0, (at - now) / 1_000_000) for at in times))

    def lost(self) -> list[Job]:
        """Return the STARTED jobs whose worker's lease ran out, oldest first."""
        holder = running.outerjoin(workers, workers.c.id == running.c.worker)
        out = or_(workers.c.id.is_(None), is_out(self._database.engine))
        runs = select(running.c.run).select_from(holder).where(out)
        statement = select_live().where(jobs.c.run.in_(runs)).order_by(jobs.c.run)
        return self._database.read(lambda connection: live_jobs(connection, statement))


@lru_cache(maxsize=8)
def _due(engine: Engine, *, among: bool) -> Select[Any]:
    """Return what asks for the clock and for what is due next; made once, as it is asked all the time."""
    firing = select(func.min(schedules.c.next_at)).where(schedules.c.paused.is_(None))
    if among:
        firing = firing.where(engine.among(schedules.c.task, "tasks"))
    starts = select(func.min(rates.c.short_until)).scalar_subquery()
    return select(engine.now, func.min(jobs.c.due), firing.scalar_subquery(), starts)
