"""Taking jobs and groups in: all of them or none, one live job per ID, one live group per ID."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from jobber.errors import GroupIsLive, InvalidRequest, JobIsLive, StateUnavailable, UnknownGroup
from jobber.jobs import NAME_MAX, Group, Job, JobState, Micros, NewGroup, NewJob, limit_key
from jobber.store.database import ATTEMPTS, Database
from jobber.store.grouping import COUNTERS
from jobber.store.groups import Groups
from jobber.store.lanes import LaneBook, LaneKey, Woken
from jobber.store.reading import Reader
from jobber.store.records import OUTSIDE, Membership, check_names, job_as_submitted, values_of
from jobber.store.runs import next_runs
from jobber.store.schema import groups, jobs, order

_INSERT = insert(jobs)
T = TypeVar("T")


class Submitter:
    """Submits jobs."""

    def __init__(self, database: Database, lanes: LaneBook, reader: Reader, groups: Groups) -> None:
        self._database = database
        self._lanes = lanes
        self._reader = reader
        self._groups = groups
        self._insert_json = database.engine.insert_json(jobs)

    def submit(self, new: Sequence[NewJob]) -> list[Job]:
        """Add jobs, in the order given; return them in that order.

        Raises:
            JobIsLive: an ID is live already; nothing was added.
            InvalidRequest: an ID comes twice, or a name or text cannot be stored; nothing was added.
            StateUnavailable: the state database cannot be reached.
        """
        _check(new)
        if not new:
            return []
        return self._insert(new, lambda connection: self._add(connection, new))

    def submit_group(self, new: NewGroup) -> Group:
        """Add a group: its jobs, and its callback, which waits for them.

        Raises:
            JobIsLive: an ID of a job or the callback is live already; nothing was added.
            GroupIsLive: the group's ID is; nothing was added.
            InvalidRequest, StateUnavailable: as ``submit``; also of a group without jobs.
        """
        if not new.jobs:
            raise InvalidRequest("a group needs at least one job", field="jobs")
        if len(new.group_id) > NAME_MAX:
            raise InvalidRequest(f"group_id is longer than {NAME_MAX} characters", field="group_id")
        members = [*new.jobs, *([new.callback] if new.callback else [])]
        _check(members)
        return self._insert(members, lambda connection: self._add_group(connection, new), new.group_id)

    def _insert(self, new: Sequence[NewJob], add: Callable[[Connection], T], group_id: str | None = None) -> T:
        """Run a transaction that inserts; say which ID is live where that is why it cannot."""
        for _ in range(ATTEMPTS):
            try:
                return self._database.write(add)
            except IntegrityError:
                # A unique index says that one is live; it may be finished by the time that we look.
                self._refuse([job.job_id for job in new], group_id)
        raise StateUnavailable("the state database is too busy: jobs of these IDs come and go", retry_after=1)

    def _add(self, connection: Connection, new: Sequence[NewJob]) -> list[Job]:
        runs, now = next_runs(self._database, connection, len(new))
        woken = Woken()
        lanes = self._lanes_of(connection, new, OUTSIDE)
        rows = _ready_rows(list(zip(new, runs, strict=True)), now, OUTSIDE, lanes, woken)
        self._write(connection, rows)
        self._lanes.wake(connection, woken)
        return [job_as_submitted(job, run, now) for job, run in zip(new, runs, strict=True)]

    def _add_group(self, connection: Connection, new: NewGroup) -> Group:
        # In this order: the group, its jobs, its callback.
        (run, *runs), now = next_runs(self._database, connection, len(new.jobs) + 2)
        callback_run = runs.pop() if new.callback else None
        group = Group(
            run=run,
            group_id=new.group_id,
            size=len(new.jobs),
            concurrency=new.concurrency,
            counts={**dict.fromkeys(JobState, 0), JobState.PENDING: len(new.jobs)},
            jobs=(),
            callback=None,
            callback_url=new.callback_url,
            created_at=now,
            finished_at=None,
        )
        connection.execute(
            insert(groups).values(
                run=run,
                group_id=group.group_id,
                live_id=group.group_id,
                size=group.size,
                concurrency=group.concurrency,
                **dict.fromkeys(COUNTERS.values(), 0),
                callback_run=callback_run,
                callback_url=new.callback_url or None,
                created_at=now,
            )
        )
        # A limit that cannot be reached costs nothing.
        limit = new.concurrency if new.concurrency < len(new.jobs) else 0
        member, woken = Membership(new.group_id, run, limit), Woken()
        numbered = list(zip(new.jobs, runs, strict=False))
        lanes = self._lanes_of(connection, new.jobs, member, new.callback)
        rows = _ready_rows(numbered, now, member, lanes, woken)
        callback = None
        if new.callback and callback_run:
            part, lane = Membership(new.group_id), lanes[new.callback.job_id]
            rows.append(_row(new.callback, callback_run, now, part, lane, ord_=None, due=None))
            woken.later(lane)
            callback = job_as_submitted(new.callback, callback_run, now, part)
        self._write(connection, rows)
        self._lanes.wake(connection, woken)
        members = tuple(job_as_submitted(job, run, now, member) for job, run in numbered)
        return replace(group, jobs=members, callback=callback)

    def _lanes_of(
        self, connection: Connection, new: Sequence[NewJob], group: Membership, callback: NewJob | None = None
    ) -> dict[str, int]:
        """Return the lane of each job by the job's ID.

        Of all that one transaction adds at once, because new lanes are made in one order: two that make the same ones
        in another would wait for each other.
        """
        limited = limit_key(group.group_run, group.group_limit)
        keys = {job.job_id: LaneKey(job.queue, job.task, job.db, limited) for job in new}
        if callback:
            keys[callback.job_id] = LaneKey(callback.queue, callback.task, callback.db)
        lanes = self._lanes.ids(connection, set(keys.values()), group.group_limit)
        return {job_id: lanes[key] for job_id, key in keys.items()}

    def _write(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        # Two submissions that share IDs wait for each other at the unique index: in one order, never in a circle.
        rows.sort(key=lambda row: str(row["job_id"]))
        if self._insert_json is not None and len(rows) > 1:
            connection.execute(self._insert_json, {"rows": json.dumps(rows)})
        else:
            connection.execute(_INSERT, rows if len(rows) > 1 else rows[0])

    def _refuse(self, ids: Sequence[str], group_id: str | None) -> None:
        live = self._reader.live(ids)
        for job_id in ids:
            if job_id in live:
                job = self._reader.get(job_id)
                if job.live:
                    raise JobIsLive(f"job {job_id} is {job.state.value} already", job)
        if group_id is not None and self._groups.live([group_id]):
            with suppress(UnknownGroup):
                group = self._groups.get(group_id, jobs=False)
                if group.live:
                    raise GroupIsLive(f"group {group_id} is {group.state.value} already", group)


def _check(new: Sequence[NewJob]) -> None:
    """Raise InvalidRequest if an ID comes twice, or a name is too long."""
    seen = set()
    for job in new:
        if job.job_id in seen:
            raise InvalidRequest(f"job_id {job.job_id} comes twice in one submission", field="job_id")
        seen.add(job.job_id)
        check_names(job)


def _ready_rows(
    new: Sequence[tuple[NewJob, int]], now: Micros, group: Membership, lanes: Mapping[str, int], woken: Woken
) -> list[dict[str, Any]]:
    """Return the rows of new jobs that may run now, or at their start time.

    Parameters:
        lanes: by the job's ID.
    """
    rows = []
    for job, run in new:
        lane, ready = lanes[job.job_id], job.eta is None or job.eta <= now
        ord_ = order(job.priority, run)
        if ready:
            woken.ready(lane, job.queue, ord_)
        else:
            woken.later(lane)
        rows.append(_row(job, run, now, group, lane, ord_=ord_ if ready else None, due=None if ready else job.eta))
    return rows


def _row(
    new: NewJob, run: int, now: Micros, group: Membership, lane: int, *, ord_: int | None, due: Micros | None
) -> dict[str, Any]:
    place = {"lane": lane, "ord": ord_, "due": due, "ready_at": new.eta, "ended_attempt": 0, "ended_as": ""}
    return {**values_of(new, run, now, group), **place}
