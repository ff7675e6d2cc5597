"""The bell: answered by a free slot or not at all, within moments, and silent where nobody answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from jobber import bell, queueing
from jobber.bell import Bell, Doorman
from jobber.queueing import Queueing
from tests.servers import wait_until


@pytest.fixture
def ends() -> Iterator[bell.Ends]:
    here, there = bell.pair()
    yield here, there
    for end in (here, there):
        end.shutdown(socket.SHUT_RDWR)
        end.close()


class Slots:
    """A worker process with some slots; each keeps what rings until it is let go."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.taken = 0
        self.let_go = threading.Event()

    def work(self, taken: Callable[[], None]) -> bool:
        if self.taken >= self.free:
            return False
        self.taken += 1
        taken()
        self.let_go.wait(10)
        return True


class Broker(Queueing):
    """Queueing whose broker notes what it is sent."""

    def __init__(self) -> None:
        super().__init__(SimpleNamespace())
        self.sent: list[tuple[str, int]] = []

    def _send(self, wakes: Any, cancels: Any) -> float:
        self.sent += wakes.items()
        return 0.005


def rung(end: socket.socket, ended: Callable[[str], None] = lambda _job_id: None) -> Broker:
    broker = Broker()
    broker.use(Bell(end, served=lambda: ["mine"], ended=ended))
    return broker


def test_free_slots_take_wake_ups_and_the_broker_hears_of_the_others(ends: bell.Ends) -> None:
    slots = Slots(free=3)
    Doorman(ends[1], slots.work).start()
    broker = rung(ends[0])

    for _ in range(3):
        broker.wake("mine")
    wait_until(lambda: slots.taken == 3)
    time.sleep(0.1)
    assert broker.sent == []

    broker.wake("mine")
    wait_until(lambda: broker.sent == [("mine", 1)])
    slots.let_go.set()


def test_a_ring_that_nobody_answers_goes_to_the_broker_and_so_do_the_next_ones_at_once(ends: bell.Ends) -> None:
    broker = rung(ends[0])

    broker.wake("mine")
    wait_until(lambda: broker.sent == [("mine", 1)], 1)
    broker.wake("mine")
    wait_until(lambda: len(broker.sent) == 2, 0.1)

    assert broker._bell is not None
    assert broker._bell.overdue() == ([], None)


def test_after_a_while_it_is_rung_again(ends: bell.Ends) -> None:
    broker = rung(ends[0])
    broker.wake("mine")
    wait_until(lambda: bool(broker.sent))
    slots = Slots(free=2)
    Doorman(ends[1], slots.work).start()
    slots.let_go.set()
    time.sleep(0.3)
    before = len(broker.sent)

    broker.wake("mine")
    time.sleep(0.1)

    assert slots.taken == 2  # the first ring was heard, too, late
    assert len(broker.sent) == before


def test_queues_that_no_worker_here_serves_are_the_brokers(ends: bell.Ends) -> None:
    slots = Slots(free=1)
    Doorman(ends[1], slots.work).start()
    broker = rung(ends[0])

    broker.wake("others")

    wait_until(lambda: broker.sent == [("others", 1)])
    assert slots.taken == 0


def test_more_rings_than_fit_go_to_the_broker(ends: bell.Ends) -> None:
    broker = rung(ends[0])

    broker.wake("mine", 16)

    wait_until(lambda: sum(count for _, count in broker.sent) == 16)


def test_who_waits_is_told_of_the_end(ends: bell.Ends) -> None:
    heard: list[str] = []
    rung(ends[0], heard.append)

    Doorman(ends[1], Slots(free=1).work).tell("aufträge/7")

    wait_until(lambda: heard == ["aufträge/7"])


def test_telling_nobody_blocks_nobody(ends: bell.Ends) -> None:
    doorman = Doorman(ends[1], Slots(free=1).work)
    began = time.monotonic()

    for number in range(1000):
        doorman.tell(f"job{number}")

    assert time.monotonic() - began < 1


def test_an_error_of_work_leaves_the_bell_answered(ends: bell.Ends, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def work(taken: Callable[[], None]) -> bool:
        taken()
        calls.append(1)
        raise ValueError

    Doorman(ends[1], work).start()
    broker = rung(ends[0])
    for number in range(1, 6):
        broker.wake("mine")
        wait_until(partial(_has, calls, number))
    assert "work stumbled" in caplog.text


def _has(calls: list[int], number: int) -> bool:
    return len(calls) == number


def test_what_is_held_goes_when_a_slot_is_free_or_the_process_stops(ends: bell.Ends) -> None:
    doorman = Doorman(ends[1], Slots(free=0).work)
    held = [threading.Thread(target=doorman.hold) for _ in range(3)]
    for thread in held:
        thread.start()
    wait_until(lambda: len(doorman._changed._waiters) == 3)  # type: ignore[attr-defined]

    doorman.freed()
    wait_until(lambda: sum(thread.is_alive() for thread in held) == 2)
    doorman.close()

    for thread in held:
        thread.join(2)
        assert not thread.is_alive()


def test_a_round_that_finds_enough_waiting_is_followed_by_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has a free slot then: asking the broker as often as for idle ones would cost and help nobody."""
    asked = 0

    class Full(Queueing):
        def _send(self, wakes: Any, cancels: Any) -> float:
            nonlocal asked
            asked += 1
            return queueing._REST

    full = Full(SimpleNamespace())
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        full.wake("mine")
        time.sleep(0.001)
    full.close()

    assert 2 <= asked <= 15


def test_beyond_enough_nobody_waits_to_say_so_but_a_thread_that_could_not_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    broker = Broker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        broker.wake("mine", 16)
    assert broker.sent == []

    broker.wake("mine")  # nobody sends the sixteen that wait

    wait_until(lambda: broker.sent == [("mine", 16)])
    broker._wakes["mine"] = 16
    monkeypatch.setattr(broker, "_tell", lambda *_: pytest.fail("one more"))
    broker.wake("mine")
    broker.close()
