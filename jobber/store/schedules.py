"""Schedules are kept here, and fire in one transaction.

Whoever inserts the row of (schedule, fire time) into ``jobber_fires`` has fired: the same transaction makes the job and
moves the schedule on, so that nothing fires twice, whoever else tries, and nothing is lost, wherever a process dies.
When they fire is decided in ``jobber.scheduling``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from jobber.errors import ScheduleExists, StateUnavailable, UnknownSchedule
from jobber.jobs import Job, Micros, NewJob, Policy
from jobber.store.database import ATTEMPTS, Database
from jobber.store.receipts import Receipt, ReceiptBook
from jobber.store.schedule_records import Fire, Outcome, Overlap, Schedule, Source, schedule_of, values_of
from jobber.store.schema import fires, jobs, schedules
from jobber.store.submission import Submitter


class _Overtaken(Exception):
    """Raised inside a transaction whose schedule another one has changed."""


class ScheduleBook:
    """Keeps schedules, and fires them."""

    def __init__(self, database: Database, submitter: Submitter, receipts: ReceiptBook) -> None:
        self._database = database
        self._submitter = submitter
        self._receipts = receipts

    # -- what there is -------------------------------------------------------------------------------------------------

    def add(self, new: Schedule, receipt: Receipt | None = None) -> Schedule:
        """Add a schedule and return it; the receipt renders it. Raises ScheduleExists, and as ``ReceiptBook.claim``."""

        def work(connection: Connection) -> None:
            self._receipts.claim(connection, receipt)
            connection.execute(insert(schedules).values(values_of(new)))
            self._receipts.keep(connection, receipt, new)

        try:
            self._database.write(work)
        except IntegrityError:
            raise ScheduleExists(f"there is a schedule {new.schedule_id} already; delete it first") from None
        return new

    def get(self, schedule_id: str) -> Schedule:
        """Return a schedule. Raises UnknownSchedule."""
        for schedule in self.among([schedule_id]):
            return schedule
        raise UnknownSchedule(f"there is no schedule {schedule_id}")

    def among(self, schedule_ids: Collection[str]) -> list[Schedule]:
        """Return those of these that there are."""
        found = select(schedules).where(self._database.engine.among(schedules.c.schedule_id, "ids"))
        wanted = {"ids": self._database.engine.many(schedule_ids)}
        return self._database.read(lambda connection: [schedule_of(row) for row in connection.execute(found, wanted)])

    def page(self, *, limit: int, after: str = "") -> list[Schedule]:
        """Return schedules by ID, from the one after ``after`` on."""
        by_id = schedules.c.schedule_id
        page = select(schedules).where(by_id > after).order_by(by_id).limit(limit)
        return self._database.read(lambda connection: [schedule_of(row) for row in connection.execute(page)])

    def fires(self, schedule: Schedule, limit: int) -> list[Fire]:
        """Return the newest fire times that were dealt with since the schedule was made, newest first."""
        mine = fires.c.schedule_id == schedule.schedule_id, fires.c.created_at >= schedule.created_at
        newest = select(fires).where(*mine).order_by(fires.c.fire_at.desc()).limit(limit)

        def work(connection: Connection) -> list[Fire]:
            return [
                Fire(
                    at=row.fire_at,
                    outcome=Outcome(row.outcome),
                    job_id=row.job_id,
                    reason=row.reason or "",
                    created_at=row.created_at,
                )
                for row in connection.execute(newest)
            ]

        return self._database.read(work)

    # -- changes -------------------------------------------------------------------------------------------------------

    def pause(self, schedule_id: str, reason: str) -> Schedule:
        """Let a schedule fire no more until it is resumed. Raises UnknownSchedule."""
        return self._change(schedule_id, paused=reason)

    def resume(self, schedule_id: str, next_at: Micros | None) -> Schedule:
        """Let a schedule fire again, from ``next_at`` on. Raises UnknownSchedule."""
        return self._change(schedule_id, paused=None, next_at=next_at)

    def retime(self, schedule_id: str, *, cron: str, timezone: str, next_at: Micros | None) -> Schedule:
        """Change when a schedule fires. Raises UnknownSchedule."""
        return self._change(schedule_id, cron=cron, timezone=timezone, next_at=next_at)

    def _change(self, schedule_id: str, **values: Any) -> Schedule:
        change = update(schedules).where(schedules.c.schedule_id == schedule_id)
        change = change.values(**values, updated_at=self._database.engine.now)
        self._database.write(lambda connection: connection.execute(change))
        return self.get(schedule_id)

    def remove(self, schedule_id: str, *, source: Source | None = None) -> bool:
        """Remove a schedule, of this source if one is given; return whether there was one. Its jobs stay."""
        gone = delete(schedules).where(schedules.c.schedule_id == schedule_id)
        if source is not None:
            gone = gone.where(schedules.c.source == source.value)
        return self._database.write(lambda connection: connection.execute(gone).rowcount > 0)

    def prune(self, older_than: int, limit: int) -> None:
        """Forget some ``limit`` fires that were dealt with more than ``older_than`` seconds ago."""
        then = self._database.engine.now - older_than * 1_000_000
        old = select(fires.c.created_at).where(fires.c.created_at <= then).order_by(fires.c.created_at)
        last = old.offset(limit - 1).limit(1)
        forget = delete(fires).where(fires.c.created_at <= bindparam("until"))
        if self._database.read(lambda connection: connection.execute(old.limit(1)).first()) is None:
            return

        def work(connection: Connection) -> None:
            until = connection.execute(last).scalar() or connection.execute(select(then)).scalar_one()
            connection.execute(forget, {"until": until})

        self._database.write(work)

    # -- firing --------------------------------------------------------------------------------------------------------

    def due(self, tasks: Collection[str], but: Collection[str] = (), limit: int = 100) -> tuple[Micros, list[Schedule]]:
        """Return the time, and schedules of these tasks that are due, the one that is due longest first.

        Parameters:
            but: IDs of those that are left out.
        """
        now = self._database.engine.now
        statement = (
            select(now.label("clock"), schedules)
            .where(schedules.c.next_at <= now, schedules.c.paused.is_(None))
            .where(self._database.engine.among(schedules.c.task, "tasks"))
            .where(~self._database.engine.among(schedules.c.schedule_id, "but"))
            .order_by(schedules.c.next_at)
            .limit(limit)
        )
        wanted = {"tasks": self._database.engine.many(tasks), "but": self._database.engine.many(but)}
        rows = self._database.read(lambda connection: connection.execute(statement, wanted).all())
        return (rows[0].clock if rows else 0), [schedule_of(row) for row in rows]

    def fire(
        self,
        seen: Schedule,
        at: Micros,
        job: NewJob | None,
        *,
        then: Micros | None,
        outcome: Outcome = Outcome.FIRED,
        reason: str = "",
    ) -> tuple[Schedule, Job | None] | None:
        """Deal with a fire time: make its job unless the policy says otherwise, and move the schedule on.

        Parameters:
            seen: as ``due`` returned it.
            at: the fire time.
            job: None where none is to be made, as ``outcome`` and ``reason`` tell.
            then: the next fire time.

        Returns:
            The schedule after it, and the job that was made. None where another process was faster.

        Raises:
            InvalidRequest: the job cannot be stored; nothing was changed.
        """

        def work(connection: Connection) -> tuple[Schedule, Job | None]:
            new, told, why = job, outcome, reason
            if new is not None and seen.overlap is not Overlap.ALLOW:
                earlier = _unfinished(connection, seen.schedule_id, new.job_id)
                if earlier and seen.overlap is Overlap.SKIP:
                    new, told, why = None, Outcome.SKIPPED, f"job {earlier[0]} is not finished"
                elif earlier:
                    # Not for the newest alone, which may end, being cancelled, while an older one runs.
                    new = replace(new, depends_on=earlier, depends_policy=Policy.FINISHED)
            made = self._submitter.add(connection, [new])[0] if new else None  # first: see ``begin``
            self._note(connection, seen.schedule_id, at, told, job=made, reason=why)
            changes: dict[str, Any] = {"next_at": then}
            if made is not None:
                over = 0 < seen.max_runs <= seen.runs + 1
                changes = {"next_at": None if over else then, "runs": seen.runs + 1, "last_at": at}
                changes |= {"last_job_id": made.job_id, "last_error": ""}
            elif told is Outcome.FAILED:
                changes["last_error"] = why
            if connection.execute(_as_seen(seen).values(changes)).rowcount != 1:
                raise _Overtaken
            return replace(seen, **changes), made

        try:
            return self._database.write(work)
        except _Overtaken:
            return None
        except IntegrityError:
            return self._collided(seen, at, job, then)

    def _collided(
        self, seen: Schedule, at: Micros, job: NewJob | None, then: Micros | None
    ) -> tuple[Schedule, Job | None] | None:
        """Find out which unique index kept a schedule from firing, and go on."""
        mine = schedules.c.schedule_id == seen.schedule_id, schedules.c.next_at == seen.next_at
        fired = fires.c.schedule_id == seen.schedule_id, fires.c.fire_at == at

        def look(connection: Connection) -> tuple[bool, bool, bool]:
            unmoved = connection.execute(select(schedules.c.task).where(*mine)).first() is not None
            dealt_with = connection.execute(select(fires.c.job_id).where(*fired)).first() is not None
            live = select(jobs.c.run).where(jobs.c.job_id == (job.job_id if job else ""))
            return unmoved, dealt_with, connection.execute(live).first() is not None

        unmoved, dealt_with, live = self._database.read(look)
        if not unmoved:
            return None
        if dealt_with:  # before the clock was set back, or the database restored
            self._database.write(lambda connection: connection.execute(_as_seen(seen).values(next_at=then)))
            return replace(seen, next_at=then), None
        if live and job:
            reason = f"job_id: {job.job_id} is the ID of a job that is not finished"
            return self.fire(seen, at, None, then=then, outcome=Outcome.FAILED, reason=reason)
        return None  # that job has ended since: the next look tries again

    def run(self, schedule_id: str, make: Callable[[Micros], NewJob], receipt: Receipt | None = None) -> Job:
        """Make a job of a schedule now, whatever its times, its policies and its pause say.

        Parameters:
            make: gives the job of a moment, which is in whole milliseconds.
            receipt: renders the job.

        Raises:
            UnknownSchedule, InvalidRequest, and as ``ReceiptBook.claim``.
            StateUnavailable: it is run all the time.
        """
        clock = select(self._database.engine.now)
        at = self._database.read(lambda connection: connection.execute(clock).scalar_one())
        at = _between(at // 1000 * 1000)
        mine = update(schedules).where(schedules.c.schedule_id == schedule_id)
        for _ in range(ATTEMPTS):
            new = make(at)

            def work(connection: Connection, new: NewJob = new, at: Micros = at) -> Job:
                (made,) = self._submitter.add(connection, [new], receipt and receipt.of(itemgetter(0)))
                self._note(connection, schedule_id, at, Outcome.RUN, job=made)
                last = {"last_at": at, "last_job_id": made.job_id, "last_error": ""}
                if connection.execute(mine.values(last)).rowcount != 1:
                    raise UnknownSchedule(f"there is no schedule {schedule_id}")
                return made

            try:
                return self._database.write(work)
            except IntegrityError:
                at = _between(at + 1000)  # somebody asked in the same millisecond
        raise StateUnavailable("the state database is too busy: this schedule is run all the time", retry_after=1)

    def _note(
        self,
        connection: Connection,
        schedule_id: str,
        at: Micros,
        outcome: Outcome,
        *,
        job: Job | None,
        reason: str = "",
    ) -> None:
        row = {"schedule_id": schedule_id, "fire_at": at, "outcome": outcome.value, "reason": reason or None}
        row |= {"job_id": job.job_id if job else "", "created_at": self._database.engine.now}
        connection.execute(insert(fires).values(row))


def _between(at: Micros) -> Micros:
    """Return a moment that is no whole second: those are for fire times."""
    return at + 1000 if at % 1_000_000 == 0 else at


def _as_seen(seen: Schedule) -> Any:
    """Return an UPDATE of a schedule that nobody has changed since it was read."""
    return update(schedules).where(
        schedules.c.schedule_id == seen.schedule_id,
        schedules.c.created_at == seen.created_at,
        schedules.c.cron == seen.cron,
        schedules.c.timezone == seen.timezone,
        schedules.c.next_at == seen.next_at,
        schedules.c.runs == seen.runs,
        schedules.c.paused.is_(None),
    )


#: Unfinished jobs of its schedule that a job waits for at most.
_AWAITED = 100


def _unfinished(connection: Connection, schedule_id: str, but: str) -> tuple[str, ...]:
    """Return the jobs of a schedule that are not finished, but for one, the newest first; of very many the newest."""
    # The IDs of its jobs begin with its own and a colon, and go on with the time: a range of the unique index.
    among = jobs.c.job_id > f"{schedule_id}:", jobs.c.job_id < f"{schedule_id};"
    newest = select(jobs.c.job_id).where(*among, jobs.c.job_id != but, jobs.c.schedule == schedule_id)
    return tuple(connection.execute(newest.order_by(jobs.c.job_id.desc()).limit(_AWAITED)).scalars())
