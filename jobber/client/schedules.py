"""The client's calls about schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jobber.client.answers import JobStatus, job_of
from jobber.client.args import Arg
from jobber.client.bodies import job_body, time_text
from jobber.client.wire import Wire, segment

#: What the server tells of a schedule; docs/schedules.md has the keys.
Schedule = Mapping[str, Any]


class ScheduleCalls:
    """The part of ``Client`` that is about schedules."""

    _wire: Wire

    def create_schedule(
        self,
        task: str,
        args: Sequence[Arg] | Mapping[str, Arg] | None = None,
        *,
        schedule_id: str | None = None,
        cron: str | None = None,
        interval: int | None = None,
        timezone: str | None = None,
        max_runs: int | None = None,
        start_at: datetime | str | None = None,
        end_at: datetime | str | None = None,
        overlap: str | None = None,
        missed: str | None = None,
        jitter: int | None = None,
        idempotency_key: str | None = None,
        **job: Any,
    ) -> Schedule:
        """Make a schedule: a job of ``task`` at each of its times.

        Parameters:
            cron: ``MINUTE HOUR DAY MONTH WEEKDAY``; this, or ``interval`` (seconds).
            timezone: IANA name, of ``cron``; UTC if absent.
            overlap: ``skip``, ``queue`` or ``allow``, at a time at which an earlier job is not finished.
            missed: ``once``, ``skip`` or ``all``, of times at which nobody could fire.
            jitter: seconds that a job starts later, at most.
            job: what else ``submit`` takes: ``queue``, ``priority`` ….

        Raises:
            UnknownTask, InvalidRequest.
            ScheduleExists: there is one of that ID.

        >>> jobber.create_schedule("nightly", schedule_id="night", cron="30 2 * * *")["next_runs"][0]
        '2026-11-24T02:30:00.000000Z'
        """
        body = job_body({**job, "args": args}) | {
            "task": task,
            "schedule_id": schedule_id,
            "cron": cron,
            "interval": interval,
            "timezone": timezone,
            "max_runs": max_runs,
            "start_at": time_text(start_at),
            "end_at": time_text(end_at),
            "overlap": overlap,
            "missed": missed,
            "jitter": jitter,
        }
        sent = {name: value for name, value in body.items() if value is not None}
        made: Schedule = self._wire.call("POST", "/schedules", body=sent, key=idempotency_key)["data"]
        return made

    def schedules(self) -> Iterator[Schedule]:
        """Yield all schedules, by ID."""
        query = {"limit": "1000"}
        while True:
            page = self._wire.call("GET", "/schedules", query=query)
            yield from page["data"]
            if page["next"] is None:
                return
            query["cursor"] = page["next"]

    def schedule(self, schedule_id: str) -> Schedule:
        """Return a schedule, with its next five times and its newest fires. Raises UnknownSchedule."""
        found: Schedule = self._wire.call("GET", _schedule(schedule_id))["data"]
        return found

    def delete_schedule(self, schedule_id: str) -> Schedule:
        """Delete a schedule; the jobs that it made stay. Raises UnknownSchedule, ScheduleIsTagged."""
        gone: Schedule = self._wire.call("DELETE", _schedule(schedule_id))["data"]
        return gone

    def pause_schedule(self, schedule_id: str, reason: str = "") -> Schedule:
        """Let a schedule fire no more until it is resumed. Raises UnknownSchedule."""
        body = {"reason": reason} if reason else {}
        paused: Schedule = self._wire.call("POST", f"{_schedule(schedule_id)}/pause", body=body)["data"]
        return paused

    def resume_schedule(self, schedule_id: str) -> Schedule:
        """Let a schedule fire again. Raises UnknownSchedule."""
        resumed: Schedule = self._wire.call("POST", f"{_schedule(schedule_id)}/resume")["data"]
        return resumed

    def run_schedule(self, schedule_id: str) -> JobStatus:
        """Make a job of a schedule now. Raises UnknownSchedule."""
        return job_of(self._wire.call("POST", f"{_schedule(schedule_id)}/run")["data"])


def _schedule(schedule_id: str) -> str:
    return f"/schedules/{segment(schedule_id, 'a schedule ID')}"
