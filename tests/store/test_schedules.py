"""Schedules in the store: a fire time makes one job, in one transaction, whoever tries and whoever dies."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text

from jobber.errors import InvalidRequest, ScheduleExists, UnknownSchedule
from jobber.jobs import JobState, Micros, NewJob, Policy
from jobber.scheduling import planning
from jobber.scheduling.planning import SECOND
from jobber.store import Store
from jobber.store.schedule_records import Missed, Outcome, Overlap, Schedule, Source
from tests.forking import start
from tests.store import crowd
from tests.store.conftest import Bench, new_job


def add(store: Store, schedule_id: str = "s", *, due: Micros = 0, **fields: Any) -> Schedule:
    """Add a schedule that fires every second, first ``due`` microseconds from now; a moment that lies back is due."""
    now = store.now()
    at = (now + due) // SECOND * SECOND
    new = Schedule(schedule_id=schedule_id, task="t", interval=1, start_at=at, created_at=now, updated_at=now)
    return store.schedules.add(replace(new, **{"next_at": at} | fields))


def job_of(schedule: Schedule, at: Micros, **fields: Any) -> NewJob:
    return new_job(planning.job_id(schedule, at), schedule=schedule.schedule_id, **fields)


def fire(store: Store, seen: Schedule, **fields: Any) -> Any:
    """Deal with the next fire time of a schedule."""
    assert seen.next_at is not None
    return store.schedules.fire(seen, seen.next_at, job_of(seen, seen.next_at, **fields), then=seen.next_at + SECOND)


def outcomes(store: Store, schedule_id: str = "s") -> list[str]:
    """Return the outcomes of the fires of a schedule, oldest first."""
    found = store.schedules.fires(store.schedules.get(schedule_id), 1000)
    return [fire.outcome.value for fire in reversed(found)]


# -- keeping them -----------------------------------------------------------------------------------------------------


def test_a_schedule_is_kept_as_it_was_made(store: Store) -> None:
    made = add(
        store,
        request={"args": [Decimal("1.10"), "ü\0\ud800", None], "tags": {"a": "b"}},
        source=Source.TAG,
        timezone="Europe/Berlin",
        max_runs=7,
        end_at=2**52,
        overlap=Overlap.QUEUE,
        missed=Missed.ALL,
        jitter=9,
    )

    assert store.schedules.get("s") == made
    with pytest.raises(ScheduleExists):
        add(store)
    with pytest.raises(UnknownSchedule):
        store.schedules.get("S")


def test_schedules_are_listed_by_id_a_page_at_a_time(store: Store) -> None:
    for name in ("b", "a:1", "B", "a", "c"):
        add(store, name)

    first = [schedule.schedule_id for schedule in store.schedules.page(limit=3)]
    rest = [schedule.schedule_id for schedule in store.schedules.page(limit=3, after=first[-1])]

    assert first + rest == ["B", "a", "a:1", "b", "c"]


def test_only_schedules_of_the_tasks_that_are_loaded_are_due_and_paused_ones_are_not(store: Store) -> None:
    add(store, "late", due=-5 * SECOND)
    add(store, "now")
    add(store, "later", due=3600 * SECOND)
    add(store, "paused", paused="")
    add(store, "foreign", due=-9 * SECOND, task="u")
    add(store, "over", next_at=None)

    now, due = store.schedules.due(["t", "x"])

    assert [schedule.schedule_id for schedule in due] == ["late", "now"]
    assert abs(now - store.now()) < 60 * SECOND
    assert store.schedules.due([]) == (0, [])
    assert [store.due(tasks).schedules for tasks in (None, ["t"], ["x", "u"], ["x"], [])] == [0, 0, 0, None, None]


def test_the_time_until_the_next_fire_is_told(store: Store) -> None:
    assert store.due().schedules is None
    add(store, due=3600 * SECOND)
    add(store, "paused", paused="")

    assert 3500 < (store.due().schedules or 0) <= 3600


# -- firing -----------------------------------------------------------------------------------------------------------


def test_a_fire_makes_the_job_tells_of_it_and_moves_the_schedule_on(bench: Bench) -> None:
    seen = add(bench.store)
    at = seen.next_at or 0

    after, job = fire(bench.store, seen)

    assert bench.ids() == [planning.job_id(seen, at)] == [job.job_id]
    assert bench.store.get(job.job_id).schedule == "s"
    assert bench.store.schedules.get("s") == after
    assert (after.next_at, after.runs, after.last_at, after.last_job_id) == (at + SECOND, 1, at, job.job_id)
    [fired] = bench.store.schedules.fires(after, 10)
    assert (fired.at, fired.outcome, fired.job_id, fired.reason) == (at, Outcome.FIRED, job.job_id, "")


@pytest.mark.parametrize("overlap", Overlap)
def test_a_fire_time_that_another_process_dealt_with_makes_nothing(bench: Bench, overlap: Overlap) -> None:
    seen = add(bench.store, overlap=overlap)
    fire(bench.store, seen)
    before = bench.store.schedules.get("s")

    assert fire(bench.store, seen) is None

    assert bench.store.schedules.get("s") == before
    assert (len(bench.ids(9)), outcomes(bench.store)) == (1, ["fired"])


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.schedules.pause("s", "stop"),
        lambda store: store.schedules.remove("s"),
        lambda store: store.schedules.retime("s", cron="0 0 1 1 *", timezone="UTC", next_at=_next(store)),
        lambda store: store.schedules.retime("s", cron="", timezone="Asia/Tokyo", next_at=_next(store)),
        lambda store: (store.schedules.remove("s"), add(store, due=SECOND)),
    ],
    ids=["paused", "removed", "cron", "time zone", "made anew"],
)
def test_a_schedule_that_was_changed_a_moment_ago_does_not_fire_as_it_was(
    bench: Bench, change: Callable[[Store], Any]
) -> None:
    seen = add(bench.store)
    change(bench.store)

    assert fire(bench.store, seen) is None

    assert bench.ids(9) == []
    assert len(bench.store.schedules.page(limit=9)) == (0 if change.__code__.co_names[-1] == "remove" else 1)


def test_the_last_run_ends_a_schedule_and_only_jobs_count(bench: Bench) -> None:
    seen = add(bench.store, max_runs=2)
    seen, _ = fire(bench.store, seen)
    skipped, job = fire(bench.store, seen)
    assert (job, skipped.runs) == (None, 1)
    bench.store.cancel(seen.last_job_id)

    over, job = fire(bench.store, skipped)

    assert (over.next_at, over.runs) == (None, 2)
    assert outcomes(bench.store) == ["fired", "skipped", "fired"]


def test_an_invalid_job_is_recorded_with_its_reason_and_the_next_fire_time_comes(bench: Bench) -> None:
    seen = add(bench.store)

    with pytest.raises(InvalidRequest):
        fire(bench.store, seen, tenant="x" * 151)
    assert bench.store.schedules.get("s") == seen
    seen, job = bench.store.schedules.fire(  # type: ignore[misc]
        seen, seen.next_at or 0, None, then=(seen.next_at or 0) + SECOND, outcome=Outcome.FAILED, reason="args: no"
    )
    assert (job, seen.last_error, seen.runs) == (None, "args: no", 0)
    assert bench.store.schedules.get("s") == seen

    seen, _ = fire(bench.store, seen)
    assert (seen.last_error, outcomes(bench.store)) == ("", ["failed", "fired"])


def test_a_job_of_the_same_id_that_is_live_blocks_one_fire_and_no_later_one(bench: Bench) -> None:
    seen = add(bench.store)
    bench.submit(planning.job_id(seen, seen.next_at or 0))

    seen, job = fire(bench.store, seen)

    assert job is None
    assert "is the ID of a job that is not finished" in seen.last_error
    assert fire(bench.store, seen)[1] is not None
    assert outcomes(bench.store) == ["failed", "fired"]


def test_a_clock_that_is_set_back_fires_nothing_again(bench: Bench) -> None:
    seen = add(bench.store, due=-5 * SECOND, overlap=Overlap.ALLOW)
    after = fire(bench.store, seen)[0]
    bench.store.cancel(after.last_job_id)  # its ID is free again
    _execute(bench.store, f"UPDATE jobber_schedules SET next_at = {seen.next_at}, runs = 0")

    moved, job = fire(bench.store, replace(after, next_at=seen.next_at, runs=0))

    assert (job, moved.next_at, outcomes(bench.store)) == (None, after.next_at, ["fired"])
    assert bench.store.schedules.get("s").next_at == after.next_at


# -- overlap ----------------------------------------------------------------------------------------------------------


def test_overlap_skip_makes_no_job_while_one_is_not_finished(bench: Bench) -> None:
    seen, first = fire(bench.store, add(bench.store))
    bench.submit("s:mine")  # an ID that looks like one of its jobs
    (running,) = bench.claim().jobs

    seen, job = fire(bench.store, seen)

    assert job is None
    assert bench.store.schedules.fires(seen, 1)[0].reason == f"job {first.job_id} is not finished"
    bench.store.succeed(running, rows=0, columns=[])
    assert fire(bench.store, seen)[1] is not None


def test_overlap_queue_makes_jobs_that_run_one_after_the_other(bench: Bench) -> None:
    seen, first = fire(bench.store, add(bench.store, overlap=Overlap.QUEUE))
    seen, second = fire(bench.store, seen)
    seen, third = fire(bench.store, seen)

    assert (second.depends_on, third.depends_on) == ((first.job_id,), (second.job_id, first.job_id))
    assert third.depends_policy is Policy.FINISHED
    for job in (first, second, third):
        (running,) = bench.claim(9).jobs
        assert running.job_id == job.job_id
        bench.store.fail(running, error="no", code="query_failed")


def test_overlap_queue_lets_none_run_beside_another_though_the_one_between_is_cancelled(bench: Bench) -> None:
    seen, first = fire(bench.store, add(bench.store, overlap=Overlap.QUEUE))
    seen, second = fire(bench.store, seen)
    _, third = fire(bench.store, seen)
    (running,) = bench.claim(9).jobs

    bench.store.cancel(second.job_id)

    assert (running.job_id, bench.ids(9)) == (first.job_id, [])
    bench.store.succeed(running, rows=0, columns=[])
    assert bench.ids(9) == [third.job_id]


def test_overlap_allow_makes_jobs_that_run_beside_each_other(bench: Bench) -> None:
    seen, _ = fire(bench.store, add(bench.store, overlap=Overlap.ALLOW))
    fire(bench.store, seen)

    assert len(bench.claim(9).jobs) == 2


# -- run now ----------------------------------------------------------------------------------------------------------


def test_a_run_takes_no_moment_that_could_be_a_fire_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of one second and at the beginning of the next."""
    seen = add(bench.store, due=3600 * SECOND)
    whole = bench.store.now() // SECOND * SECOND
    for asked_at, expected in ((whole + 5_500, whole + 5_000), (whole + SECOND, whole + SECOND + 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(type(bench.store._database.engine), "clock", str(asked_at))
            made = bench.store.schedules.run("s", lambda at: new_job(planning.job_id(seen, at, asked=True)))
        assert made.job_id == planning.job_id(seen, expected, asked=True)


def test_a_run_in_a_moment_that_is_taken_gets_the_next_one(bench: Bench) -> None:
    seen, moments = add(bench.store, due=3600 * SECOND), list[Micros]()

    def make(at: Micros) -> NewJob:
        if not moments:
            bench.submit(planning.job_id(seen, at, asked=True))  # somebody is faster
        moments.append(at)
        return new_job(planning.job_id(seen, at, asked=True), schedule="s")

    made = bench.store.schedules.run("s", make)

    assert moments == [moments[0], moments[0] + 1000]
    assert made.job_id == planning.job_id(seen, moments[1], asked=True)


def test_a_run_that_is_asked_for_changes_no_fire_time_and_may_be_asked_for_at_once_again(bench: Bench) -> None:
    seen = add(bench.store, due=3600 * SECOND, max_runs=1, paused="for now")

    def make(at: Micros) -> NewJob:
        return new_job(planning.job_id(seen, at, asked=True), schedule="s")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: bench.store.schedules.run("s", make), range(8)))

    assert {job.job_id for job in made} == set(bench.ids(9))
    assert len({job.job_id for job in made}) == 8
    after = bench.store.schedules.get("s")
    assert (after.next_at, after.runs) == (seen.next_at, 0)
    assert after.last_job_id in {job.job_id for job in made}
    assert outcomes(bench.store) == ["run"] * 8
    with pytest.raises(UnknownSchedule):
        bench.store.schedules.run("x", lambda at: new_job(f"x:{at}"))
    assert bench.ids(9) == []


