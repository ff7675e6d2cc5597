"""One attempt, from source to published table, without queue or server."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from jobber import execution
from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings, ResultsSettings
from jobber.errors import (
    BadArguments,
    Cancelled,
    QueryFailed,
    ResultsUnavailable,
    SourceUnavailable,
    TimedOut,
    TooManyRows,
)
from jobber.jobs import Job, JobState
from jobber.results import open_results
from jobber.results.base import ResultsBackend
from jobber.results.postgresql import PostgresResults
from jobber.results.sqlite import SqliteResults
from jobber.sources import open_source
from jobber.sources.base import GaveWay, RowStream, Source
from jobber.sqltext import parse
from jobber.tasks import Task
from tests.factories import make_job
from tests.servers import wait_until

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    database = sqlite3.connect(tmp_path / "source.db")
    database.execute("CREATE TABLE moods (i INTEGER, mood)")
    database.executemany(
        "INSERT INTO moods VALUES (?, ?)",
        [(i, i if i < 20_000 else 0.5 if i < 20_001 else "fine") for i in range(20_002)],
    )
    database.commit()
    database.close()
    source = open_source(DatabaseSettings(name="src", url=f"sqlite:///{tmp_path}/source.db", engine="sqlite"))
    yield source
    source.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ResultsBackend]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/results"
    backend = open_results(ResultsSettings(name="out", url=url, engine=request.param))
    backend.prepare()
    yield backend
    backend.close()


def task(sql: str, **tags: object) -> Task:
    return Task(
        name="task",
        description="",
        sql=sql,
        version="",
        file=Path("task.sql"),
        line=1,
        statements={"sqlite": parse(sql, "sqlite")},
        databases=("src",),
        results=("out",),
        **tags,  # type: ignore[arg-type]
    )


def job(backend: ResultsBackend, *args: object) -> Job:
    return make_job(
        table=backend.table_name("myjob"), args=list(args), state=JobState.STARTED, attempt=1, worker="w", started_at=0
    )


def run(
    attempt: Job,
    task: Task,
    source: Source,
    backend: ResultsBackend,
    *,
    timeout: float = 0,
    token: Cancellation | None = None,
    progress: execution.Progress | None = None,
) -> execution.Outcome:
    return execution.run(
        attempt,
        task,
        sources={"src": source},
        results={"out": backend},
        timeout=timeout,
        cancellation=token or Cancellation(),
        progress=progress or execution.Progress(),
    )


def test_rows_are_published_with_the_types_and_order_of_the_query(source: Source, backend: ResultsBackend) -> None:
    attempt = job(backend, 3)
    progress = execution.Progress()

    outcome = run(
        attempt, task("SELECT i, 'n' || i AS name FROM moods WHERE i < ?"), source, backend, progress=progress
    )

    assert outcome == execution.Outcome(3, (Column("i", Kind.INTEGER), Column("name", Kind.TEXT)))
    rows = backend.rows(attempt.table, 1, outcome.columns, offset=0, limit=10)
    assert rows == [(0, "n0"), (1, "n1"), (2, "n2")]
    assert (progress.phase, progress.rows) == ("publishing", 3)


def test_what_is_begun_anew_has_no_more_time_than_is_left(
    source: Source, backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    @contextmanager
    def read(*_: object, timeout: float, **__: object) -> Iterator[RowStream]:
        limits.append(timeout)
        time.sleep(0.2)
        if len(limits) == 1:
            raise GaveWay
        raise TimedOut(f"the query ran longer than its time limit ({timeout:g} s)")
        yield

    monkeypatch.setattr(source, "read", read)
    with pytest.raises(TimedOut, match=r"limit of 5 s"):
        run(job(backend), task("SELECT 1 AS one"), source, backend, timeout=5)
    assert limits[0] == 5
    assert 0 < limits[1] <= 4.8


def test_the_index_tag_makes_an_index_on_the_published_table(source: Source, backend: ResultsBackend) -> None:
    attempt = job(backend)
    run(attempt, task("SELECT i, mood FROM moods WHERE i < 10", index=("i", "mood")), source, backend)
    run(
        replace(attempt, run=2),
        task("SELECT i, i || hex(zeroblob(100)) AS x FROM moods", index=("x",)),
        source,
        backend,
    )

    assert indexes(backend, attempt.table) == 1

    with pytest.raises(QueryFailed, match='column "y", but the query gives i, mood'):
        run(replace(attempt, run=3), task("SELECT i, mood FROM moods", index=("y",)), source, backend)


def indexes(backend: ResultsBackend, table: str) -> int:
    """Return how many indexes a published table has, by the database's own catalogue."""
    if isinstance(backend, SqliteResults):
        with closing(sqlite3.connect(backend.file(table))) as connection:
            return len(connection.execute(f'PRAGMA index_list("{table}")').fetchall())
    assert isinstance(backend, PostgresResults)
    with backend.connections.connection() as connection:
        return len(connection.execute("SELECT 1 FROM pg_indexes WHERE tablename = %s", [table]).fetchall())


def test_a_value_that_breaks_the_inferred_type_widens_it_and_starts_over(
    source: Source, backend: ResultsBackend
) -> None:
    """20,000 integers, then a float, then text: nothing is lost, doubled or changed."""
    attempt = job(backend)

    outcome = run(attempt, task("SELECT i, mood FROM moods ORDER BY i"), source, backend)

    assert (outcome.rows, outcome.columns[1].kind) == (20_002, Kind.TEXT)
    assert backend.rows(attempt.table, 1, outcome.columns, offset=19_999, limit=9) == [
        (19_999, "19999"),
        (20_000, "0.5"),
        (20_001, "fine"),
    ]


