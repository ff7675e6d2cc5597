"""Fixtures of the HTTP tests: an application over the fake service."""

from __future__ import annotations

import pytest

from jobber.api import create_app
from tests.api.fake import FakeService
from tests.api.http import Http


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def http(service: FakeService) -> Http:
    return Http(create_app(service))  # type: ignore[arg-type]
