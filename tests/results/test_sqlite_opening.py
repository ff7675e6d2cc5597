"""A results folder that several processes use for the first time at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobber.config import ResultsSettings
from jobber.results.sqlite import SqliteResults


@pytest.mark.parametrize("number", range(10))
def test_many_may_open_a_new_folder_at_once(tmp_path: Path, number: int) -> None:
    settings = ResultsSettings(name="out", url=f"sqlite:///{tmp_path}/results", engine="sqlite")
    backends = [SqliteResults(settings) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(SqliteResults.prepare, backends))
    for backend in backends:
        backend.close()
