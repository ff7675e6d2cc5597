"""What is to be done about a schedule at a time: missed fire times, the ends of a schedule, jitter, names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.jobs import JOB_ID_MAX, JOB_ID_PATTERN, Micros
from jobber.scheduling import planning
from jobber.scheduling.planning import SECOND, first, plan, upcoming
from jobber.store.schedule_records import Missed, Schedule
from jobber.tasks.cron import SCHEDULE_ID_MAX
from tests.test_scheduling_times import CRONS

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND


def micros(text: str) -> Micros:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


NOON = micros("2026-02-28 12:00:00")


def make(now: Micros = NOON, **fields: Any) -> Schedule:
    """Return a schedule that was made at a time, hourly unless it says otherwise."""
    rhythm = {} if "interval" in fields else {"cron": "0 * * * *"}
    new = Schedule(**{"schedule_id": "s", "task": "t", "created_at": now} | rhythm | fields)
    return replace(new, next_at=first(new, now))


def fires(schedule: Schedule, looks: list[Micros]) -> list[tuple[Micros, bool]]:
    """Return what those who look at these times deal with, and whether it makes a job, as the store keeps count."""
    found = []
    for now in looks:
        while step := plan(schedule, now):
            runs = schedule.runs + step.fires
            over = step.fires and 0 < schedule.max_runs <= runs
            schedule = replace(schedule, next_at=None if over else step.then, runs=runs)
            found.append((step.at, step.fires))
    return found


# -- fire times that passed -------------------------------------------------------------------------------------------


def test_a_schedule_that_is_looked_at_in_time_fires_at_each_of_its_times() -> None:
    for missed in Missed:
        schedule = make(NOON + 1, missed=missed)

        assert fires(schedule, [NOON + HOUR - 1]) == []
        looks = [NOON + n * HOUR + 300_000 for n in range(1, 4)]
        assert fires(schedule, looks) == [(NOON + n * HOUR, True) for n in range(1, 4)]


@pytest.mark.parametrize("rhythm", [{"cron": "0 * * * *"}, {"interval": 3600, "start_at": NOON}])
@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        (Missed.ONCE, 10 * SECOND, [(5, True)]),
        (Missed.ONCE, 30 * MINUTE, [(5, True)]),
        (Missed.ALL, 30 * MINUTE, [(n, True) for n in range(1, 6)]),
        (Missed.SKIP, 30 * MINUTE, [(5, False)]),
        (Missed.SKIP, 60 * SECOND, [(5, True)]),  # late, but not missed
        (Missed.SKIP, 60 * SECOND + 1, [(5, False)]),
    ],
)
def test_of_five_times_that_passed_the_policy_says_which_make_a_job(
    rhythm: dict[str, Any], missed: Missed, late: Micros, expected: list[tuple[int, bool]]
) -> None:
    schedule = make(NOON + 1, missed=missed, **rhythm)
    now = NOON + 5 * HOUR + late

    assert fires(schedule, [now]) == [(NOON + n * HOUR, does) for n, does in expected]
    assert fires(schedule, [now, NOON + 6 * HOUR])[-1] == (NOON + 6 * HOUR, True)


def test_a_year_of_missed_minutes_is_one_job_and_found_in_no_time() -> None:
    schedule = make(cron="* * * * *", timezone="Europe/Berlin")

    assert fires(schedule, [NOON + 365 * DAY + 5]) == [(NOON + 365 * DAY, True)]


def test_a_rare_time_that_passed_long_ago_is_the_newest_one() -> None:
    schedule = make(cron="0 0 29 2 *")

    assert fires(schedule, [micros("2031-06-01 00:00:00")]) == [(micros("2028-02-29 00:00:00"), True)]


def test_what_was_moved_to_a_time_of_nobodys_fires_then() -> None:
    for rhythm in ({"cron": "0 0 1 1 *"}, {"interval": 86_400, "start_at": NOON + DAY}, {"interval": 86_400}):
        schedule = make(NOON + 1, **rhythm)
        moved = replace(schedule, next_at=NOON)

        assert fires(moved, [NOON + 2 * SECOND]) == [(NOON, True)]
        assert plan(moved, NOON) == planning.Step(NOON, True, schedule.next_at)


def test_a_clock_that_was_set_back_fires_nothing_again() -> None:
    schedule = make(NOON + 1)

    assert fires(schedule, [NOON + HOUR, NOON, NOON + HOUR, NOON + 2 * HOUR - 1]) == [(NOON + HOUR, True)]


# -- begin, end, pause ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"interval": 600}, [10, 20, 30, 40, 50]),
        ({"interval": 600, "start_at": NOON + 15 * MINUTE}, [15, 25, 35, 45, 55]),
        ({"interval": 600, "start_at": NOON - 25 * MINUTE}, [5, 15, 25, 35, 45]),  # what was before is not missed
        ({"interval": 600, "start_at": NOON}, [0, 10, 20, 30, 40]),
        ({"interval": 600, "end_at": NOON + 25 * MINUTE}, [10, 20]),
        ({"interval": 600, "max_runs": 3}, [10, 20, 30]),
        ({"interval": 600, "max_runs": 3, "runs": 2}, [10]),
        ({"interval": 600, "max_runs": 3, "runs": 3}, []),
        ({"cron": "*/20 * * * *"}, [0, 20, 40, 60, 80]),
        ({"cron": "*/20 * * * *", "start_at": NOON + 20 * MINUTE}, [20, 40, 60, 80, 100]),
        ({"cron": "*/20 * * * *", "start_at": NOON + 20 * MINUTE + 1}, [40, 60, 80, 100, 120]),
        ({"cron": "*/20 * * * *", "end_at": NOON + 20 * MINUTE}, [0, 20]),
        ({"cron": "0 8 * * *", "timezone": "America/New_York"}, [60, 1500, 2940, 4380, 5820]),
    ],
)
def test_the_next_five_times_lie_between_begin_and_end(fields: dict[str, Any], expected: list[int]) -> None:
    assert upcoming(make(**fields), NOON, 5) == [NOON + minutes * MINUTE for minutes in expected]


def test_an_interval_fires_at_whole_seconds_whenever_it_was_made() -> None:
    assert upcoming(make(NOON + 1, interval=1), NOON + 1, 2) == [NOON + 2 * SECOND, NOON + 3 * SECOND]


def test_a_schedule_that_ended_while_nobody_looked_makes_up_for_its_last_time() -> None:
    for rhythm in ({"cron": "0 * * * *"}, {"interval": 3600, "start_at": NOON}):
        schedule = make(NOON + 1, end_at=NOON + 2 * HOUR + 1, **rhythm)

        assert fires(schedule, [NOON + DAY, NOON + 2 * DAY]) == [(NOON + 2 * HOUR, True)]


def test_a_paused_schedule_fires_nothing_and_goes_on_at_its_next_time() -> None:
    paused = replace(make(NOON + 1), paused="")

    assert fires(paused, [NOON + DAY]) == []
    assert upcoming(paused, NOON + DAY + 1, 2) == [NOON + DAY + HOUR, NOON + DAY + 2 * HOUR]
    resumed = replace(paused, paused=None, next_at=first(paused, NOON + DAY + 1))
    assert fires(resumed, [NOON + DAY + 1, NOON + DAY + HOUR]) == [(NOON + DAY + HOUR, True)]


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_the_id_of_a_job_tells_the_fire_time_in_utc_and_fits() -> None:
    schedule = make(schedule_id="x" * SCHEDULE_ID_MAX, timezone="Asia/Kathmandu")

    plain, asked = (planning.job_id(schedule, NOON + 7000, asked=asked) for asked in (False, True))

    assert plain.removeprefix("x" * SCHEDULE_ID_MAX) == ":20260228T120000"
    assert asked.removeprefix("x" * SCHEDULE_ID_MAX) == ":20260228T120000-007"
    assert len(asked) == JOB_ID_MAX
    assert JOB_ID_PATTERN.fullmatch(asked)


def test_jitter_delays_a_job_by_what_everybody_works_out_alike() -> None:
    schedule = make(jitter=30)
    delays = [(planning.request(schedule, NOON + n * HOUR).eta or 0) - NOON - n * HOUR for n in range(200)]

    assert delays == [(planning.request(schedule, NOON + n * HOUR).eta or 0) - NOON - n * HOUR for n in range(200)]
    assert min(delays) >= 0
    assert max(delays) <= 30 * SECOND
    assert len(set(delays)) > 190
    assert planning.request(schedule, NOON, asked=True).eta is None
    assert planning.request(make(), NOON).eta is None


def test_what_was_asked_for_the_jobs_reaches_them() -> None:
    request = planning.request(make(request={"args": [1], "queue": "q", "tags": {"a": "b"}, "max_age": 5}), NOON)

    assert (request.task, request.schedule, request.args, request.queue) == ("t", "s", [1], "q")
    assert (request.tags, request.max_age, request.depends_on) == ({"a": "b"}, 5, ())


# -- anything ---------------------------------------------------------------------------------------------------------


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    rhythm = draw(
        st.one_of(
            st.fixed_dictionaries({"interval": st.integers(1, 100_000)}),
            st.fixed_dictionaries({"cron": CRONS, "timezone": st.sampled_from(["UTC", "Europe/Berlin"])}),
        )
    )
    bounds = st.none() | st.integers(-5 * DAY, 50 * DAY).map(lambda offset: NOON + offset)
    return make(
        NOON + draw(st.integers(0, 2 * SECOND)),
        missed=draw(st.sampled_from(Missed)),
        max_runs=draw(st.integers(0, 7)),
        start_at=draw(bounds),
        end_at=draw(bounds),
        **rhythm,
    )


@examples(deadline=None, max_examples=100)
@given(schedules(), st.lists(st.integers(1, 3 * DAY), max_size=8))
def test_whoever_looks_whenever_fire_times_grow_and_none_comes_too_early_or_twice(
    schedule: Schedule, waits: list[Micros]
) -> None:
    if schedule.interval and schedule.missed is Missed.ALL:
        schedule = replace(schedule, interval=schedule.interval + 3600)  # not thousands of them
    elif schedule.missed is Missed.ALL:
        waits = [wait % HOUR + 1 for wait in waits]
    now, last = NOON + 2 * SECOND, 0
    for wait in waits:
        now += wait
        for at, _ in fires(schedule, [now]):
            assert last < at <= now
            assert schedule.start_at is None or at >= schedule.start_at
            assert schedule.end_at is None or at <= schedule.end_at
            last = at
        while step := plan(schedule, now):
            schedule = replace(schedule, next_at=step.then, runs=schedule.runs + step.fires)
        assert schedule.next_at is None or schedule.next_at > now


@examples(deadline=None, max_examples=100)
@given(schedules())
def test_the_next_runs_that_are_told_are_those_that_fire(schedule: Schedule) -> None:
    told = upcoming(schedule, schedule.created_at, 5)

    assert all(sooner < later for sooner, later in pairwise(told))
    fired = fires(schedule, [at + SECOND - 1 for at in told]) if told else []
    assert [at for at, _ in fired][: len(told)] == told
    assert all(does for _, does in fired)
