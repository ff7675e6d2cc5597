"""Taking jobs in: all of them or none, and one live job per ID."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from jobber.errors import InvalidRequest, JobIsLive, StateUnavailable
from jobber.jobs import Job, NewJob
from jobber.store.database import ATTEMPTS, Database
from jobber.store.lanes import LaneBook, key_of
from jobber.store.reading import Reader
from jobber.store.records import check_names, job_as_submitted, values_of
from jobber.store.runs import next_runs
from jobber.store.schema import EMPTY, jobs, order

_INSERT = insert(jobs)


class Submitter:
    """Submits jobs."""

    def __init__(self, database: Database, lanes: LaneBook, reader: Reader) -> None:
        self._database = database
        self._lanes = lanes
        self._reader = reader
        self._insert_json = database.engine.insert_json(jobs)

    def submit(self, new: Sequence[NewJob]) -> list[Job]:
        """Add jobs, in the order given; return them in that order.

        Raises:
            JobIsLive: an ID is live already; nothing was added.
            InvalidRequest: an ID comes twice, or a name or text cannot be stored; nothing was added.
            StateUnavailable: the state database cannot be reached.
        """
        ids = [job.job_id for job in new]
        if len(set(ids)) != len(ids):
            twice = next(job_id for n, job_id in enumerate(ids) if job_id in ids[:n])
            raise InvalidRequest(f"job_id {twice} comes twice in one submission", field="job_id")
        for job in new:
            check_names(job)
        if not new:
            return []
        for _ in range(ATTEMPTS):
            try:
                return self._database.write(lambda connection: self._insert(connection, new))
            except IntegrityError:
                # The unique index says that one is live; it may be finished by the time that we look.
                self._refuse(ids)
        raise StateUnavailable("the state database is too busy: jobs of these IDs come and go", retry_after=1)

    def _insert(self, connection: Connection, new: Sequence[NewJob]) -> list[Job]:
        runs, now = next_runs(self._database, connection, len(new))
        keys = [key_of(job) for job in new]
        lanes = self._lanes.ids(connection, set(keys))
        heads: dict[int, int] = {}
        rows = []
        for job, key, run in zip(new, keys, runs, strict=True):
            lane, ready = lanes[key], job.eta is None or job.eta <= now
            ord_ = order(job.priority, run)
            # That of a delayed job is told too, so that it is not dropped as idle: its head stays where it is.
            place = ord_ if ready else EMPTY
            heads[lane] = min(place, heads.get(lane, place))
            rows.append(
                {
                    **values_of(job, run, now),
                    "lane": lane,
                    "ord": ord_ if ready else None,
                    "due": None if ready else job.eta,
                    "ended_attempt": 0,
                    "ended_as": "",
                }
            )
        # Two submissions that share IDs wait for each other at the unique index: in one order, never in a circle.
        rows.sort(key=lambda row: str(row["job_id"]))
        if self._insert_json is not None and len(rows) > 1:
            connection.execute(self._insert_json, {"rows": json.dumps(rows)})
        else:
            connection.execute(_INSERT, rows if len(rows) > 1 else rows[0])
        self._lanes.wake(connection, heads)
        return [job_as_submitted(job, run, now) for job, run in zip(new, runs, strict=True)]

    def _refuse(self, ids: Sequence[str]) -> None:
        live = self._reader.live(ids)
        for job_id in ids:
            if job_id in live:
                job = self._reader.get(job_id)
                if job.live:
                    raise JobIsLive(f"job {job_id} is {job.state.value} already", job)
