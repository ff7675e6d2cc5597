"""What the command says and does before it serves, and instead of serving."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.running import run
from tests.e2e.short_leases import TASKS, config
from tests.servers import Postgres, free_port


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


def test_with_strict_a_database_that_is_down_ends_the_start(tmp_path: Path, postgres: Postgres, database: str) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS["tasks.sql"])
    text = config(tmp_path, postgres, database, more='start_timeout = "0s"')
    (tmp_path / "config.toml").write_text(text.replace(f":{postgres.port}/", f":{free_port()}/", 1))

    address = f"127.0.0.1:{free_port()}"
    done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "--server", address, "--strict")

    assert done.returncode == 1
    assert "the state database cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


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
