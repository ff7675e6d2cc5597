"""Task files of a test's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from jobber.config import BrokerSettings, DatabaseSettings, ResultsSettings, Settings, StateSettings
from jobber.config.settings import AppSettings
from jobber.errors import TaskFileError
from jobber.tasks import Task, TaskSet, load

POSTGRESQL = {"my_db": "postgresql", "other_db": "postgresql"}


def settings(databases: Mapping[str, str], results: tuple[str, ...] = ("my_results", "archive")) -> Settings:
    return Settings(
        app=AppSettings(),
        broker=BrokerSettings(url="filesystem://"),
        state=StateSettings(url="sqlite:////tmp/state.db"),
        databases={name: DatabaseSettings(name=name, url="", engine=engine) for name, engine in databases.items()},
        results={name: ResultsSettings(name=name, url="", engine="postgresql") for name in results},
    )


class Loading:
    """Writes files, then loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, databases: Mapping[str, str] = POSTGRESQL, **files: str) -> TaskSet:
        for name, text in files.items():
            (self.folder / f"{name}.sql").write_text(text)
        return load([self.folder], settings(databases))

    def problems(self, databases: Mapping[str, str] = POSTGRESQL, **files: str) -> list[str]:
        with pytest.raises(TaskFileError) as caught:
            self(databases, **files)
        found: list[str] = [
            problem.replace(f"{self.folder.resolve()}/", "") for problem in caught.value.details["problems"]
        ]
        for problem in caught.value.details["problems"]:
            assert problem in caught.value.message
        return found


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


def only(tasks: TaskSet) -> Task:
    [task] = tasks.values()
    return task
