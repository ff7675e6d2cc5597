"""The command lines of the peers are taken as they are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobber.cli import cli
from jobber.cli.serve import Flags
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
