"""What servers say beside their answers goes to the log, in both shapes of rows."""

from __future__ import annotations

import logging

import pytest

from jobber.sources.base import Shape
from tests.servers import MariaDB, Postgres
from tests.sources.engines import MysqlEngine, PostgresEngine, opened
from tests.sources.reading import BOTH, DECODED, read

SHOUT = "CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN $1; END'"


@pytest.mark.parametrize("accepts", [DECODED, BOTH], ids=["decoded", "encoded"])
def test_a_notice_of_postgresql_is_logged(
    postgres: Postgres, accepts: frozenset[Shape], caplog: pytest.LogCaptureFixture
) -> None:
    name = postgres.new_database()
    postgres.execute(SHOUT, name)
    source = opened(PostgresEngine(postgres, name))
    with caplog.at_level(logging.INFO, "jobber"):
        read(source, "SELECT shout('half of it')", accepts=accepts)
    source.close()
    postgres.drop_database(name)

    assert [record.getMessage() for record in caplog.records if "half" in record.getMessage()] == [
        f"database {source.name}: NOTICE: half of it"
    ]


@pytest.mark.parametrize("accepts", [DECODED, BOTH], ids=["decoded", "encoded"])
def test_a_warning_of_mysql_is_logged(
    mariadb: MariaDB, accepts: frozenset[Shape], caplog: pytest.LogCaptureFixture
) -> None:
    name = mariadb.new_database()
    source = opened(MysqlEngine(mariadb, name))
    with caplog.at_level(logging.INFO, "jobber"):
        read(source, "SELECT CAST('12x' AS SIGNED) AS n", accepts=accepts)
    source.close()
    mariadb.drop_database(name)

    (record,) = [record for record in caplog.records if "12x" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"database {source.name}: Warning: ")
    assert record.getMessage().endswith("(1292)")
