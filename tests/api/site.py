"""An instance over the real service: every state store, a real source and real results."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from jobber import execution
from jobber.cancellation import Cancellation
from jobber.config import (
    AppSettings,
    BrokerSettings,
    DatabaseSettings,
    ResultsSettings,
    Settings,
    StateSettings,
)
from jobber.errors import AttemptError
from jobber.instance import Instance
from jobber.jobs import Job
from tests.api.http import Http, application

QUERIES = """\
-- name: entries_of
-- queue: reports
SELECT id, amount FROM entries WHERE user_id = ? ORDER BY id;

-- name: between
-- param: first integer
-- param: last integer = 3
SELECT id FROM entries WHERE id BETWEEN :first AND :last ORDER BY id;

-- name: outcome
-- param: group_id text
-- param: succeeded integer
-- param: failed integer
-- param: cancelled integer
-- param: tables text
-- param: channel text = 'none'
SELECT :group_id AS group_id, :succeeded AS succeeded, :failed AS failed, :cancelled AS cancelled, :tables AS tables,
    :channel AS channel;
"""


class Site:
    """An instance with its API; ``work`` is what a worker does, without Celery."""

    def __init__(self, state_url: str, folder: Path) -> None:
        (folder / "sql").mkdir()
        (folder / "sql" / "queries.sql").write_text(QUERIES)
        with sqlite3.connect(folder / "source.db") as source:
            source.execute("CREATE TABLE entries (id BIGINT, user_id TEXT, amount DECIMAL(20,2))")
            source.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)", [(1, "U", "12.50"), (2, "U", "-0.01"), (3, "V", "7")]
            )
        source.close()
        settings = Settings(
            app=AppSettings(data_dir=folder),
            broker=BrokerSettings(url="filesystem://"),
            state=StateSettings(url=state_url),
            databases={"main": DatabaseSettings(name="main", url=f"sqlite:///{folder}/source.db", engine="sqlite")},
            results={"reports": ResultsSettings(name="reports", url=f"sqlite:///{folder}/results", engine="sqlite")},
        )
        self.instance = Instance(settings, [folder / "sql"])
        self.instance.store.migrate()
        self.instance.results["reports"].prepare()
        self.http = Http(application(self.instance.service(waiters=10)))
        self._worker = self.instance.store.register("w1", ["reports", "default", "q"], 1, lease=60)

    def claim(self) -> Job:
        """Start the next job."""
        (job,) = self.claim_all(1)
        return job

    def claim_all(self, most: int = 100) -> Sequence[Job]:
        """Start all jobs that may run now."""
        return self.instance.store.claim(
            self._worker,
            queues=["reports", "default", "q"],
            tasks=self.instance.tasks().keys(),
            databases=["main"],
            limit=most,
        ).jobs

    def publish(self, job: Job) -> execution.Outcome:
        """Run a job as far as its result, and tell nobody."""
        return execution.run(
            job,
            self.instance.tasks()[job.task],
            sources=self.instance.sources,
            results=self.instance.results,
            timeout=30,
            cancellation=Cancellation(),
            progress=execution.Progress(),
        )

    def work(self) -> None:
        """Run the next job to its end."""
        self.finish(self.claim())

    def finish(self, job: Job) -> None:
        """Run a job to its end."""
        try:
            outcome = self.publish(job)
        except AttemptError as error:
            self.instance.store.fail(job, error=error.message, code=error.code)
        else:
            self.instance.store.succeed(job, rows=outcome.rows, columns=outcome.columns)
