"""Tags of runs in a table of their own, by which lists find them; the runs' rows hold them too, for answers.

A row per tag of a run, live or finished: it is written with the run, stays when the run moves to the history, and goes
when the run is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

from sqlalchemy import BigInteger, Connection, Insert, Text, delete, insert, select

from jobber.jobs import NAME_MAX
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.exchange import Request
from jobber.store.schema import tags

_INSERT = insert(tags)
#: Characters of a long text that stay before its hash.
_KEPT = NAME_MAX - 65


def key(text: str) -> str:
    """Return how the table spells a name or a value: itself, or a hash where not every engine could index it.

    That is what is too long, what holds NUL (PostgreSQL), and half a surrogate pair.
    """
    try:
        text.encode()
        storable = len(text) <= NAME_MAX and "\0" not in text
    except UnicodeEncodeError:
        storable = False
    if storable:
        return text
    start = text[:_KEPT].replace("\0", "").encode(errors="replace").decode()
    return f"{start}#{sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def note(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note the tags of new runs; the last thing that a submission inserts.

    Parameters:
        rows: of the runs, by column name: ``run`` and ``tags`` (JSON) are read.
    """
    if new := _rows(rows):
        connection.execute(_INSERT, new if len(new) > 1 else new[0])


def noting(database: Database, rows: Sequence[Mapping[str, Any]]) -> list[Request]:
    """Return what ``note`` would run, for an engine that takes rows as JSON."""
    new = _rows(rows)
    return [Request(_insert_many(database.engine), {"rows": json.dumps(new)})] if new else []


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": key(name), "value": key(value), "run": row["run"]}
        for row in rows
        if row["tags"] != "{}"
        for name, value in json.loads(row["tags"]).items()
    ]


@lru_cache(maxsize=4)
def _insert_many(engine: Engine) -> Insert:
    new = engine.rows("rows", {"name": Text(), "value": Text(), "run": BigInteger()})
    return insert(tags).from_select(["name", "value", "run"], select(new))


def forget(database: Database, connection: Connection, runs: Collection[int]) -> None:
    """Forget the tags of runs that are forgotten."""
    statement = delete(tags).where(database.engine.among(tags.c.run, "runs"))
    connection.execute(statement, {"runs": database.engine.many(runs)})
