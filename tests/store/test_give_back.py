"""A claim that was committed but whose answer was lost: its jobs are given back."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import psycopg
import pymysql
import pytest

from jobber.errors import Fenced, StateUnavailable
from jobber.jobs import JobState
from jobber.store import Gate, GateKind, Store
from tests.store.conftest import QUEUES, Bench, each_end, end


def lose_the_answer_to_the_next_commit(store: Store, patch: pytest.MonkeyPatch) -> None:
    """Have the next transaction committed and its caller told that the connection broke."""
    dialect = store._database._pool.dialect
    do_commit = dialect.do_commit
    broken: dict[str, Exception] = {
        "sqlite": sqlite3.OperationalError("the connection was lost"),
        "postgresql": psycopg.OperationalError("the connection was lost"),
        "mysql": pymysql.OperationalError(2013, "the connection was lost"),
    }

    engine = store._database.engine
    exchange = engine.exchange

    def commit_unheard(connection: Any) -> None:
        patch.setattr(engine, "exchange", exchange)
        patch.setattr(dialect, "do_commit", do_commit)
        do_commit(connection)
        raise broken[dialect.name]

    def exchange_unheard(driver: Any, statements: Any, *, commit: bool) -> Any:
        found = exchange(driver, statements, commit=commit)
        if commit and engine.row_locks:
            patch.setattr(engine, "exchange", exchange)
            patch.setattr(dialect, "do_commit", do_commit)
            raise broken[dialect.name]
        return found

    patch.setattr(dialect, "do_commit", commit_unheard)
    patch.setattr(engine, "exchange", exchange_unheard)


def test_a_job_whose_claim_was_committed_unheard_is_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    known = bench.started("known")
    (job,) = bench.submit("a")
    lose_the_answer_to_the_next_commit(bench.store, monkeypatch)
    with pytest.raises(StateUnavailable):
        bench.claim()
    assert bench.store.get("a").state is JobState.STARTED
    held = bench.store.heartbeat(bench.worker, {}, lease=60).held
    assert held == {(known.run, 1), (job.run, 1)}
    assert bench.store.give_back(bench.worker, held - {(known.run, 1)}) == {"q"}
    assert bench.store.heartbeat(bench.worker, {}, lease=60).held == {(known.run, 1)}
    assert bench.store.get("known") == known
    (again,) = bench.claim(5).jobs
    assert (again.run, again.attempt, again.failures, again.rescues) == (job.run, 2, 0, 0)


def test_what_is_given_back_keeps_its_place(bench: Bench) -> None:
    bench.submit("low", "a", "b")
    bench.store.cancel("low")
    bench.submit("high", priority=9)
    lost = bench.claim(3).jobs
    bench.submit("last")
    bench.submit("elsewhere", queue="p")
    assert bench.store.give_back(bench.worker, [(job.run, 1) for job in reversed(lost)]) == {"q"}
    assert bench.ids(9, queues=["q"]) == ["high", "a", "b", "last"]


def test_what_is_given_back_after_a_cancel_was_asked_for_is_cancelled(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.cancel("a")
    pulse = bench.store.heartbeat(bench.worker, {}, lease=60)
    assert pulse.held == pulse.cancelled == {(job.run, 1)}
    assert bench.store.give_back(bench.worker, pulse.held) == frozenset()
    assert bench.store.get("a").state is JobState.CANCELLED
    assert bench.ids() == []


def test_giving_back_frees_the_limits_that_the_job_counted_against(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.DATABASE, "db0"): 1})
    job = bench.started("a")
    bench.submit("b", queue="p")
    bench.store.cancel("a")
    assert bench.store.give_back(bench.worker, [(job.run, 1)]) == {"p"}


@each_end
def test_an_attempt_that_was_given_back_can_end_nothing(bench: Bench, how: str) -> None:
    job = bench.started("a")
    bench.store.give_back(bench.worker, [(job.run, 1)])
    given = bench.store.get("a")
    # To requeue it is the very same end.
    with contextlib.nullcontext() if how == "requeue" else pytest.raises(Fenced):
        end(bench, how, job)
    assert bench.store.get("a") == given
    assert given.state is JobState.PENDING


def test_nothing_is_given_back_that_the_worker_does_not_hold(bench: Bench) -> None:
    theirs = bench.started("theirs")
    over = bench.started("over")
    bench.store.succeed(over, rows=1, columns=[])
    newer = bench.started("newer")
    bench.store.requeue(newer)
    (second,) = bench.claim().jobs
    stranger = bench.store.register("w2", QUEUES, 1, lease=60)
    (waiting,) = bench.submit("waiting")
    before = [bench.store.get(job_id) for job_id in ("theirs", "over", "newer", "waiting")]
    assert bench.store.give_back(stranger, [(theirs.run, 1), (second.run, 2)]) == frozenset()
    gone = [(over.run, 1), (newer.run, 1), (waiting.run, 0), (waiting.run, 1), (2**60, 1)]
    assert bench.store.give_back(bench.worker, gone) == frozenset()
    assert bench.store.give_back(bench.worker, []) == frozenset()
    assert [bench.store.get(job.job_id) for job in before] == before
