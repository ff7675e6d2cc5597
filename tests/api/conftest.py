"""Fixtures of the HTTP tests: an application over the fake service, and a whole instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.api.clock import Clock
from tests.api.fake import FakeService
from tests.api.http import Http, application
from tests.api.site import Site
from tests.states import Pools


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def http(service: FakeService) -> Http:
    return Http(application(service))


@pytest.fixture
def site(state_url: str, pools: Pools, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    with pools.shared():
        site = Site(state_url, folder)
    yield site
    site.instance.close()


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    folder = tmp_path_factory.mktemp("schedules")
    site = Site(f"sqlite:///{folder}/state.db", folder)
    yield Clock(site)
    site.instance.close()


@pytest.fixture
def clock(clocks: Clock) -> Iterator[Clock]:
    yield clocks
    for name in ("schedules", "fires", "jobs", "finished_jobs"):
        clocks.store._database.write(lambda c, name=name: c.execute(text(f"DELETE FROM jobber_{name}")))  # type: ignore[misc]
