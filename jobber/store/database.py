"""The connection to the state database: one transaction after another, and trying again.

``write`` and ``read`` take a function, because a transaction that lost a race is run again from its start.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from jobber.errors import StateUnavailable
from jobber.store.engines import engine_of
from jobber.store.exchange import Exchange
from jobber.store.failures import Cause, CommitFailed, Contended, cause, translated, unanswered

T = TypeVar("T")

#: How often, and for how long (seconds), a transaction that lost a race is run again.
ATTEMPTS = 10
PATIENCE = 15.0
#: Seconds that a free connection is waited for; others have them for milliseconds, unless the database hangs.
POOL_PATIENCE = 5.0


class TryAgain(Exception):
    """Raised inside ``write`` by work that lost a race; the transaction is rolled back and run again."""


class Database:
    """An engine with its pool. Safe to use from several threads; not to be carried over a fork.

    Parameters:
        url: SQLAlchemy URL of SQLite (a file), PostgreSQL, MySQL or MariaDB.
        pool_size: connections at most.
        events: whether changes of state go to the outbox, for the broker to be told.

    Raises:
        ConfigError: the URL names another engine, or SQLite without a file.
    """

    def __init__(self, url: str, *, pool_size: int, events: bool = False) -> None:
        parsed = make_url(url)
        self.events = events
        self.engine = engine_of(parsed)
        self.exchange = Exchange(self.engine)
        parsed, options = self.engine.settings(parsed)
        # Errors are chained for the log, and arguments of jobs are not for the log.
        options |= {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": POOL_PATIENCE, "hide_parameters": True}
        options["pool_use_lifo"] = True  # what was used last has its statements prepared, and its caches warm
        self._pool = create_engine(parsed, **options)
        self._silence = _Silence()
        event.listen(self._pool, "do_connect", self._silence.refuse)
        self.engine.prepare(self._pool)
        self._turn = self.engine.turn()
        self._writer = self._pool.execution_options(jobber_write=True)

    def close(self) -> None:
        """Close all connections."""
        self._pool.dispose()

    def write(self, work: Callable[[Connection], T], *, unhurried: bool = False) -> T:
        """Run ``work`` in a write transaction and commit; again from the start where it lost a race.

        SQLite: ``BEGIN IMMEDIATE``. The others: READ COMMITTED.

        Parameters:
            unhurried: its statements may take as long as they need; else seconds.

        Raises:
            StateUnavailable: the database cannot be reached, or the lock was not to be had.
            InvalidRequest: a statement is longer than the database takes.
            ConfigError: the server is too old.
            IntegrityError: of SQLAlchemy, for the caller to make sense of.
        """

        def once() -> T:
            with self._turn, self._writer.connect() as connection:
                if unhurried:
                    self.engine.take_time(connection)
                with connection.begin() as transaction:
                    result = work(connection)
                    try:
                        transaction.commit()
                    except SQLAlchemyError as error:
                        raise CommitFailed(error) from error
                    return result

        return self._persist(once)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads; each statement sees what is committed when it starts.

        Raises:
            StateUnavailable: the database cannot be reached.
            ConfigError: the server is too old.
        """

        def once() -> T:
            with self._pool.connect() as connection:
                return work(connection)

        return self._persist(once)

    def _persist(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        connection_lost = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._silence.noted():
                    return once()
            except IntegrityError:
                raise
            except CommitFailed as failed:
                # Whether it was committed is not known: only the caller's own check can tell.
                if cause(failed.error) is not Cause.CONFLICT:
                    raise translated(failed.error) from failed.error
                last: SQLAlchemyError | None = failed.error
            except SQLAlchemyError as error:
                kind = cause(error)
                # A pooled connection may have died while it lay idle. Nothing was committed: one fresh one is tried.
                if kind is Cause.CONNECTION and not connection_lost:
                    connection_lost = True
                    continue
                if kind is not Cause.CONFLICT:
                    raise translated(error) from error
                last = error
            except TryAgain:
                last = None
            if time.monotonic() > deadline or attempt == ATTEMPTS:
                break
            time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))  # noqa: S311
        raise translated(last or Contended()) from last


class _Silence:
    """Whether the database has stopped answering: over a network that swallows everything, or because it hangs.

    To find that out costs a caller seconds, and a thread for as long. So one at a time finds out whether it is over,
    and all others are refused at once.
    """

    def __init__(self) -> None:
        self._lasts = False
        self._asking = Lock()
        self._asker: int | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what comes of the body, which asks the database something. Raises StateUnavailable instead of it."""
        asks = self._lasts
        if asks:
            if not self._asking.acquire(blocking=False):
                raise unanswered()
            self._asker = get_ident()
        try:
            yield
        except (SQLAlchemyError, CommitFailed) as error:
            kind = cause(error.error if isinstance(error, CommitFailed) else error)
            if kind is Cause.SILENCE:
                self._lasts = True
            elif kind in {Cause.CONFLICT, Cause.MISTAKE}:
                self._lasts = False
            raise
        except StateUnavailable:
            raise
        except BaseException:
            self._lasts = False  # it was the answer that did not please
            raise
        else:
            self._lasts = False
        finally:
            if asks:
                self._asker = None
                self._asking.release()

    def refuse(self, *_: Any) -> None:
        """Let nobody connect but the one who asks: those who wait for a connection when it begins give up."""
        if self._lasts and self._asker != get_ident():
            raise unanswered()
