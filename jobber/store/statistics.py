"""What has become of the jobs of the last hours: counts, how long they waited and ran, failures, throughput.

The rows are read in the order of their runs, part by part, and only those that the last part did not hold by the index
of ``finished_at``: jobs that finish at one time were mostly submitted at one time, and InnoDB reads what lies side by
side 45 times as fast as what an index points to. Counts are made by the database and are those of all jobs. Durations
are sorted here; of tasks with very many jobs a sample is enough.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, and_, case, func, literal, or_, select

from jobber.errors import StateUnavailable
from jobber.jobs import JobState, Micros
from jobber.store.database import Database
from jobber.store.schema import finished_jobs, jobs
from jobber.store.times import NEWEST

#: What is asked for at most: the longest month.
MOST_HOURS = 24 * 31
#: Finished jobs that are counted at most; of more the newest.
MOST = 1_000_000
#: Jobs that one statement reads.
PART = 100_000
#: The least share of them that makes reading in the order of runs worth while.
DENSE = 0.05
#: Jobs whose durations are looked at, and jobs of a task all of which are, whatever the others have.
SAMPLE, SMALL = 100_000, 2_000
#: Seconds after which no further part is read.
PATIENCE = 20.0
#: An answer serves for so many seconds at least, and for so many times as long as it took to make, up to a limit: who
#: asks all the time costs the database a twentieth of a connection.
FRESH, SHARE, STALE = 3.0, 20, 300.0
#: Answers that are kept.
KEPT = 16
#: Seconds for which a caller without an answer waits while another one counts: each holds a thread of the server.
WAIT = 1.0
#: Widths of the intervals of a series, in seconds, and how many there are at most.
WIDTHS = (1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
POINTS = 100
PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Tally:
    """The finished jobs of one task, queue or database.

    Parameters:
        failures: how many failed, by error code.
        rows: of their results.
        queued, run: percentiles, in milliseconds, of how long those that began waited and ran; None of no job.
    """

    states: Counter[JobState] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    queued: Mapping[int, int | None] = field(default_factory=dict)
    run: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """What finished in an interval, which begins at ``at``."""

    at: Micros
    finished: int
    failed: int
    rows: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of a window.

    Parameters:
        since: where it begins: later than was asked for where so many jobs finished that counting took too long.
        complete: whether it is as long as was asked for.
        sample: the percentiles of tasks, queues and databases with very many jobs are those of every so many.
        states: live jobs as they are now, finished ones of the window.
        interval: seconds of each point of the series.
    """

    since: Micros
    until: Micros
    complete: bool
    sample: int
    states: Mapping[JobState, int]
    tasks: Mapping[str, Tally]
    queues: Mapping[str, Tally]
    databases: Mapping[str, Tally]
    interval: int
    series: tuple[Point, ...]


def percentiles(durations: Sequence[int]) -> dict[int, int | None]:
    """Return of each percentile the least duration that so many do not exceed."""
    ordered = sorted(durations)
    return {p: ordered[math.ceil(len(ordered) * p / 100) - 1] if ordered else None for p in PERCENTILES}


def width_of(hours: float) -> int:
    """Return the seconds of an interval, so that a window has at most ``POINTS``."""
    return next((width for width in WIDTHS if hours * 3600 / width <= POINTS - 1), WIDTHS[-1])


def rounded(hours: float) -> float:
    """Return hours as they are counted, so that windows that hardly differ are one; whole hours stay as they are."""
    step = min(width_of(hours), 3600)
    return max(1, round(hours * 3600 / step)) * step / 3600


