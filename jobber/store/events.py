"""The history of a run: what its row and its attempts tell, and the little that is written down besides.

A job that is submitted, runs and succeeds writes nothing here. What is written down: pauses, requests to cancel, lines
that its worker logged, notifications that were given up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import BigInteger, Connection, bindparam, delete, insert, select

from jobber.jobs import Attempt, Ending, Job, JobState, Micros
from jobber.store.attempts import MOST, AttemptBook
from jobber.store.database import Database
from jobber.store.records import storable
from jobber.store.schema import events, finished_jobs, jobs

#: Of what was written down about one run, so many are told, the newest.
_MOST_TOLD = 1000
#: Runs of an ID that are told, the newest.
_MOST_RUNS = 100


class Level(IntEnum):
    """How much an event matters."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run.

    Parameters:
        event: ``submitted``, ``started``, how an attempt ended (``Ending``), ``paused``, ``resumed``,
            ``cancel_requested``, ``log``, ``expired``, ``webhook``.
        attempt: that it happened to, 0 if to none.
        worker: its name, "" if it was none's doing.
    """

    at: Micros
    event: str
    attempt: int
    level: Level
    message: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a worker logged about an attempt.

    Parameters:
        age: seconds since it was logged: no two machines have to agree on the time.
    """

    run: int
    attempt: int
    worker: str
    level: Level
    message: str
    age: float


class EventBook:
    """Writes down what the rows do not tell, and tells all of it."""

    def __init__(self, database: Database, attempts: AttemptBook) -> None:
        self._database = database
        self._attempts = attempts
        self._note = insert(events).values(at=database.engine.now - bindparam("age", type_=BigInteger()))

    def note(
        self, connection: Connection, runs: Collection[int], event: str, message: str = "", level: Level = Level.INFO
    ) -> None:
        """Write down what happened to runs, in the transaction in which it happens."""
        about = {"age": 0, "event": event, "attempt": 0, "level": level.name.lower(), "worker": ""}
        if runs:
            connection.execute(
                self._note, [{**about, "run": run, "message": storable(message)} for run in sorted(runs)]
            )

    def add(self, run: int, event: str, message: str, level: Level) -> None:
        """Write down what happened to a finished run, unless it is forgotten by now."""

        def work(connection: Connection) -> None:
            if connection.execute(
                select(finished_jobs.c.run).where(finished_jobs.c.run == run).with_for_update()
            ).first():
                self.note(connection, [run], event, message, level)

        self._database.write(work)

    def log(self, lines: Sequence[LogLine]) -> None:
        """Write down what workers logged.

        Of attempts that are long past all is forgotten, as they are themselves, and of runs that are forgotten nothing
        is written: nobody would ever remove it.
        """
        if not lines:
            return
        rows = [
            {
                "run": line.run,
                "attempt": line.attempt,
                "worker": line.worker,
                "event": "log",
                "level": line.level.name.lower(),
                "message": storable(line.message),
                "age": int(line.age * 1_000_000),
            }
            for line in lines
        ]
        old = {(line.run, line.attempt - MOST) for line in lines if line.attempt > MOST}
        engine = self._database.engine
        which = {"runs": engine.many({line.run for line in lines})}

        def work(connection: Connection) -> None:
            known: set[int] = set()
            for table in (jobs, finished_jobs):  # in this order: one that ends meanwhile is in both
                found = select(table.c.run).where(engine.among(table.c.run, "runs"))
                if table is finished_jobs:  # nobody is to forget it between this look and the insert
                    found = found.order_by(table.c.run).with_for_update(read=True, key_share=True)
                known.update(connection.execute(found, which).scalars())
            if told := [row for row in rows if row["run"] in known]:
                connection.execute(self._note, told)
            for run, attempt in sorted(old):
                forgotten = events.c.run == run, events.c.attempt.between(1, attempt)
                connection.execute(delete(events).where(*forgotten))

        self._database.write(work)

    def runs(self, job_id: str) -> list[int]:
        """Return the runs of an ID, newest first; of more than a hundred the newest."""
        wanted = [
            select(table.c.run).where(table.c.job_id == job_id).order_by(table.c.run.desc()).limit(_MOST_RUNS)
            for table in (jobs, finished_jobs)
        ]

        def work(connection: Connection) -> list[int]:
            # Live ones first: one that ends between the two is in both.
            found = {run for statement in wanted for run in connection.execute(statement).scalars()}
            return sorted(found, reverse=True)[:_MOST_RUNS]

        return self._database.read(work)

    def of(self, job: Job) -> list[Event]:
        """Return the history of a run, oldest first; of what was written down only the newest thousand."""
        written = select(events).where(events.c.run == job.run).order_by(events.c.id.desc()).limit(_MOST_TOLD)

        def work(connection: Connection) -> tuple[list[Event], Micros]:
            found = [
                Event(row.at, row.event, row.attempt, Level[row.level.upper()], row.message, row.worker)
                for row in connection.execute(written)
            ]
            return found, connection.execute(select(self._database.engine.now)).scalar_one()

        found, now = self._database.read(work)
        return _merged(list(_derived(job, self._attempts.of(job), now)), found[::-1])


