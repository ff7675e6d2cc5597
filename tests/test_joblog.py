"""What a worker logs about an attempt is kept for the history of its job, so much of it and no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from jobber import joblog
from jobber.joblog import MOST, JobLog
from jobber.sources.notices import Notices
from jobber.store import Store
from jobber.store.events import Level
from tests.factories import make_job
from tests.store.conftest import QUEUES, Bench

log = logging.getLogger("jobber.sources.any")


@pytest.fixture(autouse=True)
def logging_everything() -> Iterator[None]:
    joblog.install()
    logger = logging.getLogger("jobber")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(level)


def test_what_the_thread_of_an_attempt_logs_is_kept_and_nothing_else() -> None:
    kept = JobLog(make_job(run=7, attempt=2, worker="w1"))
    log.info("before")
    with kept.collecting():
        log.warning("%d rows are odd", 3)
        log.debug("x" * 5000)
        logging.getLogger("another.library").warning("not jobber's")
        other = threading.Thread(target=log.error, args=["of another thread"])
        other.start()
        other.join()
    log.info("after")

    lines = kept.take(last=True)

    assert [(line.run, line.attempt, line.worker, line.level) for line in lines] == [
        (7, 2, "w1", Level.WARNING),
        (7, 2, "w1", Level.DEBUG),
    ]
    assert (lines[0].message, len(lines[1].message)) == ("3 rows are odd", 2000)
    assert all(0 <= line.age < 60 for line in lines)
    assert kept.take(last=True) == []


def test_a_line_that_cannot_be_put_together_does_not_end_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    kept = JobLog(make_job())
    with kept.collecting():
        log.info("%d rows", "many")
        log.info("it goes on")
    assert [line.message for line in kept.take()] == ["it goes on"]


def test_of_very_many_lines_the_first_are_kept_and_the_rest_are_counted() -> None:
    kept = JobLog(make_job())
    with kept.collecting():
        for number in range(MOST + 5):
            log.info("line %d", number)
            if number == 50:
                assert len(kept.take()) == 51

    lines = kept.take(last=True)

    assert [line.message for line in lines[:2]] == ["line 51", "line 52"]
    assert len(lines) == MOST - 51 + 1
    assert lines[-1].message == "5 more lines are in the worker's log"


def test_a_source_that_says_something_for_each_of_many_rows_floods_no_log() -> None:
    kept, notices = JobLog(make_job()), Notices("src")
    with kept.collecting():
        for number in range(150):
            notices.say("WARNING" if number else "NOTICE", f"row {number}")

    lines = kept.take(last=True)

    assert len(lines) == 100
    assert (lines[0].message, lines[0].level) == ("database src: NOTICE: row 0", Level.INFO)
    assert (lines[1].message, lines[1].level) == ("database src: WARNING: row 1", Level.WARNING)


def test_lines_that_cannot_be_written_down_keep_nobody_from_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 1, lease=60))
    kept = JobLog(bench.started("a"))
    with kept.collecting():
        log.info("heard")
    lines = kept.take(last=True)
    away = Store("postgresql://postgres@127.0.0.1:1/x")

    joblog.keep(away, lines)
    joblog.keep(away, [])
    joblog.keep(cast("Store", object()), lines)  # a mistake in the program
    joblog.keep(store, lines)

    assert caplog.text.count("1 lines about jobs are only in the log") == 2
    assert [event.message for event in store.events.of(store.get("a"))][2:] == ["heard"]
    store.close()
    away.close()
