"""Which runs were submitted within a time: runs are numbered as they come, so that needs no index."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Table, select

from jobber.jobs import Micros

#: How far (microseconds) the clock may have been set back meanwhile without a run being missed.
MARGIN = 300 * 1_000_000
#: Greater than the number of any run.
NEWEST = 2**62
#: Runs that are not worth another look.
CLOSE = 500


class _Mark(NamedTuple):
    run: int
    created_at: Micros


def bounds(connection: Connection, table: Table, since: Micros | None, until: Micros | None) -> tuple[int, int]:
    """Return two runs between which all those of a table are that were submitted within a time, the second excluded.

    There may be others between them: whoever asks holds each run against the time itself.
    """
    oldest, newest = _next_to(connection, table, up_from=0), _next_to(connection, table)
    if oldest is None or newest is None:
        return 0, 0
    first, last = 0, NEWEST
    if since is not None:
        before, _ = _closest(connection, table, oldest, newest, since - MARGIN)
        first = before.run if before is not oldest else 0
    if until is not None and newest.created_at >= until + MARGIN:
        _, after = _closest(connection, table, oldest, newest, until + MARGIN)
        last = after.run
    return first, last


def _next_to(
    connection: Connection, table: Table, *, up_from: int | None = None, down_from: int = NEWEST
) -> _Mark | None:
    """Return the first run from a number on, else the last one below a number."""
    statement = select(table.c.run, table.c.created_at).limit(1)
    if up_from is not None:
        statement = statement.where(table.c.run >= up_from).order_by(table.c.run)
    else:
        statement = statement.where(table.c.run < down_from).order_by(table.c.run.desc())
    row = connection.execute(statement).one_or_none()
    return None if row is None else _Mark(row[0], row[1])


def _closest(connection: Connection, table: Table, low: _Mark, high: _Mark, at: Micros) -> tuple[_Mark, _Mark]:
    """Return a run that was submitted before a time, and one that was not, close to each other.

    Where there is none before it the first is ``low`` itself, where there is none after it both are ``high``.
    """
    if high.created_at < at:
        return high, high
    while high.run - low.run > CLOSE and high.created_at - low.created_at > MARGIN // 10:
        half = (low.run + high.run) // 2
        found = _next_to(connection, table, up_from=half)
        if found is None or found.run >= high.run:  # nothing lies between the half and the end
            found = _next_to(connection, table, down_from=half)
        if found is None or found.run <= low.run:
            break
        if found.created_at < at:
            low = found
        else:
            high = found
    return low, high
