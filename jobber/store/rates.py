"""How often jobs may start on a database: a token bucket per database that all instances share.

A job takes a token when it starts. Tokens come at the rate of the database, and those of half a second are kept (one at
least), so that workers who look four times a second find all that have come. ``next_at`` is when the next token is
there. Everything is decided and written under the dispatch lock, by the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, bindparam, case, delete, func, select, update

from jobber.jobs import Micros
from jobber.store.database import Database
from jobber.store.engines import Engine
from jobber.store.records import storable
from jobber.store.schema import dispatch, rates

#: Microseconds for which a database that is overloaded gets half of its rate.
SLOW = 60_000_000
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """The bucket of one database at one moment.

    Parameters:
        pace: microseconds between two starts, on the average.
        next_at: when a token is there.
        slowed_for: why it gets half of its rate at the moment, "" if it does not.
        now: by the database's clock, as ``next_at``.
    """

    pace: int
    next_at: Micros
    slowed_for: str
    now: Micros

    @property
    def interval(self) -> int:
        """Microseconds between two tokens at the moment."""
        return 2 * self.pace if self.slowed_for else self.pace

    @property
    def allowed(self) -> int:
        """How many jobs may start now."""
        since = self.now - self.full_since
        return 0 if since < 0 else since // self.interval + 1

    def after(self, starts: int) -> Micros:
        """Return ``next_at`` once so many have started now."""
        return self.full_since + starts * self.interval

    @property
    def full_since(self) -> Micros:
        """When the first of the tokens came that are there, or when the next one comes."""
        if self.next_at > self.now + 4 * self.pace:
            return self.now  # the clock was set back since
        kept = max(0, _SECOND // 2 - self.interval)
        return max(self.next_at, self.now - kept)

    def text(self) -> str:
        """Say for people that nothing may start for it."""
        rate = _SECOND / self.interval
        reached = f"{rate:g} {'start' if rate == 1 else 'starts'} per second reached"
        return f"{reached} (halved: {self.slowed_for})" if self.slowed_for else reached


@lru_cache(maxsize=4)
def asking(engine: Engine) -> Select[Any]:
    """Return what asks for the rates as they are now; ``rates_of`` reads the answer."""
    columns = (rates.c.db, rates.c.pace, rates.c.next_at, rates.c.slowed_until, rates.c.slowed_for)
    return select(*columns, engine.now)


def rates_of(rows: Sequence[tuple[Any, ...]]) -> dict[str, Rate]:
    """Return the rates by database."""
    found = {}
    for db, pace, next_at, slowed_until, slowed_for, now in rows:
        # A time so far ahead was written before the clock was set back.
        slowed = now < slowed_until <= now + SLOW
        found[db] = Rate(pace, next_at, slowed_for if slowed else "", now)
    return found


def spent(found: Mapping[str, Rate], starts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return what is to be written of the databases on which so many jobs start now.

    The claim that takes the last token says until when there is none, whether anybody waits for one or not: so those
    who come later, and are turned away, have nothing to write.
    """
    written = []
    for db, count in sorted(starts.items()):
        rate = found[db]
        next_at = rate.after(count)
        written.append({"of_db": db, "next": next_at, "short": next_at if next_at > rate.now else None})
    return written


#: For engines where a claim writes step by step. A time that others still wait for stays.
SPEND = (
    update(rates)
    .where(rates.c.db == bindparam("of_db"))
    .values(
        next_at=bindparam("next"), short_until=func.coalesce(bindparam("short", type_=BigInteger), rates.c.short_until)
    )
)


def set_rates(engine: Engine, connection: Connection, paces: Mapping[str, float]) -> bool:
    """Set starts per second by database, 0 for any number; return whether any was another. Needs the dispatch lock."""
    known = {row.db: row.pace for row in connection.execute(select(rates.c.db, rates.c.pace))}
    changed = False
    for db, rate in sorted(paces.items()):
        pace = max(1, round(_SECOND / rate)) if rate else None
        if pace == known.get(db):
            continue
        changed = True
        if pace is None:
            connection.execute(delete(rates).where(rates.c.db == db))
        elif db in known:
            # Whoever waits for the next token at the old pace waits for it at the new one.
            soon = engine.now + pace
            next_at = case((rates.c.next_at > soon, soon), else_=rates.c.next_at)
            short_until = case((rates.c.short_until > soon, soon), else_=rates.c.short_until)
            values = {"pace": pace, "next_at": next_at, "short_until": short_until}
            connection.execute(update(rates).where(rates.c.db == db).values(values))
        else:
            full = {"pace": pace, "next_at": 0, "slowed_until": 0, "slowed_for": ""}
            connection.execute(engine.upsert(rates, {"db": db}, full))
    return changed


class Throttle:
    """What is done to rates besides starting jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def slow_down(self, db: str, reason: str) -> None:
        """Halve the rate of a database for a minute from now on; does nothing where it has none."""
        values = {"slowed_until": self._database.engine.now + SLOW, "slowed_for": storable(reason) or "overloaded"}
        slower = update(rates).where(rates.c.db == db).values(values)

        def work(connection: Connection) -> None:
            connection.execute(_LOCK)
            connection.execute(slower)

        self._database.write(work)

    def refilled(self) -> Collection[str]:
        """Return the databases that had no token and have one again; each is returned once, to one caller."""
        engine = self._database.engine
        filled = select(rates.c.db).where(rates.c.short_until <= engine.now)
        noted = update(rates).where(engine.among(rates.c.db, "dbs")).values(short_until=None)

        def work(connection: Connection) -> Collection[str]:
            connection.execute(_LOCK)
            found = connection.execute(filled).scalars().all()
            if found:
                connection.execute(noted, {"dbs": engine.many(found)})
            return found

        return self._database.write(work)


_LOCK = select(dispatch.c.id).with_for_update()
