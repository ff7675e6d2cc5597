"""Jobs that end as a set, alone or along with a claim: all that the end of one alone does, and nobody is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from jobber.errors import Fenced
from jobber.jobs import JobState
from jobber.store import Apart, Gate, GateKind, Store, Success
from jobber.store.schema import jobs, running
from jobber.store.workers import Progress
from tests.store.conftest import COLUMNS, QUEUES, Bench, new_group
from tests.store.test_races import held_by_a_submission


@pytest.fixture
def on_server(server_url: str) -> Iterator[Bench]:
    store = Store(server_url)
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=60))
    store.close()


def test_jobs_that_end_together_end_as_each_would_alone(bench: Bench) -> None:
    bench.submit("alone", "together", ttl=60)
    bench.submit("for ever", ttl=0)
    alone, together, other = bench.claim(3).jobs
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 5, 50) for job in (alone, together)}, lease=60)
    bench.store.succeed(alone, rows=7, columns=COLUMNS)
    claim = bench.turn(together, other)
    assert claim.ended == {(together.run, 1), (other.run, 1)}

    first, second, third = (bench.store.get(name) for name in ("alone", "together", "for ever"))
    own = ("run", "job_id", "table", "started_at", "snapshot_at", "finished_at", "expires_at", "created_at")
    assert replace(second, **{name: getattr(first, name) for name in own}) == first
    assert (second.state, second.rows, second.columns) == (JobState.SUCCESS, 7, tuple(COLUMNS))
    assert (second.rows_so_far, second.bytes_so_far, second.snapshot_at) == (5, 50, together.started_at)
    assert second.finished_at is not None
    assert second.expires_at == second.finished_at + 60_000_000
    assert third.expires_at is None
    assert bench.store.live(["alone", "together", "for ever"]) == set()


def test_what_nobody_told_comes_from_the_end_and_what_it_says_goes_before_that(bench: Bench) -> None:
    (job,) = [bench.started("a")]
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 5, 50)}, lease=60)
    ended = bench.store.finish([Success(replace(job, version="v2", fingerprint=3), 9, COLUMNS, 17, 99)]).ended
    after = bench.store.get("a")
    assert ended == {(job.run, 1)}
    assert (after.rows_so_far, after.bytes_so_far, after.snapshot_at) == (9, 99, 17)
    assert (after.version, after.fingerprint) == ("v2", 3)


def test_one_that_was_overtaken_ends_no_other_and_gets_no_job(bench: Bench) -> None:
    bench.submit("a", "b", "c", "d")
    a, b = bench.claim(2).jobs
    bench.store.requeue(a)
    (again,) = bench.claim().jobs
    assert again.run == a.run

    claim = bench.turn(a, b, limit=2)

    assert claim.ended == {(b.run, 1)}
    assert [job.job_id for job in claim.jobs] == ["c"]
    with pytest.raises(Fenced):
        bench.store.succeed(a, rows=7, columns=COLUMNS)
    assert bench.store.get("a").state is JobState.STARTED


def test_ending_the_same_jobs_again_changes_nothing(bench: Bench) -> None:
    a = bench.started("a")
    assert bench.turn(a).ended == {(a.run, 1)}
    before = bench.store.get("a")
    assert bench.turn(a).ended == frozenset()
    bench.store.succeed(a, rows=7, columns=COLUMNS)
    assert bench.store.get("a") == before


def test_a_dead_worker_claims_nothing_and_ends_nothing_along_with_that(bench: Bench) -> None:
    a = bench.started("a")
    bench.store.unregister(bench.worker)
    with pytest.raises(Fenced):
        bench.turn(a)
    assert bench.store.get("a").state is JobState.STARTED
    assert bench.store.finish([Success(a, 7, COLUMNS)]).ended == {(a.run, 1)}


@pytest.mark.parametrize("what", ["child", "group", "webhook"])
def test_what_others_hear_of_ends_apart_from_a_claim_and_together(bench: Bench, what: str) -> None:
    if what == "group":
        bench.store.submit_group(new_group("g", "a", "b"))
    else:
        bench.submit("a", "b", callback_url="http://there/" if what == "webhook" else "")
    if what == "child":
        bench.submit("c", queue="p", depends_on=("a", "b"))
    a, b = bench.claim(2).jobs
    with pytest.raises(Apart):
        bench.turn(a, b)
    assert {bench.store.get(name).state for name in "ab"} == {JobState.STARTED}

    ended, wake, _ = bench.store.finish([Success(a, 7, COLUMNS), Success(b, 7, COLUMNS)])

    assert ended == {(a.run, 1), (b.run, 1)}
    if what == "webhook":
        assert [call.event for call in bench.store.calls.take(9, lease=9)] == ["success"] * 2
    else:
        assert wake == {"p"}
        assert bench.ids() == ["g-done" if what == "group" else "c"]
    if what == "group":
        assert bench.store.group("g").counts[JobState.SUCCESS] == 2


def test_a_job_whose_row_somebody_holds_is_left_out_and_ends_later(on_server: Bench) -> None:
    bench = on_server
    bench.submit("a", "b", "c")
    a, b = bench.claim(2).jobs
    database = bench.store._database

    def end_meanwhile(connection: Any) -> Any:
        connection.execute(update(jobs).where(jobs.c.run == a.run).values(cancel_requested=True))
        connection.execute(update(running).where(running.c.run == -1).values(rows=1))
        before = time.monotonic()
        claim = bench.turn(a, b, limit=2)
        assert time.monotonic() - before < 4, "it waited for the row until lock_timeout"
        return claim

    claim = database.write(end_meanwhile)
    assert claim.ended == {(b.run, 1)}
    assert [job.job_id for job in claim.jobs] == ["c"]
    bench.store.succeed(a, rows=7, columns=COLUMNS)
    assert bench.store.get("a").state is JobState.SUCCESS
    assert database.read(lambda connection: connection.execute(select(running.c.run)).scalars().all()) == [
        claim.jobs[0].run
    ]


def test_a_child_that_is_being_submitted_is_not_missed(on_server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its submission holds its parent's row: the parent does not end along with a claim, and then waits for it."""
    bench = on_server
    with held_by_a_submission(bench, monkeypatch, "child"):
        pass
    (held,) = bench.claim().jobs
    with pytest.raises(Apart):
        bench.turn(held)
    bench.store.succeed(held, rows=7, columns=COLUMNS)
    assert bench.ids() == ["waits"]


