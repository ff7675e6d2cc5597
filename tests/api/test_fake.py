"""The fake service keeps the signatures of the real one."""

from __future__ import annotations

import inspect

import pytest

from jobber.service import Service
from tests.api.fake import FakeService

METHODS = [name for name, member in vars(Service).items() if inspect.isfunction(member) and not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_it_has_every_method_of_the_service_with_the_same_signature(name: str) -> None:
    assert inspect.signature(getattr(FakeService, name)) == inspect.signature(getattr(Service, name))
