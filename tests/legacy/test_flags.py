"""The command lines of the peers are taken as they are."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobber.cli import cli
from jobber.cli.flags import Flags
from tests.legacy import HERE

CONFIG = HERE / "dungbeetle-2-postgresql" / "config.toml"


def given(*words: str) -> dict[str, Any]:
    return cli.make_context("jobber", list(words)).params


def flags(*words: str) -> Flags:
    found = given(*words)
    return Flags(**{field.name: found[field.name] for field in dataclasses.fields(Flags)})


def test_every_flag_of_theirs_is_taken(tmp_path: Path) -> None:
    found = given(
        *("--config=/etc/c.toml", "--server", "127.0.0.1:7070", "--sql-directory=/a", "--sql-directory", "/b"),
        *("--queue", "high", "--worker-name=w", "--worker-concurrency=30", "--worker-only"),
    )
    assert found["config"] == Path("/etc/c.toml")
    assert found["directories"] == (Path("/a"), Path("/b"))
    assert (found["server"], found["queues"], found["worker_name"]) == ("127.0.0.1:7070", ("high",), "w")
    assert (found["worker_concurrency"], found["worker_only"], found["new_config"]) == (30, True, False)
    assert given("--queue-name", "high")["queues"] == ("high",)


@pytest.mark.parametrize(("word", "on"), [("=true", True), ("=1", True), ("=false", False), ("=F", False), ("", True)])
def test_switches_may_say_true_or_false(word: str, on: bool) -> None:
    assert given(f"--worker-only{word}")["worker_only"] is on
    assert given(f"--new-config{word}")["new_config"] is on


def test_folders_may_stand_in_one_flag_with_commas_between(tmp_path: Path) -> None:
    assert given("--sql-directory", "/a,/b", "--sql-directory", "/c")["directories"] == tuple(
        map(Path, ["/a", "/b", "/c"])
    )
    (tmp_path / "x,y").mkdir()
    assert given("--sql-directory", f"{tmp_path}/x,y")["directories"] == (tmp_path / "x,y",)


def test_without_flags_config_toml_and_the_folder_sql_are_used_if_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (given()["config"], given()["directories"]) == (None, ())
    shutil.copy(CONFIG, tmp_path / "config.toml")
    (tmp_path / "sql").mkdir()
    assert (given()["config"], given()["directories"]) == (Path("config.toml"), (Path("sql"),))
    assert given("--config", "other.toml")["config"] == Path("other.toml")


def test_jobs_that_name_no_queue_go_to_the_one_that_is_served(tmp_path: Path) -> None:
    def default_queue(*words: str) -> str:
        return flags("--config", str(CONFIG), *words).settings().app.default_queue

    assert default_queue() == "default"
    assert default_queue("--queue", "high") == "high"
    assert default_queue("--queue", "high", "--queue", "low") == "default"
    own = tmp_path / "config.toml"
    own.write_text('app.default_queue = "other"\n[db.a]\nurl = "sqlite:////tmp/a.db"\n')
    assert flags("--config", str(own), "--queue", "high").settings().app.default_queue == "other"


def test_check_tells_warnings_from_what_is_right_and_from_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite3.connect("a.db").close()
    text = "app.default_job_ttl = '60s'\n[db.a]\nurl = 'sqlite:///a.db'\n[db.gone]\nurl = 'sqlite:///gone.db'\n"
    Path("config.toml").write_text(text)
    Path("sql").mkdir()
    Path("sql/a.sql").write_text("-- name: x\n-- db: a\nSELECT 1;\n")
    done = CliRunner().invoke(cli, ["check"])
    assert done.exit_code == 1
    marks = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    # gone: no task is prepared on it, and still it is asked.
    assert marks == ["ok", "ok", "warn", "ok", "ok", "ok", "ok", "FAIL", "ok"], done.stdout
    assert "FAIL database gone" in done.stdout


@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_data_folder_that_may_not_be_written_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)  # root may write anywhere
    Path("config.toml").write_text("[db.a]\nurl = 'sqlite:///a.db'\n")
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1
    assert f"app.data_dir: jobber may not write in {tmp_path}/jobber-data" in done.output


def test_a_sample_config_that_cannot_be_written_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = CliRunner().invoke(cli, ["--new-config"])
    assert (done.exit_code, done.stderr) == (1, "error: config.toml: cannot be written: No such file or directory\n")


def test_instances_of_another_account_are_not_told_to_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_data_dir: Path) -> None:
        raise PermissionError

    monkeypatch.setattr("jobber.cli.serve.reload_running", refuse)
    done = CliRunner().invoke(cli, ["--config", str(CONFIG), "reload"])
    assert done.exit_code == 1
    assert "belong to another account; reload as that one" in done.stderr
