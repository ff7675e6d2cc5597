"""Readers of results on PostgreSQL: publishing holds up nobody who reads, and replaces nothing that is in use."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from jobber.columns import Row
from jobber.errors import ResultsFailed, ResultsGone
from tests.results.conftest import (
    BULKY,
    ONE,
    TWO,
    PostgresLab,
    read,
    target,
    transaction,
    write,
)
from tests.servers import wait_until


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_a_reader_that_keeps_the_old_result_open_holds_up_no_other_reader(pg: PostgresLab, rows: list[Row]) -> None:
    write(pg.backend, target(run=1), ONE)
    waits = []
    with ThreadPoolExecutor(1) as pool:
        with transaction(pg, 'SELECT * FROM "results_a"'):
            publishing = pool.submit(write, pg.another(), target(run=2), rows)
            wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"), interval=0.001)
            with pg.connect() as reader:
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    started = time.perf_counter()
                    assert reader.execute('SELECT * FROM "results_a"').fetchall() == ONE
                    waits.append(time.perf_counter() - started)
            assert not publishing.done()
        assert publishing.result(20) == len(rows)
    # The lock timeout is 0.1 s, the rest is a loaded machine's; without one, readers wait for a whole second.
    assert max(waits) < 0.3
    assert read(pg.backend, 2) == rows
    assert pg.tables() == {"results_a"}


def test_publishing_fails_clearly_when_the_reader_stays_and_the_old_result_stays_too(pg: PostgresLab) -> None:
    write(pg.backend, target(run=1), ONE)
    impatient = pg.another(publish_timeout=0.3)
    with transaction(pg, 'SELECT * FROM "results_a"'):
        with pytest.raises(ResultsFailed, match=r"held open by a reader for more than 0\.3 s") as caught:
            write(impatient, target(run=2), TWO)
        with pytest.raises(ResultsFailed, match="held open by a reader"):
            impatient.drop("results_a", 1)
    assert caught.value.retryable
    assert read(pg.backend, 1) == ONE
    assert pg.tables() == {"results_a"}
    assert impatient.drop("results_a", 1)


def test_a_result_that_cannot_be_dropped_keeps_no_other_from_expiring(
    pg: PostgresLab, caplog: pytest.LogCaptureFixture
) -> None:
    for table in ("results_a", "results_b"):
        write(pg.backend, target(table, ttl=1), ONE)
        pg.overdue(table)
    pg.query('CREATE VIEW theirs AS SELECT * FROM "results_a"')
    assert pg.backend.expire() == ["results_b"]
    assert '"results_a" in results database "main" cannot be dropped: ' in caplog.text
    pg.query("DROP VIEW theirs")
    assert pg.backend.expire() == ["results_a"]


def test_expiry_leaves_a_result_that_is_being_read_for_later(pg: PostgresLab) -> None:
    for table in ("results_a", "results_b"):
        write(pg.backend, target(table, ttl=1), ONE)
        pg.overdue(table)
    with transaction(pg, 'SELECT * FROM "results_a"'):
        assert pg.backend.expire() == ["results_b"]
    assert pg.backend.expire() == ["results_a"]


def test_maintenance_on_the_old_result_delays_publishing_but_no_reader(pg: PostgresLab) -> None:
    """Autovacuum yields only to who waits for a second; a reader must not wait behind that."""
    write(pg.backend, target(run=1), ONE)
    with ThreadPoolExecutor(1) as pool:
        with transaction(pg, 'LOCK TABLE "results_a" IN SHARE UPDATE EXCLUSIVE MODE'):
            publishing = pool.submit(write, pg.another(), target(run=2), TWO)
            wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            with pg.connect(connect_timeout=5) as reader:
                reader.execute("SET lock_timeout = '10ms'")
                for _ in range(20):
                    assert reader.execute('SELECT * FROM "results_a"').fetchall() == ONE
                    time.sleep(0.01)
            assert not publishing.done()
        assert publishing.result(20) == 2


def test_readers_never_see_the_rows_of_another_run_while_reruns_are_published(pg: PostgresLab) -> None:
    stop = threading.Event()
    write(pg.backend, target(run=1), [(1, "x")])
    seen = []

    def reader() -> None:
        backend = pg.another()
        while not stop.is_set():
            [(run,)] = pg.query("SELECT run FROM jobber_ledger")
            with suppress(ResultsGone):  # replaced between the two looks
                seen.append(read(backend, run) == [(run, "x")] * run)

    thread = threading.Thread(target=reader)
    thread.start()
    for run in range(2, 30):
        write(pg.backend, target(run=run), [(run, "x")] * run)
    stop.set()
    thread.join()
    assert seen
    assert all(seen)


def test_a_view_on_the_old_result_makes_the_rerun_fail_and_stays(pg: PostgresLab) -> None:
    write(pg.backend, target(run=1), ONE)
    pg.query('CREATE VIEW mine AS SELECT * FROM "results_a"')
    with pytest.raises(ResultsFailed, match="view mine depends on") as caught:
        write(pg.backend, target(run=2), TWO)
    assert not caught.value.retryable
    assert pg.query("SELECT * FROM mine") == ONE
    assert read(pg.backend, 1) == ONE


@pytest.mark.parametrize("made", ["VIEW {} AS SELECT 1", "TYPE {} AS ENUM ('x')", "SEQUENCE {}"])
def test_nothing_else_of_that_name_is_replaced(pg: PostgresLab, made: str) -> None:
    pg.query("CREATE " + made.format('"results_a"'))
    with pytest.raises(ResultsFailed, match="not made by jobber"):
        write(pg.backend, target(), ONE)
    assert pg.tables() == set()
