"""Builds the parts of one process from settings and task folders, and holds the task set that a reload replaces."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from jobber import tasks as task_files
from jobber.config import Settings
from jobber.errors import StateUnavailable
from jobber.queueing import Queueing, build
from jobber.results import open_results
from jobber.service import Service
from jobber.sources import open_source
from jobber.store import Gate, GateKind, Store
from jobber.tasks import TaskSet
from jobber.watcher import Watcher

log = logging.getLogger(__name__)


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
        self.store = Store(settings.state.url, pool_size=settings.state.pool_size)
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
        """Write the limits of config and task files into the store, where every claim counts against them."""
        limits = {
            Gate(GateKind.DATABASE, name): database.max_concurrent for name, database in self.settings.databases.items()
        }
        limits |= {Gate(GateKind.TASK, task.name): task.concurrency for task in self._tasks.values()}
        self.store.set_limits(limits)

    def service(self, *, waiters: int) -> Service:
        """Return the operations that the API offers.

        Parameters:
            waiters: requests that may wait for a job or a group at a time; each holds a thread of the server.
        """
        seats = threading.Semaphore(waiters)
        return Service(
            settings=self.settings,
            tasks=self.tasks,
            store=self.store,
            queueing=self.queueing,
            results=self.results,
            jobs_watcher=Watcher(self.store.live, seats),
            groups_watcher=Watcher(self.store.live_groups, seats),
        )

    def close(self) -> None:
        """Close every connection."""
        self.queueing.close()
        for source in self.sources.values():
            source.close()
        for backend in self.results.values():
            backend.close()
        self.store.close()


def prepare_state(instance: Instance, seconds: float) -> None:
    """Bring the state database to this version's schema, waiting up to ``seconds`` for it if it is away.

    Raises:
        StateUnavailable: it did not come.
    """
    deadline = time.monotonic() + seconds
    said = False
    while True:
        try:
            instance.store.migrate()
        except StateUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            if not said:
                log.warning("waiting up to %g s for the state database: %s", seconds, error)
                said = True
            time.sleep(0.5)
        else:
            return
