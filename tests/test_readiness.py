"""Dependencies are asked beside each other, each within a time limit, and never twice at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from jobber.errors import SourceUnavailable
from jobber.readiness import Dependency, Finding, Readiness, Report
from tests.servers import wait_until


class Asked:
    """A dependency that counts its questions; it answers at once, or hangs until it is let go."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.times = 0
        self.go_on = threading.Event()
        if not hangs:
            self.go_on.set()

    def __call__(self) -> None:
        self.times += 1
        self.go_on.wait()


def refuse() -> None:
    raise SourceUnavailable("the database pg cannot be reached: connection refused")


def break_down() -> None:
    raise KeyError("postgresql://someone:s3cr3t@host/db")


def readiness(*asked: Callable[[], None], patience: float = 30, fresh: float = 0) -> Readiness:
    dependencies = [Dependency("database", f"db{number}", ask) for number, ask in enumerate(asked)]
    return Readiness(dependencies, patience=patience, fresh=fresh)


def test_what_answers_is_fine_and_what_does_not_says_why() -> None:
    good, bad = readiness(Asked(), refuse).look()

    assert (good.ok, good.error) == (True, "")
    assert (bad.ok, bad.error) == (False, "the database pg cannot be reached: connection refused")


def test_an_error_of_the_program_itself_is_named_without_its_words() -> None:
    (found,) = readiness(break_down).look()

    assert found.error == "the database db0: internal error (KeyError); the log has the details"


def test_what_hangs_is_not_waited_for_beyond_the_limit_and_asked_once_however_often_one_looks() -> None:
    stuck, fine = Asked(hangs=True), Asked()
    readiness_ = readiness(stuck, fine, patience=0.4)
    began = time.monotonic()
    threads = threading.active_count()

    for _ in range(10):
        hung, good = readiness_.look()

        assert hung.error == "the database db0 gives no answer within 0.4 s"
        assert good.ok
    assert time.monotonic() - began < 3  # only the first look had to wait
    assert (stuck.times, fine.times) == (1, 10)
    assert threading.active_count() <= threads + 1
    assert hung.ms >= 400

    stuck.go_on.set()
    wait_until(lambda: readiness_.look()[0].ok)
    assert readiness_.look()[0].ok
    assert stuck.times > 1  # from now on again


def test_dependencies_are_asked_beside_each_other() -> None:
    # Nobody passes the barrier before all three are asked.
    together = threading.Barrier(3)

    def ask() -> None:
        together.wait(10)

    assert all(found.ok for found in readiness(ask, ask, ask).look())


def test_callers_at_one_time_and_soon_after_share_one_answer() -> None:
    slow = Asked(hangs=True)
    readiness_ = readiness(slow, fresh=60)
    found: list[Finding] = []
    callers = [threading.Thread(target=lambda: found.extend(readiness_.look())) for _ in range(8)]
    for caller in callers:
        caller.start()
    wait_until(lambda: slow.times == 1)
    slow.go_on.set()
    for caller in callers:
        caller.join()
    readiness_.look()

    assert [one.ok for one in found] == [True] * 8
    assert slow.times == 1


@pytest.mark.parametrize(
    ("draining", "state", "others", "why"),
    [
        (False, "", "", ""),
        (False, "", "away", ""),
        (False, "the state database is away", "", "the state database is away"),
        (True, "", "", "this instance is stopping"),
    ],
)
def test_only_the_state_database_and_draining_make_an_instance_unready(
    draining: bool, state: str, others: str, why: str
) -> None:
    found = [Finding("state", "state", not state, required=True, error=state, ms=1)]
    found += [Finding(kind, "x", not others, required=False, error=others, ms=1) for kind in ("broker", "database")]
    report = Report(draining, tuple(found))

    assert (report.ready, report.why) == (not why, why)
