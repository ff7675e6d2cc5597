"""The state store: every job, live or finished, and every change of its state.

The job table is the truth; the broker only wakes workers. Each method is one transaction, or a few reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select

from jobber.columns import Column
from jobber.jobs import Attempt, Group, Job, Micros, NewGroup, NewJob
from jobber.store import migrations
from jobber.store.attempts import AttemptBook
from jobber.store.batches import Batches
from jobber.store.changing import ChangeBook
from jobber.store.claim import Apart, Claim, Claimer
from jobber.store.database import Database
from jobber.store.ending import EndBook
from jobber.store.events import EventBook
from jobber.store.figures import FigureBook
from jobber.store.finishing import Finished, Success
from jobber.store.gates import UNLIMITED, Gate, GateBook, GateKind, Hold, Limits
from jobber.store.grouping import GroupBook
from jobber.store.groups import CancelledGroup, Groups
from jobber.store.lanes import LaneBook
from jobber.store.listing import Lister
from jobber.store.outbox import Outbox
from jobber.store.parents import ParentBook
from jobber.store.pausing import Pauses
from jobber.store.progress import Prospects
from jobber.store.rates import Throttle
from jobber.store.reading import Due, Reader
from jobber.store.receipts import Answered, Receipt, ReceiptBook
from jobber.store.runs import catch_up
from jobber.store.schedules import ScheduleBook
from jobber.store.singles import Singles, is_plain
from jobber.store.statistics import Statistician
from jobber.store.submission import Submitter
from jobber.store.surveying import open_queues
from jobber.store.transitions import Changed, Transitions
from jobber.store.upkeep import Upkeep
from jobber.store.versions import VersionBook
from jobber.store.webhooks import CallBook
from jobber.store.workers import Progress, Pulse, Roster

__all__ = [
    "UNLIMITED",
    "Answered",
    "Apart",
    "CancelledGroup",
    "Changed",
    "Claim",
    "Due",
    "Finished",
    "Gate",
    "GateKind",
    "Hold",
    "Limits",
    "Progress",
    "Pulse",
    "Receipt",
    "Store",
    "Success",
]


class Store:
    """The state of all jobs, in SQLite, PostgreSQL, MySQL or MariaDB.

    Safe to use from several threads; make a new one after a fork. Every method raises ``StateUnavailable`` where the
    database cannot be reached, and ``ConfigError`` where its server is too old; transactions that lose a race are run
    again inside. Methods that return queues return those whose workers should be woken.

    Parameters:
        url: SQLAlchemy URL.
        pool_size: connections at most.
        events: whether each change of state goes to the outbox, for the broker to be told.
    """

    def __init__(self, url: str, *, pool_size: int = 15, events: bool = False) -> None:
        self._database = Database(url, pool_size=pool_size, events=events)
        self.outbox = Outbox(self._database)
        self._gates = GateBook(self._database)
        self.prospects = Prospects(self._database, self._gates)
        self.figures = FigureBook(self._database, self._gates)
        lanes = LaneBook(self._database)
        self._reader = Reader(self._database, self._gates)
        book = GroupBook(self._database)
        parents = ParentBook(self._database)
        self._attempts = AttemptBook(self._database)
        self.events = EventBook(self._database, self._attempts)
        ends = EndBook(self._database, parents, book, self.events)
        self._groups = Groups(self._database, lanes=lanes, ends=ends)
        self.receipts = ReceiptBook(self._database)
        self._submitter = Submitter(
            self._database,
            lanes=lanes,
            reader=self._reader,
            groups=self._groups,
            parents=parents,
            ends=ends,
            gates=self._gates,
            receipts=self.receipts,
        )
        self._singles = Singles(self._database, submitter=self._submitter, reader=self._reader, lanes=lanes)
        self.batches = Batches(
            self._database, submitter=self._submitter, parents=parents, lanes=lanes, receipts=self.receipts
        )
        self.schedules = ScheduleBook(self._database, self._submitter, self.receipts)
        self._claimer = Claimer(self._database, self._gates)
        self._throttle = Throttle(self._database)
        self.calls = CallBook(self._database)
        self.versions = VersionBook(self._database)
        self._transitions = Transitions(
            self._database,
            gates=self._gates,
            lanes=lanes,
            ends=ends,
            groups=book,
            attempts=self._attempts,
            reader=self._reader,
        )
        self.pauses = Pauses(self._database, lanes=lanes, reader=self._reader, events=self.events)
        self._roster = Roster(self._database)
        self.lists = Lister(self._database)
        self.statistics = Statistician(self._database)
        self.changes = ChangeBook(self._database, lanes=lanes, ends=ends)
        self._upkeep = Upkeep(self._database, lanes)

    def migrate(self) -> None:
        """Make or update the tables, and raise the counter of runs to the clock; any number may do so at once.

        The counter is behind after a backup was restored: its runs would be numbered as others were that ran since.
        """
        if not self._database.read(migrations.is_current):
            self._database.write(migrations.upgrade, unhurried=True)
        catch_up(self._database)

    def ping(self) -> None:
        """Raise StateUnavailable unless the database answers."""
        self._database.read(lambda connection: connection.execute(select(1)).scalar_one())

    def close(self) -> None:
        """Close all connections; the store is not used again."""
        self._database.close()

    def now(self) -> Micros:
        """Return the database's clock, which all times of jobs come from."""
        return self._reader.now()

    # -- submission and reading ----------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[NewJob], *, receipt: Receipt | None = None) -> list[Job]:
        """Add all jobs or none; return them in order. One that takes an earlier result is finished already.

        Raises JobIsLive (with the live job), InvalidRequest, BacklogFull; with a receipt Answered, IdempotencyConflict.
        """
        if len(jobs) == 1 and receipt is None and is_plain(jobs[0]):
            return [self._singles.submit(jobs[0])]
        return self._submitter.submit(jobs, receipt=receipt)

    def get(self, job_id: str) -> Job:
        """Return the live job of an ID, else its newest finished run. Raises UnknownJob."""
        return self._reader.get(job_id)

    def run(self, run: int) -> Job:
        """Return one run. Raises UnknownJob."""
        return self._reader.run(run)

    def live(self, job_ids: Collection[str]) -> set[str]:
        """Return which of these IDs are not finished; one query for all."""
        return self._reader.live(job_ids)

    def finished(self, job_id: str) -> list[Job]:
        """Return all finished runs of an ID, newest first. Raises JobIsLive (with the live job), UnknownJob."""
        return self._reader.finished(job_id)

    def last_success(self, job_id: str) -> Job | None:
        """Return the newest run of an ID that succeeded, whatever came after it; None if there is none."""
        return self._reader.last_success(job_id)

    def result_is_gone(self, run: int) -> None:
        """Note that what a run published is not there any more, so that no job takes it."""
        self._submitter.reuse.forget(run)

    def attempts(self, job: Job) -> list[Attempt]:
        """Return the attempts of a run, oldest first; of more than a hundred the newest."""
        return self._attempts.of(job)

    def doubtful(self, since: Micros, *, after: int = 0, limit: int = 1000) -> list[Job]:
        """Return runs that ended without success since then and may have published all the same, oldest first.

        Parameters:
            after: of those that ended at that very moment only greater runs.
        """
        return self._reader.doubtful(since, after, limit)

    def running(self, attempts: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return which of these (run, attempt) are not over: their worker may be dead, but nobody rescued them yet."""
        return self._reader.running(attempts)

    def pending(self, queue: str, *, limit: int = 1000) -> list[Job]:
        """Return the waiting jobs of a queue by priority and age, as they will run but for turns among tenants."""
        return self._reader.pending(queue, limit=limit)

    def waiting_for(self, job: Job) -> list[Hold]:
        """Return all that keeps a waiting job from running now; empty if it may."""
        return self._reader.waiting_for(job)

    # -- groups --------------------------------------------------------------------------------------------------------

    def submit_group(self, new: NewGroup, *, receipt: Receipt | None = None) -> Group:
        """Add a group with its jobs and its callback, or nothing.

        Raises JobIsLive (with the live job), GroupIsLive (with the live group), InvalidRequest, BacklogFull; with a
        receipt Answered, IdempotencyConflict.
        """
        return self._submitter.submit_group(new, receipt=receipt)

    def group(self, group_id: str, *, jobs: bool = True) -> Group:
        """Return the newest run of a group, on request without its jobs. Raises UnknownGroup."""
        return self._groups.get(group_id, jobs=jobs)

    def live_groups(self, group_ids: Collection[str]) -> set[str]:
        """Return which of these IDs have a group that is not finished; one query for all."""
        return self._groups.live(group_ids)

    def cancel_group(self, group_id: str) -> CancelledGroup:
        """Cancel the jobs of a group: waiting ones at once, running ones are asked to stop. Its callback then runs.

        Raises GroupIsFinished, UnknownGroup.
        """
        return self._groups.cancel(group_id)

    def finished_group(self, group_id: str) -> list[Job]:
        """Return the jobs and callbacks of all runs of a group. Raises GroupIsLive, JobIsLive, UnknownGroup."""
        return self._groups.finished(group_id)

    def purge_group(self, group_id: str) -> list[Job]:
        """Forget all runs of a group, their jobs and callbacks; return these, for their results to be dropped.

        Raises GroupIsLive, JobIsLive (its callback is not finished), UnknownGroup.
        """
        return self._groups.purge(group_id)

    # -- gates ---------------------------------------------------------------------------------------------------------

    def set_limits(self, limits: Mapping[Gate, int]) -> None:
        """Set how many jobs may run behind each gate at a time over all workers; 0 removes the limit."""
        self._gates.set_limits(limits)

    def announce(self, limits: Mapping[Gate, Limits], paces: Mapping[str, float]) -> None:
        """Set the limits and rates of a config; queues and tenants that it does not name, and the total, lose theirs.

        Parameters:
            paces: starts per second by database, 0 for any number; others keep theirs.
        """
        self._gates.announce(limits, paces)

    def slow_down(self, db: str, reason: str) -> None:
        """Halve the rate of a database for a minute from now on, for a reason; does nothing where it has none."""
        self._throttle.slow_down(db, reason)

    def refill(self) -> frozenset[str]:
        """Note the databases that had their share of starts and take another; return the queues that wait for one."""
        filled = self._throttle.refilled()
        return self.open_behind([Gate(GateKind.DATABASE, db) for db in filled])

    def pause(self, gate: Gate, reason: str) -> None:
        """Let nothing start behind a gate; what runs goes on."""
        self._gates.pause(gate, reason)

    def resume(self, gate: Gate) -> frozenset[str]:
        """Let jobs start behind a gate again."""
        self._gates.resume(gate)
        return self.open_behind([gate])

    def open_behind(self, gates: Collection[Gate]) -> frozenset[str]:
        """Return the queues with a job behind one of these gates that could run now."""
        if not gates:
            return frozenset()
        return self._database.read(
            lambda connection: open_queues(self._database, connection, self._gates.current(connection), gates)
        )

    # -- workers -------------------------------------------------------------------------------------------------------

    def register(self, name: str, queues: Sequence[str], slots: int, *, lease: int) -> int:
        """Add a worker process that counts as alive for ``lease`` seconds; return its ID."""
        return self._roster.register(name, queues, slots, lease=lease)

    def serves(self, worker: int, queues: Sequence[str]) -> None:
        """Note which queues a worker serves from now on."""
        self._roster.serves(worker, queues)

    def heartbeat(
        self, worker: int, progress: Mapping[int, Progress], *, lease: int, memory: int | None = None
    ) -> Pulse:
        """Renew a lease, note progress by run and the process's memory. Raises Fenced once it was declared dead."""
        return self._roster.heartbeat(worker, progress, lease=lease, memory=memory)

    def unregister(self, worker: int) -> None:
        """Take a worker off; attempts that it still holds count as lost at once."""
        self._roster.unregister(worker)
        self._claimer.forget(worker)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def claim(
        self,
        worker: int,
        *,
        queues: Sequence[str],
        tasks: Collection[str],
        databases: Collection[str],
        limit: int = 1,
    ) -> Claim:
        """Start up to ``limit`` jobs on a worker: only of these queues, tasks and databases. Raises Fenced."""
        return self._claimer.claim(worker, queues=queues, tasks=tasks, databases=databases, limit=limit)

    def succeed(
        self,
        job: Job,
        *,
        rows: int,
        columns: Sequence[Column],
        snapshot_at: Micros | None = None,
        size: int | None = None,
    ) -> frozenset[str]:
        """End an attempt with a published result. Raises Fenced unless this attempt holds the job.

        Here and in the five below, repeating the very same end of an attempt returns quietly.

        Parameters:
            snapshot_at: when its query began to read; the start of the attempt where nobody can tell.
            size: bytes of its rows; as many as the last heartbeat told where nobody knows better.
        """
        return self._transitions.succeed(Success(job, rows, columns, snapshot_at, size))

    def finish(self, ends: Sequence[Success]) -> Finished:
        """End attempts with published results, unless somebody else holds them right now.

        ``succeed`` says what became of the others, ``open_behind`` who waits for room.
        """
        return self._transitions.finish(ends)

    def finish_and_claim(
        self,
        worker: int,
        ends: Sequence[Success],
        *,
        queues: Sequence[str],
        tasks: Collection[str],
        databases: Collection[str],
        limit: int,
    ) -> Claim:
        """Do as ``finish`` and ``claim`` in one transaction, which waits for no job; ``open_behind`` tells of queues.

        Raises Fenced; Apart where that cannot be: ``finish`` and ``claim`` then are to be called one after the other.
        """
        return self._claimer.claim(worker, queues=queues, tasks=tasks, databases=databases, limit=limit, ends=ends)

    def fail(self, job: Job, *, error: str, code: str) -> frozenset[str]:
        """End an attempt, and the job, with an error. Raises Fenced."""
        return self._transitions.fail(job, error=error, code=code)

    def retry(self, job: Job, *, error: str, code: str, delay: float) -> frozenset[str]:
        """End an attempt with an error; the next is due in ``delay`` seconds. CANCELLED if asked for. Raises Fenced."""
        return self._transitions.retry(job, error=error, code=code, delay=delay)

    def reroute(self, job: Job, db: str, *, error: str, code: str) -> frozenset[str]:
        """Give a job back, ready now, no retry spent, to run on another database. CANCELLED if asked. Raises Fenced."""
        return self._transitions.reroute(job, db, error=error, code=code)

    def cancelled(self, job: Job) -> frozenset[str]:
        """End an attempt, and the job, because somebody asked for it and its query is gone. Raises Fenced."""
        return self._transitions.cancelled(job)

    def requeue(self, job: Job) -> frozenset[str]:
        """Give a job back, ready now, no retry spent; CANCELLED if asked for. Raises Fenced."""
        return self._transitions.requeue(job)

    def give_back(self, worker: int, attempts: Collection[tuple[int, int]]) -> frozenset[str]:
        """Requeue what a worker holds, but does not know of, because the answer to its claim was lost.

        Skips attempts that this worker does not hold any more.

        Parameters:
            attempts: (run, attempt) of each.
        """
        return self._transitions.give_back(worker, attempts)

    def cancel(self, job_id: str) -> Changed:
        """Cancel a waiting job at once, ask a running one to stop. Raises JobIsFinished, UnknownJob."""
        return self._transitions.cancel(job_id)

    def purge(self, job_id: str) -> list[Job]:
        """Forget all finished runs of an ID and return them, for their results to be dropped.

        Raises JobIsLive, UnknownJob.
        """
        return self._transitions.purge(job_id)

    # -- maintenance ---------------------------------------------------------------------------------------------------

    def lead(self, role: str, holder: str, *, lease: float) -> bool:
        """Take or renew a role for ``lease`` seconds; False while another holder's term lasts."""
        return self._upkeep.lead(role, holder, lease=lease)

    def release_due(self, limit: int = 1000) -> frozenset[str]:
        """Make delayed jobs and retries ready whose time has come, at most ``limit`` at a time."""
        return self._upkeep.release_due(limit)

    def due(self, tasks: Collection[str] | None = None) -> Due:
        """Return in how many seconds time will bring something to do.

        Parameters:
            tasks: whose schedules are looked at; None for all.
        """
        return self._reader.due(tasks)

    def lost(self) -> list[Job]:
        """Return the STARTED jobs whose worker's lease ran out."""
        return self._reader.lost()

    def declare_lost(self, job: Job) -> None:
        """Declare the worker of a lost job dead: it renews and claims nothing more. Raises Fenced if it is alive."""
        self._transitions.declare_lost(job)

    def rescue(self, job: Job, *, max_rescues: int) -> Changed:
        """Take a lost job from its worker and declare that worker dead; return what became of the job.

        PENDING again, no retry spent; FAILURE (``worker_lost``) once ``max_rescues`` are used up; CANCELLED if that
        was asked for. Raises Fenced if the attempt is over, or the worker alive after all.
        """
        return self._transitions.rescue(job, max_rescues=max_rescues)

    def runnable_queues(self) -> frozenset[str]:
        """Return the queues with a job that could run now, if any worker serves it."""
        return self._reader.runnable_queues()

    def prune(self, older_than: int, limit: int = 1000) -> int:
        """Forget finished jobs older than ``older_than`` seconds, lanes without jobs and dead workers."""
        count = self._upkeep.prune(older_than, limit)
        self._submitter.prune(limit)
        self.schedules.prune(older_than, limit)
        return count
