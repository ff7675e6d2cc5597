"""A first small result on PostgreSQL: registered and published in one transaction, fenced off like any other."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.sql import Composed

from jobber.cancellation import Cancellation
from jobber.columns import Row
from jobber.errors import Fenced, ResultsFailed, ResultsUnavailable
from jobber.results import postgresql_small as small
from jobber.results.base import Published
from jobber.results.postgresql_pool import Connection
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, PostgresLab, read, target, write
from tests.servers import wait_until

NOTHING: list[tuple[Any, ...]] = []


def entries(pg: PostgresLab) -> list[tuple[Any, ...]]:
    return pg.ledger("SELECT claim_run, claim_attempt, run, attempt, staging, leftovers FROM jobber_ledger")


def test_nothing_is_committed_before_the_one_transaction_that_publishes(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        assert entries(pg) == NOTHING
        assert pg.backend.abandoned(-60) == []
        writer.publish()
    assert entries(pg) == [(1, 1, 1, 1, None, [])]
    made = "SELECT xmin FROM pg_class WHERE oid = '\"results_a\"'::regclass"
    assert pg.ledger("SELECT xmin FROM jobber_ledger") == pg.query(made)


def test_leaving_without_publish_leaves_no_trace_in_the_ledger(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
    assert (entries(pg), pg.tables()) == (NOTHING, set())


def test_an_attempt_is_registered_before_anything_of_it_is_committed(pg: PostgresLab) -> None:
    slow = pg.another(segment_seconds=60)
    with slow.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(ONE)
        assert entries(pg) == NOTHING
        writer.write_batch(BULKY)
        assert entries(pg) == [(1, 1, None, None, writer.staging, [])]
        assert pg.tables() == set()
        writer.publish()
    assert read(pg.backend) == [*ONE, *BULKY]


@pytest.mark.parametrize("mark", [(1, 1), (1, 2), (2, 1)])
def test_a_mark_set_after_the_beginning_refuses_the_attempt_for_ever(pg: PostgresLab, mark: tuple[int, int]) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        assert pg.another().fence("results_a", *mark) is None
        for _ in range(2):
            with pytest.raises(Fenced):
                writer.publish()
    assert pg.tables() == set()
    assert entries(pg) == [(*mark, None, None, None, [])]


def test_a_mark_of_an_older_attempt_refuses_nobody(pg: PostgresLab) -> None:
    pg.backend.fence("results_a", 1, 1)
    write(pg.backend, target(attempt=2), TWO)
    assert entries(pg) == [(1, 2, 1, 2, None, [])]
    assert pg.backend.fence("results_a", 1, 2) == Published(2, COLUMNS)


def test_a_later_attempt_that_is_registered_first_keeps_the_older_from_publishing(pg: PostgresLab) -> None:
    with (
        pg.backend.begin(target(attempt=1), COLUMNS, Cancellation()) as older,
        pg.another().begin(target(attempt=2), COLUMNS, Cancellation()) as newer,
    ):
        older.write_batch(ONE)
        newer.write_batch(BULKY)
        with pytest.raises(Fenced):
            older.publish()
        newer.publish()
        with pytest.raises(Fenced):
            older.publish()
    assert read(pg.backend) == BULKY


def test_a_later_attempt_replaces_what_the_older_published_after_it_began(pg: PostgresLab) -> None:
    with pg.backend.begin(target(attempt=2), COLUMNS, Cancellation()) as newer:
        newer.write_batch(TWO)
        write(pg.another(), target(attempt=1), ONE)
        newer.publish()
    assert read(pg.backend) == TWO
    assert entries(pg) == [(1, 2, 1, 2, None, [])]
    assert pg.tables() == {"results_a"}


def test_what_an_older_attempt_left_is_dropped_though_it_was_registered_after_this_one_began(pg: PostgresLab) -> None:
    dead = pg.another(segment_seconds=0.05)
    dead.give_up = lambda *_, **__: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    with pg.backend.begin(target(attempt=2), COLUMNS, Cancellation()) as newer:
        newer.write_batch(TWO)
        with dead.begin(target(attempt=1), COLUMNS, Cancellation()) as older:
            older.write_batch(BULKY)
            wait_until(pg.tables)
        newer.publish()
    assert pg.tables() == {"results_a"}
    assert entries(pg) == [(1, 2, 1, 2, None, [])]


def test_two_jobs_of_one_table_name_that_begin_together_replace_nothing_of_each_other(pg: PostgresLab) -> None:
    with pg.backend.begin(target(run=2, job_id="b"), COLUMNS, Cancellation()) as other:
        other.write_batch(TWO)
        write(pg.another(), target(run=1, job_id="a"), ONE)
        with pytest.raises(ResultsFailed, match='holds the result of job "a"'):
            other.publish()
    assert read(pg.backend) == ONE


def test_a_foreign_table_that_appears_after_the_beginning_stays_and_nothing_is_listed(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        pg.make_stranger("results_a")
        with pytest.raises(ResultsFailed, match="not made by jobber"):
            writer.publish()
    assert pg.query('SELECT * FROM "results_a"') == [("mine",)]
    assert (entries(pg), pg.tables()) == (NOTHING, {"results_a"})


def test_a_worker_that_dies_before_its_commit_published_nothing_and_the_attempt_may_come_again(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)

        def die(connection: Connection) -> None:
            connection.close()
            connection.execute("COMMIT")

        writer._commit = die  # type: ignore[method-assign]
        with pytest.raises(ResultsUnavailable):
            writer.publish()
    wait_until(lambda: (entries(pg), pg.tables()) == (NOTHING, set()))
    write(pg.backend, target(), ONE)
    assert read(pg.backend) == ONE


@pytest.mark.parametrize("rolled_back", [False, True])
def test_whoever_fences_an_attempt_that_has_not_committed_yet_waits_for_it(pg: PostgresLab, rolled_back: bool) -> None:
    rescuer = pg.another()
    rescuer.prepare()
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer, ThreadPoolExecutor(1) as pool:
        writer.write_batch(TWO)
        commit = writer._commit
        fencing = []

        def commit_late(connection: Connection) -> None:
            fencing.append(pool.submit(rescuer.fence, "results_a", 1, 1))
            wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            if rolled_back:
                connection.close()
            commit(connection)

        writer._commit = commit_late  # type: ignore[method-assign]
        if rolled_back:
            with pytest.raises(ResultsUnavailable):
                writer.publish()
        else:
            writer.publish()
        assert fencing[0].result(20) == (None if rolled_back else Published(2, COLUMNS))
    assert pg.tables() == (set() if rolled_back else {"results_a"})


def test_a_worker_that_hangs_in_the_middle_of_its_rows_holds_up_nobody(
    pg: PostgresLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    run = small.run

    def hang(connection: Connection, script: Composed, pieces: Iterable[bytes]) -> small.Outcome:
        def hanging() -> Iterator[bytes]:
            reached.set()
            go_on.wait(20)
            yield from pieces

        return run(connection, script, hanging())

    monkeypatch.setattr(small, "run", hang)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(write, pg.another(), target(attempt=1), TWO)
        assert reached.wait(10)
        monkeypatch.setattr(small, "run", run)
        assert pg.backend.fence("results_a", 1, 1) is None
        write(pg.backend, target(attempt=2), ONE)
        go_on.set()
        assert isinstance(hanging.exception(20), Fenced)
    assert read(pg.backend) == ONE
    assert pg.tables() == {"results_a"}


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_one_connection_is_enough(pg: PostgresLab, rows: list[Row]) -> None:
    narrow = pg.another(pool_size=1)
    for run in (1, 2):
        with narrow.begin(target(run=run), COLUMNS, Cancellation()) as writer:
            writer.write_batch(rows)
            pg.backend.fence("results_a", run - 1, 1)
            writer.publish()
    assert read(pg.backend, 2) == rows


def test_a_connection_that_broke_before_the_script_leaves_the_attempt_to_try_again(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        publish = writer._publish_first

        def break_off(connection: Connection) -> bool:
            connection.close()
            raise psycopg.OperationalError("broken")

        writer._publish_first = break_off  # type: ignore[method-assign]
        with pytest.raises(ResultsUnavailable):
            writer.publish()
        writer._publish_first = publish  # type: ignore[method-assign]
        assert writer.publish() == 2
    assert read(pg.backend) == TWO
