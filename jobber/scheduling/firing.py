"""Firing what is due, and keeping the schedules of ``cron`` tags: every worker process does both.

Any process may fire a schedule whose task it has loaded; the state database lets one of them. One that does not know
the task leaves it alone.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from jobber.completion import Completer
from jobber.errors import InvalidRequest, ScheduleExists, StateUnavailable, UnknownSchedule, UnknownTask
from jobber.jobs import Job, Micros
from jobber.scheduling import planning
from jobber.store import Store
from jobber.store.schedule_records import Outcome, Schedule, Source
from jobber.tasks import Task, TaskSet

log = logging.getLogger(__name__)

#: Seconds that schedules are fired in one go: due jobs wait for this thread.
_SPELL = 1.0
#: Fires of one schedule in one go, so that one that makes up for a year leaves room for the others.
_AT_A_TIME = 100
#: Seconds after which schedules of tags are looked for again that others may have removed.
_AGAIN = 60.0
#: Seconds that a schedule is left alone after something went wrong that nobody thought of.
_REST = 60.0


def disobeyed(store: Store, tasks: TaskSet) -> list[str]:
    """Return warnings of ``cron`` tags that make no schedule, as somebody else has made one of their name.

    Raises:
        StateUnavailable.
    """
    tagged = [task.name for task in tasks.values() if task.cron is not None]
    made = {it.schedule_id for it in store.schedules.among(tagged) if it.source is not Source.TAG} if tagged else ()
    return [_disobeyed(tasks[name]) for name in tagged if name in made]


def _disobeyed(task: Task) -> str:
    return (
        f"{task.file}:{task.line}: task {task.name}: its cron tag is not obeyed: there is a schedule of this name that "
        "was made over HTTP; within a minute after that is deleted, the tag's is made"
    )


class Scheduler:
    """Fires the schedules of one process's tasks; used by one thread.

    Parameters:
        tasks: gives the tasks that are loaded at the moment of the call; another set after a reload.
        wake: sends a wake-up to a queue.
    """

    def __init__(
        self, *, store: Store, completer: Completer, tasks: Callable[[], TaskSet], wake: Callable[[str], None]
    ) -> None:
        self._store = store
        self._completer = completer
        self._tasks = tasks
        self._wake = wake
        self._kept: TaskSet | None = None  # whose tags are in the store
        self._looked = 0.0  # when they were seen there
        self._resting: dict[str, float] = {}  # until when each is left alone

    def tasks(self) -> Collection[str]:
        """Return the tasks whose schedules it fires."""
        return self._tasks().keys()

    def step(self, due: float | None) -> None:
        """Do what there is to do.

        Parameters:
            due: ``Due.schedules`` of these tasks.

        Raises:
            StateUnavailable: the next step goes on.
        """
        tasks = self._tasks()
        if tasks is not self._kept:
            self._keep(tasks)
            self._kept, self._looked = tasks, time.monotonic()
            due = 0
        elif time.monotonic() - self._looked >= _AGAIN:
            self._make_again(tasks)
            self._looked = time.monotonic()
        if due is not None and due <= 0:
            self._fire_due(tasks)

    # -- firing --------------------------------------------------------------------------------------------------------

    def _fire_due(self, tasks: TaskSet) -> None:
        self._resting = {name: until for name, until in self._resting.items() if until > time.monotonic()}
        now, schedules = self._store.schedules.due(list(tasks), but=self._resting.keys())
        # Not all processes in the same order, so that they seldom try for the same one.
        random.shuffle(schedules)
        until = time.monotonic() + _SPELL
        for schedule in schedules:
            if time.monotonic() >= until:
                return
            try:
                self._fire(schedule, now, until)
            except StateUnavailable:
                raise
            except Exception:
                log.exception("schedule %s stumbled; it is left alone for a minute", schedule.schedule_id)
                self._resting[schedule.schedule_id] = time.monotonic() + _REST

    def _fire(self, schedule: Schedule, now: Micros, until: float) -> None:
        for _ in range(_AT_A_TIME):
            step = planning.plan(schedule, now)
            if step is None or time.monotonic() >= until:
                return
            dealt_with = self._deal_with(schedule, step)
            if dealt_with is None:
                return  # another process was faster, and goes on
            schedule, job = dealt_with
            if job is not None and (job.eta is None or job.eta <= job.created_at):
                self._wake(job.queue)

    def _deal_with(self, schedule: Schedule, step: planning.Step) -> tuple[Schedule, Job | None] | None:
        fire = self._store.schedules.fire
        if not step.fires:
            return fire(schedule, step.at, None, then=step.then, outcome=Outcome.MISSED, reason="nobody could fire")
        try:
            job = self._completer.job(planning.request(schedule, step.at))
            return fire(schedule, step.at, job, then=step.then)
        except UnknownTask:
            return None  # a reload has just taken it away
        except InvalidRequest as error:
            log.warning("schedule %s makes no job now: %s", schedule.schedule_id, error.message)
            return fire(schedule, step.at, None, then=step.then, outcome=Outcome.FAILED, reason=error.message)

    # -- tags ----------------------------------------------------------------------------------------------------------

    def _keep(self, tasks: TaskSet) -> None:
        """Make, change and remove schedules as the tags of the tasks say; those of other tasks are left alone."""
        gone = set(self._kept or ()) - set(tasks)  # a reload did not find them any more
        known = {schedule.schedule_id: schedule for schedule in self._store.schedules.among({*tasks, *gone})}
        for name in gone:
            if name in known:
                self._store.schedules.remove(name, source=Source.TAG)
        for task in tasks.values():
            self._keep_one(task, known.get(task.name))

    def _make_again(self, tasks: TaskSet) -> None:
        """Make the schedules of tags that somebody removed who does not have their files, or not any more.

        No others are touched: another instance may have loaded another version of a file.
        """
        tagged = [task for task in tasks.values() if task.cron is not None]
        known = {schedule.schedule_id for schedule in self._store.schedules.among({task.name for task in tagged})}
        for task in tagged:
            if task.name not in known:
                self._keep_one(task, None)

    def _keep_one(self, task: Task, schedule: Schedule | None) -> None:
        timezone = task.timezone or "UTC"
        if task.cron is None:
            if schedule is not None and schedule.source is Source.TAG:
                self._store.schedules.remove(task.name, source=Source.TAG)
        elif schedule is None:
            now = self._store.now()
            new = Schedule(
                schedule_id=task.name,
                source=Source.TAG,
                task=task.name,
                cron=task.cron,
                timezone=timezone,
                created_at=now,
                updated_at=now,
            )
            self._add(new, now)
        elif schedule.source is not Source.TAG:
            log.warning("%s", _disobeyed(task))
        elif (schedule.cron, schedule.timezone) != (task.cron, timezone):
            self._retime(schedule, task.cron, timezone)

    def _add(self, new: Schedule, now: Micros) -> None:
        try:
            self._store.schedules.add(replace(new, next_at=planning.first(new, now)))
        except ScheduleExists:
            return  # another process was faster

    def _retime(self, schedule: Schedule, cron: str, timezone: str) -> None:
        next_at = planning.first(replace(schedule, cron=cron, timezone=timezone), self._store.now())
        try:
            self._store.schedules.retime(schedule.schedule_id, cron=cron, timezone=timezone, next_at=next_at)
        except UnknownSchedule:
            return  # another process, which has loaded another version of the file, has removed it
