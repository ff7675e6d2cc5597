"""Every change of a job's state but its submission and its claim. One transaction each; the name is the transition.

An attempt is known by (run, attempt). Its ``running`` row is its right to say how it ended: whoever deletes that row
decides, everybody later is fenced off. docs/job-lifecycle.md draws the states.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from jobber.errors import Fenced, JobIsFinished, JobIsLive, UnknownJob
from jobber.jobs import Ending, Job, JobState
from jobber.store.attempts import AttemptBook
from jobber.store.database import Database
from jobber.store.ending import CANCELLING, EndBook, Outcome
from jobber.store.exchange import Request
from jobber.store.finishing import Finished, Finisher, Success, ran
from jobber.store.gates import VERSION, GateBook, Gates
from jobber.store.grouping import GroupBook
from jobber.store.history import forget
from jobber.store.lanes import LaneBook, LaneKey, Woken, key_of
from jobber.store.outbox import Outbox
from jobber.store.reading import Reader, live_jobs, select_live
from jobber.store.records import job_of, storable
from jobber.store.returning import Change, Deletion
from jobber.store.schema import finished_jobs, jobs, order, running, workers
from jobber.store.surveying import open_queues
from jobber.store.workers import is_out


@dataclass(frozen=True, slots=True)
class Changed:
    """A job after a change that may have made others ready.

    Parameters:
        wake: queues whose workers should be woken.
    """

    job: Job
    wake: frozenset[str]


class Transitions:
    """Ends attempts and runs."""

    def __init__(
        self,
        database: Database,
        *,
        gates: GateBook,
        lanes: LaneBook,
        ends: EndBook,
        groups: GroupBook,
        attempts: AttemptBook,
        reader: Reader,
    ) -> None:
        self._database = database
        self._gates = gates
        self._lanes = lanes
        self._ends = ends
        self._groups = groups
        self._attempts = attempts
        self._outbox = Outbox(database)
        self._finisher = Finisher(database)
        self._reader = reader

    # -- how an attempt ends -------------------------------------------------------------------------------------------

    def succeed(self, success: Success) -> frozenset[str]:
        """STARTED to SUCCESS; the result lives ``ttl`` seconds from now on."""
        done = self.finish([success])
        if not done.ended:
            return self._end(success.job, JobState.SUCCESS, success.outcome())
        return done.wake | (self.freed(success.job) if done.freed else frozenset())

    def finish(self, wanted: Sequence[Success]) -> Finished:
        """End attempts that succeeded, those of them that somebody else does not hold right now.

        What became of the others ``succeed`` says.
        """

        def work(connection: Connection) -> tuple[list[Success], Woken, Gates]:
            woken = Woken()
            held = self._finisher.hold(connection, wanted)
            if not held:
                return [], woken, self._gates.newest
            requests = [*self._finisher.requests(held), Request(VERSION)]
            *answers, version = self._database.exchange(connection, *requests)
            ended, awaited = self._finisher.ended(held, answers)
            gates = self._gates.at(connection, version.rows[0][0])
            if awaited or not all(success.alone for success in ended):
                rows = [(success.job.run, success.job.group_run) for success in ended]
                quiet = not any(success.job.callback_url for success in ended)
                self._ends.settle(connection, rows, JobState.SUCCESS, woken, quiet=quiet)
                self._lanes.wake(connection, woken)
            return ended, woken, gates

        ended, woken, gates = self._database.write(work)
        return Finished(
            frozenset(success.key for success in ended),
            frozenset(woken.queues),
            frozenset(gate for success in ended for gate, _ in gates.limited(success.job)),
        )

    def fail(self, job: Job, *, error: str, code: str) -> frozenset[str]:
        """STARTED to FAILURE."""
        outcome = {"error": storable(error), "error_code": code, "failures": job.failures + 1}
        return self._end(job, JobState.FAILURE, {**outcome, **ran(job)})

    def cancelled(self, job: Job) -> frozenset[str]:
        """STARTED to CANCELLED: its query is gone."""
        return self._end(job, JobState.CANCELLED, {"error": "", "error_code": ""})

    def retry(self, job: Job, *, error: str, code: str, delay: float) -> frozenset[str]:
        """STARTED to RETRY, ready after ``delay`` seconds; to CANCELLED where a cancel was asked for meanwhile."""
        values = {"error": storable(error), "error_code": code, "failures": job.failures + 1, "reroutes": 0}
        return self._put_back(job, JobState.RETRY, Ending.RETRY, values, delay=delay)

    def reroute(self, job: Job, db: str, *, error: str, code: str) -> frozenset[str]:
        """STARTED to PENDING on another database, ready now, no retry spent; to CANCELLED where that was asked for."""
        values = {"error": storable(error), "error_code": code, "db": db, "reroutes": job.reroutes + 1}
        lane = key_of(replace(job, db=db), suspect=job.rescues > 0)
        return self._put_back(job, JobState.PENDING, Ending.REROUTED, values, key=lane)

    def requeue(self, job: Job) -> frozenset[str]:
        """STARTED to PENDING, ready now, no retry spent; to CANCELLED where a cancel was asked for meanwhile."""
        return self._put_back(job, JobState.PENDING, Ending.REQUEUED, {})

    def give_back(self, worker: int, attempts: Collection[tuple[int, int]]) -> frozenset[str]:
        """Requeue attempts that a worker holds without knowing of them; those that it does not hold are skipped.

        Parameters:
            attempts: (run, attempt) of each.
        """
        holds = select_live().where(running.c.worker == worker).order_by(jobs.c.run)

        def work(connection: Connection) -> tuple[list[Job], Woken]:
            woken = Woken()
            given: list[Job] = []
            cancelled: list[tuple[int, int | None]] = []
            for job in live_jobs(connection, holds):
                held = self._release(connection, job) if (job.run, job.attempt) in attempts else None
                if held is None:
                    continue
                given.append(job)
                if held.cancel_requested:
                    cancelled.append((job.run, job.group_run))
                    continue
                values = _put_back_values(job, JobState.PENDING, Ending.REQUEUED)
                self._attempts.note(connection, job, Ending.REQUEUED)
                self._set_ready(connection, job, values, held.lane, woken)
                self._outbox.note(connection, [job.run], Ending.REQUEUED.value)
            self._ends.end(connection, cancelled, {"state": JobState.CANCELLED.value}, woken)
            self._lanes.wake(connection, woken)
            return given, woken

        if not attempts:
            return frozenset()
        given, woken = self._database.write(work)
        return self.freed(*given) | woken.queues

    def declare_lost(self, job: Job) -> None:
        """Declare the worker of an attempt dead whose lease ran out: from now on it can renew and claim nothing.

        Raises:
            Fenced: the attempt is over, or its worker is alive after all.
        """
        self._database.write(lambda connection: self._declare_dead(connection, job))

    def rescue(self, job: Job, *, max_rescues: int) -> Changed:
        """Take an attempt from a worker whose lease ran out, and declare that worker dead.

        Back to PENDING; FAILURE where ``max_rescues`` workers died of it before; CANCELLED where that was asked for.

        Raises:
            Fenced: the attempt is over, or its worker is alive after all.
        """
        # A job whose worker died may be why: it goes to a lane of which no worker runs two at a time.
        key = key_of(job, suspect=True)
        error = f"worker {job.worker} died, or lost the state database, while it ran this job"
        values = {"rescues": job.rescues + 1, "error": storable(error), "error_code": "worker_lost"}

        def work(connection: Connection) -> Woken:
            woken = Woken()
            self._declare_dead(connection, job)
            held = self._release(connection, job)
            if held is None:
                raise Fenced(f"attempt {job.attempt} of job {job.job_id} is over already")
            if held.cancel_requested:
                self._finish(connection, job, JobState.CANCELLED, {"rescues": job.rescues + 1}, woken)
            elif job.rescues >= max_rescues:
                lost = (
                    f"that is the {_ordinal(job.rescues + 1)} worker that it lost, and max_rescues allows {max_rescues}"
                )
                self._finish(
                    connection, job, JobState.FAILURE, {**values, "error": storable(f"{error}; {lost}")}, woken
                )
            else:
                lane = self._lanes.ids(connection, [key], job.group_limit)[key]
                set_ = {**values, **_put_back_values(job, JobState.PENDING, Ending.RESCUED), "lane": lane}
                self._attempts.note(connection, job, Ending.RESCUED, error, "worker_lost")
                self._set_ready(connection, job, set_, lane, woken)
                self._outbox.note(connection, [job.run], Ending.RESCUED.value)
            self._lanes.wake(connection, woken)
            return woken

        woken = self._database.write(work)
        return Changed(self._reader.run(job.run), self.freed(job) | woken.queues)

    def _declare_dead(self, connection: Connection, job: Job) -> None:
        holder = select(running.c.worker).where(running.c.run == job.run, running.c.attempt == job.attempt)
        worker = connection.execute(holder).scalar_one_or_none()
        if worker is None:
            raise Fenced(f"attempt {job.attempt} of job {job.job_id} is over already")
        out = workers.c.id == worker, is_out(self._database.engine)
        declared = connection.execute(update(workers).where(*out).values(dead=True)).rowcount
        if not declared and connection.execute(select(workers.c.id).where(workers.c.id == worker)).first():
            raise Fenced(f"worker {job.worker}, which runs job {job.job_id}, is alive")

    def _end(self, job: Job, state: JobState, outcome: Outcome) -> frozenset[str]:
        """Finish an attempt and its run; return the queues to wake."""

        def work(connection: Connection) -> Woken:
            woken = Woken()
            if self._release(connection, job) is not None:
                self._finish(connection, job, state, outcome, woken)
                self._lanes.wake(connection, woken)
            elif not self._ended_so(connection, job, state, outcome):
                raise self._fenced(job)
            else:
                self._groups.remind(connection, job.group_run, woken)
            return woken

        woken = self._database.write(work)
        return self.freed(job) | woken.queues

    def _put_back(
        self,
        job: Job,
        state: JobState,
        how: Ending,
        values: dict[str, Any],
        *,
        delay: float = 0,
        key: LaneKey | None = None,
    ) -> frozenset[str]:
        """End an attempt but not its run; return the queues to wake.

        Parameters:
            key: of the lane that the job goes to; None where it stays in its own.
        """
        set_ = {**values, **_put_back_values(job, state, how)}

        def work(connection: Connection) -> Woken:
            woken = Woken()
            held = self._release(connection, job)
            if held is None:
                if not self._put_back_so(connection, job, how):
                    raise self._fenced(job)
                if delay <= 0:
                    woken.queues.add(job.queue)
                self._groups.remind(connection, job.group_run, woken)
            elif held.cancel_requested:
                # It goes nowhere else any more.
                ended = {name: value for name, value in values.items() if name not in ("db", "reroutes")}
                self._finish(connection, job, JobState.CANCELLED, ended, woken)
            else:
                self._attempts.note(connection, job, how, values.get("error", ""), values.get("error_code", ""))
                if delay > 0:
                    due = self._database.engine.now + int(delay * 1_000_000)
                    later = update(jobs).where(jobs.c.run == job.run)
                    connection.execute(later.values({**set_, "due": due, "ready_at": due}))
                else:
                    lane = self._lanes.ids(connection, [key], job.group_limit)[key] if key else held.lane
                    self._set_ready(connection, job, {**set_, "lane": lane}, lane, woken)
                self._outbox.note(connection, [job.run], how.value)
            self._lanes.wake(connection, woken)
            return woken

        woken = self._database.write(work)
        return self.freed(job) | woken.queues

    def _release(self, connection: Connection, job: Job) -> Row[Any] | None:
        """Give up the slots of an attempt; None if it holds none any more. Returns lane and cancel_requested."""
        attempt = {"of_run": job.run, "of_attempt": job.attempt}
        gone = _LEAVE(self._database.engine, connection, attempt)
        if not gone:
            return None
        # Locks the job before it is looked at: a cancel that comes now waits, and finds what became of it.
        note = {"of_run": job.run, "moved": gone[0].rows, "size": gone[0].bytes}
        return _NOTE(self._database.engine, connection, note)[0]

    def _finish(self, connection: Connection, job: Job, state: JobState, outcome: Outcome, woken: Woken) -> None:
        """End a run."""
        values = {**outcome, "state": state.value}
        if state is JobState.SUCCESS and job.ttl:
            values["lifetime"] = job.ttl * 1_000_000
        self._ends.end(connection, [(job.run, job.group_run)], values, woken, quiet=not job.callback_url)

    @staticmethod
    def _set_ready(connection: Connection, job: Job, values: Outcome, lane: int, woken: Woken) -> None:
        ord_ = order(job.priority, job.run)
        connection.execute(update(jobs).where(jobs.c.run == job.run).values({**values, "ord": ord_}))
        woken.ready(lane, job.queue, ord_)

    # -- an acknowledgement that was lost ------------------------------------------------------------------------------

    def _ended_so(self, connection: Connection, job: Job, state: JobState, outcome: Outcome) -> bool:
        """Whether this very finish of this attempt happened already."""
        same = [finished_jobs.c[name] == value for name, value in outcome.items()]
        statement = select(finished_jobs.c.run).where(
            finished_jobs.c.run == job.run,
            finished_jobs.c.attempt == job.attempt,
            finished_jobs.c.state == state.value,
            # A rescue can end a run in these states too.
            finished_jobs.c.rescues == job.rescues,
            *same,
        )
        return connection.execute(statement).first() is not None

    def _put_back_so(self, connection: Connection, job: Job, how: Ending) -> bool:
        """Whether this attempt was put back in this very way already, or cancelled while it was."""
        back = select(jobs.c.run).where(
            jobs.c.run == job.run, jobs.c.ended_attempt == job.attempt, jobs.c.ended_as == how.value
        )
        if connection.execute(back).first() is not None:
            return True
        return self._ended_so(connection, job, JobState.CANCELLED, {"cancel_requested": True})

    @staticmethod
    def _fenced(job: Job) -> Fenced:
        return Fenced(f"attempt {job.attempt} of job {job.job_id} was overtaken: it was ended by somebody else")

    def freed(self, *ended: Job) -> frozenset[str]:
        """Return the queues with a job that could run now behind a limit that one of ``ended`` counted against.

        Asked after the commit: of two attempts that end beside each other, the later one sees both gone.
        """

        def work(connection: Connection) -> frozenset[str]:
            gates = self._gates.current(connection)
            limited = {gate for job in ended for gate, _ in gates.limited(job)}
            return open_queues(self._database, connection, gates, limited) if limited else frozenset()

        return self._database.read(work)

    # -- what clients ask for ------------------------------------------------------------------------------------------

    def cancel(self, job_id: str) -> Changed:
        """PENDING or RETRY to CANCELLED at once; a STARTED job is asked to stop, by its worker.

        Raises:
            JobIsFinished: it is finished already.
            UnknownJob: there is none of that ID.
        """

        def work(connection: Connection) -> tuple[int | None, Woken]:
            woken = Woken()
            wanted = select(*(jobs.c[name] for name in CANCELLING)).where(jobs.c.job_id == job_id)
            found = connection.execute(wanted.with_for_update()).one_or_none()
            if found is None:
                return None, woken
            if not self._ends.cancel(connection, [found], woken):
                self._lanes.wake(connection, woken)
            return found.run, woken

        run, woken = self._database.write(work)
        if run is None:
            job = self._reader.get(job_id)
            if job.live:  # submitted again since
                return self.cancel(job_id)
            raise JobIsFinished(f"job {job_id} is finished already ({job.state.value})", job)
        return Changed(self._reader.run(run), frozenset(woken.queues))

    def purge(self, job_id: str) -> list[Job]:
        """Forget all finished runs of an ID; return them, oldest first.

        Raises:
            JobIsLive: a run of it is not finished.
            UnknownJob: there is none of that ID.
        """

        def work(connection: Connection) -> list[Job] | None:
            if connection.execute(select(jobs.c.run).where(jobs.c.job_id == job_id)).first():
                return None
            rows = _PURGE(self._database.engine, connection, {"of_id": job_id})
            forget(self._database, connection, [row.run for row in rows])
            return sorted((job_of(row._mapping) for row in rows), key=lambda job: job.run)

        purged = self._database.write(work)
        if purged is None:
            job = self._reader.get(job_id)
            if not job.live:  # finished since
                return self.purge(job_id)
            raise JobIsLive(f"job {job_id} is {job.state.value}; cancel it first", job)
        if not purged:
            raise UnknownJob(f"there is no job {job_id}")
        return purged


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in {11, 12, 13} else "th"
    return f"{number}{ending}"


def _put_back_values(job: Job, state: JobState, how: Ending) -> dict[str, Any]:
    return {"state": state.value, "ended_attempt": job.attempt, "ended_as": how.value}


_LEAVE = Deletion(
    running,
    [running.c.run == bindparam("of_run"), running.c.attempt == bindparam("of_attempt")],
    [running.c.rows, running.c.bytes],
)
_NOTE = Change(
    jobs,
    jobs.c.run == bindparam("of_run"),
    {"rows_so_far": bindparam("moved"), "bytes_so_far": bindparam("size")},
    [jobs.c.lane, jobs.c.cancel_requested],
)
_PURGE = Deletion(finished_jobs, [finished_jobs.c.job_id == bindparam("of_id")], [*finished_jobs.c])
