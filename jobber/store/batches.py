"""Many jobs at once, each of which is accepted or refused by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from jobber.errors import InvalidRequest, JobberError, JobIsLive, StateUnavailable
from jobber.jobs import Job, NewJob, encode_args
from jobber.store import cycles
from jobber.store.admission import Full
from jobber.store.database import ATTEMPTS, Database
from jobber.store.lanes import LaneBook, Woken
from jobber.store.parents import ParentBook
from jobber.store.parts import parts
from jobber.store.reading import live_jobs, select_live
from jobber.store.receipts import Receipt, ReceiptBook
from jobber.store.records import check_names
from jobber.store.reuse import Numbered
from jobber.store.runs import Begun, begin
from jobber.store.schema import jobs
from jobber.store.submission import Submitter, and_ending

#: A job that was accepted, or why it was not.
Outcome = Job | JobberError


class Batches:
    """Submits jobs in bulk."""

    def __init__(
        self,
        database: Database,
        *,
        submitter: Submitter,
        parents: ParentBook,
        lanes: LaneBook,
        receipts: ReceiptBook,
    ) -> None:
        self._database = database
        self._submitter = submitter
        self._parents = parents
        self._lanes = lanes
        self._receipts = receipts

    def submit(
        self,
        new: Sequence[NewJob | JobberError],
        *,
        lost: Collection[str] = (),
        receipt: Receipt | None = None,
    ) -> list[Outcome]:
        """Add those jobs that can be added; return what has become of each, in the order given.

        A thousand go into one transaction; all into one with a receipt, which renders what is returned. Jobs may depend
        on others of the same call, before or after them.

        Parameters:
            new: those that are errors already stay so.
            lost: IDs of these: nothing that depends on one of them is accepted.

        Raises:
            Answered, IdempotencyConflict: as ``ReceiptBook.claim``.
            StateUnavailable: the state database cannot be reached; nothing was added, unless it went away while it
                committed the first thousand.
        """
        batch = _Batch(new, lost)
        chunks = [batch.order] if receipt else [*parts(batch.order)]
        for number, some in enumerate(chunks):
            try:
                found = self._write(batch, some, receipt)
            except StateUnavailable as error:
                if not number:
                    raise
                found = {job.job_id: error for job in some}
            batch.tell(found)
            batch.refused |= {job_id for job_id, outcome in found.items() if not isinstance(outcome, Job)}
        return batch.outcomes()

    def _write(self, batch: _Batch, some: Sequence[NewJob], receipt: Receipt | None) -> Mapping[str, Outcome]:
        for _ in range(ATTEMPTS):
            try:
                return self._database.write(lambda connection: self._add(connection, batch, some, receipt))
            except IntegrityError:
                continue  # somebody else has just taken one of the IDs, and is seen next time
        raise StateUnavailable("the state database is too busy: jobs of these IDs come and go", retry_after=1)

    def _add(
        self, connection: Connection, batch: _Batch, some: Sequence[NewJob], receipt: Receipt | None
    ) -> Mapping[str, Outcome]:
        begun = begin(self._database, connection, max(1, len(some)))
        self._receipts.claim(connection, receipt)
        woken = Woken()
        found = self._take(connection, _Sieve(some, begun, batch.refused), begun, woken)
        if receipt:
            batch.tell(found)
            self._receipts.keep(connection, receipt, batch.outcomes())
        self._lanes.wake(connection, woken)
        return found

    def _take(self, connection: Connection, sieve: _Sieve, begun: Begun, woken: Woken) -> Mapping[str, Outcome]:
        submitter = self._submitter
        for live in self._live(connection, [job.job_id for job, _ in sieve.left]):
            sieve.refuse(live.job_id, JobIsLive(f"job {live.job_id} is {live.state.value} already", live))
        fates = submitter.reuse.find(connection, sieve.passed())
        lacking = submitter.backlog.admit_some(connection, [job for job, run in sieve.left if run not in fates], begun)
        told: dict[Full, JobberError] = {}
        for job_id, full in lacking.items():
            if full not in told:
                told[full] = submitter.backlog.refusal(connection, full)
            sieve.refuse(job_id, told[full])
        while True:
            joined, ending = submitter.join(connection, sieve.passed(), fates)
            waits = self._parents.attach(connection, joined)
            if not waits.problems:
                break
            for job, run in sieve.left:
                if run in waits.problems:
                    sieve.refuse(job.job_id, _about_parents(waits.problems[run]))
        if joined:
            ending = {run: ending[run] for _, run in joined if run in ending}
            accepted = submitter.store(connection, joined, begun.now, and_ending(waits, ending), woken)
            sieve.found |= {job.job_id: job for job in accepted}
        return sieve.found

    def _live(self, connection: Connection, ids: Sequence[str]) -> list[Job]:
        """Return the live jobs among ``ids``."""
        engine = self._database.engine
        found: list[Job] = []
        among = engine.among(jobs.c.job_id, "ids")
        for some in parts(ids):
            # Seldom any: whole jobs, with their progress, are looked at where there are.
            if connection.execute(select(jobs.c.run).where(among).limit(1), {"ids": engine.many(some)}).first():
                found += live_jobs(connection, select_live().where(among).params(ids=engine.many(some)))
        return found


class _Sieve:
    """Those of some new jobs that are accepted so far.

    Parameters:
        refused: IDs of jobs of the same request that were refused before.
    """

    def __init__(self, new: Sequence[NewJob], begun: Begun, refused: Collection[str]) -> None:
        self.left: Numbered = list(zip(new, begun.runs, strict=False))
        self.found: dict[str, Outcome] = {}
        self._refused = set(refused)

    def refuse(self, job_id: str, error: JobberError) -> None:
        """Note why one is refused."""
        self.found[job_id] = error
        self._refused.add(job_id)

    def passed(self) -> Numbered:
        """Return those that are left: without the ones that are refused, and those that depend on them."""
        left = []
        for job, run in self.left:  # parents first
            if job.job_id in self._refused and job.job_id in self.found:
                continue
            if lost := next((parent for parent in job.depends_on if parent in self._refused), None):
                self.refuse(job.job_id, _about_parents(_lost(lost)))
            else:
                left.append((job, run))
        self.left = left
        return left


class _Batch:
    """The jobs of one request, and what has become of them.

    Attributes:
        order: those that may be accepted, parents before their children.
        refused: IDs of the others.
    """

    def __init__(self, new: Sequence[NewJob | JobberError], lost: Collection[str]) -> None:
        self._told: dict[int, Outcome] = {}
        self._size = len(new)
        self._places: dict[str, int] = {}
        own: dict[str, NewJob] = {}
        for place, job in enumerate(new):
            if isinstance(job, JobberError):
                self._told[place] = job
            elif problem := _problem(job, self._places):
                self._told[place] = problem
            else:
                own[job.job_id] = job
                self._places[job.job_id] = place
        self.order = self._ordered(own)
        named = {job.job_id for job in new if isinstance(job, NewJob)}.union(lost)
        self.refused = named - {job.job_id for job in self.order}

    def tell(self, found: Mapping[str, Outcome]) -> None:
        """Note what has become of jobs, by their IDs."""
        self._told.update((self._places[job_id], outcome) for job_id, outcome in found.items())

    def outcomes(self) -> list[Outcome]:
        """Return what has become of all."""
        return [self._told[place] for place in range(self._size)]

    def _ordered(self, own: Mapping[str, NewJob]) -> list[NewJob]:
        """Return jobs, parents before their children and else as they came; refuse those that could never run."""
        parents = {job_id: [of for of in dict.fromkeys(job.depends_on) if of in own] for job_id, job in own.items()}
        if not any(parents.values()):
            return [*own.values()]
        children: dict[str, list[str]] = {job_id: [] for job_id in own}
        for job_id, of in parents.items():
            for parent in of:
                children[parent].append(job_id)
        waiting = {job_id: len(of) for job_id, of in parents.items()}
        free = deque(job_id for job_id, count in waiting.items() if not count)
        order: list[NewJob] = []
        while free:
            order.append(own[free[0]])
            for child in children[free.popleft()]:
                waiting[child] -= 1
                if not waiting[child]:
                    free.append(child)
        stuck = {job_id: parents[job_id] for job_id, count in waiting.items() if count}
        self.tell(dict(_stuck(stuck)))
        return order


def _stuck(parents: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, Outcome]]:
    """Yield what is wrong with jobs that wait for each other for ever, or for such jobs."""
    circles = {job_id: circle for circle in cycles.circles(parents).values() for job_id in circle}
    for job_id, of in parents.items():
        circle = circles.get(job_id)
        lost = next((parent for parent in of if parent in parents), job_id)
        yield job_id, _about_parents(cycles.told(circle) if circle else _lost(lost))


def _lost(parent: str) -> str:
    return f"job {parent} of this request was refused"


def _about_parents(problem: str) -> InvalidRequest:
    return InvalidRequest(f"depends_on: {problem}", field="depends_on", fields={"depends_on": problem})


def _problem(job: NewJob, places: Mapping[str, int]) -> InvalidRequest | None:
    """Return what is wrong with a job in itself.

    Parameters:
        places: of the jobs before it, by ID.
    """
    if job.job_id in places:
        text = f"{job.job_id} is the ID of jobs[{places[job.job_id]}] already"
        return InvalidRequest(f"job_id: {text}", field="job_id", fields={"job_id": text})
    try:
        check_names(job)
        encode_args(job.args).encode()
    except InvalidRequest as error:
        return error
    except UnicodeEncodeError:
        return InvalidRequest("args: a text is not valid Unicode", field="args")
    return None
