"""What can be asked of schedules: make, look, list, pause, resume, run now, delete."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobber.completion import Completer
from jobber.errors import InvalidRequest, ScheduleExists, ScheduleIsTagged, UnknownSchedule
from jobber.jobs import Job, Micros, NewJob
from jobber.scheduling import planning
from jobber.store import Receipt, Store
from jobber.store.schedule_records import Fire, Missed, Overlap, Schedule, Source
from jobber.tasks import TaskSet
from jobber.tasks.cron import SCHEDULE_ID_MAX, check_cron, check_timezone

#: Fire times, and fires, that are told of one schedule.
NEXT_RUNS, LAST_FIRES = 5, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRequest:
    """What a client says of a schedule; values have the right types and ranges already."""

    task: str
    job: Mapping[str, Any] = field(default_factory=dict)  # the other fields of its jobs, by their names in JobRequest
    schedule_id: str | None = None
    cron: str | None = None
    interval: int | None = None
    timezone: str | None = None
    max_runs: int = 0
    start_at: Micros | None = None
    end_at: Micros | None = None
    overlap: str | None = None  # None is skip, and queue where every missed time is made up for
    missed: str = Missed.ONCE.value
    jitter: int = 0


@dataclass(frozen=True, slots=True)
class ScheduleDetails:
    """A schedule with its next fire times and the newest ones that were dealt with, newest first."""

    schedule: Schedule
    next_runs: Sequence[Micros]
    fires: Sequence[Fire]


class Schedules:
    """The operations on schedules.

    Parameters:
        tasks: gives the tasks that are loaded at the moment of the call.
        accept: raises Draining where this instance takes nothing new.
        wake: wakes the queue of a job that was made.
    """

    def __init__(
        self,
        *,
        store: Store,
        completer: Completer,
        tasks: Callable[[], TaskSet],
        accept: Callable[[], None],
        wake: Callable[[Job], None],
    ) -> None:
        self._store = store
        self._completer = completer
        self._tasks = tasks
        self._accept = accept
        self._wake = wake

    def create(self, request: ScheduleRequest, *, receipt: Receipt | None = None) -> ScheduleDetails:
        """Make a schedule; from its answer on it fires.

        Raises:
            UnknownTask.
            InvalidRequest: ``details["fields"]`` holds all problems.
            ScheduleExists, ScheduleIsTagged: of this ID.
            Answered, IdempotencyConflict: the receipt, which renders the details, has a key that has come before.
            Draining, StateUnavailable: try another instance, or later.
        """
        self._accept()
        now = self._store.now()
        schedule = self._checked(request, now)
        self._refuse_tagged(schedule.schedule_id, "its fields cannot be given in a request")
        details = self._details(schedule, now, [])
        try:
            self._store.schedules.add(schedule, receipt and receipt.of(lambda _: details))
        except ScheduleExists:
            self._refuse_if_tag_made(schedule.schedule_id)
            raise
        return details

    def get(self, schedule_id: str) -> ScheduleDetails:
        """Return a schedule. Raises UnknownSchedule."""
        schedule = self._store.schedules.get(schedule_id)
        return self._details(schedule, self._store.now(), self._store.schedules.fires(schedule, LAST_FIRES))

    def page(self, *, limit: int, after: str = "") -> tuple[list[Schedule], str | None]:
        """Return schedules by ID from the one after ``after`` on, and the ID that the next page comes after."""
        found = self._store.schedules.page(limit=limit + 1, after=after)
        return found[:limit], found[limit - 1].schedule_id if len(found) > limit else None

    def pause(self, schedule_id: str, reason: str) -> ScheduleDetails:
        """Let a schedule fire no more until it is resumed. Raises UnknownSchedule."""
        self._store.schedules.pause(schedule_id, reason)
        return self.get(schedule_id)

    def resume(self, schedule_id: str) -> ScheduleDetails:
        """Let a schedule fire again; the times that passed are not made up for. Raises UnknownSchedule."""
        schedule = self._store.schedules.get(schedule_id)
        if schedule.paused is not None:
            self._store.schedules.resume(schedule_id, planning.first(schedule, self._store.now()))
        return self.get(schedule_id)

    def run(self, schedule_id: str, *, receipt: Receipt | None = None) -> Job:
        """Make a job of a schedule now, also of one that is paused or over, beside whatever still runs.

        Raises:
            UnknownSchedule, UnknownTask, InvalidRequest: no job is made.
            Answered, IdempotencyConflict: the receipt, which renders the job, has a key that has come before.
            Draining, StateUnavailable: try another instance, or later.
        """
        self._accept()
        schedule = self._store.schedules.get(schedule_id)

        def make(at: Micros) -> NewJob:
            return self._completer.job(planning.request(schedule, at, asked=True))

        job = self._store.schedules.run(schedule_id, make, receipt)
        self._wake(job)
        return job

    def delete(self, schedule_id: str) -> ScheduleDetails:
        """Remove a schedule and return it as it was; its jobs stay. Raises UnknownSchedule, ScheduleIsTagged."""
        details = self.get(schedule_id)
        if details.schedule.source is Source.TAG:
            # Where its task is not loaded any more, the schedule may be a leftover; else who has it makes it again.
            self._refuse_tagged(schedule_id, "take the tag out of the file and reload, or pause the schedule")
        if not self._store.schedules.remove(schedule_id):
            raise UnknownSchedule(f"there is no schedule {schedule_id}")
        return details

    # -- checks --------------------------------------------------------------------------------------------------------

    def _refuse_tagged(self, schedule_id: str, so: str) -> None:
        task = self._tasks().get(schedule_id)
        if task is not None and task.cron is not None:
            raise ScheduleIsTagged(f"schedule {schedule_id} is made by the cron tag of the task of its name; {so}")

    def _refuse_if_tag_made(self, schedule_id: str) -> None:
        for schedule in self._store.schedules.among([schedule_id]):
            if schedule.source is Source.TAG:
                raise ScheduleIsTagged(f"schedule {schedule_id} is made by the cron tag of a task; choose another ID")

    def _checked(self, request: ScheduleRequest, now: Micros) -> Schedule:
        problems = _rhythm_problems(request)
        missed = Missed(request.missed)
        overlap = Overlap(request.overlap or (Overlap.QUEUE if missed is Missed.ALL else Overlap.SKIP).value)
        problems |= _policy_problems(request, missed, overlap)
        schedule = Schedule(
            schedule_id=request.schedule_id or str(uuid.uuid4()),
            task=request.task,
            request=dict(request.job),
            cron=" ".join((request.cron or "").split()),
            interval=request.interval or 0,
            timezone=request.timezone or "UTC",
            max_runs=request.max_runs,
            start_at=request.start_at,
            end_at=request.end_at,
            overlap=overlap,
            missed=missed,
            jitter=request.jitter,
            created_at=now,
            updated_at=now,
        )
        if len(schedule.schedule_id) > SCHEDULE_ID_MAX:
            most = f"is longer than {SCHEDULE_ID_MAX} characters: its jobs' IDs add the fire time"
            problems["schedule_id"] = most
        details: dict[str, Any] = {}
        try:
            self._completer.job(planning.request(schedule, now, asked=True))
        except InvalidRequest as error:
            problems |= error.details.get("fields") or {str(error.details.get("field")): error.message}
            details = {key: value for key, value in error.details.items() if key == "nearest"}
        if not problems:
            schedule = replace(schedule, next_at=planning.first(schedule, now))
            if schedule.next_at is None:
                problems["end_at"] = "comes before the first fire time, so it would never fire"
        if problems:
            message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise InvalidRequest(message, field=next(iter(problems)), fields=problems, **details)
        return schedule

    def _details(self, schedule: Schedule, now: Micros, fires: Sequence[Fire]) -> ScheduleDetails:
        return ScheduleDetails(schedule, planning.upcoming(schedule, now, NEXT_RUNS), fires)


def _rhythm_problems(request: ScheduleRequest) -> dict[str, str]:
    problems: dict[str, str] = {}
    if request.cron is None and request.interval is None:
        problems["cron"] = "is missing; say when with cron, or with interval"
    if request.cron is not None and request.interval is not None:
        problems["interval"] = "does not go with cron; give one of them"
    for name, value, check in (("cron", request.cron, check_cron), ("timezone", request.timezone, check_timezone)):
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                problems[name] = str(error)
    if request.interval is not None and request.timezone not in (None, "UTC") and "timezone" not in problems:
        problems["timezone"] = "goes with cron only: an interval is the same everywhere"
    if request.start_at is not None and request.end_at is not None and request.end_at < request.start_at:
        problems["end_at"] = "comes before start_at"
    return problems


def _policy_problems(request: ScheduleRequest, missed: Missed, overlap: Overlap) -> dict[str, str]:
    if missed is Missed.ALL and overlap is Overlap.SKIP:
        return {"overlap": "skip does not go with missed all, whose jobs come together; say queue or allow"}
    for name in ("max_age", "single_flight"):
        if request.job.get(name) and overlap is Overlap.QUEUE:
            return {name: "does not go with overlap queue, whose jobs wait for the one before"}
        if request.job.get(name) and request.jitter:
            return {name: "does not go with jitter, which gives its jobs a start time"}
    return {}
