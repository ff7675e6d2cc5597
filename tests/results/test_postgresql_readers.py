"""Readers of results on PostgreSQL: publishing holds up nobody who reads, and replaces nothing that is in use."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from jobber.errors import ResultsFailed, ResultsGone
from tests.results.conftest import (
    ONE,
    TWO,
    PostgresLab,
    read,
    target,
    transaction,
    write,
)
from tests.servers import wait_until


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
