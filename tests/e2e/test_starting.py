"""What the command says and does before it serves, and instead of serving."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.running import Running, jobber, role_of, run
from tests.e2e.short_leases import TASKS, config
from tests.servers import Postgres, free_port, wait_until


def test_a_task_that_its_database_refuses_stops_the_start_with_file_and_line(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "bad.sql").write_text("-- name: fine\nSELECT 1;\n\n-- name: bad\nSELECT * FROM no_table;\n")
    (tmp_path / "config.toml").write_text(config(tmp_path, postgres, database))

    server = f"127.0.0.1:{free_port()}"
    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", server)

    assert done.returncode == 1
    assert "bad.sql:4" in done.stderr
    assert "task bad" in done.stderr
    assert 'relation "no_table" does not exist' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_config_mistake_names_the_nearest_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[db.x]\nulr = "sqlite:///x.db"\n')
    server = f"127.0.0.1:{free_port()}"
    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", server)

    assert done.returncode == 1
    assert "ulr" in done.stderr
    assert "url" in done.stderr


def test_a_public_address_needs_a_word_of_consent(tmp_path: Path) -> None:
    done = run(tmp_path, "--server", "0.0.0.0:6060", "--sql-directory", "sql")

    assert done.returncode == 2
    assert "--insecure" in done.stderr


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path, postgres: Postgres, database: str) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS["tasks.sql"])
    (tmp_path / "config.toml").write_text(config(tmp_path, postgres, database))

    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", f"127.0.0.1:{postgres.port}")

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{postgres.port}" in done.stderr


@pytest.fixture(scope="module")
def late(postgres: Postgres) -> Iterator[Postgres]:  # the other one shows that the program is installed
    """A server that is down at first, and after each test that started it."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def waiting(tmp_path: Path, late: Postgres) -> Iterator[Running]:
    """A jobber that waits for its state, its results and its source."""
    running = Running(tmp_path, config(tmp_path, late, "postgres"), TASKS)
    try:
        wait_until(lambda: "waiting up to" in running.text(), timeout=30)
        yield running
    finally:
        running.kill()
        late.stop()


def test_a_start_waits_for_databases_and_says_for_which_why_and_how_long(waiting: Running, late: Postgres) -> None:
    announced = waiting.text().partition("waiting up to 30 s for:\n")[2].splitlines()
    assert len(announced) == 3, waiting.text()
    for line, words in zip(
        announced, ("the state database", "the results database main", "the database pg"), strict=True
    ):
        assert line.startswith(f"  {words}"), waiting.text()
        assert "onnection refused" in line
        assert line.count("results database") == (words == "the results database main")

    late.start()

    waiting.wait_ready()
    for words in ("the state database is ready", "the results database main is ready", "the database pg is ready"):
        assert waiting.text().count(words) == 1, waiting.text()
    assert "goes on" not in waiting.text()
    job = waiting.client.wait(waiting.client.submit("count_to", [3]).job_id, timeout=30)
    assert (job.state, job.count) == ("SUCCESS", 3)
    assert waiting.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_databases_as_it_ends_an_instance(waiting: Running, number: signal.Signals) -> None:
    waiting.process.send_signal(number)

    assert waiting.process.wait(5) == 0, waiting.text()
    assert "stopped before it was started" in waiting.text()
    assert "Traceback" not in waiting.text()


def test_with_strict_the_start_ends_after_the_limit_and_names_all_that_is_missing(
    tmp_path: Path, late: Postgres
) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS["tasks.sql"])
    (tmp_path / "config.toml").write_text(config(tmp_path, late, "postgres", more='start_timeout = "1s"'))
    server = f"127.0.0.1:{free_port()}"

    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", server, "--strict")

    assert done.returncode == 1
    said, _, error = done.stderr.partition("error: the start ends, as --strict says; not ready:\n  ")
    assert "waiting up to 1 s for:" in said
    for words in ("the state database cannot be reached", "the results database main", "the database pg"):
        assert words in error
    assert "Traceback" not in done.stderr


