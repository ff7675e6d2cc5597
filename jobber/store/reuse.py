"""Results of earlier runs that serve other jobs, too (``max_age``).

Two jobs are equal that have the same task, the same SQL and the same args, to the last digit, and name the same
databases. A fingerprint finds them; what it stands for is compared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Row, and_, bindparam, case, exists, func, select, update

from jobber.jobs import Args, JobState, NewJob, decode_args, encode_args
from jobber.store.database import Database
from jobber.store.fates import Fate, shared
from jobber.store.parts import parts
from jobber.store.schema import finished_jobs

#: New jobs with the numbers of their runs.
Numbered = Sequence[tuple[NewJob, int]]
#: What a job asks: equal ones have equal ones.
Subject = tuple[str, ...]

#: Runs of one fingerprint that are looked at, the newest. Most of them tell whose result they took: where the same is
#: asked for all the time, the run that made it may be thousands of them ago.
_LOOKED_AT = 100

_newer = finished_jobs.alias()
_older = finished_jobs.alias()
#: When the query began to read; its attempt may have begun a little earlier. A run that took a result tells when that
#: one's did, as far as it is known.
_READ_AT = func.coalesce(finished_jobs.c.snapshot_at, finished_jobs.c.started_at)


class _Wish(NamedTuple):
    """What jobs of one kind would take.

    Parameters:
        job: one of them.
        asks: what it asks.
        age: of the data, in microseconds.
    """

    job: NewJob
    asks: Subject
    age: int


class Reuse:
    """Finds results that are young enough: of many jobs with as many statements as of one, or nearly."""

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
        succeeded = JobState.SUCCESS.value
        self._look = select(newest.c.run, newest.c.reused).where(newest.c.state == succeeded)
        asked = engine.rows("asked", {"fingerprint": BigInteger()})
        last_looked_at = (
            select(_older.c.run)
            .where(_older.c.fingerprint == asked.c.fingerprint)
            .order_by(_older.c.run.desc())
            .limit(1)
            .offset(_LOOKED_AT - 1)
            .scalar_subquery()
        )
        self._reach = select(asked.c.fingerprint, last_looked_at.label("first"))
        # In two steps: joined to the limit itself, MySQL would read all runs of a fingerprint.
        reach = engine.rows("reach", {"fingerprint": BigInteger(), "first": BigInteger()})
        seen = and_(of.fingerprint == reach.c.fingerprint, of.run >= reach.c.first)
        age = bindparam("age", type_=BigInteger())
        self._look_at_many = (
            select(case((of.reused.is_(None), of.run)).label("run"), of.reused)
            .select_from(reach.join(finished_jobs, seen))
            # Else it would read the whole history where some fingerprints have many runs.
            .prefix_with("STRAIGHT_JOIN", dialect="mysql")
            .with_hint(finished_jobs, "FORCE INDEX (ix_jobber_finished_jobs_fingerprint_run)", "mysql")
            .where(of.state == succeeded, engine.now - func.coalesce(_READ_AT, engine.now) <= age)
            .distinct()
        )
        replaced = exists().where(
            _newer.c.job_id == of.job_id,
            _newer.c.run > of.run,
            # Not by an index of states: SQLite and PostgreSQL would go through all later runs that succeeded.
            func.coalesce(_newer.c.state, "") == succeeded,
            _newer.c.reused.is_(None),
            _newer.c.results == of.results,
            _newer.c.result_table == of.result_table,
        )
        told = (of[name] for name in ("run", "fingerprint", "task", "version", "args", "db", "results"))
        self._find = select(*told, of.snapshot_at, of.started_at, (engine.now - _READ_AT).label("age")).where(
            engine.among(of.run, "runs"),
            of.state == succeeded,
            of.reused.is_(None),
            func.coalesce(of.expires_at, 2**62) > engine.now,
            engine.now - _READ_AT <= age,
            ~replaced,
        )

    def find(self, connection: Connection, new: Numbered) -> dict[int, Fate]:
        """Return how those new runs end at once that take an earlier result, by run."""
        wishes: dict[tuple[Any, ...], _Wish] = {}
        kinds: dict[int, tuple[Any, ...]] = {}
        for job, run in new:
            if job.max_age is not None and job.fingerprint:
                asks = subject(job)
                kinds[run] = (*asks, *_places(job), job.max_age)
                wishes.setdefault(kinds[run], _Wish(job, asks, job.max_age * 1_000_000))
        fates = self._fates(connection, wishes)
        return {run: fates[kind] for run, kind in kinds.items() if kind in fates}

    def _fates(self, connection: Connection, wishes: Mapping[tuple[Any, ...], _Wish]) -> dict[tuple[Any, ...], Fate]:
        """Return the fates of jobs that take the result with the newest data that they may take."""
        found: dict[tuple[Any, ...], Fate] = {}
        for some in parts(list(wishes.items())):
            age = max(wish.age for _, wish in some)
            runs = self._told(connection, sorted({wish.job.fingerprint for _, wish in some}), age)
            rows = defaultdict[int, list[Any]](list)
            for part in parts(sorted(runs)):
                for row in connection.execute(self._find, {"runs": self._database.engine.many(part), "age": age}):
                    rows[row.fingerprint].append(row)  # 0: it was lost since
            for kind, wish in some:
                if fitting := [row for row in rows[wish.job.fingerprint] if _fits(row, wish)]:
                    found[kind] = shared(max(fitting, key=lambda row: row.snapshot_at or row.started_at))
        return found

    def _told(self, connection: Connection, fingerprints: Sequence[int], age: int) -> set[int]:
        """Return the runs whose results were made or taken by the newest runs of some fingerprints.

        Parameters:
            age: of the data that are wanted, in microseconds; older ones are not told of if that spares something.
        """
        rows: Iterable[Row[Any]]
        if len(fingerprints) == 1:
            rows = connection.execute(self._look, {"of_fingerprint": fingerprints[0]})
        else:
            engine = self._database.engine
            asked = engine.as_rows([{"fingerprint": fingerprint} for fingerprint in fingerprints])
            reached = [
                {"fingerprint": row.fingerprint, "first": row.first or 0}
                for row in connection.execute(self._reach, {"asked": asked})
            ]
            rows = connection.execute(self._look_at_many, {"reach": engine.as_rows(reached), "age": age})
        # Only the run that made a result knows whether it is still there.
        return {json.loads(row.reused)["run"] if row.reused else row.run for row in rows}

    def forget(self, run: int) -> None:
        """See to it that nobody takes the result of a run: it has turned out to be gone."""
        unlike_any = update(finished_jobs).where(finished_jobs.c.run == run).values(fingerprint=0)
        self._database.write(lambda connection: connection.execute(unlike_any))


def _fits(row: Row[Any], wish: _Wish) -> bool:
    """Whether a job may take the result of a run of its fingerprint."""
    job, (task, version, args) = wish.job, wish.asks
    return (
        row.age <= wish.age
        and (row.task, row.version) == (task, version)
        and row.db in _databases(job)
        and (row.results == job.results or not job.results_named)
        and (row.args == args or _canonical(decode_args(row.args)) == args)
    )


def _databases(job: NewJob) -> Collection[str]:
    """Return the databases of which a job may read any."""
    return job.replicas or (job.db,)


def _canonical(args: Args) -> str:
    """Return args as text that is the same for the same ones only; names come in any order."""
    return encode_args(dict(sorted(args.items())) if isinstance(args, dict) else args)


def subject(job: NewJob) -> Subject:
    """Return what a new job asks."""
    return job.task, job.version, _canonical(job.args)


def stored_subject(row: Any) -> Subject:
    """Return what a job asks, from its row."""
    return row.task, row.version, _canonical(decode_args(row.args))


def identity(job: NewJob) -> Subject:
    """Return all in which equal jobs do not differ."""
    return *subject(job), *_places(job)


def _places(job: NewJob) -> tuple[str, ...]:
    """Return where a job may read, and where its result is to be."""
    return *sorted(_databases(job)), job.results if job.results_named else ""
