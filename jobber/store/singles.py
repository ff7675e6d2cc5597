"""Jobs that come one by one, from several threads at the same time: what has come by then goes in together.

Only plain ones, each of which is accepted or refused whatever becomes of the others. All that waits for others, shares
a run, takes an earlier result or is answered once goes through ``Submitter.submit``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from jobber.errors import JobIsLive, StateUnavailable
from jobber.jobs import Job, NewJob, encode_args
from jobber.store.combining import Combiner
from jobber.store.database import ATTEMPTS, Database
from jobber.store.lanes import LaneBook
from jobber.store.reading import Reader
from jobber.store.records import check_names
from jobber.store.runs import begin
from jobber.store.submission import Submitter

#: Characters of arguments up to which a job goes in together with others.
_SMALL = 64_000

#: A job that was accepted, or why it was not.
Outcome = Job | Exception
#: Adds jobs in a transaction; None for those that are to be tried again.
_Add = Callable[[Connection, Sequence[NewJob]], Sequence[Outcome | None]]


def is_plain(new: NewJob) -> bool:
    """Whether a job may go in together with others that have nothing to do with it."""
    return not new.depends_on and new.max_age is None and not new.single_flight


class Singles:
    """Submits plain jobs, each for a thread that waits for it."""

    def __init__(self, database: Database, *, submitter: Submitter, reader: Reader, lanes: LaneBook) -> None:
        self._database = database
        self._submitter = submitter
        self._reader = reader
        self._lanes = lanes
        #: The number of a run that was begun here, 0 before there is one.
        self._newest = 0
        self._together: Combiner[NewJob, Job] = Combiner(self._submit)

    def submit(self, new: NewJob) -> Job:
        """Add a plain job. Raises as ``Submitter.submit``."""
        check_names(new)
        if len(encode_args(new.args)) <= _SMALL:
            return self._together(new)
        # Many like it would be more than one statement holds.
        (outcome,) = self._submit([new])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _submit(self, new: Sequence[NewJob]) -> list[Outcome]:
        """Return what becomes of each job, once that is durable."""
        found: dict[int, Outcome] = {}
        left = dict(enumerate(new))
        for attempt in range(ATTEMPTS):
            try:
                # At first in one step; what that leaves out, or finds in its way, in the way that asks first.
                found |= self._try(left, self._add_numbered if attempt == 0 else self._add)
            except StateUnavailable as error:
                found |= dict.fromkeys(left, error)
            except Exception as error:  # noqa: BLE001 - each is told, and raises it
                # One of them is more than the database takes; the others have nothing to do with that.
                found |= dict.fromkeys(left, error) if len(left) == 1 else self._alone(left)
            left = {place: job for place, job in left.items() if place not in found}
            if not left:
                break
        busy = "the state database is too busy: jobs of these IDs come and go"
        return [found.get(place) or StateUnavailable(busy, retry_after=1) for place in range(len(new))]

    def _alone(self, new: dict[int, NewJob]) -> dict[int, Outcome]:
        return {place: self._submit([job])[0] for place, job in new.items()}

    def _try(self, new: dict[int, NewJob], add: _Add) -> dict[int, Outcome]:
        """Add jobs in one transaction; return what is certain then, at least of one unless IDs come and go."""
        first = {job.job_id: place for place, job in reversed(new.items())}
        places = sorted(first.values())  # others of these IDs find these live
        try:
            outcomes = self._database.write(lambda connection: add(connection, [new[place] for place in places]))
        except IntegrityError as error:
            found = self._live(new, error)
            if not found:  # then it was a lane that is gone
                self._lanes.forget()
            return found
        return {place: outcome for place, outcome in zip(places, outcomes, strict=True) if outcome is not None}

    def _live(self, new: dict[int, NewJob], error: IntegrityError) -> dict[int, Outcome]:
        """Return why those are refused whose IDs are live."""
        found: dict[int, Outcome] = {}
        live = self._reader.live({job.job_id for job in new.values()})
        for place, job in new.items():
            if job.job_id in live and (there := self._reader.get(job.job_id)).live:
                refused = JobIsLive(f"job {job.job_id} is {there.state.value} already", there)
                refused.__cause__ = error
                found[place] = refused
        return found

    def _add_numbered(self, connection: Connection, new: Sequence[NewJob]) -> Sequence[Outcome | None]:
        """Add jobs in one round trip, where nothing has to be asked before; return None for those left out."""
        gates = self._submitter.numbers(new)
        if gates is None or not self._newest:
            return self._add(connection, new)
        jobs = self._submitter.add_numbered(connection, new, gates=gates, after=self._newest)
        self._newest = max((job.run for job in jobs.values()), default=self._newest)
        return [jobs.get(job.job_id) for job in new]

    def _add(self, connection: Connection, new: Sequence[NewJob]) -> Sequence[Outcome | None]:
        begun = begin(self._database, connection, len(new))
        self._newest = begun.runs[-1]
        lacking = self._submitter.backlog.admit_some(connection, new, begun)
        refused = {full: self._submitter.backlog.refusal(connection, full) for full in set(lacking.values())}
        accepted = [(job, run) for job, run in zip(new, begun.runs, strict=True) if job.job_id not in lacking]
        jobs = {job.job_id: job for job in self._submitter.add_plain(connection, accepted, begun.now)}
        return [jobs[job.job_id] if job.job_id in jobs else refused[lacking[job.job_id]] for job in new]
