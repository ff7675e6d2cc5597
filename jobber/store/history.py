"""The history: runs that are over move there from the live jobs, and are forgotten in the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Delete, Insert, bindparam, delete, insert, select

from jobber.store import tagging
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.outbox import Outbox, copying_ends
from jobber.store.schema import RUN_COLUMNS, attempts, events, finished_jobs, groups, jobs, webhooks
from jobber.store.webhooks import note_calls, note_group_call


def move(
    database: Database, connection: Connection, runs: Collection[int], values: Mapping[str, Any], *, quiet: bool = False
) -> None:
    """Move live runs to the history, finished now, with some columns changed; note who is to be told.

    Parameters:
        values: by column name; ``lifetime`` (microseconds) sets when the results expire.
        quiet: whether none of them has a ``callback_url``, as whoever read them knows: spares a statement.
    """
    engine, several = database.engine, len(runs) != 1
    which = {"of_runs": engine.many(runs)} if several else {"of_runs": next(iter(runs))}
    new = {f"new_{name}": value for name, value in values.items()}
    # PostgreSQL tells of the end in the same step.
    at_once = database.events and engine.arrays
    connection.execute(_copy(engine, frozenset(values), several, told=at_once), {**which, **new})
    connection.execute(_remove(engine, several), which)
    if not at_once:
        Outbox(database).note_ends(connection, runs)
    if not quiet:
        note_calls(database, connection, runs)


def tell_of_group(database: Database, connection: Connection, run: int, url: str | None) -> None:
    """Note who is to be told that a group ended, whose row says so by now.

    Parameters:
        url: its ``callback_url``.
    """
    if not (url or database.events):
        return
    row = connection.execute(select(groups).where(groups.c.run == run)).mappings().one()
    Outbox(database).note_group(connection, row)
    if url:
        note_group_call(connection, row)


def forget(database: Database, connection: Connection, runs: Collection[int]) -> int:
    """Forget finished runs and all that is kept of them; return how many runs."""
    if not runs:
        return 0
    engine = database.engine
    which = {"runs": engine.many(runs)}
    tagging.forget(database, connection, runs)
    for table in (attempts, events, webhooks):
        connection.execute(delete(table).where(engine.among(table.c.run, "runs")), which)
    return connection.execute(delete(finished_jobs).where(engine.among(finished_jobs.c.run, "runs")), which).rowcount


@lru_cache(maxsize=64)
def _copy(engine: Engine, changed: frozenset[str], several: bool, *, told: bool) -> Insert:
    """Return the statement that copies runs to the history with the columns in ``changed`` set.

    Parameters:
        told: whether it copies them to the outbox, too.
    """
    now = engine.now
    values: dict[str, ColumnElement[Any]] = {
        name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in changed if name != "lifetime"
    }
    values["finished_at"] = now
    if "lifetime" in changed:
        values["expires_at"] = now + bindparam("new_lifetime", type_=BigInteger())
    source = select(*(values.get(name, jobs.c[name]) for name in RUN_COLUMNS)).where(_these(engine, several))
    ended = insert(finished_jobs).from_select(list(RUN_COLUMNS), source)
    return copying_ends(ended.returning(*finished_jobs.c).cte("ended")) if told else ended


@lru_cache(maxsize=8)
def _remove(engine: Engine, several: bool) -> Delete:
    return delete(jobs).where(_these(engine, several))


def _these(engine: Engine, several: bool) -> ColumnElement[bool]:
    return engine.among(jobs.c.run, "of_runs") if several else jobs.c.run == bindparam("of_runs")
