"""When a schedule fires: pure functions of a schedule and the time, which is the state database's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from jobber.completion import JobRequest
from jobber.jobs import Micros
from jobber.store.schedule_records import Missed, Schedule
from jobber.tasks.cron import cron_times

SECOND: Micros = 1_000_000
#: How late a fire time may be and still not be missed: as long as restarts and outages of a database usually take.
GRACE: Micros = 60 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Before the time, how far the newest fire time is looked for: first nearby, as most are.
_SPANS = tuple(days * 86_400 * SECOND for days in (1, 40, 400))


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next about a schedule that is due.

    Parameters:
        at: the fire time to deal with; it stands for all before it.
        fires: whether there is to be a job for it; it was missed if not.
        then: the next fire time, None if there is none.
    """

    at: Micros
    fires: bool
    then: Micros | None


def times(schedule: Schedule, after: Micros) -> Iterator[Micros]:
    """Yield the fire times of a schedule after a time, growing; what was fired already, and ``max_runs``, aside."""
    if schedule.start_at is not None:
        after = max(after, schedule.start_at - 1)
    for at in _cron(schedule, after) if schedule.cron else _interval(schedule, after):
        if schedule.end_at is not None and at > schedule.end_at:
            return
        yield at


def _cron(schedule: Schedule, after: Micros) -> Iterator[Micros]:
    since = _EPOCH + timedelta(microseconds=after)
    for moment in cron_times(schedule.cron, schedule.timezone, since):
        yield (moment - _EPOCH) // timedelta(microseconds=1)


def _interval(schedule: Schedule, after: Micros) -> Iterator[Micros]:
    begin, step = _grid(schedule)
    at = begin + max(0, (after - begin) // step + 1) * step
    while True:
        yield at
        at += step


def _grid(schedule: Schedule) -> tuple[Micros, Micros]:
    """Return the first fire time of an interval, and the time from one to the next."""
    step = schedule.interval * SECOND
    since = schedule.created_at if schedule.start_at is None else schedule.start_at
    whole = -(-since // SECOND) * SECOND  # the IDs of the jobs show no less than seconds
    return (whole + step if schedule.start_at is None else whole), step


def first(schedule: Schedule, now: Micros) -> Micros | None:
    """Return the first fire time from ``now`` on, None if there is none or all runs are used up."""
    if 0 < schedule.max_runs <= schedule.runs:
        return None
    return next(times(schedule, now - 1), None)


def upcoming(schedule: Schedule, now: Micros, count: int) -> list[Micros]:
    """Return the next fire times; of a paused schedule those that it would have if it were resumed now."""
    start = first(schedule, now) if schedule.paused is not None else schedule.next_at
    if start is None or schedule.next_at is None:
        return []
    left = schedule.max_runs - schedule.runs if schedule.max_runs else count
    return [start, *islice(times(schedule, start), max(0, min(count, left) - 1))]


def plan(schedule: Schedule, now: Micros) -> Step | None:
    """Return what to do about a schedule now, None if it is not due.

    Several fire times may have passed since anybody looked. ``all`` deals with one after the other; else the newest
    stands for all of them.
    """
    if schedule.next_at is None or schedule.next_at > now or schedule.paused is not None:
        return None
    at = schedule.next_at if schedule.missed is Missed.ALL else _newest(schedule, schedule.next_at, now)
    fires = schedule.missed is not Missed.SKIP or now - at <= GRACE
    return Step(at, fires, next(times(schedule, at), None))


def _newest(schedule: Schedule, since: Micros, now: Micros) -> Micros:
    """Return the newest fire time that has come, ``since`` if there is no newer one."""
    if not schedule.cron:
        begin, step = _grid(schedule)
        until = now if schedule.end_at is None else min(now, schedule.end_at)
        return max(since, begin + (until - begin) // step * step) if until >= begin else since
    for start in (*(now - span for span in _SPANS), since):
        newest = None
        for at in times(schedule, max(start, since)):
            if at > now:
                break
            newest = at
        if newest is not None or start <= since:
            break
    return newest or since


def job_id(schedule: Schedule, at: Micros, *, asked: bool = False) -> str:
    """Return the ID of the job of a fire time, or of one that was asked for at a moment."""
    moment = _EPOCH + timedelta(microseconds=at)
    exact = f"-{at // 1000 % 1000:03}" if asked else ""
    return f"{schedule.schedule_id}:{moment:%Y%m%dT%H%M%S}{exact}"


def request(schedule: Schedule, at: Micros, *, asked: bool = False) -> JobRequest:
    """Return the job of a fire time, or of one that was asked for at a moment: that one starts without jitter."""
    return JobRequest(
        task=schedule.task,
        job_id=job_id(schedule, at, asked=asked),
        eta=at + _delay(schedule, at) if schedule.jitter and not asked else None,
        schedule=schedule.schedule_id,
        **schedule.request,
    )


def _delay(schedule: Schedule, at: Micros) -> Micros:
    """Return by how much the jitter delays a job: the same for the same fire time, whoever asks."""
    drawn = int.from_bytes(hashlib.sha256(f"{schedule.schedule_id}:{at}".encode()).digest()[:8])
    return drawn % (schedule.jitter * 1000 + 1) * 1000
