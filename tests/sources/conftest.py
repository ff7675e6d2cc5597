"""Sources on fresh databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jobber.config import DatabaseSettings
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from tests.servers import MariaDB, Postgres
from tests.sources.engines import SESSIONS, ClickhouseEngine, MysqlEngine, PostgresEngine, Served, opened
from tests.sources.reading import BOTH, DECODED


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    """Name of a PostgreSQL database that lives as long as the test module."""
    name = postgres.new_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module", params=[True, False], ids=["session", "pgbouncer"])
def pg(request: pytest.FixtureRequest, postgres: Postgres, database: str) -> Iterator[Source]:
    """A PostgreSQL source, once with sessions of its own and once as behind a transaction-pooling proxy."""
    settings = DatabaseSettings(
        name="reports", url=postgres.url(database), engine="postgresql", server_side_cursors=request.param, pool_size=4
    )
    source = open_source(settings)
    yield source
    source.close()


@pytest.fixture(scope="module", params=SESSIONS)
def engine(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server and a database on it that lives as long as the test module."""
    server = request.getfixturevalue({"mysql": "mariadb", "clickhouse": "clickhouse"}.get(request.param, "postgres"))
    name = server.new_database()
    if request.param == "mysql":
        yield MysqlEngine(server, name)
    elif request.param == "clickhouse":
        yield ClickhouseEngine(server, name)
    else:
        yield PostgresEngine(server, name, {"server_side_cursors": request.param == "postgresql"})
    server.drop_database(name)


@pytest.fixture(scope="module")
def source(engine: Served) -> Iterator[Source]:
    """A source on the engine."""
    source = opened(engine, pool_size=4)
    yield source
    source.close()


@pytest.fixture
def watch(postgres: Postgres, database: str) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Run SQL as an administrator."""
    with psycopg.connect(postgres.dsn(database), autocommit=True, application_name="watch") as connection:
        yield lambda sql: connection.execute(sql).fetchall()  # type: ignore[arg-type]


@pytest.fixture(params=[DECODED, BOTH], ids=["decoded", "encoded"])
def accepts(request: pytest.FixtureRequest) -> frozenset[Shape]:
    """What the other side takes: rows only, or encoded chunks too."""
    shapes: frozenset[Shape] = request.param
    return shapes


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "source.db"


@pytest.fixture
def sqlite(sqlite_file: Path) -> Callable[..., Source]:
    """Fill a SQLite file with a script and return it as a source."""

    def fill(script: str = "", *, rows: tuple[str, list[tuple[object, ...]]] | None = None) -> Source:
        connection = sqlite3.connect(sqlite_file)
        connection.executescript(script)
        if rows is not None:
            connection.executemany(*rows)
            connection.commit()
        connection.close()
        return open_source(DatabaseSettings(name="reports", url=f"sqlite:///{sqlite_file}", engine="sqlite"))

    return fill


@pytest.fixture(scope="module")
def mysql(mariadb: MariaDB) -> Iterator[MysqlEngine]:
    """The server with a zone and modes that jobber's sessions must not be moved by."""
    name = mariadb.new_database()
    mysql = MysqlEngine(mariadb, name)
    ((zone, packet),) = mysql.watch("SELECT @@global.time_zone, @@global.max_allowed_packet")
    mariadb.execute("SET GLOBAL time_zone = '+05:30'")
    mariadb.execute(f"SET GLOBAL max_allowed_packet = {64 * 2**20}")
    yield mysql
    mariadb.execute(f"SET GLOBAL time_zone = '{zone}'")
    mariadb.execute(f"SET GLOBAL max_allowed_packet = {packet}")
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def maria(mysql: MysqlEngine) -> Iterator[Source]:
    """That server as a source."""
    maria = opened(mysql, pool_size=4)
    yield maria
    maria.close()
