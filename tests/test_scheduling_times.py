"""The times that a cron expression names: leap days, the far future, and clocks that are changed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.tasks.cron import check_cron, check_timezone, cron_times

BERLIN, NEW_YORK, LORD_HOWE, SANTIAGO = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"
#: The days of 2026 on which the clock changes there; Lord Howe's by half an hour, Santiago's at midnight.
CHANGES = {
    BERLIN: ("2026-03-29", "2026-10-25"),
    NEW_YORK: ("2026-03-08", "2026-11-01"),
    LORD_HOWE: ("2026-10-04", "2026-04-05"),
    SANTIAGO: ("2026-09-06", "2026-04-05"),
}
MINUTE = timedelta(minutes=1)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def following(cron: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next times after a local one, as the clocks of the zone show them, with the offset from UTC."""
    found = islice(cron_times(cron, zone, at(after, zone)), count)
    return [moment.astimezone(ZoneInfo(zone)).isoformat(" ", "minutes") for moment in found]


# -- set times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "cron", "before", "expected"),
    [
        # The hour that is skipped: right after it, and once.
        (BERLIN, "30 2 * * *", "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
        (BERLIN, "0,30 2,3 * * *", "2026-03-29 00:00", ["2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00"]),
        (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", ["2026-03-08 03:00-04:00", "2026-03-09 02:30-04:00"]),
        (LORD_HOWE, "15 2 * * *", "2026-10-03 12:00", ["2026-10-04 02:30+11:00", "2026-10-05 02:15+11:00"]),
        (SANTIAGO, "0 0 * * *", "2026-09-05 12:00", ["2026-09-06 01:00-03:00", "2026-09-07 00:00-03:00"]),
        # The hour that comes twice: the first one.
        (BERLIN, "30 2 * * *", "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
        (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", ["2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04 12:00", ["2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"]),
        # Around both, nothing is lost or doubled.
        (BERLIN, "0 7 * * *", "2026-03-28 12:00", ["2026-03-29 07:00+02:00", "2026-03-30 07:00+02:00"]),
        (BERLIN, "0 7 * * *", "2026-10-24 12:00", ["2026-10-25 07:00+01:00", "2026-10-26 07:00+01:00"]),
    ],
)
def test_a_set_time_comes_once_a_day_whatever_is_done_to_the_clock(
    zone: str, cron: str, before: str, expected: list[str]
) -> None:
    assert following(cron, zone, before, 2) == expected


def test_in_the_second_of_two_equal_hours_the_times_of_the_first_are_over() -> None:
    second = at("2026-10-25 02:10", BERLIN).replace(fold=1)

    assert next(cron_times("45 2 * * *", BERLIN, second)) == at("2026-10-26 02:45", BERLIN).astimezone(UTC)


# -- every so often ---------------------------------------------------------------------------------------------------


def shown(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the minutes between two at which the clocks of a zone show a time of the expression."""
    minutes = (start + MINUTE * n for n in range((end - start) // MINUTE + 1))
    local = ((minute, minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for minute in minutes)
    return [minute for minute, clock in local if next(CronSim(cron, clock - MINUTE)) == clock]


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("cron", ["*/15 * * * *", "*/10 2 * * *", "7 */2 * * *", "*/20 0 * * *", "* 1,3 * * *"])
def test_what_comes_every_so_often_comes_whenever_the_clock_shows_its_time(zone: str, cron: str) -> None:
    for day in CHANGES[zone]:
        start, end = at(day, zone) - timedelta(hours=3), at(day, zone) + timedelta(hours=9)
        found = cron_times(cron, zone, start.astimezone(UTC) - MINUTE)
        expected = shown(cron, zone, start.astimezone(UTC), end.astimezone(UTC))

        assert list(islice(found, len(expected))) == expected
        assert next(found) > end


# -- calendars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 29 2 *", ["2028-02-29 00:00+00:00", "2032-02-29 00:00+00:00"]),
        ("0 0 29 2 mon", ["2026-02-09 00:00+00:00", "2026-02-16 00:00+00:00"]),  # either is enough
        ("0 12 31 * *", ["2026-03-31 12:00+00:00", "2026-05-31 12:00+00:00"]),
        ("0 0 L * *", ["2026-02-28 00:00+00:00", "2026-03-31 00:00+00:00"]),
        ("0 9 * * fri#2", ["2026-02-13 09:00+00:00", "2026-03-13 09:00+00:00"]),
        ("0 9 * * 0", ["2026-02-08 09:00+00:00", "2026-02-15 09:00+00:00"]),
        ("0 9 * * 7", ["2026-02-08 09:00+00:00", "2026-02-15 09:00+00:00"]),
    ],
)
def test_days_are_those_of_the_calendar(cron: str, expected: list[str]) -> None:
    assert following(cron, "UTC", "2026-02-05 12:00", 2) == expected


def test_a_far_leap_day_is_found_and_one_that_never_comes_is_refused() -> None:
    # 2100 is no leap year, and the next Monday that is a 29 February comes late.
    assert following("0 0 29 2 *", "UTC", "2096-03-01 00:00", 1) == ["2104-02-29 00:00+00:00"]
    assert following("0 0 29 2 */7", "UTC", "2072-03-01 00:00", 1) == ["2088-02-29 00:00+00:00"]
    with pytest.raises(ValueError, match="no day is day 30 of month 2"):
        check_cron("0 0 30 2 *")


# -- anything ---------------------------------------------------------------------------------------------------------

_PARTS = [
    st.sampled_from(["*", "*/7", "0", "30", "59", "0,30", "10-20/5"]),
    st.sampled_from(["*", "*/5", "0", "2", "1-3", "23"]),
    st.sampled_from(["*", "1", "29", "L", "10-20"]),
    st.sampled_from(["*", "2", "mar,oct", "*/5"]),
    st.sampled_from(["*", "sun", "1-5", "fri#2"]),
]
CRONS = st.tuples(*_PARTS).map(" ".join)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@examples(deadline=None, max_examples=100)
@given(CRONS, st.sampled_from([*CHANGES, "UTC", "Asia/Kathmandu", "Pacific/Apia"]), MOMENTS, st.integers(0, 9))
def test_times_grow_and_are_the_same_wherever_the_counting_begins(
    cron: str, zone: str, after: datetime, skipped: int
) -> None:
    found = list(islice(cron_times(cron, zone, after), 12))

    assert all(sooner < later for sooner, later in pairwise([after, *found]))
    if len(found) == 12:
        # From any moment between two of them on, those that follow are the same.
        between = found[skipped] + (found[skipped + 1] - found[skipped]) / 2
        assert list(islice(cron_times(cron, zone, between), 11 - skipped)) == found[skipped + 1 :]
        assert next(cron_times(cron, zone, found[skipped])) == found[skipped + 1]


@examples(deadline=None, max_examples=200)
@given(st.lists(st.text("0123456789*/,-#Lafhmnortuwsp ", min_size=1, max_size=6), min_size=4, max_size=6).map(" ".join))
def test_any_text_is_a_cron_expression_that_fires_or_is_refused_with_a_reason(text: str) -> None:
    with suppress(ValueError):
        check_cron(text)
        assert next(cron_times(text, "UTC", datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berlyn", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("localtime", ""),
        ("../../etc/passwd", "names look like Europe/Berlin"),
        ("", "names look like Europe/Berlin"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone") as caught:
        check_timezone(name)
    assert hint in str(caught.value)
