"""One jobber per combination of state store and broker, with every source and every results database in its config."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg
import pytest

from jobber.store import Store
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, Redis

#: The same small table on every source: ids, money, text with traps, a date.
ROWS = [
    (1, "USER1", "12.50", "2017-05-01", "tab\there"),
    (2, "USER1", "-0.01", "2017-12-31", "ünïcode ✓ \\N"),
    (3, "USER2", "99999999999.99", "2018-01-01", None),
]
TABLE = "CREATE TABLE entries (id BIGINT, user_id TEXT, amount DECIMAL(20,2), entry_date DATE, note TEXT)"

QUERIES = {
    "entries.sql": """\
-- name: entries_of
-- Entries of one user, oldest first.
SELECT id, user_id, amount, entry_date, note FROM entries WHERE user_id = :user ORDER BY id;

-- name: all_entries
-- db: pg, my, lite, duck
-- queue: reports
SELECT * FROM entries ORDER BY id;
""",
    "postgresql.sql": """\
-- name: get_profit_entries_by_date
-- db: pg
SELECT * FROM entries WHERE user_id = $1 AND entry_date > $2 AND entry_date < $3;

-- name: slow
-- db: pg
SELECT pg_sleep($1);

-- name: many
-- db: pg
SELECT i, i * 2 AS twice FROM generate_series(1, $1) AS i;

-- name: missing_table
-- db: pg
-- raw: 1
SELECT * FROM no_such_table;
""",
    "mysql.sql": """\
-- name: entries_between
-- db: my
SELECT * FROM entries WHERE user_id = ? AND entry_date > ? AND entry_date < ?;

-- name: slow_my
-- db: my
SELECT SLEEP(?) AS slept;

-- name: missing_table_my
-- db: my
-- raw: 1
SELECT * FROM no_such_table;
""",
}


@dataclass(frozen=True)
class Databases:
    """One empty database on each server."""

    postgres: Postgres
    on_postgres: str
    mariadb: MariaDB
    on_mariadb: str

    @property
    def postgres_url(self) -> str:
        return self.postgres.url(self.on_postgres)

    @property
    def mariadb_url(self) -> str:
        return self.mariadb.url(self.on_mariadb)


def config_text(folder: Path, databases: Databases, *, state: str, broker: str) -> str:
    """Return a config with a source and a results database of each kind."""
    return f"""
[app]
data_dir = "{folder}/data"
log_level = "info"
{f'[job_queue.broker]{chr(10)}url = "{broker}"' if broker else ""}
{f'[job_queue.state]{chr(10)}url = "{state}"' if state else ""}
[db.pg]
url = "{databases.postgres_url}"
[db.my]
url = "{databases.mariadb_url}"
[db.lite]
url = "sqlite:///{folder}/source.db"
[db.duck]
url = "duckdb:///{folder}/source.duckdb"
[results.pg_results]
url = "{databases.postgres_url}"
results_table = "results_%s"
[results.pg_fast]
url = "{databases.postgres_url}"
results_table = "fast_%s"
unlogged = true
[results.my_results]
url = "{databases.mariadb_url}"
[results.lite_results]
url = "sqlite:///{folder}/results"
"""


def fill_sources(folder: Path, databases: Databases) -> None:
    """Create the same table in all sources."""
    with psycopg.connect(databases.postgres.dsn(databases.on_postgres)) as pg:
        pg.execute(TABLE)
        pg.cursor().executemany("INSERT INTO entries VALUES (%s, %s, %s, %s, %s)", ROWS)
    with databases.mariadb.connect(databases.on_mariadb) as my, my.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.executemany("INSERT INTO entries VALUES (%s, %s, %s, %s, %s)", ROWS)
    lite = sqlite3.connect(folder / "source.db")
    lite.execute(TABLE)
    lite.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", ROWS)
    lite.commit()
    lite.close()
    with duckdb.connect(str(folder / "source.duckdb")) as duck:
        duck.execute(TABLE)
        duck.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", ROWS)


@pytest.fixture(scope="module", params=["embedded", "postgresql+rabbitmq", "mariadb+redis"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB
) -> Iterator[Running]:
    """A jobber that serves every queue; each kind of state store and of broker is in one of the combinations."""
    folder = tmp_path_factory.mktemp("jobber")
    databases = Databases(postgres, postgres.new_database(), mariadb, mariadb.new_database())
    fill_sources(folder, databases)
    state, broker = "", ""
    if request.param == "postgresql+rabbitmq":
        state, broker = databases.postgres_url, request.getfixturevalue("rabbitmq").url
    elif request.param == "mariadb+redis":
        redis: Redis = request.getfixturevalue("redis_server")
        redis.flush()
        state, broker = databases.mariadb_url, redis.url
    text = config_text(folder, databases, state=state, broker=broker)
    with jobber(folder, text, QUERIES) as instance:
        yield instance
    postgres.drop_database(databases.on_postgres)
    mariadb.drop_database(databases.on_mariadb)


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """Name of a PostgreSQL database with jobber's tables, to be copied: an instance that finds them starts sooner."""
    name = postgres.new_database()
    with closing(Store(postgres.url(name))) as store:
        store.migrate()
    return name


@pytest.fixture
def database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """Name of a PostgreSQL database with jobber's tables, all empty."""
    name = postgres.new_database(migrated)
    yield name
    postgres.drop_database(name)
