"""Attempts that succeeded end as a set, in statements that go together and wait for nobody.

What somebody else holds right now is left out, and so ends alone (``Transitions.succeed``), which waits. Nothing is
asked on account of groups and webhooks where no job of the set has any; whether others wait for one of them is looked
at once its row is held, which who submits a child holds, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
)

from jobber.columns import Column, encode_columns
from jobber.jobs import Job, JobState, Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Answer, Request
from jobber.store.gates import Gate
from jobber.store.history import moving
from jobber.store.outbox import Outbox, copying_ends
from jobber.store.schema import RUN_COLUMNS, dependencies, finished_jobs, jobs, running
from jobber.store.starting import array

#: Of one task they are the same at each end.
_encoded = lru_cache(maxsize=256)(encode_columns)


def ran(job: Job) -> dict[str, Any]:
    """Return of which SQL an attempt was: its task may have been edited after the job was submitted."""
    return {"version": job.version, "fingerprint": job.fingerprint}


class Success(NamedTuple):
    """How an attempt ended that has published its result.

    Parameters:
        job: as it was claimed.
        snapshot_at: when its query began to read; the start of the attempt where nobody can tell.
        size: bytes of its rows; as many as the last heartbeat told where nobody knows better.
    """

    job: Job
    rows: int
    columns: Sequence[Column]
    snapshot_at: Micros | None = None
    size: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What the attempt is known by: run and attempt."""
        return self.job.run, self.job.attempt

    @property
    def alone(self) -> bool:
        """Whether nobody is to be told, but for those that wait for it."""
        return self.job.group_run is None and not self.job.callback_url

    def outcome(self) -> dict[str, Any]:
        """Return what the end sets on the run, but for its state and its times."""
        job, snapshot = self.job, self.job.started_at if self.snapshot_at is None else self.snapshot_at
        values = {"rows": self.rows, "columns": _encoded(tuple(self.columns)), "error": "", "error_code": ""}
        values |= {**ran(job), "snapshot_at": snapshot}
        if self.size is not None:
            values |= {"rows_so_far": self.rows, "bytes_so_far": self.size}
        return values

    @property
    def lifetime(self) -> int | None:
        """How long the result lives from now on, in microseconds; None for ever."""
        return self.job.ttl * 1_000_000 if self.job.ttl else None


class Finished(NamedTuple):
    """What came of an end without a claim.

    Parameters:
        ended: (run, attempt) of what ended.
        wake: queues of jobs that became ready by that.
        freed: gates with a limit that those counted against, for ``open_behind``.
    """

    ended: frozenset[tuple[int, int]]
    wake: frozenset[str]
    freed: frozenset[Gate]


class Held(NamedTuple):
    """An attempt whose rows this transaction holds, and how far the last heartbeat said that it was."""

    success: Success
    rows: int
    bytes: int


