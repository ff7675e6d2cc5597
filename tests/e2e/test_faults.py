"""Databases that are down, full or read-only: each a clear message, the job FAILURE, and the server up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from sqlalchemy import create_engine
from sqlalchemy import text as text_of

from jobber.errors import StateUnavailable
from tests.e2e.running import Running, jobber
from tests.servers import MariaDB, Postgres, ServerMissing, free_port, wait_until

TASKS = {
    "tasks.sql": """\
-- name: rows
-- db: pg
SELECT i, repeat('x', 1000) AS filler FROM generate_series(1, $1) AS i;

-- name: elsewhere
-- db: down
SELECT 1;
"""
}


@pytest.fixture(params=[Postgres, MariaDB], ids=["postgresql", "mariadb"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDB]:
    """A server with a database ``state``, which the test may stop."""
    try:
        server: Postgres | MariaDB = request.param()
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and CI runs every test")
        pytest.skip(f"{missing} is not installed")
    server.start()
    server.execute("CREATE DATABASE state")
    yield server
    server.remove()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Running]:
    """A jobber with a source that is down, and results databases that are read-only, full, and fine."""
    folder = tmp_path_factory.mktemp("faults")
    database, refusing = postgres.new_database(), postgres.new_database()
    (folder / "in_the_way").write_text("a file where the results folder should be")
    text = f"""
[app]
data_dir = "{folder}/data"
start_timeout = "1s"
[db.pg]
url = "{postgres.url(database)}"
[db.down]
url = "postgresql://someone:s3cr3t@127.0.0.1:{free_port()}/nothing"
[results.fine]
url = "{postgres.url(database)}"
[results.read_only]
url = "{postgres.url(refusing)}"
[results.blocked]
url = "sqlite:///{folder}/in_the_way/results"
"""
    with jobber(folder, text, TASKS) as instance:
        postgres.execute(f'ALTER DATABASE "{refusing}" SET default_transaction_read_only = on')
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{refusing}'")
        yield instance
    postgres.drop_database(database)
    postgres.drop_database(refusing)


def test_a_source_that_is_down_fails_its_jobs_only(running: Running) -> None:
    down = running.client.wait(running.client.submit("elsewhere", results="fine").job_id, timeout=40)
    fine = running.client.wait(running.client.submit("rows", [3], results="fine").job_id, timeout=20)

    assert (down.state, fine.state) == ("FAILURE", "SUCCESS")
    assert "down" in down.error
    assert "s3cr3t" not in down.error + running.text()


def test_read_only_results_fail_the_job_with_the_engines_words(running: Running) -> None:
    job = running.client.wait(running.client.submit("rows", [3], results="read_only").job_id, timeout=20)

    assert job.state == "FAILURE"
    assert "read-only transaction" in job.error


def test_results_that_cannot_be_written_fail_the_job_and_name_the_database(running: Running) -> None:
    job = running.client.wait(running.client.submit("rows", [3], results="blocked").job_id, timeout=20)

    assert job.state == "FAILURE"
    assert "blocked" in job.error


def test_the_start_says_what_is_missing(running: Running) -> None:
    assert "the database down cannot be reached" in running.text()
    assert "the results database blocked:" in running.text()


def test_malformed_requests_are_refused_and_the_server_stays_up(running: Running) -> None:
    pool = urllib3.PoolManager()
    url = f"{running.url}/tasks/rows/jobs"
    for body in ('{"args": [1', "[1, 2]", '{"args": [[1]]}', '{"eta": "tomorrow"}', '{"retries": "many"}', '{"db": 1}'):
        answer = pool.request("POST", url, body=body.encode())
        document = json.loads(answer.data)

        assert (answer.status, document["status"], document["data"]) == (400, "error", None)
        assert document["error"]["code"] == "invalid_request"
    assert pool.request("GET", running.url).status == 200


def test_while_the_state_database_is_down_the_api_says_so_and_then_recovers(
    tmp_path: Path, postgres: Postgres, own_server: Postgres | MariaDB
) -> None:
    source = postgres.new_database()
    text = f"""
