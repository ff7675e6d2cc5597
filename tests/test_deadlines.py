"""The calls at deadlines: one thread, made in time or not at all, nothing kept."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import pytest

from jobber.deadlines import Deadlines
from tests.servers import wait_until


def test_each_call_is_made_at_its_time_by_one_thread() -> None:
    deadlines, made = Deadlines(), []
    begun = threading.active_count()
    with deadlines.after(0.2, lambda: made.append("late")), deadlines.after(0.05, lambda: made.append("early")):
        assert threading.active_count() == begun + 1
        with deadlines.after(0.1, lambda: made.append("over")):
            pass
        wait_until(lambda: len(made) == 2)
    assert made == ["early", "late"]


def test_an_earlier_call_wakes_the_thread_that_waits_for_a_later_one() -> None:
    deadlines, made = Deadlines(), threading.Event()
    with deadlines.after(60, lambda: None):
        time.sleep(0.02)
        with deadlines.after(0.01, made.set):
            assert made.wait(5)


def test_a_call_that_fails_keeps_no_other_from_being_made(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, made = Deadlines(), threading.Event()
    with deadlines.after(0, lambda: 1 / 0), deadlines.after(0.01, made.set):
        assert made.wait(5)
    assert "division by zero" in caplog.text


def test_nothing_is_kept_of_what_ended() -> None:
    class Held:
        def call(self) -> None:
            pass

    deadlines, held = Deadlines(), Held()
    gone = weakref.ref(held)
    with deadlines.after(60, held.call):
        time.sleep(0.02)
    del held
    gc.collect()
    assert gone() is None


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    deadlines = Deadlines()
    with deadlines.after(60, lambda: None):
        child = os.fork()
        if not child:
            made = threading.Event()
            with deadlines.after(0.01, made.set):
                os._exit(0 if made.wait(5) else 1)
    assert os.waitpid(child, 0)[1] == 0
