"""The reference pages, the sample and the code name the same keys and tags."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from jobber.config import load, settings
from jobber.config.schemas import SECTIONS, legacy_keys
from jobber.tasks import load as load_tasks
from jobber.tasks.params import TYPES
from jobber.tasks.tags import ALIASES, TAGS

ROOT = Path(__file__).parent.parent
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
TASK_FILES = (ROOT / "docs/task-files.md").read_text()
SAMPLE = ROOT / "config.sample.toml"

DATACLASSES = {
    "app": settings.AppSettings,
    "job_queue.broker": settings.BrokerSettings,
    "job_queue.state": settings.StateSettings,
    "results.NAME": settings.ResultsSettings,
    "db.NAME": settings.DatabaseSettings,
    "queue.NAME": settings.LimitSettings,
    "tenant.NAME": settings.LimitSettings,
    "webhooks": settings.WebhookSettings,
    "events": settings.EventSettings,
}


def section(page: str, heading: str) -> str:
    """The text between a heading and the next of its level."""
    _, found, rest = page.partition(f"\n## {heading}\n")
    assert found, f"there is no heading {heading}"
    return rest.partition("\n## ")[0]


def table(text: str) -> dict[str, list[str]]:
    """Rows of the tables of a text, below their heads: a row per name in backticks in the first cell."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                rows[name] = cells[1:]
    return rows


def defaults(kind: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_is_documented_and_every_documented_key_exists(name: str) -> None:
    keys = set(SECTIONS[name]().fields) - set(legacy_keys(SECTIONS[name]))
    assert set(table(section(CONFIGURATION, f"`[{name}]`"))) == keys


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_older_files_is_documented_with_what_becomes_of_it(name: str) -> None:
    documented = {}
    for line in section(CONFIGURATION, "Older files").splitlines():
        if line.startswith("| `"):
            sections, keys, fate = (cell.strip() for cell in line.strip("|").split("|"))
            if f"`[{name}]`" in sections:
                documented |= {key: fate.partition(":")[0].split()[0] for key in re.findall(r"`([^`]+)`", keys)}
    assert documented == dict(legacy_keys(SECTIONS[name]))


@pytest.mark.parametrize("name", SECTIONS)
def test_documented_defaults_are_those_of_the_code(name: str, tmp_path: Path) -> None:
    documented = {
        key: cells[0].strip("`")
        for key, cells in table(section(CONFIGURATION, f"`[{name}]`")).items()
        if cells[0].startswith("`")
    }
    code = defaults(DATACLASSES[name])
    assert set(code) - {"embedded"} <= set(documented)
    heading = name.replace("NAME", "x")
    text = f"[{heading}]\n" + "\n".join(f"{key} = {value}" for key, value in documented.items())
    if name in {"db.NAME", "results.NAME"}:
        text += '\nurl = "postgresql://h/x"'
    if name != "db.NAME":
        text += '\n[db.x]\nurl = "postgresql://h/x"'
    (tmp_path / "c.toml").write_text(text)
    loaded = load(tmp_path / "c.toml", {})
    built = {
        "app": loaded.app,
        "job_queue.broker": loaded.broker,
        "job_queue.state": loaded.state,
        "results.NAME": next(iter(loaded.results.values())),
        "db.NAME": next(iter(loaded.databases.values())),
        "queue.NAME": loaded.queues.get("x"),
        "tenant.NAME": loaded.tenants.get("x"),
        "webhooks": loaded.webhooks,
        "events": loaded.events,
    }[name]
    for key, value in code.items():
        if key not in {"embedded", "data_dir"}:
            assert getattr(built, key) == value, key


def test_the_sample_loads_as_it_stands() -> None:
    loaded = load(SAMPLE, {})
    assert list(loaded.databases) == ["my_db"]
    assert loaded.warnings == ()
    assert loaded.app == settings.AppSettings(data_dir=settings.DEFAULT_DATA_DIR.absolute())


def uncommented() -> str:
    """The sample with every commented key and heading switched on."""
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", SAMPLE.read_text(), flags=re.MULTILINE)


def test_the_sample_shows_every_key() -> None:
    tables = tomllib.loads(uncommented())
    shown = {
        "app": tables["app"],
        "job_queue.broker": tables["job_queue"]["broker"],
        "job_queue.state": tables["job_queue"]["state"],
        "results.NAME": tables["results"]["my_results"],
        "db.NAME": tables["db"]["my_db"],
        "queue.NAME": tables["queue"]["my_queue"],
        "tenant.NAME": tables["tenant"]["my_tenant"],
        "webhooks": tables["webhooks"],
        "events": tables["events"],
    }
    for name, schema in SECTIONS.items():
        # type, dsn and password are other ways to say what url says.
        keys = set(schema().fields) - set(legacy_keys(schema)) - {"type", "dsn", "password"}
        assert set(shown[name]) == keys, name


def test_the_sample_shows_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(uncommented())
    loaded = load(tmp_path / "c.toml", {})
    shown = [loaded.app, loaded.broker, loaded.state, loaded.results["my_results"], loaded.databases["my_db"]]
    shown += [loaded.queues["my_queue"], loaded.tenants["my_tenant"], loaded.webhooks, loaded.events]
    for built in shown:
        for key, value in defaults(type(built)).items():
            if key != "data_dir":
                assert getattr(built, key) == value, key
    assert loaded.app.data_dir == settings.DEFAULT_DATA_DIR.absolute()
    assert loaded.broker.url == "filesystem://"


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL))
def test_examples_of_configuration_load(example: str, tmp_path: Path) -> None:
    if "[db." not in example:
        example += '[db.x]\nurl = "postgresql://h/x"\n'
    (tmp_path / "c.toml").write_text(example)
    assert load(tmp_path / "c.toml", {}).warnings == ()


def test_every_tag_is_documented_and_every_documented_tag_exists() -> None:
    assert set(table(section(TASK_FILES, "Tags"))) == {*TAGS, *ALIASES}


def test_every_type_of_a_param_is_documented_and_every_documented_type_exists() -> None:
    assert set(table(section(TASK_FILES, "Params"))) == set(TYPES)


def test_the_first_example_of_a_task_file_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```sql\n(.*?)```", TASK_FILES, re.DOTALL)
    (tmp_path / "a.sql").write_text(examples[0])
    (tmp_path / "c.toml").write_text(
        "".join(f'[db.{name}]\nurl = "postgresql://h/{name}"\n' for name in ("shop", "shop_replica"))
    )
    task = load_tasks([tmp_path], load(tmp_path / "c.toml", {}))["get_profit_entries"]
    assert task.description == "Entries of one user, newest first."
    assert task.databases == ("shop", "shop_replica")
    assert len(task.params) == 2
