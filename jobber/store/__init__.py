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
from jobber.store.claim import Claim, Claimer
from jobber.store.database import Database
from jobber.store.gates import Gate, GateBook, GateKind, Hold
from jobber.store.grouping import GroupBook
from jobber.store.groups import CancelledGroup, Groups
from jobber.store.lanes import LaneBook
from jobber.store.reading import Due, Reader
from jobber.store.runs import catch_up
from jobber.store.submission import Submitter
from jobber.store.surveying import open_queues
from jobber.store.transitions import Changed, Transitions
from jobber.store.upkeep import Upkeep
from jobber.store.workers import Progress, Pulse, Roster

__all__ = ["CancelledGroup", "Changed", "Claim", "Due", "Gate", "GateKind", "Hold", "Progress", "Pulse", "Store"]


class Store:
    """The state of all jobs, in SQLite, PostgreSQL, MySQL or MariaDB.

    Safe to use from several threads; make a new one after a fork. Every method raises ``StateUnavailable`` where the
    database cannot be reached, and ``ConfigError`` where its server is too old; transactions that lose a race are run
    again inside. Methods that return queues return those whose workers should be woken.

    Parameters:
        url: SQLAlchemy URL.
        pool_size: connections at most.
    """

    def __init__(self, url: str, *, pool_size: int = 15) -> None:
        self._database = Database(url, pool_size=pool_size)
        self._gates = GateBook(self._database)
        lanes = LaneBook(self._database)
        self._reader = Reader(self._database, self._gates)
        book = GroupBook(self._database)
        self._groups = Groups(self._database, lanes, book)
        self._submitter = Submitter(self._database, lanes, self._reader, self._groups)
        self._claimer = Claimer(self._database, self._gates)
        self._attempts = AttemptBook(self._database)
        self._transitions = Transitions(
            self._database, gates=self._gates, lanes=lanes, groups=book, attempts=self._attempts, reader=self._reader
        )
        self._roster = Roster(self._database)
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

    def submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Add all jobs or none; return them in order. Raises JobIsLive (with the live job), InvalidRequest."""
        return self._submitter.submit(jobs)

    def get(self, job_id: str) -> Job:
        """Return the live job of an ID, else its newest finished run. Raises UnknownJob."""
        return self._reader.get(job_id)

    def live(self, job_ids: Collection[str]) -> set[str]:
        """Return which of these IDs are not finished; one query for all."""
        return self._reader.live(job_ids)

    def finished(self, job_id: str) -> list[Job]:
        """Return all finished runs of an ID, newest first. Raises JobIsLive (with the live job), UnknownJob."""
        return self._reader.finished(job_id)

    def last_success(self, job_id: str) -> Job | None:
        """Return the newest run of an ID that succeeded, whatever came after it; None if there is none."""
        return self._reader.last_success(job_id)

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
        """Return the waiting jobs of a queue as they will run: the ready ones in order, then those that must wait."""
        return self._reader.pending(queue, limit=limit)

    def waiting_for(self, job: Job) -> list[Hold]:
        """Return all that keeps a waiting job from running now; empty if it may."""
        return self._reader.waiting_for(job)

    # -- groups --------------------------------------------------------------------------------------------------------

    def submit_group(self, new: NewGroup) -> Group:
        """Add a group with its jobs and its callback, or nothing.

        Raises JobIsLive (with the live job), GroupIsLive (with the live group), InvalidRequest.
        """
        return self._submitter.submit_group(new)

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

    def pause(self, gate: Gate, reason: str) -> None:
        """Let nothing start behind a gate; what runs goes on."""
        self._gates.pause(gate, reason)

    def resume(self, gate: Gate) -> frozenset[str]:
        """Let jobs start behind a gate again."""
        self._gates.resume(gate)
        return self._database.read(
            lambda connection: open_queues(self._database, connection, self._gates.current(connection), [gate])
        )

    # -- workers -------------------------------------------------------------------------------------------------------

    def register(self, name: str, queues: Sequence[str], slots: int, *, lease: int) -> int:
        """Add a worker process that counts as alive for ``lease`` seconds; return its ID."""
        return self._roster.register(name, queues, slots, lease=lease)

    def serves(self, worker: int, queues: Sequence[str]) -> None:
        """Note which queues a worker serves from now on."""
        self._roster.serves(worker, queues)

    def heartbeat(self, worker: int, progress: Mapping[int, Progress], *, lease: int) -> Pulse:
        """Renew a lease and note progress by run. Raises Fenced once the worker was declared dead."""
        return self._roster.heartbeat(worker, progress, lease=lease)

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

    def succeed(self, job: Job, *, rows: int, columns: Sequence[Column]) -> frozenset[str]:
        """End an attempt with a published result. Raises Fenced unless this attempt holds the job.

        Here and in the five below, repeating the very same end of an attempt returns quietly.
        """
        return self._transitions.succeed(job, rows=rows, columns=columns)

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

    def due(self) -> Due:
        """Return in how many seconds time will bring something to do."""
        return self._reader.due()

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
        return self._upkeep.prune(older_than, limit)
