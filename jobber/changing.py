"""Cancel or retry many jobs: those of a list of IDs, or all that a filter matches.

Some hundred at a time, each part in a transaction of its own, so that claims and submissions go on between them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jobber.bulk import Bulk
from jobber.completion import JobRequest, again
from jobber.errors import InvalidRequest, JobberError, JobIsFinished, JobIsLive, UnknownJob
from jobber.jobs import FINISHED, LIVE, Job, JobState
from jobber.queueing import Queueing
from jobber.store import Store
from jobber.store.listing import JobFilter
from jobber.store.parts import parts

#: Jobs that are looked up or cancelled at a time, and runs that are counted or run again at a time.
PART, COUNTED = 500, 10_000
#: Seconds after which an operation by filter is answered as far as it has come.
PATIENCE = 20.0
#: Jobs that an operation by filter names which it could not change.
TOLD = 100
#: What a retry by filter takes unless it names states.
UNSUCCESSFUL = frozenset({JobState.FAILURE, JobState.CANCELLED})

#: What has become of one of many jobs.
Outcome = Job | JobberError
#: Which of many jobs were not changed, and why.
Refusals = Sequence[tuple[str, JobberError]]


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of the jobs that a filter matches.

    Parameters:
        matched: those that it matched.
        done: those that were cancelled, asked to stop, or run again.
        refused: why the others were not, by error code.
        refusals: of those the first, ``TOLD`` at most: job ID and error.
        below: the run below which there is more to do; None when all is done.
    """

    matched: int
    done: int
    refused: Mapping[str, int]
    refusals: Refusals
    below: int | None


