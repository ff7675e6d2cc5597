"""What a results database must be able to do; one module beside this one per engine.

A result appears whole or not at all. Rows go to a staging table of the attempt; ``publish`` makes it the job's table
in one short step, and only if the *ledger* (a table of jobber's in every results database) knows of no other attempt
that is as new: an attempt that was cancelled, rescued or overtaken finds itself fenced. Nothing that is not in the
ledger is ever replaced or dropped.

An attempt is *registered* when the ledger names it as the newest of its table. What rests on that:

- Before anything of an attempt is committed, it is registered; so who overtakes it, or the janitor, finds what it left.
  A backend whose transactions span tables and ledger may register an attempt as late as in the transaction that
  publishes it: until that one commits, there is nothing to be found, and nothing to be given up.
- The greatest (run, attempt) that was ever registered or fenced refuses all that are not greater, at any step: a mark
  of the very same (run, attempt) refuses it, too. Marks are kept for a day; no attempt that was fenced off sleeps
  longer, be it before it begins or, unregistered, before it publishes.
- Who reads the ledger to decide on an attempt (``fence``, or after a COMMIT without an answer) waits for a transaction
  of its that is under way, also for one that only inserts the table's entry, which nobody sees before.
- No worker that hangs keeps the entry or the name of a table from others for more than a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row
from jobber.sources.base import Chunk, Place, Shape

#: The one table of jobber's own in a results database.
LEDGER = "jobber_ledger"
#: Staging tables begin with this.
STAGING_PREFIX = "jobber_staging_"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an attempt writes, and in whose name.

    Parameters:
        table: name of the result table.
        job_id: the job.
        run, attempt: (run, attempt) orders all attempts that ever write to this table; the greater one wins.
        ttl: seconds that the result lives from its publishing on, by the results database's clock; 0 is for ever.
        index: columns of the result that get an index each, before it is published.
    """

    table: str
    job_id: str
    run: int
    attempt: int
    ttl: int
    index: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that is registered and may still publish; ``fence`` takes the same three.

    Parameters:
        table: name of the result table.
        run, attempt: as in ``Target``.
    """

    table: str
    run: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Published:
    """What an attempt published.

    Parameters:
        rows: how many.
        columns: of the result, as ``begin`` got them.
    """

    rows: int
    columns: tuple[Column, ...]


class ResultsWriter(Protocol):
    """Writes one attempt's rows. Used by one thread, then either published or discarded.

    Every method also raises the reason of the attempt's cancellation, soon, even if the database does not answer.
    """

    #: Rows written so far.
    rows: int

    def write_chunk(self, chunk: Chunk) -> None:
        """Append encoded rows. Raises what ``publish`` raises, and ValueNotRepresentable."""
        ...

    def write_batch(self, batch: Sequence[Row]) -> None:
        """Append decoded rows. Raises what ``publish`` raises, and ValueNotRepresentable naming column and value."""
        ...

    def publish(self) -> int:
        """Make the rows the job's result in one step and return their number.

        Asking again for the same attempt after a lost answer is harmless. A cancel that comes in time ends it with the
        reason and nothing is published, now or later; one that comes too late is ignored and the result stands.

        Raises:
            Fenced: a newer attempt holds the table, or this one was fenced off.
            ValueNotRepresentable: of rows that were held back until now (small results).
            ResultsFailed: the table's name is taken by something that jobber did not make, disk full, rights …
            ResultsUnavailable: the connection broke; nothing is published, or all of it is.
        """
        ...


class CopyingWriter(ResultsWriter, Protocol):
    """What ``begin`` of a backend gives that accepts COPIED rows."""

    def write_copy(self, copy: Callable[[Place], int]) -> None:
        """Let a source of the same engine write its rows, all that there are.

        Raises what ``copy`` and ``publish`` raise.

        Parameters:
            copy: writes to the staging table and returns the number of rows.
        """
        ...


class ResultsBackend(Protocol):
    """A database that results are written to. Safe to use from several threads at a time."""

    name: str
    engine: str
    accepts: frozenset[Shape]

    def prepare(self) -> None:
        """Create the ledger if it is not there. Raises ResultsUnavailable or ResultsFailed."""
        ...

    def table_name(self, job_id: str) -> str:
        """Return the name of the result table of ``job_id``, the same at any time and on any machine."""
        ...

    def begin(
        self, target: Target, columns: Sequence[Column], cancellation: Cancellation
    ) -> AbstractContextManager[ResultsWriter]:
        """Look whether the attempt may publish, and register it; leaving without ``publish`` discards it.

        An attempt may stay unregistered until something of it is committed.

        Column names are unique and valid already (``columns.unique_names``). Leaving takes little time once the token
        is pulled: what cannot be discarded by then is listed by ``abandoned``.

        Parameters:
            cancellation: the attempt's token; its reason ends every wait for the database.

        Raises:
            Fenced: a newer attempt of that table is registered, or this one was fenced off.
            ResultsUnavailable, ResultsFailed: as ``publish``.
        """
        ...

    def ping(self) -> None:
        """Raise ResultsUnavailable unless the database answers within its ``connect_timeout``; writes nothing."""
        ...

    def fence(self, table: str, run: int, attempt: int) -> Published | None:
        """Make sure that no attempt up to (run, attempt) publishes to ``table`` any more; drops its staging table.

        The published result, if any, stays.

        Returns:
            What this very attempt published before, None if nothing of it stands there.
        """
        ...

    def drop(self, table: str, run: int) -> bool:
        """Drop the published result of ``run`` (purge); False if the ledger holds none of that run any more."""
        ...

    def rows(self, table: str, run: int, columns: Sequence[Column], *, offset: int, limit: int) -> list[Row]:
        """Return rows of the published result of ``run`` in the order of its query, in canonical form.

        Raises:
            ResultsGone: the ledger does not list that run any more, or the table holds fewer rows than the ledger
                says (an UNLOGGED table that a crash emptied).
            ResultsUnavailable, ResultsFailed: as ``begin``.
        """
        ...

    def expire(self, limit: int = 100) -> list[str]:
        """Drop results whose time is over, by this database's clock, at most ``limit``; return the table names."""
        ...

    def abandoned(self, older_than: float) -> list[Claim]:
        """Return the registered attempts that may still publish, from more than ``older_than`` seconds ago.

        By this database's clock. Of an attempt that is not registered nothing can be left. Who finds that one of these
        does not run any more calls ``fence``, which drops what it left and takes it off this list.
        """
        ...

    def close(self) -> None:
        """Close all connections; the backend is not used again."""
        ...
