"""What a query may not do on PostgreSQL: write, and leave anything behind in its session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import QueryFailed
from jobber.sources import open_source
from jobber.sources.base import Query, Shape, Source
from jobber.sqltext import Statement
from tests.servers import Postgres
from tests.sources.reading import drain, read


def unparsed(sql: str) -> Statement:
    """A statement that no parser of jobber's has looked at: the session itself must be the wall."""
    return Statement(sql, (sql,), 0)


@pytest.fixture(scope="module")
def ledger(postgres: Postgres, database: str) -> None:
    postgres.execute(
        """
        CREATE TABLE ledger (n int);
        INSERT INTO ledger VALUES (1);
        CREATE SEQUENCE numbers;
        CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO ledger VALUES (2); RETURN 1; END $$;
        CREATE FUNCTION unlocks() RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN SET transaction_read_only = off; INSERT INTO ledger VALUES (2); RETURN 1; END $$;
        CREATE PROCEDURE commits(INOUT a int) LANGUAGE plpgsql AS
            $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2); COMMIT; END $$;
        """,
        database,
    )


WRITES = [
    "INSERT INTO ledger VALUES (2) RETURNING n",
    "WITH w AS (INSERT INTO ledger VALUES (2) RETURNING n) SELECT * FROM w",
    "WITH w AS (DELETE FROM ledger RETURNING n) SELECT * FROM w",
    "UPDATE ledger SET n = 2 RETURNING n",
    "DELETE FROM ledger RETURNING n",
    "TRUNCATE ledger",
    "SELECT n INTO stolen FROM ledger",
    "CREATE TABLE stolen AS SELECT 1",
    "DROP TABLE ledger",
    "SELECT * FROM ledger FOR UPDATE",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 100)",
    "SELECT lo_create(4242)",
    "SELECT lo_from_bytea(4242, 'x')",
    "SELECT writes()",
    "SELECT unlocks()",
    "CALL commits(1)",
    "DO $$ BEGIN INSERT INTO ledger VALUES (2); END $$",
    "DO $$ BEGIN SET transaction_read_only = off; INSERT INTO ledger VALUES (2); END $$",
    "COMMIT",
    "ROLLBACK",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "PREPARE TRANSACTION 'x'",
    "COPY ledger FROM STDIN",
    "COPY ledger TO '/tmp/jobber-test-copy'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/jobber-test-copy'",
    "NOTIFY x",
    "VACUUM ledger",
    "SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2)",
    "SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (2) RETURNING n",
    "COMMIT; INSERT INTO ledger VALUES (2) RETURNING n",
    "ROLLBACK; BEGIN READ WRITE; INSERT INTO ledger VALUES (2); COMMIT",
    "SELECT 1; COMMIT; INSERT INTO ledger VALUES (2)",
    "SELECT 1) TO STDOUT; COMMIT; INSERT INTO ledger VALUES (2); COPY (SELECT 1",
    "SELECT 1) TO STDOUT; COMMIT; INSERT INTO ledger VALUES (2); --",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('transaction_read_only', 'off', true), writes()",
    "EXPLAIN ANALYZE INSERT INTO ledger VALUES (2)",
]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written(
    pg: Source, accepts: frozenset[Shape], watch: Callable[[str], list[tuple[object, ...]]], sql: str
) -> None:
    def state() -> list[tuple[object, ...]]:
        return watch(
            "SELECT (SELECT array_agg(n) FROM ledger), (SELECT last_value FROM numbers), "
            "(SELECT is_called FROM numbers), (SELECT count(*) FROM pg_class WHERE relname = 'stolen'), "
            "(SELECT count(*) FROM pg_largeobject_metadata)"
        )

    before = state()
    reading = pg.read(Query(unparsed(sql), []), accepts, timeout=5, cancellation=Cancellation())
    if "SELECT lo_" in sql:
        # PostgreSQL refuses these from version 16 on; before, the rollback takes them back.
        with suppress(QueryFailed):
            drain(reading)
    else:
        with pytest.raises(QueryFailed) as failed:
            drain(reading)
        assert not failed.value.retryable
    assert state() == before


def test_a_setting_that_a_query_makes_does_not_reach_the_next(pg: Source, accepts: frozenset[Shape]) -> None:
    read(pg, "SELECT set_config('default_transaction_read_only', 'off', false), set_config('search_path', 'x', false)")
    rows = read(
        pg,
        "SELECT current_setting('default_transaction_read_only'), current_setting('search_path') <> 'x', "
        "current_setting('transaction_read_only')",
        accepts=accepts,
    ).rows
    assert rows == [("on", True, "on")]


def test_a_lock_that_a_query_takes_does_not_outlive_it(
    pg: Source, watch: Callable[[str], list[tuple[object, ...]]]
) -> None:
    read(pg, "SELECT pg_advisory_lock(7)")
    assert watch("SELECT pg_try_advisory_lock(7), pg_advisory_unlock(7)") == [(True, True)]


def test_behind_a_pooling_proxy_nothing_of_a_session_is_left(postgres: Postgres, database: str) -> None:
    source = open_source(
        DatabaseSettings(
            name="x", url=postgres.url(database), engine="postgresql", server_side_cursors=False, pool_size=1
        )
    )
    read(source, "SELECT $1::int", [1])
    with source._pool._lock:  # type: ignore[attr-defined]
        session = source._pool._idle[0]  # type: ignore[attr-defined]
    shown = {
        name: session.select(f"SHOW {name}")[0][0]
        for name in ("default_transaction_read_only", "statement_timeout", "client_connection_check_interval")
    }
    source.close()
    assert shown == {
        "default_transaction_read_only": "off",
        "statement_timeout": "0",
        "client_connection_check_interval": "0",
    }


def test_the_administrator_sees_the_label(pg: Source, accepts: frozenset[Shape]) -> None:
    shown = read(pg, "SELECT current_query()", accepts=accepts, label="task=sales job=7 */ DROP").rows[0][0]
    assert str(shown).startswith("/* task=sales job=7 __ DROP */ ")
    assert read(pg, "SELECT current_setting('application_name')").rows == [("jobber",)]


@pytest.mark.usefixtures("ledger")
def test_a_query_that_writes_is_told_why_it_may_not(pg: Source, accepts: frozenset[Shape]) -> None:
    sql = "WITH w AS (DELETE FROM ledger RETURNING n) SELECT * FROM w"
    with pytest.raises(QueryFailed, match="jobber only reads its sources"):
        drain(pg.read(Query(unparsed(sql), []), accepts, timeout=5, cancellation=Cancellation()))
