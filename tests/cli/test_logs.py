"""Log lines: what is said again and again is said once a minute."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from jobber.cli.logs import Repetitions


class Log:
    """Loggers whose records go through the filter, at a time of one's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self._filter = Repetitions(lambda: self.now)

    def __call__(self, name: str, level: int, message: str, *args: object, error: Exception | None = None) -> None:
        caught = (type(error), error, None) if error else None
        record = logging.LogRecord(name, level, "", 0, message, args, caught)
        if self._filter.filter(record):
            self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_warning_that_repeats_is_written_once_a_minute_with_its_number(log: Log) -> None:
    for _ in range(130):
        log("jobber.worker", logging.WARNING, "no heartbeat: %s", "Connection refused")
        log.now += 1
    said = "no heartbeat: Connection refused"
    assert log.lines == [said, *[f"{said} (and 59 times more since the last time)"] * 2]


def test_what_celery_counts_is_one_message_and_ends_in_no_empty_line(log: Log) -> None:
    message = "consumer: Cannot connect to %s: %s.\n%s\n"
    for number in range(1, 4):
        log("celery.worker.consumer.consumer", logging.ERROR, message, "the broker", "refused", f"in 2 s ({number})")
    assert log.lines == ["consumer: Cannot connect to the broker: refused.\nin 2 s (1)"]


def test_nothing_else_is_held_back(log: Log) -> None:
    for _ in range(2):
        log("jobber.worker", logging.INFO, "job a attempt 1: timed_out")
        log("jobber.cli.serve", logging.ERROR, "reload refused")
    log("jobber.worker", logging.WARNING, "job %s: trying again", "a")
    log("jobber.worker", logging.WARNING, "job %s: trying again", "b")
    log("celery", logging.ERROR, "failed", error=ValueError("one"))
    log("celery", logging.ERROR, "failed", error=ValueError("two"))
    assert len(log.lines) == 8


def test_the_memory_for_what_was_said_is_bounded(log: Log) -> None:
    for number in range(5000):
        log("jobber.worker", logging.WARNING, "job %d", number)
    assert len(log._filter._written) <= 1000
    assert len(log.lines) == 5000


def test_a_process_says_when_the_broker_is_back_and_repeats_no_warning() -> None:
    script = """
import logging
from jobber.cli.logs import configure_logging
configure_logging("info")
logging.getLogger("celery.worker.consumer.connection").info("Connected to the broker")
logging.getLogger("celery.worker").info("mingle: searching for neighbors")
for _ in range(3):
    logging.getLogger("jobber.worker").warning("no heartbeat")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [line.split(maxsplit=1)[1] for line in done.stderr.splitlines()] == [
        "INFO    Connected to the broker",
        "WARNING no heartbeat",
    ]
