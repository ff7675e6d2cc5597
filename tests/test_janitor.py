"""Results databases are tidied; one that hangs or fails keeps nobody else waiting."""

from __future__ import annotations

import threading
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from jobber.errors import ResultsUnavailable
from jobber.janitor import Janitor
from jobber.results.base import Claim
from tests.servers import wait_until


class Backend:
    """The part of a results backend that the janitor calls."""

    def __init__(self, *claims: Claim, broken: Exception | None = None) -> None:
        self.claims = list(claims)
        self.broken = broken
        self.fenced: list[tuple[str, int, int]] = []
        self.dropped: list[tuple[str, int]] = []
        self.rounds = 0

    def expire(self, limit: int = 100) -> list[str]:
        self.rounds += 1
        if self.broken:
            raise self.broken
        return []

    def abandoned(self, older_than: float) -> list[Claim]:
        return self.claims

    def fence(self, table: str, run: int, attempt: int) -> None:
        self.fenced.append((table, run, attempt))

    def drop(self, table: str, run: int) -> bool:
        if self.broken:
            raise self.broken
        self.dropped.append((table, run))
        return True


class State:
    """The part of the store that the janitor calls."""

    def __init__(self, *running: tuple[int, int]) -> None:
        self.now_running = set(running)
        self.ended: list[Any] = []

    def lead(self, role: str, holder: str, *, lease: float) -> bool:
        return True

    def running(self, attempts: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        return self.now_running & set(attempts)

    def now(self) -> int:
        return 1_000_000_000_000_000

    def doubtful(self, since: int, *, after: int) -> list[Any]:
        return [job for job in self.ended if (job.finished_at, job.run) > (since, after)]


def start(state: State, **backends: Backend) -> tuple[Janitor, threading.Thread]:
    janitor = Janitor(store=state, results=backends, holder="me")  # type: ignore[arg-type]
    thread = threading.Thread(target=janitor.run, daemon=True)
    thread.start()
    return janitor, thread


def test_what_dead_attempts_left_is_fenced_and_what_runs_is_let_alone() -> None:
    backend = Backend(Claim("dead", 1, 2), Claim("alive", 3, 1))
    janitor, thread = start(State((3, 1)), main=backend)

    wait_until(lambda: backend.fenced)
    janitor.stop()
    thread.join(5)

    assert backend.fenced == [("dead", 1, 2)]


def test_one_broken_results_database_keeps_no_other_from_being_tidied() -> None:
    broken, odd, fine = Backend(broken=ResultsUnavailable("away")), Backend(broken=RuntimeError("a bug")), Backend()
    janitor, thread = start(State(), a=broken, b=odd, c=fine)

    wait_until(lambda: fine.rounds)
    janitor.stop()
    thread.join(5)

    assert not thread.is_alive()


def test_what_a_run_published_that_ended_without_success_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker died before it could say so; a database that is away is asked again in the next round."""
    monkeypatch.setattr("jobber.janitor._ROUND", 0.05)
    state, backend, away = State(), Backend(), Backend(broken=ResultsUnavailable("away"))
    for results, run in (("main", 7), ("away", 8), ("unknown", 9)):
        state.ended.append(
            SimpleNamespace(
                results=results,
                table="results_x",
                run=run,
                attempt=2,
                finished_at=state.now() - 60_000_000 * run,
                job_id="x",
                state="CANCELLED",
            )
        )
    janitor, thread = start(state, main=backend, away=away)

    wait_until(lambda: away.fenced)
    away.broken = None
    wait_until(lambda: away.dropped)
    rounds = backend.rounds
    wait_until(lambda: backend.rounds > rounds + 2)
    seen = len(away.dropped), len(backend.dropped)
    wait_until(lambda: backend.rounds > rounds + 5)
    janitor.stop()
    thread.join(5)

    assert (away.dropped[0], backend.dropped[0]) == (("results_x", 8), ("results_x", 7))
    assert backend.fenced[0] == ("results_x", 7, 2)
    assert (len(away.dropped), len(backend.dropped)) == seen  # once all is done, it is done
