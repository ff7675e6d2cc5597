"""Cron expressions, as Debian's crontab(5) has them, and the times that they name in a time zone.

CronSim reads an expression and counts through local times. What a change of the clock does to them is decided here:
CronSim's own way skips hours where the clock moves by less than one (Australia/Lord_Howe).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from jobber.jobs import JOB_ID_MAX, NAME_MAX
from jobber.sqltext import Statement
from jobber.tasks.params import Param

_FIELDS = (
    ("a minute", "0 to 59"),
    ("an hour", "0 to 23"),
    ("a day of the month", "1 to 31"),
    ("a month", "1 to 12 or jan to dec"),
    ("a day of the week", "0 to 7 or sun to sat"),
)
#: Where CronSim begins to look whether an expression ever comes true; it gives up after fifty years.
_SOME_DAY = datetime(2000, 1, 1)
#: Characters of a schedule's ID: the ID of a job adds ``:yyyymmddThhmmss``, and ``-mmm`` where somebody asked for it.
SCHEDULE_ID_MAX = JOB_ID_MAX - len(":yyyymmddThhmmss-mmm")
_SCHEDULE_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{SCHEDULE_ID_MAX}}}")
_SECOND, _MINUTE, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


def check_cron(expression: str) -> None:
    """Refuse what is not ``MINUTE HOUR DAY MONTH WEEKDAY``, each ``*``, values, ranges, steps or a list of them.

    CronSim's ``L`` (last day, last Friday) and ``fri#2`` (second Friday) are taken, too.

    Raises:
        ValueError: names the field that is wrong.
    """
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        raise ValueError("must have five fields: minute, hour, day of the month, month, day of the week")
    if len(expression) > NAME_MAX:
        raise ValueError(f"is longer than {NAME_MAX} characters")
    for place, (part, (name, values)) in enumerate(zip(parts, _FIELDS, strict=True)):
        alone = ["*"] * len(parts)
        alone[place] = part
        try:
            CronSim(" ".join(alone), _SOME_DAY)
        except CronSimError:
            raise ValueError(f"{part!r} is not {name}; write *, {values}, 1-5, */10 or a list of these") from None
    try:
        never = next(CronSim(expression, _SOME_DAY), None) is None
    except CronSimError:  # each field is right, so no month has such a day
        never = True
    if never:
        raise ValueError(f"no day is day {parts[2]} of month {parts[3]} (weekday {parts[4]}), so it would never fire")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})


def check_timezone(name: str) -> None:
    """Refuse what is no IANA time zone.

    Raises:
        ValueError: with the nearest name.
    """
    if name not in _zones():
        folded = {zone.lower(): zone for zone in _zones()}
        near = difflib.get_close_matches(name.lower()[:NAME_MAX], folded, n=1)
        hint = f"did you mean {folded[near[0]]}?" if near else "names look like Europe/Berlin; the default is UTC"
        raise ValueError(f"there is no time zone {name[:NAME_MAX]!r}; {hint}")


def schedule_problems(
    name: str, tags: Mapping[str, Any], params: Sequence[Param], statement: Statement
) -> Iterator[str]:
    """Hold the tags of a task against what its schedule needs: a name for it, and args for its jobs."""
    if tags.get("cron") is None:
        if tags.get("timezone") is not None and "cron" not in tags:
            yield "timezone: is that of a cron tag, and there is none"
        return
    if not _SCHEDULE_ID.fullmatch(name):
        yield (
            f"cron: the schedule gets the name of the task, and that may hold 1 to {SCHEDULE_ID_MAX} characters "
            "A-Z a-z 0-9 _ - then"
        )
    optional = {param.name for param in params if not param.required}
    needed = [name for name in statement.names if name not in optional]
    if not statement.names and statement.count > len(optional):
        needed = [param.name for param in params if param.required] or [f"all {statement.count} placeholders"]
    if needed:
        yield (
            f"cron: its jobs come without args, so {', '.join(needed)} would have no value; give each a default "
            "(-- param: NAME TYPE = DEFAULT)"
        )


def cron_times(expression: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the times after ``after`` that an expression names, growing, in UTC.

    As with Debian's cron, a change of the clock neither loses nor doubles what happens at set times: what would fall
    into the hour that is skipped comes right after it, what falls into the hour that comes twice, comes in the first
    one only. Where minute or hour begin with ``*``, every hour that there is counts, and only those.

    Parameters:
        expression: one that ``check_cron`` has taken.
        timezone: likewise, by ``check_timezone``.
        after: with a time zone.
    """
    zone, after = ZoneInfo(timezone), after.astimezone(UTC)
    minute, hour, *_ = expression.split()
    if minute.startswith("*") or hour.startswith("*"):
        while (found := _next_real(expression, zone, after)) is not None:
            yield found
            after = found
        return
    for local in CronSim(expression, _local(after, zone)):
        exists = local
        while not _is_real(exists.replace(tzinfo=zone)):
            exists += _MINUTE
        moment = exists.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if moment > after:
            yield moment
            after = moment


def _next_real(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Return the next moment whose local time an expression names."""
    found = _first_after(expression, zone, after)
    # Within a day before the clock is set back, local times that have passed come again.
    turn = _turn_back(zone, after)
    if turn is not None and (found is None or found >= turn):
        again = _local(turn, zone)
        local = next(CronSim(expression, again - _SECOND), None)
        if local is not None and (found is None or turn + (local - again) < found):
            return turn + (local - again)
    return found


def _first_after(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    for local in CronSim(expression, _local(after, zone)):
        for fold in (0, 1):
            moment = local.replace(tzinfo=zone, fold=fold)
            if _is_real(moment) and moment.astimezone(UTC) > after:
                return moment.astimezone(UTC)
    return None


def _turn_back(zone: ZoneInfo, after: datetime) -> datetime | None:
    """Return the moment, at most a day after ``after``, at which the clock is set back; None if it is not."""
    low = after.replace(microsecond=0)
    high, before = low + _DAY, _offset(low, zone)
    if _offset(high, zone) >= before:
        return None
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        low, high = (low, middle) if _offset(middle, zone) < before else (middle, high)
    return high


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _is_real(moment: datetime) -> bool:
    """Whether the clocks of its zone show this time at all."""
    return moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)
