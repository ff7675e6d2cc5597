"""A worker on a real store, with a source, a results database, and nobody whom it could wake."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobber import config
from jobber import tasks as task_files
from jobber.jobs import NewJob
from jobber.results import open_results
from jobber.results.base import ResultsBackend
from jobber.sources import open_source
from jobber.store import Store
from jobber.worker import Worker

TASKS = """\
-- name: quick
SELECT 1 AS one;

-- name: endless
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n;

-- name: wrong
-- raw: 1
SELECT * FROM nowhere;

-- name: wrong_but_tried_again
-- raw: 1
-- retry_on: any
SELECT * FROM nowhere;

-- name: unlimited
-- timeout: 0
SELECT 1 AS one;
"""


@dataclass
class Wakes:
    """Where a worker sends wake-ups; nobody listens here."""

    queues: list[str] = field(default_factory=list)

    def wake(self, queue: str, _slots: int = 1) -> None:
        self.queues.append(queue)

    def ended(self, _job_id: str) -> None:
        pass


@dataclass
class Bench:
    """A worker and what it works with; its databases are ``src``, and ``gone``, whose file is not there."""

    worker: Worker
    store: Store
    wakes: Wakes
    results: ResultsBackend
    gone: Path

    def submit(self, task: str, job_id: str, **more: Any) -> None:
        table = self.results.table_name(job_id)
        fields = {"db": "src", **more}
        self.store.submit([NewJob(job_id=job_id, task=task, queue="default", results="results", table=table, **fields)])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS)
    sqlite3.connect(tmp_path / "source.db").close()
    (tmp_path / "data").mkdir()
    databases = {name: f"sqlite:///{tmp_path}/{file}.db" for name, file in (("src", "source"), ("gone", "gone"))}
    settings = config.embedded(tmp_path / "data", databases)
    store = Store(settings.state.url)
    store.migrate()
    sources = {name: open_source(database) for name, database in settings.databases.items()}
    results = {name: open_results(database) for name, database in settings.results.items()}
    for backend in results.values():
        backend.prepare()
    loaded = task_files.load([tmp_path / "sql"], settings)
    wakes = Wakes()
    worker = Worker(
        settings=settings,
        name="w",
        tasks=lambda: loaded,
        queues=lambda: ["default"],
        slots=2,
        store=store,
        queueing=wakes,  # type: ignore[arg-type]  # it has the methods that are called
        sources=sources,
        results=results,
    )
    # Tried again soon.
    worker.settings = replace(settings, app=replace(settings.app, retry_delay=0.01))
    yield Bench(worker, store, wakes, results["results"], tmp_path / "gone.db")
    worker.interrupt()
    for closed in (*sources.values(), *results.values(), store):
        closed.close()


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread
