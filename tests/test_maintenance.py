"""What happens though nobody asks: due jobs, wake-ups, old history."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobber.config import AppSettings
from jobber.errors import StateUnavailable
from jobber.maintenance import Maintenance
from jobber.store import Due
from tests.servers import wait_until


class State:
    """The part of the store that maintenance calls, with much to forget."""

    def __init__(self) -> None:
        self.released = 0
        self.delayed = 70
        self.old = 50
        self.broken: Exception | None = None
        self.resigned = False

    def lead(self, _role: str, _holder: str, *, lease: float) -> bool:
        self.resigned = lease == 0
        if self.broken:
            raise self.broken
        return True

    def due(self, _tasks: Collection[str]) -> Due:
        return Due(jobs=0 if self.delayed else None, schedules=None, starts=None)

    def release_due(self) -> frozenset[str]:
        self.released += 1
        self.delayed -= 1
        return frozenset({"due"})

    def runnable_queues(self) -> frozenset[str]:
        raise RuntimeError("a bug")

    def prune(self, _older_than: int) -> int:
        assert not self.delayed
        self.delayed = 1  # between two pieces of the pruning something comes up
        self.old -= 1
        return self.old


def start(state: State | Clock, woken: list[str], tmp_path: Path) -> tuple[Maintenance, threading.Thread]:
    settings: Any = SimpleNamespace(
        app=AppSettings(data_dir=tmp_path), broker=SimpleNamespace(networked=True, url="redis://")
    )
    maintenance = Maintenance(
        settings=settings,
        store=state,  # type: ignore[arg-type]
        queueing=SimpleNamespace(wake=woken.append),  # type: ignore[arg-type]
        holder="test",
    )
    thread = threading.Thread(target=maintenance.run, daemon=True)
    thread.start()
    return maintenance, thread


def test_due_jobs_wait_for_no_other_chore_and_no_chore_for_a_broken_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("jobber.maintenance._TICK", 0.01)
    state, woken = State(), list[str]()
    maintenance, thread = start(state, woken, tmp_path)

    wait_until(lambda: state.old <= 0)
    assert state.released >= 70 + 48
    maintenance.stop()
    thread.join(5)

    assert set(woken) == {"due"}
    assert state.resigned


def test_maintenance_goes_on_when_the_state_database_is_back(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("jobber.maintenance._TICK", 0.01)
    monkeypatch.setattr("jobber.maintenance._LEASE", 0.03)
    state = State()
    state.broken = StateUnavailable("away")
    maintenance, thread = start(state, [], tmp_path)
    state_was = state.released
    state.broken = None

    wait_until(lambda: state.released > state_was)
    maintenance.stop()
    thread.join(5)


class Clock:
    """The part of the store that a look asks."""

    def __init__(self, *due: Due) -> None:
        self.looks = 0
        self._due = list(due)

    def lead(self, _role: str, _holder: str, *, lease: float) -> bool:
        return False

    def due(self, _tasks: Collection[str]) -> Due:
        self.looks += 1
        return self._due.pop(0) if self._due else Due(None, None, None)

    def refill(self) -> frozenset[str]:
        return frozenset()


def test_what_is_due_is_looked_for_when_its_time_comes_and_else_seldom(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("jobber.maintenance._WORKING", 0.0)
    looks = [
        (Due(jobs=0.1, schedules=None, starts=None), 0.102),
        (Due(jobs=None, schedules=0.1, starts=None), 0.102),
        (Due(jobs=0.9, schedules=0.8, starts=0.1), 0.1),
        (Due(jobs=5, schedules=5, starts=0), 0.25),
        (Due(jobs=None, schedules=0, starts=None), 0.25),  # another process is at it
        (Due(jobs=None, schedules=None, starts=5), 0.25),  # others may be short of starts sooner
        (Due(jobs=5, schedules=None, starts=None), 1.0),
        (Due(jobs=None, schedules=None, starts=None), 1.0),
    ]
    pauses: list[float] = []

    def rest(self: Maintenance) -> bool:
        pauses.append(self._pause)
        return len(pauses) > len(looks)

    monkeypatch.setattr(Maintenance, "_rest", rest)
    _, thread = start(Clock(*(due for due, _ in looks)), [], tmp_path)
    thread.join(10)

    assert pauses[1:] == [pytest.approx(pause) for _, pause in looks]


def test_chores_are_done_when_they_are_due_though_nothing_else_is(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("jobber.maintenance._TICK", 0.01)
    monkeypatch.setattr("jobber.maintenance._CALM", 60.0)
    monkeypatch.setattr("jobber.maintenance._WORKING", 0.0)
    state = State()
    monkeypatch.setattr(State, "due", lambda *_: Due(None, None, None))
    monkeypatch.setattr(State, "prune", lambda *_: setattr(state, "old", state.old - 1) or state.old)
    maintenance, thread = start(state, [], tmp_path)
    wait_until(lambda: state.old == 0)  # fifty pieces
    maintenance.stop()
    thread.join(5)


def test_a_process_with_work_to_do_looks_more_often_for_a_while(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("jobber.maintenance._TICK", 0.05)
    monkeypatch.setattr("jobber.maintenance._CALM", 60.0)
    monkeypatch.setattr("jobber.maintenance._WORKING", 2.0)
    store = Clock()
    maintenance, thread = start(store, [], tmp_path)
    wait_until(lambda: maintenance._pause == 60)
    looks = store.looks

    maintenance.stir()

    wait_until(lambda: store.looks >= looks + 2, timeout=10)
    wait_until(lambda: maintenance._pause == 60)
    assert store.looks < looks + 100
    maintenance.stop()
    thread.join(5)
    assert not thread.is_alive()
