"""What the optimizer of MySQL and MariaDB expects of a query, without running it."""

from __future__ import annotations

from jobber.sources.mysql.packets import NULL
from jobber.sources.mysql.session import Session

#: Ways to a table of one row: the server reads it to plan with it.
_CONSTANT = frozenset({"const", "system", ""})
#: Bytes of a plan, at most.
_PLAN_BYTES = 1024 * 1024
#: The first derived table of ``_AROUND``, and what stands around the query, which becomes the second.
_FIRST = "<derived2>"
_AROUND = "SELECT 1 FROM (SELECT 1 UNION ALL SELECT 2) jobber_two LEFT JOIN ({query}\n) jobber_query ON TRUE"


def planned_rows(session: Session, sql: str) -> int | None:
    """Return the rows that the optimizer expects; None if it does not say.

    EXPLAIN tells the rows of each table, not those of the whole; but it tells the rows of a derived table, its LIMIT
    counted in, so the query is made into one.

    Parameters:
        sql: one whole query, which has been prepared.
    """
    if all(row["type"] in _CONSTANT for row in _plan(session, sql)):
        return 1  # of such a one the server would make the derived table to plan with it: it would run the query
    # Merged into the outer query, it is no derived table; nor is it one that could be left out or read beforehand.
    session.connection.run("SET optimizer_switch = 'derived_merge=off'")
    for row in _plan(session, _AROUND.format(query=sql)):
        if row["id"] == "1" and row["table"].startswith("<derived") and row["table"] != _FIRST:
            return int(row["rows"])
    return None


def _plan(session: Session, sql: str) -> list[dict[str, str]]:
    """Return the rows of a plan by the names of their columns; what is NULL is ""."""
    names = [column.name for column in session.query(f"EXPLAIN FORMAT=TRADITIONAL {sql}")]
    fields = session.read(_PLAN_BYTES)
    while session.read(_PLAN_BYTES):
        pass
    values = ["" if field is NULL else field.decode(errors="replace") for field in (fields.flat if fields else ())]
    each = len(names)
    return [dict(zip(names, values[at : at + each], strict=True)) for at in range(0, len(values), each)]
