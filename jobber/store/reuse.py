"""Results that serve more than one job: those of earlier runs (``max_age``), and runs that equal jobs share.

Two jobs are equal that have the same task, the same SQL and the same args, to the last digit, and name the same
databases. A fingerprint finds them; what it stands for is compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, delete, exists, func, select, update

from jobber.jobs import Args, JobState, NewJob, Policy, decode_args, encode_args
from jobber.store.database import Database, TryAgain
from jobber.store.fates import Fate, shared
from jobber.store.schema import finished_jobs, flights, jobs

#: New jobs with the numbers of their runs.
Numbered = Sequence[tuple[NewJob, int]]

#: Runs of one fingerprint that are looked at, the newest. Most of them tell whose result they took: where the same is
#: asked for all the time, the run that made it may be thousands of them ago.
_LOOKED_AT = 100

_newer = finished_jobs.alias()
#: When the query began to read; its attempt may have begun a little earlier.
_READ_AT = func.coalesce(finished_jobs.c.snapshot_at, finished_jobs.c.started_at)


class Reuse:
    """Finds results that are young enough."""

    def __init__(self, database: Database) -> None:
        self._database = database
        engine, of = database.engine, finished_jobs.c
        newest = (
            select(of.run, of.reused, of.state)
            .where(of.fingerprint == bindparam("of_fingerprint", type_=BigInteger()))
            .order_by(of.run.desc())
            .limit(_LOOKED_AT)
            .subquery()
        )
        self._look = select(newest.c.run, newest.c.reused).where(newest.c.state == JobState.SUCCESS.value)
        replaced = exists().where(
            _newer.c.job_id == of.job_id,
            _newer.c.run > of.run,
            _newer.c.state == JobState.SUCCESS.value,
            _newer.c.reused.is_(None),
            _newer.c.results == of.results,
            _newer.c.result_table == of.result_table,
        )
        told = of.run, of.args, of.results, of.snapshot_at, of.started_at
        self._find = select(*told).where(
            engine.among(of.run, "runs"),
            of.fingerprint == bindparam("of_fingerprint", type_=BigInteger()),  # 0: it was lost since
            of.state == JobState.SUCCESS.value,
            of.reused.is_(None),
            of.task == bindparam("of_task"),
            of.version == bindparam("of_version"),
            engine.among(of.db, "dbs"),
            func.coalesce(of.expires_at, 2**62) > engine.now,
            engine.now - _READ_AT <= bindparam("age", type_=BigInteger()),
            ~replaced,
        )

    def find(self, connection: Connection, new: Numbered) -> dict[int, Fate]:
        """Return how those new runs end at once that take an earlier result, by run."""
        found: dict[int, Fate] = {}
        known: dict[tuple[Any, ...], Fate | None] = {}
        for job, run in new:
            if job.max_age is None or not job.fingerprint:
                continue
            key = (*_identity(job), job.max_age)
            if key not in known:
                known[key] = self._newest(connection, job, job.max_age)
            if fate := known[key]:
                found[run] = fate
        return found

    def _newest(self, connection: Connection, job: NewJob, max_age: int) -> Fate | None:
        """Return the fate of a job that takes the result with the newest data that it may take; None without one."""
        told = connection.execute(self._look, {"of_fingerprint": job.fingerprint}).all()
        # Only the run that made a result knows whether it is still there.
        runs = {json.loads(row.reused)["run"] if row.reused else row.run for row in told}
        if not runs:
            return None
        wanted = {
            "runs": self._database.engine.many(runs),
            "of_fingerprint": job.fingerprint,
            "of_task": job.task,
            "of_version": job.version,
            "dbs": self._database.engine.many(_databases(job)),
            "age": max_age * 1_000_000,
        }
        args = _canonical(job.args)
        rows = [
            row
            for row in connection.execute(self._find, wanted)
            if _canonical(decode_args(row.args)) == args and (row.results == job.results or not job.results_named)
        ]
        if not rows:
            return None
        return shared(max(rows, key=lambda row: row.snapshot_at or row.started_at))

    def forget(self, run: int) -> None:
        """See to it that nobody takes the result of a run: it has turned out to be gone."""
        unlike_any = update(finished_jobs).where(finished_jobs.c.run == run).values(fingerprint=0)
        self._database.write(lambda connection: connection.execute(unlike_any))


class Flights:
    """Lets jobs that ask for it share the run of an equal one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        engine = database.engine
        self._make = engine.insert_missing(flights)
        self._lock = (
            select(flights.c.fingerprint, flights.c.run)
            .where(engine.among(flights.c.fingerprint, "keys"))
            .order_by(flights.c.fingerprint)
            .with_for_update()
        )
        told = (jobs.c[name] for name in ("run", "job_id", "task", "version", "args"))
        leaders = select(*told).with_hint(jobs, "FORCE INDEX (PRIMARY)", "mysql").order_by(jobs.c.run)
        # Not a weaker lock: PostgreSQL, which skips no newer version of a row, would wait for it after all.
        self._hold = leaders.where(engine.among(jobs.c.run, "runs")).with_for_update(key_share=True, skip_locked=True)
        self._seen = select(jobs.c.run).where(engine.among(jobs.c.run, "runs"))

    def join(self, connection: Connection, new: Numbered) -> Numbered:
        """Return new jobs with those waiting for a run that asks for the same and ask for that; the others lead.

        Of equal ones that are submitted at the same time, one leads: they wait for each other at the row of their
        flight. The runs that are shared are held until the end of the transaction, so that none ends unseen.
        """
        keys = {run: _flight(job) for job, run in new if job.single_flight and job.fingerprint}
        if not keys:
            return new
        leaders = self._leaders(connection, sorted({*keys.values()}))
        joined, led = [], {}
        for job, run in new:
            if (key := keys.get(run)) is None:
                joined.append((job, run))
            elif (leader := leaders.get(key)) is None:
                leaders[key] = (job.job_id, _subject(job))
                led[key] = run
                joined.append((job, run))
            elif leader[1] == _subject(job):
                joined.append((replace(job, depends_on=(leader[0],), depends_policy=Policy.SHARE), run))
            else:  # of another one with the same 64 bits
                joined.append((job, run))
        for key, run in sorted(led.items()):
            connection.execute(update(flights).where(flights.c.fingerprint == key).values(run=run))
        return joined

    def _leaders(self, connection: Connection, keys: Sequence[int]) -> dict[int, tuple[str, tuple[str, ...]]]:
        """Return job ID and subject of the live run of each flight that has one; both rows are locked.

        Raises:
            TryAgain: one of them is about to end. Whoever ends it may be about to give its flight to another one, and
                would wait for the row of the flight.
        """
        engine = self._database.engine
        connection.execute(self._make, [{"fingerprint": key, "run": None} for key in keys])
        rows = connection.execute(self._lock, {"keys": engine.many(keys)}).all()
        flying = {row.run: row.fingerprint for row in rows if row.run is not None}
        if not flying:
            return {}
        held = connection.execute(self._hold, {"runs": engine.many(sorted(flying))}).all()
        left = flying.keys() - {row.run for row in held}
        if left and connection.execute(self._seen, {"runs": engine.many(left)}).first():
            raise TryAgain
        return {flying[row.run]: (row.job_id, _stored_subject(row)) for row in held}

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


def _databases(job: NewJob) -> tuple[str, ...]:
    """Return the databases of which a job may read any."""
    return job.replicas or (job.db,)


def _canonical(args: Args) -> str:
    """Return args as text that is the same for the same ones only; names come in any order."""
    return encode_args(dict(sorted(args.items())) if isinstance(args, dict) else args)


def _subject(job: NewJob) -> tuple[str, ...]:
    return job.task, job.version, _canonical(job.args)


def _stored_subject(row: Any) -> tuple[str, ...]:
    return row.task, row.version, _canonical(decode_args(row.args))


def _identity(job: NewJob) -> tuple[str, ...]:
    """Return all in which equal jobs do not differ."""
    return (*_subject(job), *sorted(_databases(job)), job.results if job.results_named else "")


def _flight(job: NewJob) -> int:
    """Return 64 bits, signed, that are the same for equal jobs."""
    digest = hashlib.sha256("\0".join(_identity(job)).encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], signed=True)
