"""What operators ask, and do: queues, databases and workers, and pauses. The API and the command line call it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from jobber.config import Settings
from jobber.errors import UnknownDatabase
from jobber.jobs import Job, Micros
from jobber.queueing import Queueing
from jobber.store import Gate, GateKind, Store
from jobber.store.figures import Backlog, Now, WorkerFigures
from jobber.store.progress import Outlook
from jobber.tasks import TaskSet

#: Of longer names no more is told.
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """A queue.

    Parameters:
        reason: why it is paused ("" for no reason), None if it is not.
        pending: jobs of it that wait, for whatever.
        running: jobs of it that run.
        oldest_at: when the oldest of its ready jobs became so, None if there is none.
        workers: live worker processes that serve it.
        max_concurrent, max_pending: its limits; 0 is none.
    """

    queue: str
    reason: str | None
    pending: int
    running: int
    oldest_at: Micros | None
    workers: int
    max_concurrent: int
    max_pending: int
    at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFigures:
    """A source database.

    Parameters:
        reason: why it is paused ("" for no reason), None if it is not.
        pending: jobs that wait, for whatever, and will read it.
        running: jobs that read it.
        max_concurrent: of those, at most; 0 is no limit.
        max_starts: jobs that start on it per second, at most; 0 is any number.
        slowed_until: only half as many until then, None if all of them may.
        slowed_reason: why, "" if all of them may.
    """

    database: str
    reason: str | None
    pending: int
    running: int
    max_concurrent: int
    max_starts: float
    slowed_until: Micros | None
    slowed_reason: str


class Figures:
    """The operations of operators.

    Parameters:
        tasks: gives the tasks that are loaded at the moment of the call.
    """

    def __init__(self, *, settings: Settings, tasks: Callable[[], TaskSet], store: Store, queueing: Queueing) -> None:
        self._settings = settings
        self._tasks = tasks
        self._store = store
        self._queueing = queueing

    # -- jobs and workers ---------------------------------------------------------------------------------------------

    def outlook(self, job: Job) -> Outlook:
        """Return at which place a job waits and about when it starts, or what its worker has in use."""
        return self._store.prospects.outlook(job)

    def workers(self) -> list[WorkerFigures]:
        """Return the worker processes of all instances, by name."""
        return self._store.figures.workers()

    # -- queues -------------------------------------------------------------------------------------------------------

    def queues(self) -> list[QueueFigures]:
        """Return the queues that have jobs, workers, limits or a pause, or that a task names, by name."""
        now, backlog = self._store.figures.now(), self._store.figures.backlog()
        gated = (gate.name for gate in now.gates.states if gate.kind is GateKind.QUEUE)
        names = {*self._tasks().queues, *now.served, *backlog.queues.names, *gated}
        return [_queue(name, now, backlog) for name in sorted(names)]

    def queue(self, name: str) -> QueueFigures:
        """Return one queue; any name may be one."""
        return _queue(name, self._store.figures.now(), self._store.figures.backlog())

    def pause_queue(self, name: str, reason: str) -> QueueFigures:
        """Let no job of a queue start until it is resumed; what runs goes on. Of an unknown one, too."""
        self._store.pause(Gate(GateKind.QUEUE, name), reason)
        return self.queue(name)

    def resume_queue(self, name: str) -> QueueFigures:
        """Let the jobs of a queue start again, and wake workers for them."""
        self._resume(Gate(GateKind.QUEUE, name))
        return self.queue(name)

    # -- databases ----------------------------------------------------------------------------------------------------

    def databases(self) -> list[DatabaseFigures]:
        """Return the databases of the config, and those that live jobs read or that are paused, by name."""
        now, backlog = self._store.figures.now(), self._store.figures.backlog()
        return [self._database(name, now, backlog) for name in sorted(self._known(now, backlog))]

    def database(self, name: str) -> DatabaseFigures:
        """Return one database. Raises UnknownDatabase."""
        now, backlog = self._store.figures.now(), self._store.figures.backlog()
        known = self._known(now, backlog)
        if name in known:
            return self._database(name, now, backlog)
        name = name[:_LONGEST_NAME]
        message = f"there is no database {name!r}"
        if near := difflib.get_close_matches(name, known, n=1):
            raise UnknownDatabase(f"{message}; did you mean {near[0]}?", database=name, nearest=near[0])
        raise UnknownDatabase(f"{message}; GET /databases lists those that are", database=name)

    def pause_database(self, name: str, reason: str) -> DatabaseFigures:
        """Let no job start that reads a database until it is resumed; what runs goes on. Raises UnknownDatabase."""
        self.database(name)
        self._store.pause(Gate(GateKind.DATABASE, name), reason)
        return self.database(name)

    def resume_database(self, name: str) -> DatabaseFigures:
        """Let jobs start again that read a database, and wake workers for them. Raises UnknownDatabase."""
        self.database(name)
        self._resume(Gate(GateKind.DATABASE, name))
        return self.database(name)

    def _resume(self, gate: Gate) -> None:
        for queue in self._store.resume(gate):
            self._queueing.wake(queue)

    def _known(self, now: Now, backlog: Backlog) -> set[str]:
        return {*self._settings.databases, *backlog.databases.names, *now.gates.paused(GateKind.DATABASE)}

    def _database(self, name: str, now: Now, backlog: Backlog) -> DatabaseFigures:
        gate, settings = Gate(GateKind.DATABASE, name), self._settings.databases.get(name)
        slowed = now.slowed.get(name)
        return DatabaseFigures(
            database=name,
            reason=_reason(now, gate),
            pending=backlog.databases.pending.get(name, 0),
            running=backlog.databases.running.get(name, 0),
            max_concurrent=now.gates.limit(gate),
            max_starts=settings.max_starts if settings else 0.0,
            slowed_until=slowed.until if slowed else None,
            slowed_reason=slowed.reason if slowed else "",
        )


def _queue(name: str, now: Now, backlog: Backlog) -> QueueFigures:
    gate = Gate(GateKind.QUEUE, name)
    return QueueFigures(
        queue=name,
        reason=_reason(now, gate),
        pending=backlog.queues.pending.get(name, 0),
        running=backlog.queues.running.get(name, 0),
        oldest_at=backlog.oldest.get(name),
        workers=now.served.get(name, 0),
        max_concurrent=now.gates.limit(gate),
        max_pending=now.gates.pending_limit(gate),
        at=now.at,
    )


def _reason(now: Now, gate: Gate) -> str | None:
    state = now.gates.state(gate)
    return state.reason if state.paused else None