# -- many at once, and death ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missed", [Missed.ALL, Missed.ONCE])
def test_three_stores_that_fire_at_once_make_each_job_once(store: Store, state_url: str, missed: Missed) -> None:
    """Each with connections of its own, as three processes have."""
    names = [f"s{n}" for n in range(4)]
    for name in names:
        add(store, name, due=-8 * SECOND, missed=missed, overlap=Overlap.ALLOW, end_at=store.now())
    stores, together = [Store(state_url) for _ in range(3)], Barrier(3)

    def take_part(mine: Store) -> list[str]:
        made = []
        together.wait(10)
        while due := (look := mine.schedules.due(["t"]))[1]:
            for schedule in due:
                step = planning.plan(schedule, look[0])
                assert step is not None
                fired = mine.schedules.fire(schedule, step.at, job_of(schedule, step.at), then=step.then)
                made += [fired[1].job_id] if fired and fired[1] else []
        return made

    with ThreadPoolExecutor(3) as pool:
        made = [job_id for ids in pool.map(take_part, stores) for job_id in ids]
    for other in stores:
        other.close()

    each = 9 if missed is Missed.ALL else 1
    assert len(made) == len(set(made)) == each * len(names)
    assert sorted(made) == sorted(job.job_id for job in store.pending("q"))
    for name in names:
        assert store.schedules.get(name).runs == each
        assert outcomes(store, name) == ["fired"] * each


