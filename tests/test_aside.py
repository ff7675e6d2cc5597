"""Calls beside the one that waits: their outcome, their end, and what becomes of what comes too late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from jobber.aside import call_aside
from jobber.cancellation import Cancellation
from jobber.errors import Cancelled
from tests.servers import wait_until


@pytest.fixture
def gate() -> threading.Event:
    """Opens for what is not to answer before."""
    return threading.Event()


def behind(gate: threading.Event) -> Callable[[], str]:
    def call() -> str:
        gate.wait(30)
        return "late"

    return call


@pytest.mark.parametrize("outcome", ["something", None])
def test_what_comes_in_time_is_returned_and_kept(outcome: str | None) -> None:
    discarded: list[str | None] = []

    assert call_aside(lambda: outcome, 30, discard=discarded.append) == outcome
    assert discarded == []


def test_what_goes_wrong_there_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        call_aside(lambda: 1 / 0, 30)


def test_nobody_waits_for_longer_than_the_limit_and_what_comes_then_is_discarded(gate: threading.Event) -> None:
    discarded: list[str] = []

    with pytest.raises(TimeoutError, match=r"^no answer within 0\.05 s$"):
        call_aside(behind(gate), 0.05, discard=discarded.append)

    assert discarded == []
    gate.set()
    wait_until(lambda: discarded == ["late"])


def test_a_cancel_ends_the_wait_and_what_comes_then_is_discarded(gate: threading.Event) -> None:
    discarded: list[str] = []
    cancellation = Cancellation()
    threading.Timer(0.05, cancellation.pull, [Cancelled("stop")]).start()
    began = time.monotonic()

    with pytest.raises(Cancelled, match="stop"):
        call_aside(behind(gate), 30, cancellation=cancellation, discard=discarded.append)

    assert time.monotonic() - began < 10
    gate.set()
    wait_until(lambda: discarded == ["late"])


def test_what_came_with_the_cancel_is_discarded() -> None:
    """Both wake the one that waits; the cancel goes before, and the connection must not stay open."""
    discarded: list[str] = []
    cancellation = Cancellation()

    def call() -> str:
        cancellation.pull(Cancelled("stop"))
        return "just in time"

    with pytest.raises(Cancelled):
        call_aside(call, 30, cancellation=cancellation, discard=discarded.append)

    wait_until(lambda: discarded == ["just in time"])