class Statistician:
    """Makes statistics, and keeps them for a while."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[float, tuple[float, float, Statistics]] = {}  # when it was made, when it is to be made again
        self._lock = threading.Lock()

    def look(self, hours: float) -> Statistics:
        """Return the figures of the last hours, as they were a few seconds ago at the most.

        What took long to make is kept for longer; while one caller makes it anew, the others get the old one. One
        window is counted at a time.

        Raises:
            StateUnavailable: another one is being counted, or the database is too slow for so many.
        """
        hours = rounded(hours)
        kept = self._kept.get(hours)
        if kept and time.monotonic() < kept[1]:
            return kept[2]
        if not self._lock.acquire(timeout=0 if kept and time.monotonic() - kept[0] <= STALE else WAIT):
            kept = self._kept.get(hours)  # somebody may have made it meanwhile
            if kept and time.monotonic() - kept[0] <= STALE:
                return kept[2]
            raise StateUnavailable("statistics are being counted for somebody else; try again soon")
        try:
            kept = self._kept.get(hours)
            if kept and time.monotonic() < kept[1]:
                return kept[2]
            start = time.monotonic()
            made = self.make(hours)
            end = time.monotonic()
            while len(self._kept) >= KEPT:
                del self._kept[min(self._kept, key=lambda key: self._kept[key][0])]
            self._kept[hours] = end, end + min(STALE, max(FRESH, (end - start) * SHARE)), made
            return made
        finally:
            self._lock.release()

    def make(self, hours: float) -> Statistics:
        """Return the figures of the last hours as they are now.

        Raises:
            StateUnavailable: the database is too slow for so many.
        """
        return self._database.read(lambda connection: _make(connection, self._database, hours))


def _make(connection: Connection, database: Database, hours: float) -> Statistics:
    now: Micros = connection.execute(select(database.engine.now)).scalar_one()
    live = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
    asked = now - int(hours * 3600 * 1_000_000)
    since, total = _reach(connection, asked, now)
    window = _Window(connection, since, now, total, width_of(hours) * 1_000_000)
    window.count()
    window.time()
    states = window.states + Counter({JobState(state): count for state, count in live})
    return Statistics(
        since=since,
        until=now,
        complete=since == asked,
        sample=window.sample,
        states={state: states[state] for state in JobState},
        tasks=window.tallies["task"],
        queues=window.tallies["queue"],
        databases=window.tallies["db"],
        interval=window.width // 1_000_000,
        series=tuple(window.series()),
    )


def _reach(connection: Connection, since: Micros, until: Micros) -> tuple[Micros, int]:
    """Return how far back a window can be counted, and how many jobs finished in it."""
    ended = finished_jobs.c.finished_at
    newest = select(ended).where(ended >= since, ended <= until).order_by(ended.desc()).limit(MOST).subquery()
    low, count = connection.execute(select(func.min(newest.c.finished_at), func.count()).select_from(newest)).one()
    return (since if count < MOST else low), count


class _Window:
    """Adds a window up."""

    def __init__(self, connection: Connection, since: Micros, until: Micros, total: int, width: int) -> None:
        self._connection = connection
        self._since, self._until, self._total = since, until, total
        self._parts: list[Sequence[ColumnElement[bool]]] = []
        self._by_index = False
        self._deadline = time.monotonic() + PATIENCE
        self.width = width
        self.sample = 1
        self.states: Counter[JobState] = Counter()
        self.tallies: dict[str, dict[str, Tally]] = {"task": {}, "queue": {}, "db": {}}
        self._finished: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()
        self._rows: Counter[int] = Counter()

    def series(self) -> Iterator[Point]:
        """Yield the points, those in which nothing finished, too."""
        for at in range(self._since - self._since % self.width, self._until + 1, self.width):
            yield Point(at, self._finished[at], self._failed[at], self._rows[at])

    def count(self) -> None:
        """Count what finished; find out in which parts the window is best read."""
        run, below, found = finished_jobs.c.run, NEWEST, 0
        while found < self._total:
            rows = select(run).where(run < below).order_by(run.desc()).limit(PART).subquery()
            low, size = self._connection.execute(select(func.min(rows.c.run), func.count()).select_from(rows)).one()
            if not size:
                break
            part = run < below, run >= low
            self._parts.append(part)
            matched = self._count(part)
            found, below = found + matched, low
            if matched < size * DENSE:
                break
        if found < self._total:
            # The rest was submitted long before it finished.
            self._parts.append([run < below])
            self._by_index = True
            self._count([run < below], by_index=True)

    def _within(self, statement: Select[Any], part: Sequence[ColumnElement[bool]], *, by_index: bool) -> Select[Any]:
        if time.monotonic() > self._deadline:
            raise StateUnavailable("counting so many jobs takes too long; ask for fewer hours", retry_after=60)
        hint = f"FORCE INDEX ({'ix_jobber_finished_jobs_finished_at' if by_index else 'PRIMARY'})"
        ended = finished_jobs.c.finished_at
        return statement.with_hint(finished_jobs, hint, "mysql").where(
            *part, ended >= self._since, ended <= self._until
        )

    def _count(self, part: Sequence[ColumnElement[bool]], *, by_index: bool = False) -> int:
        columns = finished_jobs.c
        code = case((columns.state == JobState.FAILURE.value, columns.error_code), else_="")
        # A result that was reused counts where it was made.
        made = case((columns.started_at.is_not(None), func.coalesce(columns.rows, 0)), else_=0)
        place = columns.finished_at // literal(self.width, BigInteger)
        names: list[ColumnElement[Any]] = [columns.task, columns.queue, columns.db, columns.state]
        statement: Select[Any] = select(*names, code.label("code"), place.label("place"), made.label("made"))
        rows = self._within(statement, part, by_index=by_index).subquery()
        keys = [rows.c[name] for name in ("task", "queue", "db", "state", "code", "place")]
        found = 0
        counted: Select[Any] = select(*keys, func.count(), func.sum(rows.c.made)).group_by(*keys)
        for task, queue, db, name, error, number, count, size in self._connection.execute(counted):
            state, at, failed = JobState(name), int(number) * self.width, name == JobState.FAILURE.value
            found += count
            self.states[state] += count
            self._finished[at] += count
            self._failed[at] += count if failed else 0
            self._rows[at] += int(size)
            for kind, of in (("task", task), ("queue", queue), ("db", db)):
                tally = self.tallies[kind].setdefault(of, Tally())
                tally.states[state] += count
                tally.rows += int(size)
                if failed:
                    tally.failures[error] += count
        return found

    def time(self) -> None:
        """Find the percentiles."""
        columns = finished_jobs.c
        self.sample = max(1, math.ceil(self._total / SAMPLE))
        chosen: ColumnElement[bool] = columns.started_at.is_not(None)
        if self.sample > 1:
            small = [name for name, tally in self.tallies["task"].items() if tally.states.total() <= SMALL]
            chosen = and_(chosen, or_(_shuffled(columns.run) % self.sample == 0, columns.task.in_(small)))
        ready = case((columns.eta > columns.created_at, columns.eta), else_=columns.created_at)
        took: list[ColumnElement[Any]] = [columns.started_at - ready, columns.finished_at - columns.started_at]
        statement: Select[Any] = select(columns.task, columns.queue, columns.db, *took).where(chosen)
        queued: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        ran: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for number, part in enumerate(self._parts):
            by_index = self._by_index and number == len(self._parts) - 1
            for row in self._connection.execute(self._within(statement, part, by_index=by_index)):
                task, queue, db, waited, worked = row
                queued[task, queue, db].append(max(0, waited // 1000))
                ran[task, queue, db].append(max(0, worked // 1000))
        for place, kind in enumerate(self.tallies):
            for name, tally in self.tallies[kind].items():
                tally.queued = percentiles([ms for key, found in queued.items() if key[place] == name for ms in found])
                tally.run = percentiles([ms for key, found in ran.items() if key[place] == name for ms in found])


def _shuffled(run: ColumnElement[int]) -> ColumnElement[int]:
    """Return a number that tells nothing of the order of runs: every second one may be of the same task."""
    return (run % 65_537) * 40_503 % 65_537
