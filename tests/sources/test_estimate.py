"""How many rows a source's planner expects, asked without running the query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import BadArguments, QueryFailed, SourceUnavailable
from jobber.jobs import Args
from jobber.sources import open_source
from jobber.sources.base import Source
from jobber.sources.pool import FREE_WITHIN
from tests.sources.engines import Engine, MysqlEngine, PostgresEngine, opened
from tests.sources.reading import BOTH, query, read

#: Rows of the table ``t``: ``i`` counts from 1, every ``g`` from 0 to 9 is in a tenth of them.
ROWS = 20_000


@pytest.fixture(scope="module")
def filled(engine: Engine) -> Engine:
    if isinstance(engine, MysqlEngine):
        engine.watch("CREATE TABLE t (i INT PRIMARY KEY, g INT, note TEXT, KEY (g))")
        engine.watch(
            "INSERT INTO t SELECT a.n * 1000 + b.n + 1, b.n % 10, 'x' FROM numbers a, numbers b WHERE a.n < 20"
        )
        engine.watch("ANALYZE TABLE t")
    elif isinstance(engine, PostgresEngine):
        engine.server.execute(
            f"CREATE TABLE t AS SELECT i, i % 10 AS g, 'x'::text AS note FROM generate_series(1, {ROWS}) i; "
            "CREATE INDEX ON t (i); ANALYZE t",
            engine.database,
        )
    return engine


@pytest.fixture(scope="module")
def estimate(filled: Engine, source: Source) -> Callable[..., int | None]:
    return lambda sql, args=None: source.estimate(query(source, sql, args, "task=t job=j"), timeout=2)


def about(number: int | None, wanted: int) -> bool:
    return number is not None and wanted / 3 <= number <= wanted * 3


@pytest.mark.parametrize(
    ("where", "args", "rows"),
    [
        ("", None, ROWS),
        ("WHERE g = ?", [3], ROWS // 10),
        ("WHERE i <= ?", [100], 100),
        ("WHERE i <= ?", [10_000], 10_000),
        ("WHERE i <= :most AND i > :least -- the last", {"least": 5000, "most": 10_000}, 5_000),
        ("ORDER BY note LIMIT 7", None, 7),
        ("WHERE note = ? OR i > 0", ["it's \\ % :x"], ROWS),
    ],
)
def test_the_planner_expects_about_as_many_rows_as_come_with_these_arguments(
    estimate: Callable[..., int | None], source: Source, where: str, args: Args | None, rows: int
) -> None:
    sql = f"SELECT i, note FROM t {where}"
    if source.engine == "postgresql":
        sql = sql.replace("?", "$1")
    assert about(estimate(sql, args), rows)


def test_the_query_is_not_run(estimate: Callable[..., int | None], engine: Engine) -> None:
    # More than the patience of an estimate: one that runs is ended, and there is none.
    assert estimate(engine.sleeping) == 1
    assert estimate(f"SELECT {engine.sleep} AS s FROM t WHERE i = 5") == 1
    assert about(estimate(f"SELECT {engine.sleep} AS s FROM t ORDER BY i LIMIT 1"), 1)


def test_what_no_planner_can_tell_is_none_or_an_error_and_the_source_works_on(
    estimate: Callable[..., int | None], source: Source
) -> None:
    with pytest.raises(QueryFailed):
        estimate("SELECT nothing FROM t")
    with pytest.raises(BadArguments):
        estimate("SELECT 1", [1])
    if source.engine == "mysql":
        assert estimate("SHOW TABLES") is None
        # Its optimizer tells the rows that are grouped, not those that come of it.
        for condensing in ("SELECT g, COUNT(*) FROM t GROUP BY g", "SELECT max(i) AS m FROM t"):
            assert estimate(condensing) is None
    else:
        with pytest.raises(QueryFailed):
            estimate("SHOW ALL")
        assert about(estimate("SELECT g, count(*) FROM t GROUP BY g"), 10)
    assert read(source, "SELECT 5 AS n").rows == [(5,)]


def test_it_takes_no_connection_from_jobs_and_gives_up_soon_where_all_are_taken(filled: Engine) -> None:
    source = opened(filled, pool_size=1)
    with source.read(query(source, filled.sleeping), BOTH, timeout=1, cancellation=(token := Cancellation())) as _:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="all connections to the database reports are busy"):
            source.estimate(query(source, "SELECT i FROM t"), timeout=2)
        assert FREE_WITHIN <= time.monotonic() - began < 10
        token.pull(SourceUnavailable("enough"))
    source.close()


def test_it_does_not_change_what_the_next_query_reads(filled: Engine) -> None:
    source = opened(filled, pool_size=1)
    assert about(source.estimate(query(source, "SELECT i FROM t"), timeout=2), ROWS)
    if filled.name == "mysql":
        ((switches,),) = read(source, "SELECT @@optimizer_switch").rows
        assert "derived_merge=on" in str(switches)
    assert len(read(source, "SELECT i FROM t").rows) == ROWS
    source.close()


@pytest.fixture(params=["sqlite", "duckdb"])
def silent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    url = f"{request.param}:///{tmp_path_factory.mktemp('silent')}/source.db"
    if request.param == "duckdb":
        url = "duckdb:///:memory:"
    source = open_source(DatabaseSettings(name="reports", url=url, engine=request.param))
    yield source
    source.close()


def test_where_planners_do_not_say_there_is_no_estimate(silent: Source) -> None:
    assert silent.estimate(query(silent, "SELECT 1"), timeout=2) is None