def _merged(derived: Sequence[Event], written: Sequence[Event]) -> list[Event]:
    """Return all events in order: what an attempt logged comes after its start and before its end.

    Not by time alone: events of one moment have an order too, and a clock may be set back.
    """
    started = {event.attempt: place for place, event in enumerate(derived) if event.event == "started"}

    def place(event: Event) -> int:
        if event.event == "log" and event.attempt in started:
            return started[event.attempt]
        return max((place for place, other in enumerate(derived) if other.at <= event.at), default=0)

    told = [((at, 0, 0), event) for at, event in enumerate(derived)]
    told += [((place(event), 1, event.at), event) for event in written]
    return [event for _, event in sorted(told, key=lambda pair: pair[0])]


def _derived(job: Job, attempts: Sequence[Attempt], now: Micros) -> Iterator[Event]:
    """Yield what the rows tell, oldest first."""
    yield Event(job.created_at, "submitted", 0, Level.INFO, _as_submitted(job))
    for attempt in attempts:
        number, worker = attempt.number, attempt.worker
        yield Event(attempt.started_at, "started", number, Level.INFO, f"on database {attempt.db}", worker)
        if attempt.ended_at is not None and attempt.ending.value not in _ENDS:
            yield Event(attempt.ended_at, attempt.ending.value, number, *_put_back(attempt), worker)
    if job.finished_at is not None:
        ended = bool(attempts) and attempts[-1].ending.value in _ENDS
        of_attempt = attempts[-1] if ended else None
        number, worker = (of_attempt.number, of_attempt.worker) if of_attempt else (0, "")
        yield Event(job.finished_at, job.state.value.lower(), number, *_end(job), worker)
    if job.expires_at is not None and job.expires_at <= now:
        yield Event(job.expires_at, "expired", 0, Level.INFO, "the time of its result is over")


#: Endings of an attempt that end the run: its row tells them.
_ENDS = frozenset({Ending.SUCCESS.value, Ending.FAILURE.value, Ending.CANCELLED.value})


def _as_submitted(job: Job) -> str:
    parts = [f"to queue {job.queue}, database {job.db}"]
    if job.schedule:
        parts.append(f"by schedule {job.schedule}")
    if job.group_id:
        parts.append(f"in group {job.group_id}")
    if job.depends_on:
        parts.append(f"after {', '.join(job.depends_on)}")
    return ", ".join(parts)


def _put_back(attempt: Attempt) -> tuple[Level, str]:
    error = f"{attempt.error_code}: {attempt.error}" if attempt.error_code else attempt.error
    if attempt.ending is Ending.REQUEUED:
        return Level.INFO, error or "its worker stopped; it is back in its queue"
    return Level.WARNING, error


def _end(job: Job) -> tuple[Level, str]:
    if job.state is JobState.FAILURE:
        return Level.ERROR, f"{job.error_code}: {job.error}"
    if job.state is JobState.CANCELLED:
        return Level.WARNING, job.error
    if job.reused is not None:
        return Level.INFO, f"with the result of job {job.reused.job_id}"
    return Level.INFO, f"{job.rows} rows in {job.results}.{job.table}"
