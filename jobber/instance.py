"""Builds the parts of one process from settings and task folders, and holds the task set that a reload replaces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jobber import publishing, queueing
from jobber import sources as source_databases
from jobber import tasks as task_files
from jobber.bell import Bell
from jobber.completion import Completer
from jobber.config import Settings
from jobber.queueing import Queueing, build
from jobber.readiness import PATIENCE, Dependency, Readiness
from jobber.results import open_results
from jobber.scheduling import Scheduler
from jobber.service import Service
from jobber.sources import open_source
from jobber.store import UNLIMITED, Gate, GateKind, Limits, Store
from jobber.tasks import TaskSet
from jobber.watcher import Watcher


class Instance:
    """The parts of one process; opening connects to nothing.

    Parameters:
        settings: validated.
        directories: folders of ``.sql`` files.

    Raises:
        ConfigError, TaskFileError: what is wrong, all of it.
    """

    def __init__(self, settings: Settings, directories: Sequence[Path]) -> None:
        self.settings = settings
        self.directories = directories
        self._tasks = task_files.load(directories, settings)
        self._reloading = threading.Lock()
        self.store = Store(settings.state.url, pool_size=settings.state.pool_size, events=settings.events.enabled)
        self.sources = {name: open_source(database) for name, database in settings.databases.items()}
        self.results = {name: open_results(database) for name, database in settings.results.items()}
        self.queueing = Queueing(build(settings))

    def tasks(self) -> TaskSet:
        """Return the tasks that are loaded now."""
        return self._tasks

    def queues(self) -> Sequence[str]:
        """Return the default queue and every queue that a task names."""
        return self._tasks.queues

    def reload(self) -> TaskSet:
        """Load the task files anew; the old set stays when the new one is bad. Raises TaskFileError."""
        with self._reloading:
            self._tasks = task_files.load(self.directories, self.settings)
            return self._tasks

    def announce_limits(self) -> None:
        """Write the limits and rates of config and task files into the store, where every claim counts against them.

        Of what others may have that this instance has not, databases and tasks, theirs stay.
        """
        self.store.announce(limits_of(self.settings, self._tasks), paces_of(self.settings))

    def completer(self) -> Completer:
        """Return what turns requests into jobs."""
        return Completer(
            self.settings.app,
            tasks=self.tasks,
            table_name=lambda name, job_id: self.results[name].table_name(job_id),
            webhooks=self.settings.webhooks,
        )

    def scheduler(self) -> Scheduler:
        """Return what fires schedules."""
        return Scheduler(store=self.store, completer=self.completer(), tasks=self.tasks, wake=self.queueing.wake)

    def service(self, *, waiters: int, bell: socket.socket | None = None, served: Sequence[str] = ()) -> Service:
        """Return the operations that the API offers.

        Parameters:
            waiters: requests that may wait for a job or a group at a time; each holds a thread of the server.
            bell: the end that rings for this instance's workers, if there are any.
            served: the queues that they serve; none: all.
        """
        seats = threading.Semaphore(waiters)
        jobs_watcher = Watcher(self.store.live, seats)
        if bell is not None:
            self.queueing.use(Bell(bell, served=lambda: served or self.queues(), ended=jobs_watcher.told))
        return Service(
            settings=self.settings,
            tasks=self.tasks,
            store=self.store,
            completer=self.completer(),
            queueing=self.queueing,
            results=self.results,
            readiness=Readiness(self.dependencies()),
            jobs_watcher=jobs_watcher,
            groups_watcher=Watcher(self.store.live_groups, seats),
        )

    def dependencies(self) -> list[Dependency]:
        """Return all that this process depends on, each with the way to ask whether it answers."""
        told = self.settings.events.enabled
        return [
            Dependency("state", "state", self.store.ping, required=True),
            Dependency("broker", "broker", partial(queueing.ping, self.queueing.app)),
            *([Dependency("events", "events", partial(publishing.ask, self.settings, self.store))] if told else []),
            *(Dependency("results", name, backend.ping) for name, backend in self.results.items()),
            *(
                Dependency("database", name, partial(source_databases.ping, source, PATIENCE))
                for name, source in self.sources.items()
            ),
        ]

    def close(self) -> None:
        """Close every connection."""
        self.queueing.close()
        for source in self.sources.values():
            source.close()
        for backend in self.results.values():
            backend.close()
        self.store.close()


def limits_of(settings: Settings, tasks: TaskSet) -> dict[Gate, Limits]:
    """Return the limits of a config and its task files by gate."""
    app = settings.app
    limits = {
        Gate(GateKind.TOTAL, ""): Limits(app.max_jobs),
        Gate(GateKind.TENANT, ""): Limits(app.tenant_max_concurrent, app.tenant_max_pending),
    }
    limits |= {Gate(GateKind.DATABASE, name): Limits(of.max_concurrent) for name, of in settings.databases.items()}
    limits |= {Gate(GateKind.TASK, task.name): Limits(task.concurrency) for task in tasks.values()}
    limits |= {
        Gate(GateKind.QUEUE, name): Limits(of.max_concurrent, of.max_pending) for name, of in settings.queues.items()
    }
    for name, of in settings.tenants.items():
        # They stand in the place of those of every tenant, also where they are none.
        limits[Gate(GateKind.TENANT, name)] = Limits(of.max_concurrent or UNLIMITED, of.max_pending or UNLIMITED)
    return limits


def paces_of(settings: Settings) -> dict[str, float]:
    """Return the starts per second of each database of a config, 0 for any number."""
    return {name: of.max_starts for name, of in settings.databases.items()}