[app]
data_dir = "{tmp_path}/data"
[job_queue.state]
url = "{own_server.url("state")}"
[db.pg]
url = "{postgres.url(source)}"
[db.down]
url = "{postgres.url(source)}"
"""
    with jobber(tmp_path, text, TASKS) as running:
        before = running.client.wait(running.client.submit("rows", [3]).job_id, timeout=20)
        own_server.stop(kill=True)
        with pytest.raises(StateUnavailable):
            running.client.submit("rows", [3])
        (own_server.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        own_server.start()

        wait_until(lambda: accepted(running), timeout=30)
        assert running.client.job(before.job_id).state == "SUCCESS"
        assert running.client.wait(running.client.submit("rows", [3]).job_id, timeout=30).state == "SUCCESS"
    postgres.drop_database(source)


def test_a_start_without_the_state_database_heals_when_it_comes(
    tmp_path: Path, postgres: Postgres, own_server: Postgres | MariaDB
) -> None:
    own_server.stop()
    source = postgres.new_database()
    text = f"""
[app]
data_dir = "{tmp_path}/data"
start_timeout = "1s"
[job_queue.state]
url = "{own_server.url("state")}"
[db.pg]
url = "{postgres.url(source)}"
max_concurrent = 3
[db.down]
url = "{postgres.url(source)}"
"""
    with jobber(tmp_path, text, TASKS) as running:
        assert "the state database cannot be reached" in running.text()
        with pytest.raises(StateUnavailable):
            running.client.submit("rows", [3])
        own_server.start()

        wait_until(lambda: accepted(running), timeout=30)
        assert running.client.wait(running.client.submit("rows", [3]).job_id, timeout=30).state == "SUCCESS"
        limits = create_engine(own_server.url("state"))

        def limited() -> list[str]:
            with limits.connect() as connection:
                found = connection.execute(text_of("SELECT name FROM jobber_gates WHERE running_limit = 3"))
                return [str(name) for name in found.scalars()]

        wait_until(lambda: limited() == ["pg"])
        limits.dispose()
    postgres.drop_database(source)


def accepted(running: Running) -> bool:
    try:
        running.client.submit("rows", [1])
    except StateUnavailable:
        return False
    return True


FLOWS = {
    "tasks.sql": """\
-- name: pg
-- db: pg
SELECT i, i * 1.5 AS amount, repeat('x', :filler::int) || i AS note FROM generate_series(1, :rows) AS i;

-- name: my
-- db: my
SELECT a.i * 10 + b.i AS i, a.i * 1.5 AS amount, CONCAT(REPEAT('x', :filler), a.i) AS note
FROM digits a, digits b, digits c, digits d, digits e, digits f, digits g LIMIT :rows;

-- name: lite
-- db: lite
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
SELECT i, i * 1.5 AS amount, printf('%0' || :filler || 'd', i) AS note FROM n;
"""
}


@pytest.fixture(scope="module")
def flowing(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB) -> Iterator[Running]:
    """A jobber with each kind of source and of results database."""
    folder = tmp_path_factory.mktemp("flowing")
    database, in_mariadb = postgres.new_database(), mariadb.new_database()
    url = postgres.url(database)
    mariadb.execute("CREATE TABLE digits (i INT)", in_mariadb)
    mariadb.execute("INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)", in_mariadb)
    text = f"""
[app]
data_dir = "{folder}/data"
[db.pg]
url = "{url}"
[db.my]
url = "{mariadb.url(in_mariadb)}"
[db.lite]
url = "sqlite:///{folder}/source.db"
[results.pg]
url = "{url}"
unlogged = true
[results.my]
url = "{mariadb.url(in_mariadb)}"
[results.lite]
url = "sqlite:///{folder}/results"
"""
    (folder / "source.db").touch()
    with jobber(folder, text, FLOWS) as running:
        yield running
    postgres.drop_database(database)
    mariadb.drop_database(in_mariadb)


@pytest.mark.parametrize(
    ("source", "results", "rows", "filler"),
    [
        ("pg", "pg", 1_000_000, 100),
        *(
            (*pair, 200_000, 700)
            for pair in (("pg", "lite"), ("lite", "lite"), ("my", "pg"), ("pg", "my"), ("lite", "my"))
        ),
    ],
)
def test_a_million_rows_or_wide_ones_of_140_mb_take_no_more_memory_than_ten_thousand(
    flowing: Running, source: str, results: str, rows: int, filler: int
) -> None:
    """Between PostgreSQL and MariaDB rows travel encoded, the others are the general path."""
    (worker,) = flowing.workers()
    peaks = []
    for number in (10_000, rows):
        # From here on the peak is a new one.
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
        submitted = flowing.client.submit(source, {"rows": number, "filler": filler}, results=results)
        assert flowing.client.wait(submitted.job_id, timeout=100).count == number
        peaks.append(peak(worker.pid))
    assert peaks[1] - peaks[0] < 60 * 1024


def peak(pid: int) -> int:
    """Return the most memory that a process held, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")