class Changes:
    """The operations.

    Parameters:
        wake: wakes the workers of queues.
    """

    def __init__(
        self,
        *,
        store: Store,
        bulk: Bulk,
        queueing: Queueing,
        accept: Callable[[], None],
        wake: Callable[[Iterable[str]], None],
    ) -> None:
        self._store = store
        self._bulk = bulk
        self._queueing = queueing
        self._accept = accept
        self._wake = wake

    # -- by ID ---------------------------------------------------------------------------------------------------------

    def cancel(self, job_ids: Sequence[str]) -> list[Outcome]:
        """Cancel jobs; return each, or why it was not (JobIsFinished, UnknownJob), in the order of the IDs."""
        outcomes: dict[str, Outcome] = {}
        for some in parts(list(dict.fromkeys(job_ids)), PART):
            found = self._store.changes.newest(some)
            done = self._cancel([job.run for job in found.values() if job.live])
            now = self._store.changes.newest([job_id for job_id, job in found.items() if job.run in done])
            outcomes |= {job_id: self._cancelled(job_id, found.get(job_id), done, now) for job_id in some}
        return [outcomes[job_id] for job_id in job_ids]

    def _cancelled(self, job_id: str, found: Job | None, done: frozenset[int], now: Mapping[str, Job]) -> Outcome:
        if found is None:
            return UnknownJob(f"there is no job {job_id}")
        if found.run in done:
            return now.get(job_id, found)
        job = found if not found.live else self._store.changes.newest([job_id]).get(job_id, found)
        return JobIsFinished(f"job {job_id} is finished already ({job.state.value})", job)

    def retry(self, job_ids: Sequence[str]) -> list[Outcome]:
        """Run finished jobs again; return each, or why it is not (JobIsLive, UnknownJob, …), in the order of the IDs.

        Raises:
            Draining: this instance takes nothing new.
        """
        self._accept()
        outcomes = self._retry(list(dict.fromkeys(job_ids)))
        return [outcomes[job_id] for job_id in job_ids]

    def _retry(self, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """Run jobs again, as one request: what depends on another of them waits for its new run, in whatever order."""
        found: dict[str, Job] = {}
        for some in parts(job_ids, PART):
            found |= self._store.changes.newest(some)
        outcomes = self._bulk.create([_request(job_id, found.get(job_id)) for job_id in job_ids])
        return dict(zip(job_ids, outcomes, strict=True))

    def _cancel(self, runs: Sequence[int]) -> frozenset[int]:
        done = self._store.changes.cancel(runs)
        self._wake(done.wake)
        for run, attempt in done.asked:
            self._queueing.cancel(run, attempt)
        return done.done

    # -- by filter -----------------------------------------------------------------------------------------------------

    def cancel_all(self, wanted: JobFilter, *, dry_run: bool = False, below: int | None = None) -> Tally:
        """Cancel the jobs that a filter matches, of those submitted before the run ``below``.

        Raises:
            InvalidRequest: it names no condition, or only states of finished jobs.
        """
        wanted = _of_states(wanted, LIVE, "cancelled")

        def cancel(runs: Mapping[int, str]) -> Refusals:
            done = self._cancel(list(runs))
            ended = [job_id for run, job_id in runs.items() if run not in done]
            now = self._store.changes.newest(ended)
            return [(it, JobIsFinished(f"job {it} has finished meanwhile", now.get(it))) for it in ended]

        return self._each(wanted, None if dry_run else cancel, below, live=True)

    def retry_all(self, wanted: JobFilter, *, dry_run: bool = False, below: int | None = None) -> Tally:
        """Run the jobs again that a filter matches, if the run that it matches is the newest of its job.

        Of no states in particular those are meant that ended without success.

        Raises:
            InvalidRequest: it names no condition, or only states of live jobs.
            Draining: this instance takes nothing new.
        """
        self._accept()
        if wanted and not wanted.states:
            wanted = replace(wanted, states=UNSUCCESSFUL)
        wanted = _of_states(wanted, FINISHED, "run again")

        def retry(runs: Mapping[int, str]) -> Refusals:
            outcomes = self._retry([runs[run] for run in sorted(runs)])  # in the order of their submission
            return [(job_id, outcome) for job_id, outcome in outcomes.items() if isinstance(outcome, JobberError)]

        return self._each(wanted, None if dry_run else retry, below, live=False, most=COUNTED)

    def _each(
        self,
        wanted: JobFilter,
        change: Callable[[Mapping[int, str]], Refusals] | None,
        below: int | None,
        *,
        live: bool,
        most: int = 0,
    ) -> Tally:
        deadline = time.monotonic() + PATIENCE
        matched, done = 0, 0
        refused: Counter[str] = Counter()
        refusals: list[tuple[str, JobberError]] = []
        while True:
            # Only those that are older than the last ones: what comes meanwhile, and a run that this makes, is let be.
            limit = (most or PART) if change else COUNTED
            found = self._store.lists.runs(wanted, ["job_id"], live=live, below=below, limit=limit)
            runs = {row["run"]: str(row["job_id"]) for row in found.rows}
            if not live:
                runs = self._newest_of(runs)
            matched += len(runs)
            if change and runs:
                not_changed = change(runs)
                done += len(runs) - len(not_changed)
                refused.update(error.code for _, error in not_changed)
                refusals += not_changed[: TOLD - len(refusals)]
            below = found.below
            if below is None or time.monotonic() > deadline:
                return Tally(matched, done, refused, refusals, below)

    def _newest_of(self, runs: Mapping[int, str]) -> dict[int, str]:
        newest: dict[str, int] = {}
        for some in parts(list(dict.fromkeys(runs.values()))):
            newest |= self._store.changes.newest_runs(some)
        return {run: job_id for run, job_id in runs.items() if newest.get(job_id) == run}


def _request(job_id: str, job: Job | None) -> JobRequest | JobberError:
    if job is None:
        return UnknownJob(f"there is no job {job_id}")
    if job.live:
        return JobIsLive(f"job {job_id} is {job.state.value}: it is not finished", job)
    return again(job)


def _of_states(wanted: JobFilter, states: frozenset[JobState], done: str) -> JobFilter:
    """Return the filter without the states in which nothing can be done."""
    if not wanted:
        raise InvalidRequest(
            "filter: name at least one condition; one that holds for all jobs is no filter", field="filter"
        )
    possible = wanted.within(states)
    if not possible:
        named = ", ".join(sorted(wanted.states))
        raise InvalidRequest(f"filter.state: no job that is {named} can be {done}", field="filter.state")
    return replace(wanted, states=possible)