def test_a_task_that_is_refused_stops_the_start_though_another_database_is_missing(
    tmp_path: Path, postgres: Postgres, database: str, late: Postgres
) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "bad.sql").write_text("-- name: bad\n-- db: pg\nSELECT * FROM no_table;\n")
    text = config(tmp_path, postgres, database, more='start_timeout = "5m"')
    (tmp_path / "config.toml").write_text(f'{text}[db.late]\nurl = "{late.url("postgres")}"\n')
    server = f"127.0.0.1:{free_port()}"

    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", server)

    assert done.returncode == 1
    assert 'task bad on database pg: relation "no_table" does not exist' in done.stderr


def test_tasks_that_a_source_refuses_when_it_comes_late_are_errors_in_the_log_and_the_others_run(
    tmp_path: Path, late: Postgres
) -> None:
    text = f"""
[app]
data_dir = "{tmp_path}/data"
start_timeout = "0s"
[db.late]
url = "{late.url("postgres")}"
"""
    tasks = {"tasks.sql": "-- name: good\nSELECT 1 AS one;\n\n-- name: bad\nSELECT * FROM no_table;\n"}
    with jobber(tmp_path, text, tasks) as running:
        assert "the database late cannot be reached" in running.text()
        late.start()
        try:
            wait_until(lambda: "the database late is there now, and refuses tasks" in running.text(), timeout=30)

            refusal = running.text().partition("refuses tasks")[2]
            assert 'tasks.sql:4: task bad on database late: relation "no_table" does not exist' in refusal
            assert running.client.wait(running.client.submit("good").job_id, timeout=30).state == "SUCCESS"
        finally:
            late.stop()


def starters(running: Running) -> list[psutil.Process]:
    return [process for process in running.family() if role_of(process) == "start"]


def test_what_waits_for_a_missing_database_is_begun_anew_if_it_dies(tmp_path: Path, late: Postgres) -> None:
    running = Running(tmp_path, config(tmp_path, late, "postgres", more='start_timeout = "0s"'), TASKS)
    try:
        running.wait_ready()
        (starter,) = starters(running)
        starter.kill()
        wait_until(lambda: "the start process was killed (SIGKILL); starting another" in running.text())
        wait_until(lambda: starters(running))

        late.start()

        wait_until(lambda: not starters(running), 60)
        job = running.client.wait(running.client.submit("count_to", [3]).job_id, timeout=30)
        assert (job.state, job.count) == ("SUCCESS", 3)
        assert running.stop() == 0
    finally:
        running.kill()
        late.stop()


def test_new_config_writes_the_sample_and_never_over_a_file(tmp_path: Path) -> None:
    done = run(tmp_path, "--new-config")

    assert done.returncode == 0
    written = (tmp_path / "config.toml").read_text()
    assert written == (Path(__file__).parents[2] / "config.sample.toml").read_text()
    (tmp_path / "config.toml").write_text("mine")
    again = run(tmp_path, "--new-config")
    assert (again.returncode, (tmp_path / "config.toml").read_text()) == (2, "mine")


def test_check_reports_every_part_and_fails_when_one_does(tmp_path: Path, postgres: Postgres, database: str) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS["tasks.sql"])
    (tmp_path / "config.toml").write_text(config(tmp_path, postgres, database))
    words = ("--config", "config.toml", "--sql-directory", "sql", "check")

    good = run(tmp_path, *words)

    assert good.returncode == 0, good.stdout
    assert "FAIL" not in good.stdout
    document = json.loads(run(tmp_path, *words, "--json").stdout)
    assert document["ok"] is True
    assert {"config", "task files", "state", "broker", "results main", "database pg", "tasks"} == {
        check["what"] for check in document["checks"]
    }
    text = config(tmp_path, postgres, database).replace(f":{postgres.port}/", f":{free_port()}/", 1)
    (tmp_path / "config.toml").write_text(text)
    bad = run(tmp_path, *words)
    assert bad.returncode == 1
    assert "FAIL state" in bad.stdout
