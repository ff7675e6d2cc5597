"""The token that stops an attempt: it interrupts what blocks, and never what comes after."""

from __future__ import annotations

import threading

import pytest

from jobber.cancellation import Cancellation
from jobber.errors import Cancelled, TimedOut


def test_the_first_reason_stands() -> None:
    token = Cancellation()
    first = Cancelled("first")

    assert token.pull(first)
    assert not token.pull(TimedOut("second"))

    with pytest.raises(Cancelled):
        token.check()


def test_pulling_interrupts_what_blocks_and_its_error_gives_way_to_the_reason() -> None:
    token = Cancellation()
    interrupted = threading.Event()
    threading.Timer(0.05, token.pull, [Cancelled("stop")]).start()

    def block() -> None:
        with token.interruptible(interrupted.set):
            assert interrupted.wait(5)
            raise OSError("the driver's own error")

    with pytest.raises(Cancelled) as caught:
        block()
    assert isinstance(caught.value.__cause__, OSError)


def test_pulling_late_interrupts_nothing() -> None:
    token = Cancellation()
    called: list[str] = []
    with token.interruptible(lambda: called.append("interrupt")):
        pass

    token.pull(Cancelled("late"))

    assert called == []


def test_pulling_early_keeps_the_body_from_running() -> None:
    token = Cancellation()
    token.pull(Cancelled("early"))
    ran: list[str] = []

    with pytest.raises(Cancelled), token.interruptible(lambda: None):
        ran.append("body")

    assert ran == []


def test_an_inner_block_gives_way_to_the_outer_one_again() -> None:
    token = Cancellation()
    called: list[str] = []

    with pytest.raises(Cancelled), token.interruptible(lambda: called.append("outer")):
        with token.interruptible(lambda: called.append("inner")):
            pass
        token.pull(Cancelled("now"))

    assert called == ["outer"]
