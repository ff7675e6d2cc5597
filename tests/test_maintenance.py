"""What happens though nobody asks: due jobs, wake-ups, old history."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


def start(state: State, woken: list[str], tmp_path: Path) -> tuple[Maintenance, threading.Thread]:
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
