"""The independent check at the end of a run: what was accepted against what the databases hold, without jobber's code.

``Findings`` are checks with the number of things looked at and the violations found; none is dropped, none is repaired.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from tests.chaos.load import ACCEPTED, REFUSED, GroupTry, Load, Try
from tests.chaos.plan import PLENTY
from tests.chaos.site import Site
from tests.chaos.tables import STAGING, Entry, Place, difference, places, running_queries, table_of
from tests.chaos.trail import Run, Trail
from tests.chaos.work import Row

#: Codes of failures that a fault explains.
EXPLAINED = frozenset({"source_unavailable", "results_unavailable", "worker_lost"})
OVER = frozenset({"SUCCESS", "FAILURE", "CANCELLED"})


@dataclass
class Check:
    """One promise.

    Parameters:
        looked: at how many things.
    """

    name: str
    looked: int = 0
    violations: list[str] = field(default_factory=list)


class Findings:
    """All checks of a run."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    @contextmanager
    def check(self, name: str) -> Iterator[Check]:
        """Add a check; the body looks."""
        check = Check(name)
        self.checks.append(check)
        yield check

    @property
    def violations(self) -> list[str]:
        """Every violation, with the promise that it breaks."""
        return [f"{check.name}: {text}" for check in self.checks for text in check.violations]


