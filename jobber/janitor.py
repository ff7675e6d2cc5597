"""What must be tidied in results databases: expired results, what dead attempts left, and what failed runs published.

A thread of its own: a results database that hangs must keep nobody from starting due jobs or rescuing lost ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from jobber.errors import JobberError
from jobber.jobs import Job, Micros
from jobber.leading import Role
from jobber.results.base import ResultsBackend
from jobber.store import Store

log = logging.getLogger(__name__)

ROLE = "janitor"
#: Seconds between two rounds, and of the leader's lease: one round may wait for a database that does not answer.
_ROUND, _LEASE = 30.0, 90.0
#: Seconds after which an attempt that still has staging tables is asked for.
_ABANDONED = 60.0
#: Seconds of history that are looked through at first, and once more in every round: an end may be committed late.
_LOOK_BACK, _OVERLAP = 3600, 60


class Janitor:
    """Keeps results databases tidy.

    Parameters:
        holder: a name of this process that no other has.
    """

    def __init__(self, *, store: Store, results: Mapping[str, ResultsBackend], holder: str) -> None:
        self._store = store
        self._results = results
        self._role = Role(store, ROLE, holder, lease=_LEASE)
        self._over = threading.Event()
        self._withdrawn: Micros | None = None  # runs that ended before are done with

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Tidy up, until stopped; in a thread of its own."""
        pause = 0.0
        while not self._over.wait(pause):
            pause = _ROUND
            try:
                if self._role.held():
                    self._round()
            except JobberError as error:
                log.warning("the janitor waits: %s", error)
        self._role.resign()

    def _round(self) -> None:
        for name, backend in self._results.items():
            try:
                self._tidy(name, backend)
            except JobberError as error:
                log.warning("%s is not tidied for now: %s", name, error)
            except Exception:
                log.exception("%s could not be tidied; the others go on", name)
        self._withdraw()

    def _tidy(self, name: str, backend: ResultsBackend) -> None:
        while expired := backend.expire():
            log.info("%s: dropped %d expired results", name, len(expired))
        abandoned = {(claim.run, claim.attempt): claim for claim in backend.abandoned(_ABANDONED)}
        if abandoned:
            running = self._store.running(abandoned.keys())
            for key, claim in abandoned.items():
                if key not in running:
                    backend.fence(claim.table, claim.run, claim.attempt)

    def _withdraw(self) -> None:
        """Drop what was published by runs that ended without success: who published died before it could say so."""
        now = self._store.now()
        since = now - _LOOK_BACK * 1_000_000 if self._withdrawn is None else self._withdrawn
        done, after = True, 0
        while found := self._store.doubtful(since, after=after):
            for job in found:
                done = self._drop(job) and done
            since, after = found[-1].finished_at or now, found[-1].run
        if done:
            self._withdrawn = now - _OVERLAP * 1_000_000

    def _drop(self, job: Job) -> bool:
        """Drop what a run published; False if that has to be tried again."""
        backend = self._results.get(job.results)
        if backend is None:
            return True
        try:
            backend.fence(job.table, job.run, job.attempt)
            if backend.drop(job.table, job.run):
                log.info("%s: dropped %s, whose job %s is %s", job.results, job.table, job.job_id, job.state)
        except JobberError as error:
            log.warning("could not drop %s in %s yet: %s", job.table, job.results, error)
            return False
        except Exception:
            log.exception("could not drop %s in %s", job.table, job.results)
        return True
