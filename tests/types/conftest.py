"""Three sources and three results databases, one of each per test module."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from jobber.config import DatabaseSettings, ResultsSettings
from jobber.results import open_results
from jobber.results.sqlite import SqliteResults
from jobber.sources import open_source
from jobber.sources.base import Source
from tests.servers import MariaDB, Postgres
from tests.types.labs import Lab, MariaLab, PostgresLab, SqliteLab

ENGINES = ("postgresql", "mysql", "sqlite")


@pytest.fixture(scope="module")
def pg_database(postgres: Postgres) -> Iterator[str]:
    name = postgres.new_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def my_database(mariadb: MariaDB) -> Iterator[str]:
    name = mariadb.new_database()
    yield name
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def lite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source") / "source.db"


@pytest.fixture(scope="module")
def sources(
    postgres: Postgres, pg_database: str, mariadb: MariaDB, my_database: str, lite_file: Path
) -> Iterator[dict[str, Source]]:
    """The sources by engine."""
    with closing(sqlite3.connect(lite_file)) as lite:
        lite.execute("PRAGMA journal_mode = WAL")
    urls = {
        "postgresql": postgres.url(pg_database),
        "mysql": mariadb.url(my_database),
        "sqlite": f"sqlite:///{lite_file}",
    }
    with ExitStack() as stack:
        opened = {}
        for engine, url in urls.items():
            opened[engine] = open_source(DatabaseSettings(name="src", url=url, engine=engine))
            stack.callback(opened[engine].close)
        yield opened


@pytest.fixture(scope="module")
def labs(
    postgres: Postgres,
    pg_database: str,
    mariadb: MariaDB,
    my_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Lab]]:
    """The results databases by engine."""
    folder = tmp_path_factory.mktemp("results")
    urls = {
        "postgresql": postgres.url(pg_database),
        "mysql": mariadb.url(my_database),
        "sqlite": f"sqlite:///{folder}",
    }
    with ExitStack() as stack:
        backends = {}
        for engine, url in urls.items():
            backend = open_results(ResultsSettings(name="out", url=url, engine=engine))
            stack.callback(backend.close)
            backend.prepare()
            backends[engine] = backend
        lite = backends["sqlite"]
        assert isinstance(lite, SqliteResults)
        in_postgres = PostgresLab(postgres, pg_database, backends["postgresql"])
        in_mariadb = MariaLab(mariadb, my_database, backends["mysql"])
        stack.callback(in_postgres.close)
        stack.callback(in_mariadb.close)
        yield {"postgresql": in_postgres, "mysql": in_mariadb, "sqlite": SqliteLab(lite)}
