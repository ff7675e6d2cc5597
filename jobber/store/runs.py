"""Numbers runs: growing, never the same twice, and never behind the clock.

Ledgers of results remember the numbers of runs longer than a state database may live. The numbers therefore follow the
clock, in milliseconds since the epoch: a state database that is new, or restored from a backup, gives out greater ones
than the lost one did, as long as fewer than 1,000 jobs a second were submitted on the average since it was made.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Select,
    bindparam,
    column,
    func,
    literal,
    select,
    table,
    text,
    update,
)

from jobber.jobs import Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.schema import counters, dispatch, run_sequence

_SEQUENCE = table(run_sequence.name, column("last_value"))
_KEEP_OUT = text(f"ALTER SEQUENCE {run_sequence.name} NO CYCLE")
_GATES = select(dispatch.c.gates_version).scalar_subquery()
_COUNTER = counters.c.name == "run"
_BUMP = update(counters).where(_COUNTER).values(value=counters.c.value + bindparam("count", type_=BigInteger))
_BUMP_AND_TELL = (
    update(counters)
    .where(_COUNTER)
    .values(value=func.last_insert_id(counters.c.value + bindparam("count", type_=BigInteger)))
)


class Begun(NamedTuple):
    """What a transaction that adds runs begins with.

    Parameters:
        runs: new numbers, growing.
        gates: the version of the gates.
    """

    runs: list[int]
    now: Micros
    gates: int


def begin(database: Database, connection: Connection, count: int) -> Begun:
    """Return ``count`` new run numbers, the time, and the version of the gates; in one round trip with the numbers.

    The first thing that a transaction does: on MySQL it commits what was done before.
    """
    engine = database.engine
    if engine.sequences:
        (numbers,) = database.exchange(connection, Request(_numbers(engine), {"count": count}))
        return Begun(sorted(row[0] for row in numbers.rows), *numbers.rows[0][1:])
    if engine.returning:
        bump = _BUMP.returning(counters.c.value, engine.now, _GATES)
        last, now, gates = connection.execute(bump, {"count": count}).one()
    else:
        # Committed at once: nobody waits for the lock of this one row until a bulk is in.
        connection.execute(_BUMP_AND_TELL, {"count": count})
        connection.exec_driver_sql("COMMIT AND CHAIN")
        last, now, gates = connection.execute(select(func.last_insert_id(), engine.now, _GATES)).one()
    return Begun(list(range(last - count + 1, last + 1)), now, gates)


@lru_cache(maxsize=4)
def _numbers(engine: Engine) -> Select[Any]:
    """Return the statement that takes ``count`` numbers from the sequence."""
    series = func.generate_series(1, bindparam("count", type_=Integer())).table_valued("n")
    return select(run_sequence.next_value(), engine.now, _GATES).select_from(series)


def catch_up(database: Database) -> None:
    """Raise the counter to the clock where it is behind; it never goes back, whoever counts or raises it meanwhile.

    On PostgreSQL only the owner of the sequence may: the role that made the tables.
    """
    clock = database.engine.now // 1000
    if not database.engine.sequences:
        raised = update(counters).where(_COUNTER, counters.c.value < clock).values(value=clock)
        database.write(lambda connection: connection.execute(raised))
        return
    behind = select(literal(1)).select_from(_SEQUENCE).where(_SEQUENCE.c.last_value < clock)
    raise_ = select(func.setval(run_sequence.name, clock)).select_from(_SEQUENCE).where(_SEQUENCE.c.last_value < clock)

    def work(connection: Connection) -> None:
        # Others could count past the clock between the look and setval, which would then take them back. ALTER SEQUENCE
        # keeps them out until the commit (https://www.postgresql.org/docs/current/sql-altersequence.html, Notes); this
        # one changes nothing.
        connection.execute(_KEEP_OUT)
        connection.execute(raise_)

    if database.read(lambda connection: connection.execute(behind).first()):
        database.write(work)
