"""Fixtures shared by all tests. One body runs over every backend; a missing server skips locally and fails in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.clickhouse_server import ClickHouse
from tests.servers import MariaDB, Postgres, RabbitMQ, Redis, Server, ServerMissing

S = TypeVar("S", bound=Server)


def _started(make: Callable[[], S], *, optional: bool = False) -> Iterator[S]:
    try:
        server = make()
    except ServerMissing as missing:
        if os.environ.get("CI") and not optional:
            pytest.fail(f"{missing} is not installed, and CI runs every test")
        pytest.skip(f"{missing} is not installed")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test session's own."""
    yield from _started(Postgres)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server of this test session's own."""
    yield from _started(Redis)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server of this test session's own."""
    yield from _started(MariaDB)


@pytest.fixture(scope="session")
def clickhouse() -> Iterator[ClickHouse]:
    """A ClickHouse server of this test session's own; not every distribution has one."""
    yield from _started(ClickHouse, optional=True)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ node of this test session's own."""
    yield from _started(RabbitMQ)


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    """URL of an empty MariaDB database that lives as long as the test."""
    name = mariadb.new_database()
    yield mariadb.url(name)
    mariadb.drop_database(name)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL of an empty PostgreSQL database that lives as long as the test."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def redis_url(redis_server: Redis) -> Iterator[str]:
    """URL of an empty Redis."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database for the state store, one per engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    url: str = request.getfixturevalue({"postgresql": "postgres_url", "mariadb": "mariadb_url"}[request.param])
    return url
