"""The history: runs that are over move there from the live jobs, and are forgotten in the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Delete, Insert, bindparam, delete, insert, select

from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.schema import RUN_COLUMNS, attempts, finished_jobs, jobs


def move(database: Database, connection: Connection, runs: Collection[int], values: Mapping[str, Any]) -> None:
    """Move live runs to the history, finished now, with some columns changed.

    Parameters:
        values: by column name; ``lifetime`` (microseconds) sets when the results expire.
    """
    engine, several = database.engine, len(runs) != 1
    which = {"of_runs": engine.many(runs)} if several else {"of_runs": next(iter(runs))}
    new = {f"new_{name}": value for name, value in values.items()}
    connection.execute(_copy(engine, frozenset(values), several), {**which, **new})
    connection.execute(_remove(engine, several), which)


def forget(database: Database, connection: Connection, runs: Collection[int]) -> int:
    """Forget finished runs and their attempts; return how many runs."""
    if not runs:
        return 0
    engine = database.engine
    which = {"runs": engine.many(runs)}
    connection.execute(delete(attempts).where(engine.among(attempts.c.run, "runs")), which)
    return connection.execute(delete(finished_jobs).where(engine.among(finished_jobs.c.run, "runs")), which).rowcount


@lru_cache(maxsize=64)
def _copy(engine: Engine, changed: frozenset[str], several: bool) -> Insert:
    """Return the statement that copies runs to the history with the columns in ``changed`` set."""
    now = engine.now
    values: dict[str, ColumnElement[Any]] = {
        name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in changed if name != "lifetime"
    }
    values["finished_at"] = now
    if "lifetime" in changed:
        values["expires_at"] = now + bindparam("new_lifetime", type_=BigInteger())
    source = select(*(values.get(name, jobs.c[name]) for name in RUN_COLUMNS)).where(_these(engine, several))
    return insert(finished_jobs).from_select(list(RUN_COLUMNS), source)


@lru_cache(maxsize=8)
def _remove(engine: Engine, several: bool) -> Delete:
    return delete(jobs).where(_these(engine, several))


def _these(engine: Engine, several: bool) -> ColumnElement[bool]:
    return engine.among(jobs.c.run, "of_runs") if several else jobs.c.run == bindparam("of_runs")
