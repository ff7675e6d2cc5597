"""Readers of results on MySQL and MariaDB: publishing holds up nobody for long, and replaces nothing that is in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from jobber.cancellation import Cancellation
from jobber.errors import ResultsFailed, ResultsGone
from tests.results.conftest import BULKY, COLUMNS, ONE, MysqlLab, read, reading, target, write


def test_a_staging_table_that_somebody_keeps_open_is_dropped_by_the_janitor(my: MysqlLab) -> None:
    dying = my.another()
    dying.give_up = lambda *_: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    context = dying.begin(target(attempt=1), COLUMNS, Cancellation())
    context.__enter__().write_batch(BULKY)
    [staging] = my.tables()
    with reading(my, staging):
        my.backend.fence("results_a", 1, 1)
        write(my.backend, target(attempt=2), ONE)
        assert my.tables() == {"results_a", staging}
    my.backend.expire()
    assert my.tables() == {"results_a"}
    assert my.ledger("SELECT leftovers FROM jobber_ledger") == [(None,)]
    context.__exit__(None, None, None)


def while_reruns_are_published(lab: MysqlLab, look: Callable[[], None]) -> None:
    """Call ``look`` again and again from a thread of its own while results of as many rows as their run come and go."""
    write(lab.backend, target(run=1), [(1, "x")])
    stop = threading.Event()

    def looking() -> None:
        while not stop.is_set():
            look()

    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(looking)
        for run in range(2, 25):
            write(lab.backend, target(run=run), [(run, "x")] * run)
        stop.set()
        looked.result(20)


def test_readers_never_see_the_rows_of_another_run_while_reruns_are_published(my: MysqlLab) -> None:
    seen: list[bool] = []
    backend = my.another()

    def look() -> None:
        [(run,)] = my.query("SELECT run FROM jobber_ledger")
        with suppress(ResultsGone):  # replaced between the two looks
            seen.append(read(backend, run) == [(run, "x")] * run)

    while_reruns_are_published(my, look)
    assert seen
    assert all(seen)


def test_applications_find_a_whole_result_at_any_time_while_reruns_are_published(my: MysqlLab) -> None:
    """RENAME TABLE swaps in one step: no moment without the table, and none with half of it."""
    counts: set[tuple[int, int]] = set()
    with my.connect() as connection, connection.cursor() as cursor:

        def look() -> None:
            cursor.execute('SELECT max(id), count(*) FROM "results_a"')
            counts.update(cursor.fetchall())

        while_reruns_are_published(my, look)
    assert len(counts) > 1
    assert all(run == rows for run, rows in counts)


@pytest.mark.parametrize("made", ["VIEW {} AS SELECT 1", "TABLE {} LIKE results_b"])
def test_nothing_else_of_that_name_is_replaced(my: MysqlLab, made: str) -> None:
    write(my.backend, target("results_b", run=7, job_id="b"), ONE)
    my.query("CREATE " + made.format('"results_a"'))
    with pytest.raises(ResultsFailed, match="not made by jobber"):
        write(my.backend, target(), ONE)
    assert my.tables() == {"results_a", "results_b"}
