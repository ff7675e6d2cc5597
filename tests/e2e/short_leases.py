"""A config with short leases, and its tasks, for tests in which processes die and start."""

from __future__ import annotations

from pathlib import Path

from tests.servers import Postgres

TASKS = {
    "tasks.sql": """\
-- name: nap
SELECT pg_sleep($1);

-- name: count_to
SELECT i FROM generate_series(1, $1) AS i;

-- name: flood
SELECT generate_series(1, 2000000000) AS i, repeat('x', 100) AS filler;
"""
}


def config(
    folder: Path,
    postgres: Postgres,
    database: str,
    broker: str = "",
    more: str = "",
    state: str = "",
    *,
    sweep: float = 1,
) -> str:
    """Return a config with short leases, so that deaths are noticed soon.

    Parameters:
        state: name of the state's database, if it is to be one of its own.
    """
    return f"""
[app]
data_dir = "{folder}/data"
lease = 3
heartbeat = 1
sweep = {sweep}
{more}
[job_queue.state]
url = "{postgres.url(state or database)}"
{f'[job_queue.broker]{chr(10)}url = "{broker}"' if broker else ""}
[db.pg]
url = "{postgres.url(database)}"
[results.main]
url = "{postgres.url(database)}"
"""
