"""A source that has too much to do says so in many ways; all of them are one error, which slows its jobs down."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from pymysql import err

from jobber.cancellation import Cancellation
from jobber.errors import SourceOverloaded, SourceUnavailable
from jobber.sources.mysql.failures import translate as of_mysql
from jobber.sources.pool import Pool
from jobber.sources.postgresql.failures import translate as of_postgresql


@pytest.mark.parametrize(
    "words",
    [
        "FATAL:  sorry, too many clients already",
        'FATAL:  too many connections for role "reader"',
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "FATAL:  no more connections allowed (max_client_conn)",
    ],
)
def test_a_postgresql_that_takes_no_more_connections_is_overloaded(words: str) -> None:
    error = of_postgresql(psycopg.OperationalError(f"connection failed: {words}"), "db0")
    assert isinstance(error, SourceOverloaded)
    assert (error.reason, error.code, error.retryable) == ("too many connections", "source_unavailable", True)


@pytest.mark.parametrize("number", [1040, 1203, 1226])
def test_a_mysql_that_takes_no_more_connections_is_overloaded(number: int) -> None:
    error = of_mysql(err.OperationalError(number, "no"), "db0")
    assert isinstance(error, SourceOverloaded)
    assert error.reason == "too many connections"


def test_a_source_that_takes_too_long_to_connect_is_overloaded() -> None:
    slow = err.OperationalError(2003, "no")
    slow.original_exception = TimeoutError()
    found = [of_mysql(slow, "db0"), of_postgresql(psycopg.errors.ConnectionTimeout("no"), "db0")]
    never = Cancellation()

    def connect() -> Any:
        time.sleep(0.5)
        return SimpleNamespace(end=lambda: None)

    pool: Pool[Any] = Pool("db0", connect, 1, -4.9)  # five seconds more are given
    with pytest.raises(SourceOverloaded) as refused:
        pool.acquire(never, lambda _: None)
    for error in (*found, refused.value):
        assert isinstance(error, SourceOverloaded)
        assert error.reason == "connecting took too long"


def test_a_source_that_is_down_is_not_overloaded() -> None:
    gone = of_mysql(err.OperationalError(2003, "refused"), "db0")
    refused = of_postgresql(psycopg.OperationalError("connection failed: Connection refused"), "db0")
    for error in (gone, refused):
        assert isinstance(error, SourceUnavailable)
        assert not isinstance(error, SourceOverloaded)
