"""Fixtures of the HTTP tests: an application over the fake service, and a whole instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobber.api import create_app
from tests.api.fake import FakeService
from tests.api.http import Http
from tests.api.site import Site


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def http(service: FakeService) -> Http:
    return Http(create_app(service))  # type: ignore[arg-type]


@pytest.fixture
def site(state_url: str, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(state_url, folder)
    yield site
    site.instance.close()