def test_a_process_that_dies_while_it_fires_loses_nothing_and_doubles_nothing(bench: Bench, state_url: str) -> None:
    seen = add(bench.store)
    for statement in range(1, 40, 3):
        dying = start(crowd.die_at, state_url, statement, "fire", None, bench.worker)
        dying.join(20)
        if dying.exitcode == 0:
            break
        assert dying.exitcode == -signal.SIGKILL
        assert bench.store.schedules.get("s") == seen
        assert (outcomes(bench.store), bench.store.pending("q")) == ([], [])

    assert statement > 3
    assert (outcomes(bench.store), bench.store.schedules.get("s").runs) == (["fired"], 1)
    (job,) = bench.claim(9).jobs
    assert (job.job_id, job.state) == (planning.job_id(seen, seen.next_at or 0), JobState.STARTED)
    assert fire(bench.store, seen) is None


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_fires_are_forgotten_with_the_history_a_piece_at_a_time(store: Store) -> None:
    seen = add(store, due=-9 * SECOND, overlap=Overlap.ALLOW)
    for _ in range(6):
        seen, _ = fire(store, seen)
    _execute(store, f"UPDATE jobber_fires SET created_at = created_at - 7200000000 WHERE fire_at < {seen.last_at}")
    kept = store.schedules.fires(seen, 9)

    def left() -> int:
        return store._database.read(lambda c: c.execute(text("SELECT count(*) FROM jobber_fires")).scalar_one())

    store.schedules.prune(3600, 2)
    assert 6 > left() > 1
    for _ in range(3):
        store.schedules.prune(3600, 2)
    assert left() == len(kept) == 1


def test_a_schedule_that_is_made_anew_has_no_past(store: Store) -> None:
    fire(store, add(store, due=-9 * SECOND))
    assert store.schedules.remove("s")
    assert not store.schedules.remove("s")
    add(store, "tagged", source=Source.TAG)
    assert not store.schedules.remove("tagged", source=Source.API)

    assert store.schedules.fires(add(store, due=9 * SECOND), 9) == []


def _next(store: Store) -> Micros | None:
    return store.schedules.get("s").next_at


def _execute(store: Store, statement: str) -> None:
    store._database.write(lambda connection: connection.execute(text(statement)))
