"""Runs that equal jobs share (``single_flight``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, delete, exists, null, select, true

from jobber.jobs import NewJob, Policy
from jobber.store.database import Database, TryAgain
from jobber.store.parts import parts
from jobber.store.reuse import Numbered, Subject, identity, stored_subject, subject
from jobber.store.schema import flights, jobs


class Joined(NamedTuple):
    """New jobs, of which some share the run of another one.

    Parameters:
        jobs: all of them; those that share wait for the job whose run it is.
        leading: those whose runs others may share.
    """

    jobs: Numbered
    leading: Numbered


class Flights:
    """Lets jobs that ask for it share the run of an equal one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        engine = database.engine
        columns = {"fingerprint": BigInteger(), "run": BigInteger()}
        new = engine.rows("new", {"fingerprint": BigInteger()})
        missing = select(new.c.fingerprint, null()).where(true()).order_by(new.c.fingerprint)
        self._make = engine.insert_missing(flights).from_select([*columns], missing)
        self._lead = engine.put_rows(flights, engine.rows("led", columns))
        self._lock = (
            select(flights.c.fingerprint, flights.c.run)
            .where(engine.among(flights.c.fingerprint, "keys"))
            .order_by(flights.c.fingerprint)
            .with_for_update()
        )
        self._led = select(flights.c.fingerprint, flights.c.run).where(engine.among(flights.c.run, "runs"))
        told = (jobs.c[name] for name in ("run", "job_id", "task", "version", "args"))
        leaders = select(*told).with_hint(jobs, "FORCE INDEX (PRIMARY)", "mysql").order_by(jobs.c.run)
        # Not a weaker lock: PostgreSQL, which skips no newer version of a row, would wait for it after all.
        self._hold = leaders.where(engine.among(jobs.c.run, "runs")).with_for_update(key_share=True, skip_locked=True)
        self._seen = select(jobs.c.run).where(engine.among(jobs.c.run, "runs"))

    def join(self, connection: Connection, new: Numbered) -> Joined:
        """Return new jobs with those waiting for a run that asks for the same and ask for that; the others lead.

        Of equal ones that are submitted at the same time, one leads: they wait for each other at the row of their
        flight. The runs that are shared are held until the end of the transaction, so that none ends unseen.

        Raises:
            TryAgain: a run that was to be shared is about to end.
        """
        keys = {run: _flight(job) for job, run in new if job.single_flight and job.fingerprint}
        if not keys:
            return Joined(new, [])
        leaders = self._leaders(connection, sorted({*keys.values()}))
        joined: list[tuple[NewJob, int]] = []
        led: dict[int, tuple[NewJob, int]] = {}
        for job, run in new:
            if (key := keys.get(run)) is None:
                joined.append((job, run))
            elif (leader := leaders.get(key)) is None:
                leaders[key] = (job.job_id, subject(job))
                led[key] = job, run
                joined.append((job, run))
            elif leader[1] == subject(job):
                joined.append((replace(job, depends_on=(leader[0],), depends_policy=Policy.SHARE), run))
            else:  # of another one with the same 64 bits
                joined.append((job, run))
        self._give(connection, {key: run for key, (_, run) in led.items()})
        return Joined(joined, list(led.values()))

    def _leaders(self, connection: Connection, keys: Sequence[int]) -> dict[int, tuple[str, Subject]]:
        """Return job ID and subject of the live run of each flight that has one; both rows are locked.

        Raises:
            TryAgain: one of them is about to end. Whoever ends it may be about to give its flight to another one, and
                would wait for the row of the flight.
        """
        engine = self._database.engine
        flying: dict[int, int] = {}
        found: dict[int, tuple[str, Subject]] = {}
        for some in parts(keys):
            connection.execute(self._make, {"new": engine.as_rows([{"fingerprint": key} for key in some])})
            rows = connection.execute(self._lock, {"keys": engine.many(some)}).all()
            flying |= {row.run: row.fingerprint for row in rows if row.run is not None}
        for part in parts(sorted(flying)):
            held = connection.execute(self._hold, {"runs": engine.many(part)}).all()
            left = set(part) - {row.run for row in held}
            if left and connection.execute(self._seen, {"runs": engine.many(left)}).first():
                raise TryAgain
            found |= {flying[row.run]: (row.job_id, stored_subject(row)) for row in held}
        return found

    def pass_on(self, connection: Connection, heirs: Mapping[int, int]) -> None:
        """Give flights to other runs.

        Parameters:
            heirs: the run that is to lead by the one that leads; this transaction holds both.
        """
        led: dict[int, int] = {}
        for some in parts(sorted(heirs)):
            for row in connection.execute(self._led, {"runs": self._database.engine.many(some)}):
                led[row.fingerprint] = heirs[row.run]
        self._give(connection, led)

    def _give(self, connection: Connection, led: Mapping[int, int]) -> None:
        """Write down which run leads a flight."""
        for some in parts(sorted(led.items())):
            rows = [{"fingerprint": key, "run": run} for key, run in some]
            connection.execute(self._lead, {"led": self._database.engine.as_rows(rows)})

    def prune(self, limit: int) -> None:
        """Forget flights whose run is over, at most ``limit``."""
        engine = self._database.engine
        over = flights.c.run.is_not(None), ~exists().where(jobs.c.run == flights.c.run)
        candidates = select(flights.c.fingerprint, flights.c.run).where(*over).limit(limit)
        live = select(jobs.c.run).where(engine.among(jobs.c.run, "runs"))
        gone = delete(flights).where(engine.among(flights.c.fingerprint, "keys"))

        def work(connection: Connection) -> None:
            keys = sorted(row.fingerprint for row in connection.execute(candidates))
            # Looked at again once they are locked: somebody may have led one anew.
            rows = connection.execute(self._lock, {"keys": engine.many(keys)}).all() if keys else []
            runs = [row.run for row in rows if row.run is not None]
            alive = set(connection.execute(live, {"runs": engine.many(runs)}).scalars()) if runs else set()
            if over_ := [row.fingerprint for row in rows if row.run not in alive]:
                connection.execute(gone, {"keys": engine.many(over_)})

        self._database.write(work)


def _flight(job: NewJob) -> int:
    """Return 64 bits, signed, that are the same for equal jobs."""
    digest = hashlib.sha256("\0".join(identity(job)).encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], signed=True)
