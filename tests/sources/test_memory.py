"""Rows flow: a source holds no more memory for half a million wide rows, 100 MB and more, than for ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.clickhouse_server import ClickHouse
from tests.servers import MariaDB, Postgres
from tests.sources.engines import MysqlEngine

pytestmark = pytest.mark.slow

#: Reads a query in a process of its own and prints the rows and the peak of resident memory.
PROGRAM = """
import json, sys
import psutil
from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.sources import open_source
from jobber.sources.base import Query, Shape
from jobber.sqltext import parse

engine, url, shape, *queries = sys.argv[1:]
source = open_source(DatabaseSettings(name="x", url=url, engine=engine))
process, told = psutil.Process(), []
for sql in queries:
    rows = peak = 0
    accepts = frozenset({Shape.DECODED, Shape[shape]})
    with source.read(Query(parse(sql, engine), []), accepts, timeout=0, cancellation=Cancellation()) as stream:
        assert stream.shape is Shape[shape]
        if shape == "ENCODED":
            for number, chunk in enumerate(stream.chunks()):
                rows += chunk.rows
                peak = max(peak, process.memory_info().rss) if number % 8 == 0 else peak
        else:
            for number, batch in enumerate(stream.batches()):
                rows += len(batch)
                peak = max(peak, process.memory_info().rss) if number % 8 == 0 else peak
    told.append((rows, max(peak, process.memory_info().rss)))
source.close()
print(json.dumps(told))
"""
ALLOWED = 60 * 1024 * 1024
FEW, MANY = 10_000, 500_000


def peaks(engine: str, url: str, shape: str, template: str) -> tuple[int, int]:
    queries = [template.format(n=n) for n in (FEW, MANY)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine, url, shape, *queries], capture_output=True, text=True, check=True
    )
    (few, at_first), (many, at_last) = json.loads(done.stdout)
    assert (few, many) == (FEW, MANY)
    return at_first, at_last


@pytest.mark.parametrize("shape", ["ENCODED", "DECODED"])
def test_postgresql(postgres: Postgres, shape: str) -> None:
    template = "SELECT generate_series(1, {n}) AS g, 1.5::numeric, now(), repeat('x', 200)"
    few, many = peaks("postgresql", postgres.url("postgres"), shape, template)
    assert many - few < ALLOWED


@pytest.mark.parametrize("shape", ["ENCODED", "DECODED"])
def test_mysql(mariadb: MariaDB, shape: str) -> None:
    engine = MysqlEngine(mariadb, mariadb.new_database())
    template = "SELECT a.n + 1000 * b.n AS g, 1.5, NOW(6), REPEAT('x', 200) FROM numbers a, numbers b, digits LIMIT {n}"
    few, many = peaks("mysql", engine.url(), shape, template)
    mariadb.drop_database(engine.database)
    assert many - few < ALLOWED


def test_sqlite(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {n})"
    template = numbers + " SELECT x, x * 0.5, printf('%0200d', x) FROM c"
    few, many = peaks("sqlite", f"sqlite:///{tmp_path}/a.db", "DECODED", template)
    assert many - few < ALLOWED


def test_duckdb(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "a.duckdb")).close()
    template = "SELECT i, i * 0.5 AS half, repeat('x', 200) || i AS name FROM range({n}) t(i)"
    few, many = peaks("duckdb", f"duckdb:///{tmp_path}/a.duckdb", "DECODED", template)
    assert many - few < ALLOWED


def test_clickhouse(clickhouse: ClickHouse) -> None:
    filler = "x" * 200
    template = f"SELECT number, now(), concat('{filler}', toString(number)), number / 2 FROM numbers({{n}})"
    few, many = peaks("clickhouse", clickhouse.url(), "DECODED", template)
    assert many - few < ALLOWED
