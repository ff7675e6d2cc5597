"""One jobber per combination of state store and broker, with every source and every results database in its config."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psycopg
import pytest

from tests.e2e.running import Running, jobber
from tests.servers import Postgres, Redis

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
-- db: pg, lite, duck
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

-- name: breaks_halfway
-- db: pg
SELECT i, 1 / (5000 - i) AS x FROM generate_series(1, 10000) AS i;

-- name: missing_table
-- db: pg
-- raw: 1
SELECT * FROM no_such_table;
""",
}


def config_text(folder: Path, postgres: Postgres, database: str, *, state: str, broker: str) -> str:
    """Return a config with three sources and three results databases."""
    return f"""
[app]
data_dir = "{folder}/data"
log_level = "info"
{f'[job_queue.broker]{chr(10)}url = "{broker}"' if broker else ""}
{f'[job_queue.state]{chr(10)}url = "{state}"' if state else ""}
[db.pg]
url = "{postgres.url(database)}"
[db.lite]
url = "sqlite:///{folder}/source.db"
[db.duck]
url = "duckdb:///{folder}/source.duckdb"
[results.pg_results]
url = "{postgres.url(database)}"
results_table = "results_%s"
[results.pg_fast]
url = "{postgres.url(database)}"
results_table = "fast_%s"
unlogged = true
[results.lite_results]
url = "sqlite:///{folder}/results"
"""


def fill_sources(folder: Path, postgres: Postgres, database: str) -> None:
    """Create the same table in all three sources."""
    with psycopg.connect(postgres.dsn(database)) as pg:
        pg.execute(TABLE)
        pg.cursor().executemany("INSERT INTO entries VALUES (%s, %s, %s, %s, %s)", ROWS)
    lite = sqlite3.connect(folder / "source.db")
    lite.execute(TABLE)
    lite.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", ROWS)
    lite.commit()
    lite.close()
    with duckdb.connect(str(folder / "source.duckdb")) as duck:
        duck.execute(TABLE)
        duck.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", ROWS)


@pytest.fixture(scope="module", params=["embedded", "postgresql+redis", "sqlite+redis"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, redis_server: Redis
) -> Iterator[Running]:
    """A jobber that serves every queue, on each combination of state store and broker."""
    folder = tmp_path_factory.mktemp("jobber")
    database = postgres.new_database()
    fill_sources(folder, postgres, database)
    state, broker = {
        "embedded": ("", ""),
        "postgresql+redis": (postgres.url(database), redis_server.url),
        "sqlite+redis": (f"sqlite:///{folder}/chosen-state.db", redis_server.url),
    }[request.param]
    redis_server.flush()
    text = config_text(folder, postgres, database, state=state, broker=broker)
    with jobber(folder, text, QUERIES) as instance:
        yield instance
    postgres.drop_database(database)