def test_a_result_of_too_many_rows_fails_and_leaves_nothing(source: Source, backend: ResultsBackend) -> None:
    with pytest.raises(TooManyRows, match="more than 100 rows"):
        run(job(backend), task("SELECT i FROM moods", max_rows=100), source, backend)

    assert run(job(backend), task("SELECT i FROM moods WHERE i < 100", max_rows=100), source, backend).rows == 100


def test_an_endless_query_ends_at_its_time_limit(source: Source, backend: ResultsBackend) -> None:
    began = time.monotonic()

    with pytest.raises(TimedOut):
        run(job(backend), task(ENDLESS), source, backend, timeout=0.5)

    assert time.monotonic() - began < 3


def test_a_cancel_while_rows_are_written_leaves_the_older_result(source: Source, backend: ResultsBackend) -> None:
    attempt = job(backend)
    old = run(attempt, task("SELECT 42 AS answer"), source, backend)
    token, progress = Cancellation(), execution.Progress()

    def cancel_while_writing() -> None:
        while not progress.rows:
            time.sleep(0.001)
        token.pull(Cancelled("the job was cancelled"))

    thread = threading.Thread(target=cancel_while_writing)
    thread.start()
    with pytest.raises(Cancelled):
        run(replace(attempt, run=2), task(ENDLESS), source, backend, token=token, progress=progress)
    thread.join()

    assert backend.rows(attempt.table, 1, old.columns, offset=0, limit=10) == [(42,)]


def test_publishing_waits_without_the_source_and_hears_a_cancel(postgres_url: str) -> None:
    """A reader of the old result must not keep a transaction open on the users' database."""
    source = open_source(DatabaseSettings(name="src", url=postgres_url, engine="postgresql"))
    backend = open_results(ResultsSettings(name="out", url=postgres_url, engine="postgresql"))
    attempt = job(backend)
    query = task("SELECT 42 AS answer")
    query.statements["postgresql"] = parse(query.sql, "postgresql")  # type: ignore[index]
    old = run(attempt, query, source, backend)
    token, progress = Cancellation(), execution.Progress()
    dsn = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = %s)"
    transactions = (
        "SELECT application_name, state FROM pg_stat_activity WHERE xact_start IS NOT NULL AND datname = %s "
        "AND application_name NOT LIKE 'jobber results%%' AND pid NOT IN (%s, pg_backend_pid())"
    )
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(dsn) as reader,
        psycopg.connect(dsn, autocommit=True) as look,
    ):
        reader.execute(f'SELECT * FROM "{attempt.table}"')  # type: ignore[call-overload]
        running = pool.submit(run, replace(attempt, run=2), query, source, backend, token=token, progress=progress)
        wait_until(lambda: look.execute(waiting, [look.info.dbname]).fetchall(), interval=0.001)
        assert progress.phase == "publishing"
        assert look.execute(transactions, [look.info.dbname, reader.info.backend_pid]).fetchall() == []
        token.pull(Cancelled("the job was cancelled"))
        assert isinstance(running.exception(5), Cancelled)
    assert backend.rows(attempt.table, 1, old.columns, offset=0, limit=10) == [(42,)]
    backend.close()
    source.close()


def test_it_queries_until_the_first_row_comes_whatever_takes_the_rows(
    postgres_url: str, backend: ResultsBackend
) -> None:
    """PostgreSQL names the columns of a query, which is all that a table needs, before it runs it."""
    source = open_source(DatabaseSettings(name="src", url=postgres_url, engine="postgresql"))
    query = task("SELECT 1 AS one FROM pg_sleep(0.5)")
    query.statements["postgresql"] = parse(query.sql, "postgresql")  # type: ignore[index]
    progress, phases = execution.Progress(), []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, job(backend), query, source, backend, progress=progress)
        wait_until(lambda: progress.query_at is not None and time.monotonic() > progress.query_at + 0.3)
        phases.append(progress.phase)
        assert running.result(20).rows == 1
    assert [*phases, progress.phase] == ["querying", "publishing"]
    source.close()


def test_a_cancel_before_the_start_runs_nothing(source: Source, backend: ResultsBackend) -> None:
    token = Cancellation()
    token.pull(Cancelled("the job was cancelled"))

    with pytest.raises(Cancelled):
        run(job(backend), task(ENDLESS), source, backend, token=token)


def test_arguments_that_do_not_fit_fail_before_anything_is_written(source: Source, backend: ResultsBackend) -> None:
    with pytest.raises(BadArguments, match="1 placeholder, but 2 args came"):
        run(job(backend, 1, 2), task("SELECT i FROM moods WHERE i < ?"), source, backend)


def test_databases_that_this_worker_does_not_know_are_named(source: Source, backend: ResultsBackend) -> None:
    with pytest.raises(SourceUnavailable, match="'elsewhere'"):
        run(replace(job(backend), db="elsewhere"), task("SELECT 1"), source, backend)
    with pytest.raises(ResultsUnavailable, match="'elsewhere'"):
        run(replace(job(backend), results="elsewhere"), task("SELECT 1"), source, backend)
