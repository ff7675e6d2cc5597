"""How many rows are to be expected of attempts that take long: what the same gave last time, else the source's plan.

Asked only of attempts that have been running for a second, so that small jobs pay nothing for it, in a thread beside
them, which they never wait for and whose failures are nobody's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jobber import execution
from jobber.errors import JobberError, SourceUnavailable, StateUnavailable
from jobber.jobs import Job
from jobber.sources.base import Query, Source
from jobber.store import Store
from jobber.tasks import Task

log = logging.getLogger(__name__)

#: Seconds that an attempt has run before anybody asks.
_LONG = 1.0
#: Seconds that a planner may take.
_PATIENCE = 2.0
#: How often it is tried where a database is not to be reached, or has no connection free.
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """A running attempt, and where its total is noted."""

    job: Job
    task: Task
    progress: execution.Progress


class Expectations:
    """Finds out the totals of running attempts."""

    def __init__(self, store: Store, sources: Mapping[str, Source]) -> None:
        self._store = store
        self._sources = sources
        self._asking = threading.Lock()

    def look(self, attempts: Collection[Attempt]) -> None:
        """Begin to ask for those that take long and were not asked for; returns at once."""
        long = [attempt for attempt in attempts if _is_due(attempt.progress)]
        if long and self._asking.acquire(blocking=False):
            threading.Thread(target=self._ask_all, args=[long], name="expectations", daemon=True).start()

    def _ask_all(self, attempts: Collection[Attempt]) -> None:
        try:
            for attempt in attempts:
                self._ask(attempt)
        finally:
            self._asking.release()

    def _ask(self, attempt: Attempt) -> None:
        job, progress = attempt.job, attempt.progress
        progress.asked += 1
        try:
            total, basis = self._store.prospects.expected(job), "history"
            if total is None:
                total, basis = self._planned(attempt), "planner"
        except (SourceUnavailable, StateUnavailable) as error:
            log.debug("job %s attempt %d: no total yet: %s", job.job_id, job.attempt, error)
            return
        except JobberError as error:
            log.debug("job %s attempt %d: no total: %s", job.job_id, job.attempt, error)
            total = None
        except Exception:  # what a planner says may have any form
            log.warning("job %s attempt %d: no total", job.job_id, job.attempt, exc_info=True)
            total = None
        progress.asked = _TRIES
        if total is not None:
            progress.total, progress.total_basis = total, basis

    def _planned(self, attempt: Attempt) -> int | None:
        source = self._sources[attempt.job.db]
        query = Query(attempt.task.statements[source.engine], attempt.job.args)
        return source.estimate(query, timeout=_PATIENCE)


def _is_due(progress: execution.Progress) -> bool:
    return progress.asked < _TRIES and time.monotonic() - progress.began >= _LONG
