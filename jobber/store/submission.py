"""Taking jobs and groups in: all of them or none, one live job per ID, one live group per ID."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TypeVar

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from jobber.errors import GroupIsLive, InvalidRequest, JobIsLive, StateUnavailable, UnknownGroup
from jobber.jobs import NAME_MAX, Group, Job, JobState, Micros, NewGroup, NewJob, limit_key
from jobber.store.admission import Backlog, NoRoom
from jobber.store.database import ATTEMPTS, Database
from jobber.store.ending import EndBook
from jobber.store.fates import Fate
from jobber.store.flights import Flights
from jobber.store.gates import GateBook
from jobber.store.grouping import COUNTERS
from jobber.store.groups import Groups
from jobber.store.insertion import Inserter, ready_rows, row_of
from jobber.store.lanes import LaneBook, LaneKey, Woken
from jobber.store.parents import ParentBook, Waits
from jobber.store.reading import Reader, finished_runs
from jobber.store.receipts import Receipt, ReceiptBook
from jobber.store.records import OUTSIDE, Membership, check_names, job_as_submitted
from jobber.store.reuse import Numbered, Reuse
from jobber.store.runs import begin
from jobber.store.schema import groups

T = TypeVar("T")


class Submitter:
    """Submits jobs."""

    def __init__(
        self,
        database: Database,
        *,
        lanes: LaneBook,
        reader: Reader,
        groups: Groups,
        parents: ParentBook,
        ends: EndBook,
        gates: GateBook,
        receipts: ReceiptBook,
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._reader = reader
        self._groups = groups
        self._parents = parents
        self._ends = ends
        self._receipts = receipts
        self.reuse = Reuse(database)
        self.backlog = Backlog(database, gates)
        self._flights = Flights(database)
        self._inserter = Inserter(database, lanes)

    def submit(self, new: Sequence[NewJob], *, receipt: Receipt | None = None) -> list[Job]:
        """Add jobs, in the order given; return them in that order, which is what the receipt renders.

        One that takes an earlier result (``max_age``), or whose parents decide it, is finished already.

        Raises:
            JobIsLive: an ID is live already; nothing was added.
            InvalidRequest: an ID comes twice, or a name or text cannot be stored; nothing was added.
            BacklogFull: so many jobs of its queue or tenant may not wait; nothing was added.
            Answered, IdempotencyConflict: as ``ReceiptBook.claim``.
            StateUnavailable: the state database cannot be reached.
        """
        check(new)
        if not new:
            return []
        return self._insert(new, lambda connection: self._add(connection, new, receipt, capped=True))

    def add(self, connection: Connection, new: Sequence[NewJob], receipt: Receipt | None = None) -> list[Job]:
        """Add jobs in a write transaction of the caller's, who has written nothing in it yet; no backlog is too full.

        Parameters:
            receipt: renders the jobs.

        Raises:
            IntegrityError: of SQLAlchemy: an ID is live already.
            InvalidRequest, Answered, IdempotencyConflict: as ``submit``.
        """
        check(new)
        return self._add(connection, new, receipt, capped=False)

    def submit_group(self, new: NewGroup, *, receipt: Receipt | None = None) -> Group:
        """Add a group: its jobs, and its callback, which waits for them. The receipt renders it.

        Raises:
            JobIsLive: an ID of a job or the callback is live already; nothing was added.
            GroupIsLive: the group's ID is; nothing was added.
            InvalidRequest, BacklogFull, Answered and the rest: as ``submit``; also of a group without jobs.
        """
        if not new.jobs:
            raise InvalidRequest("a group needs at least one job", field="jobs")
        if len(new.group_id) > NAME_MAX:
            raise InvalidRequest(f"group_id is longer than {NAME_MAX} characters", field="group_id")
        members = [*new.jobs, *([new.callback] if new.callback else [])]
        check(members)
        return self._insert(members, lambda connection: self._add_group(connection, new, receipt), new.group_id)

    def prune(self, limit: int) -> None:
        """Forget what no submission needs any more, at most ``limit`` of each kind."""
        self._receipts.prune(limit)
        self._flights.prune(limit)
        self.backlog.prune(limit)

    def _insert(self, new: Sequence[NewJob], add: Callable[[Connection], T], group_id: str | None = None) -> T:
        """Run a transaction that inserts; say which ID is live where that is why it cannot."""
        for _ in range(ATTEMPTS):
            try:
                return self._database.write(add)
            except IntegrityError:
                # A unique index says that one is live; it may be finished by the time that we look.
                self._refuse([job.job_id for job in new], group_id)
            except NoRoom as no:
                refuse = partial(self.backlog.refusal, full=no.full)
                raise self._database.read(refuse) from None
        raise StateUnavailable("the state database is too busy: jobs of these IDs come and go", retry_after=1)

    def _add(
        self, connection: Connection, new: Sequence[NewJob], receipt: Receipt | None, *, capped: bool
    ) -> list[Job]:
        begun = begin(self._database, connection, len(new))
        self._receipts.claim(connection, receipt)
        woken = Woken()
        numbered: Numbered = list(zip(new, begun.runs, strict=True))
        fates = self.reuse.find(connection, numbered)
        if capped:
            self.backlog.admit(connection, _without(numbered, fates), begun)
        numbered, ending = self.join(connection, numbered, fates)
        waits = self._parents.attach(connection, numbered)
        waits.refuse({run: f"jobs[{place}]" if len(new) > 1 else "" for place, run in enumerate(begun.runs)})
        jobs = self.store(connection, numbered, begun.now, and_ending(waits, ending), woken)
        self._receipts.keep(connection, receipt, jobs)
        self._lanes.wake(connection, woken)
        return jobs

    def join(
        self, connection: Connection, numbered: Numbered, fates: Mapping[int, Fate]
    ) -> tuple[Numbered, Mapping[int, Fate]]:
        """Return new jobs, with those that share the run of another one waiting for it; and which end at once.

        Parameters:
            fates: of those that end at once, as ``Reuse.find`` said.

        Raises:
            TryAgain: as ``Flights.join``.
        """
        joined, leading = self._flights.join(connection, [(job, run) for job, run in numbered if run not in fates])
        if fates:
            joined = sorted([*joined, *((job, run) for job, run in numbered if run in fates)], key=itemgetter(1))
        if leading and self._database.engine.row_locks:
            # An equal run may have ended since that was asked, so that it is not shared any more: its result is there.
            fates = {**fates, **self.reuse.find(connection, leading)}
        return joined, fates

    def store(self, connection: Connection, numbered: Numbered, now: Micros, waits: Waits, woken: Woken) -> list[Job]:
        """Insert new jobs outside groups, and end those that end at once.

        Raises:
            TryAgain: as ``EndBook.begin``.
            IntegrityError: of SQLAlchemy: an ID is live already.
        """
        lanes = self._lanes_of(connection, [job for job, _ in numbered], OUTSIDE)
        self._inserter.insert(connection, ready_rows(numbered, now, OUTSIDE, lanes, woken, held=waits.held))
        ended = self._ends.begin(connection, waits, woken)
        over = finished_runs(self._database, connection, [run for _, run in numbered]) if ended else {}
        return [over.get(run) or job_as_submitted(job, run, now) for job, run in numbered]

    def add_plain(self, connection: Connection, numbered: Numbered, now: Micros) -> list[Job]:
        """Add jobs that wait for nothing but their time. Nothing follows in a transaction: it may be over.

        Raises:
            IntegrityError, TryAgain: as ``Inserter.insert_and_wake``.
        """
        if numbered:
            woken = Woken()
            lanes = self._lanes_of(connection, [job for job, _ in numbered], OUTSIDE)
            rows = ready_rows(numbered, now, OUTSIDE, lanes, woken, held=())
            self._inserter.insert_and_wake(connection, rows, woken)
        return [job_as_submitted(job, run, now) for job, run in numbered]

    def numbers(self, new: Sequence[NewJob]) -> int | None:
        """Return the version of the gates with which ``add_numbered`` can take jobs; None if it cannot."""
        if not self._inserter.numbers or any(job.tags or job.eta is not None for job in new):
            return None
        return self.backlog.uncapped(new)

    def add_numbered(self, connection: Connection, new: Sequence[NewJob], *, gates: int, after: int) -> dict[str, Job]:
        """Add jobs that wait for nothing, numbered by the database, in one step; return those that were, by their IDs.

        The transaction is over then. Others are left out because the gates have changed.

        Parameters:
            gates: of ``numbers``.
            after: a number that a run had already.

        Raises:
            IntegrityError, CommitFailed: as ``Inserter.insert_numbered``.
        """
        woken = Woken()
        lanes = self._lanes_of(connection, new, OUTSIDE)
        rows = ready_rows([(job, 0) for job in new], 0, OUTSIDE, lanes, woken, held=())
        added = self._inserter.insert_numbered(connection, rows, woken, gates=gates, after=after)
        by_id = {job.job_id: job for job in new}
        return {job_id: job_as_submitted(by_id[job_id], run, now) for run, job_id, now in added}

    def _add_group(self, connection: Connection, new: NewGroup, receipt: Receipt | None) -> Group:
        # In this order: the group, its jobs, its callback.
        begun = begin(self._database, connection, len(new.jobs) + 2)
        (run, *runs), now = begun.runs, begun.now
        self._receipts.claim(connection, receipt)
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
        numbered: Numbered = list(zip(new.jobs, runs, strict=False))
        fates = self.reuse.find(connection, numbered)
        last = [new.callback] if new.callback else []
        self.backlog.admit(connection, [*_without(numbered, fates), *last], begun)
        numbered, ending = self.join(connection, numbered, fates)
        waits = and_ending(self._attach(connection, new, numbered, callback_run), ending)
        lanes = self._lanes_of(connection, new.jobs, member, new.callback)
        rows = ready_rows(numbered, now, member, lanes, woken, held=waits.held)
        callback = None
        if new.callback and callback_run:
            part, lane = Membership(new.group_id), lanes[new.callback.job_id]
            rows.append(row_of(new.callback, callback_run, now, part, lane, ord_=None, due=None))
            woken.later(lane)
            callback = job_as_submitted(new.callback, callback_run, now, part)
        self._inserter.insert(connection, rows)
        if self._ends.begin(connection, waits, woken):
            group = self._groups.look(connection, run)
        else:
            members = tuple(job_as_submitted(job, run, now, member) for job, run in numbered)
            group = replace(group, jobs=members, callback=callback)
        self._receipts.keep(connection, receipt, group)
        self._lanes.wake(connection, woken)
        return group

    def _attach(
        self, connection: Connection, new: NewGroup, numbered: Sequence[tuple[NewJob, int]], callback: int | None
    ) -> Waits:
        """Note what the jobs of a group and its callback wait for. Raises InvalidRequest."""
        places = {run: f"jobs[{place}]" for place, (_, run) in enumerate(numbered)}
        if new.callback and callback is not None:
            numbered = [*numbered, (new.callback, callback)]
            places[callback] = "callback"
        waits = self._parents.attach(connection, numbered, callback)
        waits.refuse(places)
        return waits

    def _lanes_of(
        self, connection: Connection, new: Sequence[NewJob], group: Membership, callback: NewJob | None = None
    ) -> dict[str, int]:
        """Return the lane of each job by the job's ID.

        Of all that one transaction adds at once, because new lanes are made in one order: two that make the same ones
        in another would wait for each other.
        """
        limited = limit_key(group.group_run, group.group_limit)
        keys = {job.job_id: LaneKey(job.queue, job.task, job.db, limited, tenant=job.tenant) for job in new}
        if callback:
            keys[callback.job_id] = LaneKey(callback.queue, callback.task, callback.db, tenant=callback.tenant)
        lanes = self._lanes.ids(connection, set(keys.values()), group.group_limit)
        return {job_id: lanes[key] for job_id, key in keys.items()}

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


def _without(numbered: Numbered, fates: Mapping[int, Fate]) -> list[NewJob]:
    return [job for job, run in numbered if run not in fates]


def and_ending(waits: Waits, fates: Mapping[int, Fate]) -> Waits:
    """Return what holds new runs back, with those that end at once for a reason of their own."""
    return replace(waits, held=waits.held | fates.keys(), fates={**waits.fates, **fates}) if fates else waits


def check(new: Sequence[NewJob]) -> None:
    """Raise InvalidRequest if an ID comes twice, or a name is too long."""
    seen = set()
    for job in new:
        if job.job_id in seen:
            raise InvalidRequest(f"job_id {job.job_id} comes twice in one submission", field="job_id")
        seen.add(job.job_id)
        check_names(job)
