"""Several statements with one COPY among them, sent as one: a small result is filled and published in two round trips.

https://www.postgresql.org/docs/current/protocol-flow.html, "Multiple Statements in a Simple Query"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import psycopg
from psycopg import abc, errors, generators
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.sql import Composed

from jobber.results.postgresql_pool import Connection

#: Bytes that libpq is given at a time: more than it can put aside may come back for ever.
_SLICE = 64 * 1024


class Outcome(NamedTuple):
    """What came of a script.

    Parameters:
        counts: of rows, by the kinds of the statements that were run: ``COPY``, ``UPDATE`` …
        error: of the statement behind them, if one failed.
    """

    counts: Mapping[str, int]
    error: psycopg.Error | None


def run(connection: Connection, script: Composed, pieces: Iterable[bytes]) -> Outcome:
    """Run a script with a ``COPY … FROM STDIN`` in it.

    The statements behind the COPY follow its last row without a wait for the client.

    Parameters:
        pieces: of the COPY's data.

    Raises:
        psycopg.OperationalError: the connection broke.
    """
    pgconn = connection.pgconn
    pgconn.send_query(script.as_bytes(connection))
    results = list(connection.wait(generators.execute(pgconn)))
    if results[-1].status == ExecStatus.COPY_IN:
        for piece in pieces:
            for at in range(0, len(piece), _SLICE):
                connection.wait(generators.copy_to(pgconn, piece[at : at + _SLICE], flush=False))
        results[-1:] = connection.wait(_end(pgconn))
    last = results[-1]
    error = errors.error_from_result(last) if last.status == ExecStatus.FATAL_ERROR else None
    done = results[:-1] if error else results
    kinds = [(result.command_status or b"").decode().partition(" ")[0] for result in done]
    return Outcome({kind: result.command_tuples or 0 for kind, result in zip(kinds, done, strict=True)}, error)


def _end(pgconn: PGconn) -> abc.PQGen[list[PGresult]]:
    pgconn.put_copy_end(None)
    results: list[PGresult] = yield from generators.execute(pgconn)
    return results