class Audit:
    """Looks at everything once all is quiet.

    Parameters:
        crashes: when the PostgreSQL server with the results was killed.
    """

    def __init__(self, site: Site, load: Load, trail: Trail, crashes: list[datetime]) -> None:
        self.findings = Findings()
        self.outcomes: Counter[str] = Counter()
        self.emptied: list[Try] = []  # unlogged results that a crash emptied
        self.newest: dict[str, tuple[Run, Try]] = {}  # the newest success of an ID
        self.runs = trail.runs()
        self._site, self._load, self._trail, self._crashes = site, load, trail, crashes
        self._by_salt: defaultdict[str, list[Run]] = defaultdict(list)
        for run in self.runs.values():
            self._by_salt[run.salt].append(run)

    def run(self) -> None:
        """Make every check of the databases."""
        self._acceptance()
        self._ends()
        self._one_live_run()
        self._outcomes()
        self._groups()
        self._tables()
        self._publications()
        with self.findings.check("no query is left on a source") as check:
            check.looked = 2
            check.violations += running_queries(self._site)
        with self.findings.check("no slot is held") as check:
            check.looked = 1
            check.violations += [f"attempt {row[1]} of run {row[0]} by worker {row[2]}" for row in self._trail.held()]
        with self.findings.check("every answer is one that a fault explains") as check:
            check.looked = self._load.refusals.total() + len(self._load.tries)
            check.violations += self._load.surprises

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _acceptance(self) -> None:
        with self.findings.check("accepted = finished, refused = not there") as check:
            for try_ in self._load.tries.values():
                check.looked += 1
                made = self._by_salt[try_.salt]
                if try_.outcome == ACCEPTED and not made:
                    check.violations.append(f"{try_.name} was accepted, and there is no such run")
                if try_.outcome == REFUSED and made:
                    check.violations.append(f"{try_.name} was refused, and there is {made[0].told()}")
                if len(made) > 1:
                    check.violations.append(f"{try_.name} has {len(made)} runs: {', '.join(map(Run.told, made))}")
            for run in self.runs.values():
                if run.live or run.state not in OVER:
                    check.violations.append(f"not finished: {run.told()}")
                if run.salt not in self._load.tries:
                    check.violations.append(f"nobody submitted {run.told()}")

    def _ends(self) -> None:
        with self.findings.check("every run ends once, every attempt starts once") as check:
            for run in self.runs.values():
                check.looked += 1
                ends = [event for event in run.events if event.event == "ended"]
                starts = Counter(event.attempt for event in run.events if event.event == "started")
                if len(ends) != 1 or (ends and ends[0].state != run.state):
                    check.violations.append(f"{len(ends)} ends: {run.told()}")
                if any(count > 1 for count in starts.values()):
                    check.violations.append(f"an attempt started twice: {run.told()}")
                if sorted(starts) != list(range(1, run.attempt + 1)):
                    check.violations.append(f"attempts {sorted(starts)} started: {run.told()}")

    def _one_live_run(self) -> None:
        with self.findings.check("one live run per ID") as check:
            by_id: defaultdict[str, list[Run]] = defaultdict(list)
            for run in self.runs.values():
                by_id[run.job_id].append(run)
            for runs in by_id.values():
                check.looked += 1
                ordered = sorted((run for run in runs if run.events), key=lambda run: run.events[0].seq)
                for before, after in pairwise(ordered):
                    if after.events[0].seq < before.events[-1].seq:
                        check.violations.append(f"{before.told()} and {after.told()}")
                    if after.run < before.run:
                        check.violations.append(f"the later has the lower number: {before.told()}, {after.told()}")

    def _outcomes(self) -> None:
        with (
            self.findings.check("every outcome has its reason") as reasons,
            self.findings.check(f"jobs with {PLENTY} retries succeed") as retried,
            self.findings.check("no job starts before its time") as times,
        ):
            for run in self.runs.values():
                try_ = self._load.tries.get(run.salt)
                if try_ is None or run.state not in OVER:
                    continue
                reasons.looked += 1
                self.outcomes[f"{run.state} {run.error_code}".strip() if run.state == "FAILURE" else run.state] += 1
                if why := self._unreasonable(run, try_):
                    reasons.violations.append(f"{why}: {run.told()}")
                if try_.retries >= PLENTY and try_.work.kind != "fail" and run.state != "CANCELLED":
                    retried.looked += 1
                    if run.state != "SUCCESS":
                        retried.violations.append(run.told())
                first = next((event for event in run.events if event.event == "started"), None)
                if try_.eta is not None and first is not None:
                    times.looked += 1
                    if first.at < try_.eta - timedelta(milliseconds=2):
                        times.violations.append(f"due at {try_.eta}: {run.told()}")

    def _unreasonable(self, run: Run, try_: Try) -> str:
        """Return what is wrong with an outcome; "" if it can be explained."""
        must_fail = try_.work.kind == "fail"
        asked = bool(try_.cancels) or try_.job_id in self._load.doubtful_cancels
        group = next((group for group in self._load.groups if group.name == try_.group), None)
        if group is not None and try_ is not group.callback:
            asked = asked or group.cancelled or group.name in self._load.doubtful_cancels
        if run.state == "SUCCESS" and must_fail:
            return "a query that fails succeeded"
        if run.state == "SUCCESS" and try_.work.kind != "group" and run.rows != try_.work.n:
            return f"a count of {run.rows} rows, not {try_.work.n}"
        if run.state == "CANCELLED" and not asked:
            return "nobody cancelled"
        if run.state != "CANCELLED" and "CANCELLED" in try_.cancels:
            return "a client was told that it is cancelled"
        if run.state == "FAILURE" and run.error_code not in EXPLAINED | ({"query_failed"} if must_fail else set()):
            return "a failure that no fault explains"
        if run.state == "FAILURE" and run.failures <= try_.retries and run.error_code != "worker_lost":
            return "" if must_fail and run.error_code == "query_failed" else f"only {run.failures} failures"
        return ""

    # -- groups -------------------------------------------------------------------------------------------------------

    def _groups(self) -> None:
        with self.findings.check("groups are whole, their callbacks run once") as check:
            for group in self._load.groups:
                check.looked += 1
                parts = [*group.members, group.callback]
                made = [part for part in parts if self._by_salt[part.salt]]
                if made and len(made) != len(parts):
                    check.violations.append(f"{group.name}: only {[part.name for part in made]} of {len(parts)} exist")
                elif made and (why := self._early(group)):
                    check.violations.append(f"{group.name}: {why}")

    def _early(self, group: GroupTry) -> str:
        """Return whether the callback started before the last of its group had ended."""
        [callback] = self._by_salt[group.callback.salt]
        ends = [event.seq for part in group.members for event in self._by_salt[part.salt][0].events]
        starts = [event.seq for event in callback.events if event.event == "started"]
        return f"the callback came too early: {callback.told()}" if starts and min(starts) < max(ends) else ""

    def _callback_rows(self, group: GroupTry) -> list[Row]:
        """Return what the callback's query gives, by what became of the group's jobs."""
        runs = [(part, self._by_salt[part.salt][0]) for part in group.members]
        counts = Counter(run.state for _, run in runs)
        tables = [table_of(part.results, part.job_id)[1] for part, run in runs if run.state == "SUCCESS"]
        note = f"{group.callback.salt}{group.name}{json.dumps(tables, separators=(',', ':'))}"
        return [(counts["SUCCESS"], counts["FAILURE"] * 1_000_000 + counts["CANCELLED"], note)]

    # -- tables -------------------------------------------------------------------------------------------------------

    def _tables(self) -> None:
        for run in sorted(self.runs.values(), key=lambda run: run.run):
            if run.state == "SUCCESS" and run.salt in self._load.tries:
                self.newest[run.job_id] = (run, self._load.tries[run.salt])
        wanted: dict[tuple[str, str], tuple[Run, Try]] = {
            table_of(try_.results, job_id): (run, try_) for job_id, (run, try_) in self.newest.items()
        }
        with (
            self.findings.check("every SUCCESS table is the answer, row for row") as rows,
            self.findings.check("no other table: none of failed or cancelled runs, no orphan") as others,
            self.findings.check("the ledgers agree") as ledgers,
        ):
            for place in places(self._site).values():
                there, ledger = place.tables(), place.ledger()
                for (of, table), (run, try_) in wanted.items():
                    if of != place.name:
                        continue
                    rows.looked += 1
                    if table not in there:
                        rows.violations.append(f"{place.name} has no {table}: {run.told()}")
                    elif why := self._differs(place, table, run, try_):
                        rows.violations.append(f"{table} on {place.name} {why}: {run.told()}")
                    ledgers.looked += 1
                    entry = ledger.get(table)
                    if entry is None or (entry.run, entry.rows) != (run.run, run.rows):
                        ledgers.violations.append(f"{place.name} says of {table} {entry}: {run.told()}")
                expected = {table for of, table in wanted if of == place.name}
                others.looked += len(there)
                others.violations += list(_unexplained(place.name, there - expected, ledger))

    def _publications(self) -> None:
        """What an attempt publishes stays until a later one publishes, and makes its run succeed."""
        with self.findings.check("what was published has succeeded, no later attempt is overtaken") as check:
            for place in places(self._site).values():
                once: dict[int, int] = {}
                newest: dict[str, tuple[int, int]] = {}
                for table, number, attempt in place.published():
                    check.looked += 1
                    run = self.runs.get(number, Run(number))
                    # A later attempt may be the one that finds out that it was published, but publishes nothing itself.
                    again = number in once and not self._was_emptied(run, once[number], attempt)
                    if run.state != "SUCCESS" or run.attempt < attempt or again:
                        check.violations.append(f"{place.name}: attempt {attempt} published {table}: {run.told()}")
                    once[number] = attempt
                    before = newest.get(table, (0, 0))
                    if (number, attempt) <= before:
                        check.violations.append(f"{place.name}: {table} of {before} was replaced by {run.told()}")
                    newest[table] = (number, attempt)

    def _was_emptied(self, run: Run, first: int, second: int) -> bool:
        """Whether a crash may have emptied what one attempt published before another began."""
        starts = {event.attempt: event.at for event in run.events if event.event == "started"}
        try_ = self._load.tries.get(run.salt)
        if try_ is None or try_.results != "pg_fast" or not {first, second} <= starts.keys():
            return False
        return any(starts[first] < at < starts[second] for at in self._crashes)

    def _differs(self, place: Place, table: str, run: Run, try_: Try) -> str:
        """Return where a table differs from the answer; one that a crash may have emptied is set aside."""
        group = next((group for group in self._load.groups if group.callback is try_), None)
        answer = try_.work.rows(try_.salt) if group is None else iter(self._callback_rows(group))
        with place.rows(table) as (columns, found):
            why = difference(columns, found, answer)
        # Not since it was finished: that may have been written down long after it was published.
        crashed = run.started_at and any(at > run.started_at for at in self._crashes)
        if why == "ends after 0 rows" and try_.results == "pg_fast" and crashed:
            self.emptied.append(try_)
            return ""
        return why


def _unexplained(place: str, tables: set[str], ledger: dict[str, Entry]) -> Iterator[str]:
    """Yield the tables that are nobody's result."""
    listed = {name for entry in ledger.values() for name in entry.unfinished}
    for table in sorted(tables):
        if table.startswith(STAGING) and table not in listed:
            yield f"{place} has {table}, which no ledger lists"
        elif not table.startswith(STAGING):
            entry = ledger.get(table)
            yield f"{place} has {table}, whose job has no success; the ledger says {entry}"


def leftovers(site: Site) -> dict[str, int]:
    """Return how many staging tables of dead attempts each place still has; the janitor drops what the ledger lists."""
    found = {}
    for place in places(site).values():
        listed = {name for entry in place.ledger().values() for name in entry.unfinished}
        staging = {name for name in place.tables() if name.startswith(STAGING)}
        if count := len(staging | listed):
            found[place.name] = count
    return found