def test_a_claim_along_with_ends_waits_for_no_job(on_server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = on_server
    a = bench.started("a")
    with held_by_a_submission(bench, monkeypatch, "follower"):
        before = time.monotonic()
        with pytest.raises(Apart) as apart:
            bench.turn(a)
        assert time.monotonic() - before < 4, "it waited for the row until lock_timeout"
        # The other row was held only when it was to start: what ended has ended by then, and that is told.
        assert apart.value.ended == {(a.run, 1)}
        assert bench.store.finish([Success(a, 7, COLUMNS)]).ended == frozenset()
    assert bench.store.get("a").state is JobState.SUCCESS
    assert bench.ids() == ["held"]


def test_what_ends_makes_room_for_what_is_claimed_with_it(bench: Bench) -> None:
    bench.store.set_limits({Gate(GateKind.QUEUE, "q"): 1})
    bench.submit("a", "b")
    bench.submit("c", queue="q", task="elsewhere")
    (a,) = bench.claim(2).jobs
    claim = bench.turn(a, limit=2)
    assert [job.job_id for job in claim.jobs] == ["b"]
    assert claim.freed == {Gate(GateKind.QUEUE, "q")}
    assert bench.store.open_behind(claim.freed) == frozenset()
    empty = bench.turn(claim.jobs[0])
    assert empty.jobs == ()
    assert bench.store.open_behind(empty.freed) == {"q"}  # for a worker that has this task


def test_the_broker_is_told_of_ends_and_starts_in_order(bench: Bench) -> None:
    bench.submit("a", "b")
    told = Store(bench.store._database._pool.url.render_as_string(hide_password=False), events=True)
    with_events = Bench(told, bench.worker)
    (a,) = with_events.claim().jobs
    with_events.turn(a)
    events = [(each.event, each.job.job_id) for each in told.outbox.waiting() if each.job]
    assert events[-3:] == [("started", "a"), ("success", "a"), ("started", "b")]
    told.close()
