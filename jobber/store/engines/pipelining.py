"""Several statements in one round trip to PostgreSQL, on libpq's pipeline mode itself.

https://www.postgresql.org/docs/current/libpq-pipeline-mode.html. Not psycopg's ``Connection.pipeline``: it ends with a
Flush behind the last Sync, which disarms the server's limit for transactions that lie idle (seen on PostgreSQL 15), so
that a claimer that hangs would stop all others; and it waits once per statement.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import abc, errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import READY_R, WAIT_R, WAIT_RW

from jobber.store.engines.base import Rows, Statement

#: No name comes twice: one that was forgotten here may still be known there.
_numbers = itertools.count()
_TAKEN = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


def run(
    connection: psycopg.Connection[Any],
    names: dict[str, bytes],
    statements: Sequence[Statement],
    transformer: abc.Transformer,
) -> list[Rows]:
    """Run statements one after another and return the rows of each.

    Parameters:
        connection: in autocommit mode.
        names: of statements that are prepared on this connection, by their text; those of new ones are added.
        statements: with parameters as ``$1`` …: whole numbers, texts, booleans, lists of them.
        transformer: of this connection; one that is kept knows by now how values are loaded.

    Raises:
        psycopg.Error: of the first statement that failed, after which none was run.
    """
    pgconn = connection.pgconn
    asked: list[str | None] = []  # the text of what is prepared, None of what is run
    fresh: dict[str, bytes] = {}
    given = [[_dumped(value) for value in values] for _, values in statements]
    pgconn.enter_pipeline_mode()
    try:
        for (text, _), parameters in zip(statements, given, strict=True):
            name = names.get(text) or fresh.get(text)
            if name is None:
                name = fresh[text] = b"jobber_%d" % next(_numbers)
                pgconn.send_prepare(name, text.encode())
                asked.append(text)
            pgconn.send_query_prepared(name, parameters)
            asked.append(None)
        pgconn.pipeline_sync()
        results = connection.wait(_results(pgconn))
        pgconn.exit_pipeline_mode()
    except BaseException:
        connection.close()  # nobody knows what is still to come of it
        raise
    found: list[Rows] = []
    for what, result in zip(asked, results, strict=True):
        if result.status not in _TAKEN:
            error = errors.error_from_result(result)
            if isinstance(error, errors.InvalidSqlStatementName):
                names.clear()  # somebody has deallocated them: the next try prepares them anew
            raise error
        if what is None:
            transformer.set_pgresult(result)
            found.append(transformer.load_rows(0, result.ntuples, tuple))
        else:
            names[what] = fresh[what]
    return found


def _dumped(value: Any) -> bytes | None:
    """Return a parameter as PostgreSQL reads it; psycopg takes five times as long over it, and more over lists.

    Raises:
        psycopg.DataError: a text that PostgreSQL cannot have.
    """
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return b"{" + b",".join([_element(each) for each in value]) + b"}"
    return _scalar(value)


def _scalar(value: Any) -> bytes:
    if isinstance(value, str):
        if "\x00" in value:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return value.encode()
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if not isinstance(value, int):
        raise psycopg.DataError(f"{type(value).__name__} is nothing that is sent this way")
    return b"%d" % value


def _element(value: Any) -> bytes:
    # https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    if value is None:
        return b"NULL"
    text = _scalar(value)
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if isinstance(value, str) else text


def _results(pgconn: PGconn) -> abc.PQGen[list[PGresult]]:
    """Send what is asked, and return what came of each; what comes after an error is aborted."""
    while pgconn.flush():
        if (yield WAIT_RW) & READY_R:
            pgconn.consume_input()
    found: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            if (yield WAIT_R):
                pgconn.consume_input()
        result = pgconn.get_result() or pgconn.get_result()  # there is nothing between two of them
        if result is None:
            raise psycopg.OperationalError("the connection is lost")
        if result.status == ExecStatus.PIPELINE_SYNC:
            return found
        found.append(result)
