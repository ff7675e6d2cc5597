"""The files of the peers, with real servers behind their addresses: jobber starts with their flags and runs a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client

from tests.e2e.running import jobber
from tests.legacy import HERE
from tests.servers import MariaDB, Postgres, Redis

_TABLE = "CREATE TABLE entries (id BIGINT, user_id VARCHAR(20), amount DECIMAL(20,2))"
_ROWS = "INSERT INTO entries VALUES (1, 'USER1', 12.50), (2, 'USER1', 0.50), (3, 'USER2', 1.00)"


@pytest.fixture(scope="module")
def addresses(postgres: Postgres, mariadb: MariaDB, redis_server: Redis) -> Iterator[dict[str, str]]:
    """What to write for the addresses in the files."""
    on_postgres, on_mariadb = postgres.new_database(), mariadb.new_database()
    for server, name in ((postgres, on_postgres), (mariadb, on_mariadb)):
        server.execute(_TABLE, name)
        server.execute(_ROWS, name)
    yield {
        r"reporter:secret@tcp\(localhost(:3306)?\)/\w+": f"root@tcp(127.0.0.1:{mariadb.port})/{on_mariadb}",
        r"reporter:secret@localhost:5432/\w+": f"postgres@127.0.0.1:{postgres.port}/{on_postgres}",
        r"user=reporter dbname=cache password=secret sslmode=disable port=5432 host=localhost": (
            f"user=postgres dbname={on_postgres} password='' sslmode=disable port={postgres.port} host=127.0.0.1"
        ),
        r"(secret@|:@)?localhost:6379": f"127.0.0.1:{redis_server.port}",
        # MariaDB has another name, and another unit, for it.
        **({} if mariadb.is_mysql else {"max_execution_time=60000": "max_statement_time=60"}),
    }
    postgres.drop_database(on_postgres)
    mariadb.drop_database(on_mariadb)


@pytest.mark.parametrize(
    ("folder", "flags"),
    [
        ("sql-jobber-viper", ["--queue-name", "reports", "--worker-name", "sqljob", "--worker-only=false"]),
        ("sql-jobber-koanf", ["--worker-concurrency", "3"]),
        ("dungbeetle-1", ["--queue=low_priority", "--worker-name=low", "--worker-concurrency=3"]),
        ("dungbeetle-2-preview", ["--queue", "high"]),
        ("dungbeetle-2-postgresql", []),
        ("dungbeetle-2-mysql", ["--queue", "test"]),
    ],
)
def test_a_job_runs_over_the_files_of_a_peer(
    tmp_path: Path, addresses: dict[str, str], redis_server: Redis, folder: str, flags: list[str]
) -> None:
    config = (HERE / folder / "config.toml").read_text()
    for theirs, real in addresses.items():
        config = re.sub(theirs, real, config)
    queries = {path.name: path.read_text() for path in (HERE / folder / "sql").iterdir()}
    redis_server.flush()
    with (
        redis_client.Redis(port=redis_server.port, db=1) as redis,
        jobber(tmp_path, config, queries, *flags) as running,
    ):
        redis.set("theirs", "1")
        job = running.client.submit("entries_of", ["USER1"], job_id="myjob")
        done = running.client.wait(job.job_id, timeout=30)
        assert (done.state, done.count) == ("SUCCESS", 2), done
        assert sorted(row["id"] for row in running.client.results(job.job_id)) == [1, 2]
        number = 2 if "-2-" in folder and "preview" not in folder else 1
        with redis_client.Redis(port=redis_server.port, db=number) as used:
            keys = {key for key in used.scan_iter() if key != b"theirs"}
            assert keys
            assert all(key.startswith(b"jobber:") for key in keys), keys
        assert redis.get("theirs") == b"1"
        assert "job_queue.state is Redis" in running.text()
    assert running.text().endswith("stopped\n") or 'log_level = "ERROR"' in config
