"""The attempts of a run: which there were, where, and why each of them ended.

Only what ended without ending its run is written down, in the transaction that ends it: a job that succeeds at the
first attempt costs nothing. The newest attempt stands in the run's own row.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select

from jobber.jobs import Attempt, Ending, Job, JobState
from jobber.store.database import Database
from jobber.store.records import storable
from jobber.store.schema import attempts

#: Attempts of one run that are kept, the newest: with many retries there may be any number.
MOST = 100

_NOTE = insert(attempts)
_FORGET = delete(attempts).where(attempts.c.run == bindparam("of_run"), attempts.c.number <= bindparam("old"))
_OF_RUN = select(attempts).where(attempts.c.run == bindparam("of_run")).order_by(attempts.c.number.desc()).limit(MOST)


class AttemptBook:
    """Notes attempts that ended, and tells of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, connection: Connection, job: Job, ending: Ending, error: str = "", code: str = "") -> None:
        """Write down how an attempt ended that did not end its run.

        Parameters:
            job: as it was claimed.
        """
        values = {
            "run": job.run,
            "number": job.attempt,
            "ending": ending.value,
            "worker": job.worker,
            "db": job.db,
            "error": storable(error),
            "error_code": code,
            "started_at": job.started_at,
            "ended_at": self._database.engine.now,
        }
        connection.execute(_NOTE.values(values))
        if job.attempt > MOST:
            # With retries without end, and no delay, they would be as many as there are seconds.
            connection.execute(_FORGET, {"of_run": job.run, "old": job.attempt - MOST})

    def of(self, job: Job) -> list[Attempt]:
        """Return the attempts of a run, oldest first; of very many the newest."""
        if job.attempt == 0:
            return []
        newest = _newest(job)
        # Most jobs have one attempt, and whoever polls asks for it each time.
        if job.attempt == 1 and newest is not None and job.state is not JobState.CANCELLED:
            return [newest]
        found = self._database.read(lambda connection: connection.execute(_OF_RUN, {"of_run": job.run}).all())
        past = [
            Attempt(
                number=row.number,
                ending=Ending(row.ending),
                worker=row.worker,
                db=row.db,
                error=row.error,
                error_code=row.error_code,
                started_at=row.started_at,
                ended_at=row.ended_at,
            )
            for row in reversed(found)
            # Those of a job that has gone on since it was read are left out.
            if row.number <= job.attempt
        ]
        # Of one that was cancelled between two attempts the newest is among them.
        if newest is not None and (not past or past[-1].number < newest.number):
            past.append(newest)
        return past


def _newest(job: Job) -> Attempt | None:
    """Return the newest attempt of a run if it runs, or ended the run; None between two attempts."""
    if job.started_at is None or job.state in (JobState.PENDING, JobState.RETRY):
        return None
    running = job.state is JobState.STARTED
    return Attempt(
        number=job.attempt,
        ending=Ending.RUNNING if running else Ending(job.state.value.lower()),
        worker=job.worker,
        db=job.db,
        # What stands there while it runs is the error of the attempt before.
        error="" if running else job.error,
        error_code="" if running else job.error_code,
        started_at=job.started_at,
        ended_at=job.finished_at,
    )
