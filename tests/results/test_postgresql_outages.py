"""Results on PostgreSQL when the server is down, breaks a connection, crashes or has no room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.errors import ResultsFailed, ResultsGone, ResultsUnavailable
from jobber.results.base import Published
from jobber.results.postgresql import PostgresResults
from tests.results.conftest import (
    BULKY,
    COLUMNS,
    ONE,
    TWO,
    PostgresLab,
    load,
    read,
    settings_for,
    target,
    write,
)
from tests.servers import Postgres, free_port, wait_until


def test_a_server_that_is_down_is_unavailable_and_no_secret_is_told() -> None:
    url = f"postgresql+psycopg://someuser:hunter2@127.0.0.1:{free_port()}/somewhere"
    backend = PostgresResults(ResultsSettings(name="main", url=url, engine="postgresql"))
    with pytest.raises(ResultsUnavailable, match='"main" is not available: Connection refused') as caught:
        write(backend, target(), ONE)
    assert caught.value.retryable
    for secret in ("hunter2", "someuser", "127.0.0.1", "somewhere"):
        assert secret not in caught.value.message


def test_a_database_that_does_not_exist_and_one_that_is_full_are_told_in_the_servers_words(postgres: Postgres) -> None:
    backend = PostgresResults(settings_for(postgres, "no_such_database"))
    with pytest.raises(ResultsUnavailable, match='database "no_such_database" does not exist'):
        backend.prepare()
    name = postgres.new_database()
    postgres.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
    backend = PostgresResults(settings_for(postgres, name, "limited"))
    with pytest.raises(ResultsUnavailable, match="too many connections for role"):
        backend.prepare()
    postgres.drop_database(name)


def test_connections_that_the_server_closed_while_idle_cost_no_attempt(pg: PostgresLab) -> None:
    write(pg.backend, target(), ONE)
    pg.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'jobber results main'"
    )
    assert read(pg.backend) == ONE


def test_a_connection_that_breaks_in_the_middle_of_a_load_ends_the_attempt_and_leaves_the_old_result(
    pg: PostgresLab,
) -> None:
    write(pg.backend, target(run=1), ONE)
    loader = pg.another()
    kill = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
        " AND application_name = 'jobber results main'"
    )
    with pytest.raises(ResultsUnavailable):
        load(loader, target(run=2), BULKY, lambda _: pg.query(kill), BULKY)
    assert read(pg.backend, 1) == ONE
    assert pg.tables() == {"results_a"}


@pytest.mark.parametrize("unlogged", [False, True])
def test_a_server_that_crashes_in_the_middle_of_a_load_and_comes_back(unlogged: bool) -> None:
    server = Postgres()
    server.start()
    staged = "SELECT 1 FROM pg_class WHERE relname LIKE 'jobber_staging%'"

    def crash(_: object) -> None:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as look:
            wait_until(lambda: look.execute(staged).fetchall())
            look.execute("CHECKPOINT")
        server.stop(kill=True)

    try:
        backend = PostgresResults(settings_for(server, "postgres", unlogged=unlogged), segment_seconds=0.05)
        write(backend, target(run=1), ONE)
        with pytest.raises(ResultsUnavailable):
            load(backend, target(run=2), BULKY, crash, BULKY)
        server.start()
        if unlogged:
            with pytest.raises(ResultsGone, match="emptied by a crash"):
                read(backend, 1)
        else:
            assert read(backend, 1) == ONE
        assert backend.fence("results_a", 1, 1) == (None if unlogged else Published(len(ONE), COLUMNS))
        assert backend.fence("results_a", 2, 1) is None
        write(backend, target(run=2, attempt=2), TWO)
        assert read(backend, 2) == TWO
        with psycopg.connect(server.dsn("postgres")) as look:
            assert look.execute(staged).fetchall() == []
        backend.close()
    finally:
        server.remove()


@pytest.mark.parametrize("unlogged", [False, True])
def test_a_server_that_crashes_between_loading_and_publishing_publishes_all_rows_or_none(unlogged: bool) -> None:
    """A crash empties an UNLOGGED staging table; a fresh connection alone would not notice."""
    server = Postgres()
    server.start()
    try:
        backend = PostgresResults(settings_for(server, "postgres", unlogged=unlogged), segment_seconds=0.05)
        with backend.begin(target(), COLUMNS, Cancellation()) as writer:
            writer.write_batch(BULKY)
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as look:
                staged = "SELECT 1 FROM pg_class WHERE relname LIKE 'jobber_staging%'"
                wait_until(lambda: look.execute(staged).fetchall())
                look.execute("CHECKPOINT")
            server.stop(kill=True)
            server.start()
            with pytest.raises(ResultsUnavailable):
                writer.publish()
            if unlogged:
                with pytest.raises(ResultsFailed, match="lost rows"):
                    writer.publish()
            else:
                assert writer.publish() == len(BULKY)
        assert backend.fence("results_a", 1, 1) == (None if unlogged else Published(len(BULKY), COLUMNS))
        if not unlogged:
            assert read(backend) == BULKY
        with psycopg.connect(server.dsn("postgres")) as look:
            assert look.execute(staged).fetchall() == []
        backend.close()
    finally:
        server.remove()


@pytest.fixture
def small_disk(tmp_path: Path, postgres: Postgres) -> Iterator[Path]:
    """A file system of 8 MB that the server may write to."""
    folder = postgres.folder / "small"
    folder.mkdir()
    owner = postgres.folder.stat()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=8m,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_the_attempt_in_the_servers_words_and_leaves_nothing(
    pg: PostgresLab, small_disk: Path
) -> None:
    pg.query(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    url = pg.settings.url + "%20-cdefault_tablespace%3Dsmall"
    backend = PostgresResults(replace(pg.settings, url=url))
    noise = [(n, os.urandom(700_000).hex()) for n in range(4)]
    with pytest.raises(ResultsFailed, match="No space left on device") as caught:
        load(backend, target(), *[noise] * 5)
    assert caught.value.retryable
    assert pg.tables() == set()
    write(backend, target(attempt=2), ONE)
    assert read(backend) == ONE
    backend.drop("results_a", 1)
    backend.close()
    pg.query("DROP TABLE jobber_ledger")
    pg.query("CHECKPOINT")
    pg.query("DROP TABLESPACE small")
