"""The SQL of tasks by its version: what a run has run can be shown after its file was changed.

Each process that may run a version says so from time to time; one that nobody has had for longer than runs are
remembered is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select

from jobber.store.database import Database
from jobber.store.schema import versions

#: Seconds for which a version may run without being noted again: the longest job, and then some.
_MARGIN = 86_400
#: Seconds for which nobody has to say again that it is loaded.
_FRESH = 1_800


class VersionBook:
    """Keeps the SQL of tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, loaded: Mapping[str, str], *, history: int) -> None:
        """Keep what is loaded now, and forget what nobody has loaded for too long.

        Parameters:
            loaded: SQL by version.
            history: seconds that finished runs are remembered.
        """
        engine = self._database.engine
        fresh = versions.c.seen_at > engine.now - _FRESH * 1_000_000
        lately = select(versions.c.version).where(engine.among(versions.c.version, "versions"), fresh)
        old = engine.now - (history + _MARGIN) * 1_000_000

        def work(connection: Connection) -> None:
            known = connection.execute(lately, {"versions": engine.many(loaded.keys())}).scalars().all()
            for version in sorted(loaded.keys() - set(known)):  # in one order: no two wait for each other in a circle
                values = {"sql": loaded[version], "seen_at": engine.now}
                connection.execute(engine.upsert(versions, {"version": version}, values))
            gone = connection.execute(select(versions.c.version).where(versions.c.seen_at < old)).scalars().all()
            if gone:
                connection.execute(delete(versions).where(versions.c.version.in_(gone), versions.c.seen_at < old))

        self._database.write(work)

    def sql(self, version: str) -> str | None:
        """Return the SQL of a version; None if it is not kept."""
        wanted = select(versions.c.sql).where(versions.c.version == version)
        return self._database.read(lambda connection: connection.execute(wanted).scalar_one_or_none())
