"""Fixtures shared by all tests. One body runs over every backend; a missing server skips locally and fails in CI."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

import pytest

from tests.clickhouse_server import ClickHouse
from tests.servers import MariaDB, Postgres, RabbitMQ, Redis, Server, ServerMissing
from tests.states import Pools

S = TypeVar("S", bound=Server)

# Where the environment forbids to keep what Python compiled, each of the hundreds of processes that the tests start
# would compile jobber anew, and each test process the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

#: Folders of tests that start processes: few in a file, and each takes seconds.
SLOW = ("chaos", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in the order in which several test processes are done soonest.

    pytest-xdist hands them out one after the other. Those that take longest come first, so that no process is left
    alone with one of them in the end; and each is followed by one that has much to compute and little to wait for.
    """
    files: dict[Path, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.path].append(item)
    slow = [file for file in files if file.parent.name in SLOW]
    others = sorted(files.keys() - set(slow), key=lambda file: (-len(files[file]), file))
    order = (file for file in chain.from_iterable(zip_longest(slow, others)) if file is not None)
    items[:] = [item for file in order for item in files[file]]


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


@pytest.fixture(scope="session")
def pools() -> Iterator[Pools]:
    """Connections to the state databases below."""
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture(scope="session")
def state_on_sqlite(pools: Pools, tmp_path_factory: pytest.TempPathFactory) -> str:
    return pools.migrate(f"sqlite:///{tmp_path_factory.mktemp('state')}/state.db")


@pytest.fixture(scope="session")
def state_on_postgresql(pools: Pools, postgres: Postgres) -> str:
    return pools.migrate(postgres.url(postgres.new_database()))


@pytest.fixture(scope="session")
def state_on_mariadb(pools: Pools, mariadb: MariaDB) -> str:
    return pools.migrate(mariadb.url(mariadb.new_database()))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def state_url(request: pytest.FixtureRequest, pools: Pools) -> Iterator[str]:
    """URL of a state database with empty tables, one per engine."""
    url: str = request.getfixturevalue(f"state_on_{request.param}")
    yield url
    pools.empty(url)


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Redis | RabbitMQ]:
    """A broker that the test may stop."""
    server: Redis | RabbitMQ = request.getfixturevalue("redis_server" if request.param == "redis" else "rabbitmq")
    if isinstance(server, Redis):
        server.flush()
    yield server
    if server.process is None:
        server.start()