class Finisher:
    """Says what ends attempts, for ``Exchange`` to send, and reads what came of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine
        self._outbox = Outbox(database)

    def hold(self, connection: Connection, wanted: Sequence[Success]) -> list[Held]:
        """Hold the rows of attempts, as far as they are there and nobody else does.

        Where one statement can do all of it, none is made, and all that is wanted is returned.
        """
        if self._engine.arrays or not wanted:
            return [Held(success, 0, 0) for success in wanted]
        runs = {"runs": self._engine.many([success.job.run for success in wanted])}
        slots, rows = self._database.exchange(
            connection, Request(_slots(self._engine), runs), Request(_jobs(self._engine), runs)
        )
        there = {run for (run,) in rows.rows}
        found = {(run, attempt): told for run, attempt, *told in slots.rows if run in there}
        return [Held(success, *found[success.key]) for success in wanted if success.key in found]

    def requests(self, held: Sequence[Held]) -> list[Request]:
        """Return what ends attempts, and asks whether anything waits for them."""
        if not held:
            return []
        runs = [one.success.job.run for one in held]
        if self._engine.arrays:
            return [Request(_end_at_once(self._engine, self._database.events), _arrays(held)), _waiting(runs)]
        made = [request for one in held for request in self._end_one(one)]
        many = {"runs": self._engine.many(runs)}
        return [*made, *self._outbox.noting_ends(runs), Request(_waits(self._engine), many)]

    def _end_one(self, held: Held) -> list[Request]:
        success, run = held.success, held.success.job.run
        values = {"rows_so_far": held.rows, "bytes_so_far": held.bytes, **success.outcome()}
        values["state"] = JobState.SUCCESS.value
        if success.lifetime:
            values["lifetime"] = success.lifetime
        return [Request(_LEAVE, {"of_run": run}), *moving(self._engine, run, values)]

    def ended(self, held: Sequence[Held], answers: Sequence[Answer]) -> tuple[list[Success], bool]:
        """Return which attempts ended, and whether other jobs wait for any of them.

        Parameters:
            answers: to ``requests``.
        """
        if not held:
            return [], False
        ended = [one.success for one in held]
        if self._engine.arrays:
            gone = {run for (run,) in answers[0].rows}
            ended = [success for success in ended if success.job.run in gone]
        return ended, bool(answers[-1].rows)


_LEAVE = delete(running).where(running.c.run == bindparam("of_run"))
# By the key: to find few of few, MySQL would walk through all rows, and lock them.
_BY_KEY = "FORCE INDEX (PRIMARY)"


@lru_cache(maxsize=8)
def _slots(engine: Engine) -> Any:
    told = select(*(running.c[name] for name in ("run", "attempt", "rows", "bytes")))
    return (
        told.with_hint(running, _BY_KEY, "mysql")
        .where(engine.among(running.c.run, "runs"))
        .with_for_update(skip_locked=True)
    )


@lru_cache(maxsize=8)
def _jobs(engine: Engine) -> Any:
    these = select(jobs.c.run).with_hint(jobs, _BY_KEY, "mysql").where(engine.among(jobs.c.run, "runs"))
    return these.with_for_update(skip_locked=True)


@lru_cache(maxsize=8)
def _waits(engine: Engine) -> Any:
    mine = or_(engine.among(dependencies.c.parent, "runs"), engine.among(dependencies.c.child, "runs"))
    return select(dependencies.c.child).where(mine).limit(1)


def _waiting(runs: Sequence[int]) -> Request:
    return Request(_WAITING, {"runs": runs})


def _any(column: ColumnElement[int]) -> ColumnElement[bool]:
    return column == func.any(array("runs"))


_WAITING = select(dependencies.c.child).where(or_(_any(dependencies.c.parent), _any(dependencies.c.child))).limit(1)

#: What an end says of each attempt, beside its run.
_SAID: Mapping[str, Any] = {
    **dict.fromkeys(("attempt", "rows", "snapshot_at", "size", "lifetime", "fingerprint"), BigInteger()),
    **dict.fromkeys(("columns", "version"), Text()),
}


def _arrays(held: Sequence[Held]) -> dict[str, list[Any]]:
    """Return what ``_end_at_once`` takes."""
    said: dict[str, list[Any]] = {f"{name}s": [] for name in ("run", *_SAID)}
    for success in (one.success for one in held):
        row = {**success.outcome(), "run": success.job.run, "attempt": success.job.attempt}
        row |= {"size": success.size, "lifetime": success.lifetime}
        for name in ("run", *_SAID):
            said[f"{name}s"].append(row[name])
    return said


@lru_cache(maxsize=8)
def _end_at_once(engine: Engine, told: bool) -> Any:
    """Return the statement that ends attempts where it holds their rows without waiting; it returns their runs.

    Parameters:
        told: whether the broker is to be told.
    """
    arrays = (array("runs"), *(array(f"{name}s", of) for name, of in _SAID.items()))
    ends = func.unnest(*arrays).table_valued("run", *_SAID, name="ends").render_derived()
    now = engine.now
    values: dict[str, ColumnElement[Any]] = {
        **{name: ends.c[name] for name in ("rows", "columns", "version", "fingerprint", "snapshot_at")},
        **{name: literal("", Text()) for name in ("error", "error_code")},
        "state": literal(JobState.SUCCESS.value, Text()),
        "finished_at": now,
        "expires_at": func.coalesce(now + ends.c.lifetime, jobs.c.expires_at),
        "rows_so_far": case((ends.c.size.is_(None), running.c.rows), else_=ends.c.rows),
        "bytes_so_far": func.coalesce(ends.c.size, running.c.bytes),
    }
    held = (
        select(*(values.get(name, jobs.c[name]).label(name) for name in RUN_COLUMNS))
        .select_from(
            ends.join(running, (running.c.run == ends.c.run) & (running.c.attempt == ends.c.attempt)).join(
                jobs, jobs.c.run == ends.c.run
            )
        )
        .with_for_update(of=[running, jobs], skip_locked=True)
        .cte("held")
    )
    parts = [
        delete(running).where(running.c.run == held.c.run).cte("slots"),
        insert(finished_jobs).from_select(list(RUN_COLUMNS), select(held)).cte("moved"),
        delete(jobs).where(jobs.c.run == held.c.run).cte("removed"),
    ]
    if told:
        parts.append(copying_ends(held).cte("told"))
    return select(held.c.run).add_cte(*parts)
