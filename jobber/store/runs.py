"""Numbers runs: growing, never the same twice, and never behind the clock.

Ledgers of results remember the numbers of runs longer than a state database may live. The numbers therefore follow the
clock, in milliseconds since the epoch: a state database that is new, or restored from a backup, gives out greater ones
than the lost one did, as long as fewer than 1,000 jobs a second were submitted on the average since it was made.
"""

from __future__ import annotations

from sqlalchemy import Connection, column, func, literal, select, table, text, update

from jobber.store.engine import Database
from jobber.store.schema import counters, run_sequence

_SEQUENCE = table(run_sequence.name, column("last_value"))
_KEEP_OUT = text(f"ALTER SEQUENCE {run_sequence.name} NO CYCLE")


def next_runs(database: Database, connection: Connection, count: int) -> tuple[list[int], int]:
    """Return ``count`` new run numbers, growing, and the time."""
    if database.engine_name == "postgresql":
        series = func.generate_series(1, count).table_valued("n")
        rows = connection.execute(select(run_sequence.next_value(), database.now).select_from(series)).all()
        return sorted(row[0] for row in rows), rows[0][1]
    bump = (
        update(counters)
        .where(counters.c.name == "run")
        .values(value=counters.c.value + count)
        .returning(counters.c.value, database.now)
    )
    last, now = connection.execute(bump).one()
    return list(range(last - count + 1, last + 1)), now


def catch_up(database: Database) -> None:
    """Raise the counter to the clock where it is behind; it never goes back, whoever counts or raises it meanwhile.

    On PostgreSQL only the owner of the sequence may: the role that made the tables.
    """
    clock = database.now // 1000
    if database.engine_name != "postgresql":
        raised = update(counters).where(counters.c.name == "run", counters.c.value < clock).values(value=clock)
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
