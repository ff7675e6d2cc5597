"""What every engine promises to who reads a result while it is to be replaced or dropped, and to who replaces it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobber.columns import Row
from jobber.errors import ResultsFailed
from tests.results.conftest import BULKY, ONE, TWO, Lab, MysqlLab, PostgresLab, read, target, write

#: Seconds that a new reader is held up at most.
PROMISED = 0.2


def holds_up(lab: Lab, expected: Sequence[list[Row]], seconds: float = 0.7) -> float:
    """Return how much longer the longest of many new readers waits than one of a table that nobody replaces."""
    waits: dict[str, float] = {"results_a": 0.0, "results_b": 0.0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for table, longest in waits.items():
            started = time.perf_counter()
            assert lab.query(f'SELECT * FROM "{table}"') in expected
            waits[table] = max(longest, time.perf_counter() - started)
    return waits["results_a"] - waits["results_b"]


def publish(lab: Lab) -> object:
    return write(lab.another(), target(run=2), TWO)


def publish_much(lab: Lab) -> object:
    return write(lab.another(), target(run=2), BULKY)


def purge(lab: Lab) -> object:
    return lab.another().drop("results_a", 1)


def expire(lab: Lab) -> object:
    lab.overdue("results_a")
    backend = lab.another()
    while not (dropped := backend.expire()):
        pass
    return dropped


@pytest.mark.parametrize(
    ("lab", "work", "expected"),
    [
        ("postgresql", publish, 2),
        ("postgresql", publish_much, 4),
        ("postgresql", purge, True),
        ("postgresql", expire, ["results_a"]),
        ("mysql", publish, 2),
        ("mysql", purge, True),
        ("mysql", expire, ["results_a"]),
        ("sqlite", publish, 2),
    ],
    indirect=["lab"],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_reader_that_keeps_a_result_open_holds_up_no_other_for_more_than_a_moment(
    lab: Lab, work: Callable[[Lab], object], expected: object
) -> None:
    for table in ("results_a", "results_b"):
        write(lab.backend, target(table, ttl=3600), ONE)
    with ThreadPoolExecutor(1) as pool:
        with lab.reading("results_a"):
            working = pool.submit(work, lab)
            # On a loaded machine the two readers may differ by chance, but not again and again.
            for _ in range(3):
                if (held_up := holds_up(lab, [ONE, TWO] if lab.backend.engine == "sqlite" else [ONE])) < PROMISED:
                    break
            # A file is replaced under its readers; they keep what they have.
            assert working.done() is (lab.backend.engine == "sqlite")
        assert working.result(20) == expected
    assert held_up < PROMISED
    assert lab.tables() == ({"results_a", "results_b"} if expected in (2, 4) else {"results_b"})


@pytest.mark.parametrize("lab", ["postgresql", "mysql"], indirect=True)
def test_publishing_and_purging_fail_clearly_when_the_reader_stays_and_the_old_result_stays_too(lab: Lab) -> None:
    write(lab.backend, target(run=1), ONE)
    impatient = lab.another(publish_timeout=0.3)
    with lab.reading("results_a"):
        with pytest.raises(ResultsFailed, match=r"held open by a reader for more than 0\.3 s") as caught:
            write(impatient, target(run=2), TWO)
        with pytest.raises(ResultsFailed, match="held open by a reader"):
            impatient.drop("results_a", 1)
    assert caught.value.retryable
    assert read(lab.backend, 1) == ONE
    assert lab.tables() == {"results_a"}
    assert impatient.drop("results_a", 1)


@pytest.mark.parametrize("lab", ["postgresql", "mysql"], indirect=True)
def test_short_readers_without_a_gap_between_them_keep_nobody_from_publishing_or_purging(
    lab: PostgresLab | MysqlLab,
) -> None:
    write(lab.backend, target(run=1), ONE)
    stop = threading.Event()
    sleep = "pg_sleep(0.03)" if isinstance(lab, PostgresLab) else "sleep(0.03)"

    def reader() -> None:
        with lab.connect() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(f'SELECT *, {sleep} FROM "results_a"')
                assert len(cursor.fetchall()) == 1

    with ThreadPoolExecutor(8) as pool:
        reading = [pool.submit(reader) for _ in range(8)]
        try:
            time.sleep(0.2)
            hasty = lab.another(publish_timeout=10)
            for run in (2, 3):
                write(hasty, target(run=run), [(run, "x")])
        finally:
            stop.set()
        for one in reading:
            one.result(20)
    assert read(lab.backend, 3) == [(3, "x")]


@pytest.mark.parametrize("lab", ["postgresql", "mysql"], indirect=True)
def test_expiry_leaves_a_result_that_is_being_read_for_later(lab: Lab) -> None:
    for table in ("results_a", "results_b"):
        write(lab.backend, target(table, ttl=1), ONE)
        lab.overdue(table)
    with lab.reading("results_a"):
        assert lab.backend.expire() == ["results_b"]
    assert lab.backend.expire() == ["results_a"]
