"""The history: runs that are over move there from the live jobs, and are forgotten in the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypedDict

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Select,
    Text,
    bindparam,
    case,
    delete,
    insert,
    or_,
    select,
)

from jobber.store import tagging
from jobber.store.database import Database, TryAgain
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.outbox import Outbox, copying_ends
from jobber.store.schema import RUN_COLUMNS, attempts, events, finished_jobs, groups, jobs
from jobber.store.webhooks import note_calls, note_group_call

#: What a run that has the result of another one has of its.
_OF_RESULT = (
    *("db", "results", "result_table", "rows", "columns", "snapshot_at", "expires_at"),
    *("version", "fingerprint"),
)


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


def moving(engine: Engine, run: int, values: Mapping[str, Any]) -> list[Request]:
    """Return what moves a live run to the history, as ``move`` does, and tells nobody.

    Parameters:
        values: as ``move`` takes them.
    """
    new = {f"new_{name}": value for name, value in values.items()}
    copy = _copy(engine, frozenset(values), False, told=False)
    return [Request(copy, {"of_runs": run, **new}), Request(_remove(engine, False), {"of_runs": run})]


class Ended(TypedDict):
    """How a run ends that does not end by itself.

    Parameters:
        source: the finished run whose result it has, None if it has none.
        reused: what its row says about that.
    """

    run: int
    state: str
    error: str
    error_code: str
    source: int | None
    reused: str | None


def move_each(database: Database, connection: Connection, ended: Sequence[Ended], *, quiet: bool) -> None:
    """Move live runs to the history, finished now, each in its way; note who is to be told.

    Parameters:
        quiet: as ``move`` takes it.

    Raises:
        TryAgain: a run whose result is to be had is forgotten.
    """
    engine, runs = database.engine, [one["run"] for one in ended]
    at_once = database.events and engine.arrays
    copy = _copy_each(engine, told=at_once).execution_options(preserve_rowcount=True)
    copied = connection.execute(copy, {"ends": engine.as_rows(ended)})
    if copied.rowcount != len(runs):
        raise TryAgain
    connection.execute(_remove(engine, several=True), {"of_runs": engine.many(runs)})
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
    """Forget finished runs and all that is kept of them; return how many runs.

    Calls that they owe stay, for whoever would make one to say that it is not made.
    """
    if not runs:
        return 0
    engine = database.engine
    which = {"runs": engine.many(runs)}
    tagging.forget(database, connection, runs)
    for table in (attempts, events):
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
    return _into_history(source, told=told)


@lru_cache(maxsize=16)
def _copy_each(engine: Engine, *, told: bool) -> Insert:
    """Return the statement that copies runs to the history as ``ends`` says."""
    texts = {name: Text() for name in ("state", "error", "error_code", "reused")}
    ends = engine.rows("ends", {"run": BigInteger(), "source": BigInteger(), **texts})
    source = finished_jobs.alias("source")
    values: dict[str, ColumnElement[Any]] = {name: ends.c[name] for name in texts}
    values["finished_at"] = engine.now
    for name in _OF_RESULT:
        values[name] = case((ends.c.source.is_(None), jobs.c[name]), else_=source.c[name])
    rows = (
        select(*(values.get(name, jobs.c[name]) for name in RUN_COLUMNS))
        # To find few of few, MySQL would walk through all.
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .with_hint(jobs, "FORCE INDEX (PRIMARY)", "mysql")
        .with_hint(source, "FORCE INDEX (PRIMARY)", "mysql")
        .select_from(ends.join(jobs, jobs.c.run == ends.c.run).outerjoin(source, source.c.run == ends.c.source))
        .where(or_(ends.c.source.is_(None), source.c.run.is_not(None)))
    )
    return _into_history(rows, told=told)


def _into_history(rows: Select[Any], *, told: bool) -> Insert:
    ended = insert(finished_jobs).from_select(list(RUN_COLUMNS), rows)
    return copying_ends(ended.returning(*finished_jobs.c).cte("ended")) if told else ended


@lru_cache(maxsize=8)
def _remove(engine: Engine, several: bool) -> Delete:
    return delete(jobs).where(_these(engine, several))


def _these(engine: Engine, several: bool) -> ColumnElement[bool]:
    return engine.among(jobs.c.run, "of_runs") if several else jobs.c.run == bindparam("of_runs")
