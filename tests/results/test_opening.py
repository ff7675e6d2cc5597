"""Opening a results database: which settings are refused, and that nothing is connected to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobber.config import ResultsSettings
from jobber.errors import ConfigError
from jobber.results import open_results
from tests.servers import free_port


@pytest.mark.parametrize(("driver", "engine"), [("postgresql+psycopg", "postgresql"), ("mysql+pymysql", "mysql")])
def test_opening_connects_to_nothing(driver: str, engine: str) -> None:
    url = f"{driver}://user:hunter2@127.0.0.1:{free_port()}/nowhere"
    open_results(ResultsSettings(name="main", url=url, engine=engine)).close()


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("mysql+pymysql://127.0.0.1/", {}, "must name a database"),
        (
            "mysql+pymysql://127.0.0.1/x",
            {"grant_select_to": ("reader",)},
            r"grant_select_to of \[results.main\] .* whole database",
        ),
        ("mysql+pymysql://127.0.0.1/x", {"unlogged": True}, "unlogged"),
    ],
)
def test_settings_that_mean_nothing_on_mysql_are_refused(url: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_results(ResultsSettings(name="main", url=url, engine="mysql", **settings))


@pytest.mark.parametrize("template", ["%s", "results", "%s_%s", "jobber_%s", "JOBBER_%s", "a/%s", ".%s", "a\\%s"])
@pytest.mark.parametrize("engine", ["postgresql", "mysql", "sqlite"])
def test_templates_that_could_meet_other_tables_are_refused(template: str, engine: str, tmp_path: Path) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}", "mysql": "mysql+pymysql://127.0.0.1/x"}
    url = urls.get(engine, "postgresql+psycopg://127.0.0.1/x")
    with pytest.raises(ConfigError, match=r"\[results.main\]"):
        open_results(ResultsSettings(name="main", url=url, engine=engine, results_table=template))


def test_an_engine_that_results_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        open_results(ResultsSettings(name="main", url="oracle://x", engine="oracle"))
