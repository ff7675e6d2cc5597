"""Opening a results database: which settings are refused, and that nothing is connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobber.config import ResultsSettings
from jobber.errors import ConfigError
from jobber.results import open_results
from tests.servers import free_port


def test_opening_connects_to_nothing() -> None:
    url = f"postgresql+psycopg://user:hunter2@127.0.0.1:{free_port()}/nowhere"
    open_results(ResultsSettings(name="main", url=url, engine="postgresql")).close()


@pytest.mark.parametrize("template", ["%s", "results", "%s_%s", "jobber_%s", "JOBBER_%s", "a/%s", ".%s", "a\\%s"])
@pytest.mark.parametrize("engine", ["postgresql", "sqlite"])
def test_templates_that_could_meet_other_tables_are_refused(template: str, engine: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}" if engine == "sqlite" else "postgresql+psycopg://127.0.0.1/x"
    with pytest.raises(ConfigError, match=r"\[results.main\]"):
        open_results(ResultsSettings(name="main", url=url, engine=engine, results_table=template))


def test_an_engine_that_results_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        open_results(ResultsSettings(name="main", url="oracle://x", engine="oracle"))
