"""One run: start everything, break it while load comes, let it settle, and look."""

from __future__ import annotations

import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos import http_audit
from tests.chaos.audit import Audit, Check, leftovers
from tests.chaos.faults import Injector
from tests.chaos.load import ACCEPTED, Load
from tests.chaos.plan import FAULTS, make_plan
from tests.chaos.site import LEASE, Site
from tests.chaos.tables import places
from tests.chaos.trail import Trail


@dataclass(frozen=True)
class Options:
    """What a run is to be.

    Parameters:
        state: engine of the state database.
        shared: whether it lies on the server that is also source and results.
        seconds: of load and faults.
        gap: seconds between two faults, on the average.
        tidy: seconds to wait for the janitor; 0 counts what it has not removed yet and goes on.
        patience: seconds without any progress that are too long, once nothing is broken any more.
        instances: of jobber.
        faults: kinds; each comes at least as often as it stands here.
        in_order: whether they come in that order.
    """

    seed: int
    state: str
    shared: bool
    jobs: int
    seconds: float
    gap: float = 1.5
    tidy: float = 240.0
    patience: float = 60.0
    instances: int = 3
    faults: tuple[str, ...] = tuple(FAULTS)
    in_order: bool = False
    keep: bool = False


@dataclass
class Report:
    """What a run has to tell."""

    options: Options
    folder: str
    faults: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    submissions: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """Every violation, with the promise that it breaks."""
        return [f"{check.name}: {text}" for check in self.checks for text in check.violations]

    def json(self) -> dict[str, object]:
        """Return it for machines."""
        return {**asdict(self), "violations": self.violations}


#: Called with a text for people and how far the run is: 0 … 1.
Say = Callable[[str, float], None]


def run(options: Options, say: Say) -> Report:
    """Make one run and return what was seen; everything that it started is gone then."""
    folder = Path(tempfile.mkdtemp(prefix="jobber-chaos-"))
    folder.chmod(0o755)
    report = Report(options, str(folder))
    site = Site(folder, state=options.state, shared=options.shared, instances=options.instances)
    try:
        _run(site, report, say)
    except BaseException:
        report.checks.append(Check("the run comes to its end", violations=["it did not"]))
        say(f"broken off; logs: {folder}", 1.0)
        raise
    finally:
        if report.violations or options.keep:
            (folder / "report.json").write_text(json.dumps(report.json(), indent=1, default=str))
        site.remove(keep_logs=bool(report.violations or options.keep))
    return report


def _run(site: Site, report: Report, say: Say) -> None:
    options = report.options
    say("starting servers and instances", 0.0)
    site.start()
    trail = Trail(site.state)
    trail.install()
    for place in places(site).values():
        place.watch()
    plan = make_plan(
        options.seed,
        jobs=options.jobs,
        seconds=options.seconds,
        lease=LEASE,
        gap=options.gap,
        kinds=options.faults,
        in_order=options.in_order,
    )
    load = Load(plan, site.apis(), clients=12)
    begin = time.monotonic()

    def part() -> float:
        return min(0.8, 0.8 * (time.monotonic() - begin) / options.seconds)

    injector = Injector(
        site,
        plan.faults,
        trail=trail,
        load=load,
        say=lambda kind: say(f"{kind}; {load.accepted} jobs accepted", part()),
    )
    load.start()
    injector.start()
    injector.finish()
    say(f"nothing is broken any more; {load.accepted} jobs accepted, {trail.live()} not finished", 0.8)
    # A further run of an ID is submitted once the one before is over, so both go on beside each other.
    settled = _progressing(lambda: (load.open, trail.live()), options.patience)
    submitted = load.finish()
    seconds_to_settle = time.monotonic() - begin - options.seconds
    left = leftovers(site)
    if options.tidy and settled:
        say(f"all jobs are over; waiting for the janitor: {left or 'nothing'} left", 0.85)
        _until(lambda: not leftovers(site), options.tidy)
    say("looking", 0.9)
    audit = Audit(site, load, trail, injector.crashes)
    with audit.findings.check("all recovers by itself") as check:
        check.looked = 3
        if not submitted:
            check.violations.append("not all could be submitted, or cancelled, in time")
        if not settled:
            check.violations.append(f"{trail.live()} jobs are not over, and none has ended for {options.patience:g} s")
        check.violations += injector.trouble
    audit.run()
    http_audit.look(audit, site.apis(), random.Random(options.seed))
    with audit.findings.check("staging tables of dead attempts are removed") as check:
        check.looked = sum(left.values())
        if options.tidy and (still := leftovers(site)):
            check.violations.append(f"{still} after {options.tidy:g} s")
    with audit.findings.check("instances stop when asked, and leave no process") as check:
        check.looked = len(site.instances)
        check.violations += site.stop_instances()
    tracebacks = _tracebacks(site)
    with audit.findings.check("every traceback in the logs is one that a fault explains") as check:
        check.looked = tracebacks.total()
        check.violations += [f"{count} × {line}" for line, count in tracebacks.items() if not _LOST.match(line)]
    if options.keep or audit.findings.violations:
        lines = (run.told() + "\n" for run in sorted(audit.runs.values(), key=lambda run: run.run))
        (site.folder / "runs.txt").write_text("".join(lines))
    report.checks = audit.findings.checks
    report.faults = {**dict(sorted(injector.done.items())), "cancel": load.cancels}
    report.outcomes = dict(sorted(audit.outcomes.items()))
    report.submissions = dict(Counter(try_.outcome for try_ in load.tries.values()))
    report.refusals = dict(sorted(load.refusals.items()))
    report.facts = {
        "jobs accepted": sum(try_.outcome == ACCEPTED for try_ in load.tries.values()),
        "runs": len(audit.runs),
        "attempts": sum(run.attempt for run in audit.runs.values()),
        "rescues": sum(run.rescues for run in audit.runs.values()),
        "jobs of workers that were stopped past their lease": injector.outlived,
        "unlogged results emptied by a crash": len(audit.emptied),
        "seconds until all was over": round(seconds_to_settle, 1),
        "staging tables of dead attempts": left,
        "tracebacks in the logs": tracebacks.total(),
    }


def _progressing(left: Callable[[], tuple[int, int]], patience: float) -> bool:
    """Wait until nothing is left; False if nothing changes for too long, on a machine that may be busy."""
    before, since = left(), time.monotonic()
    while any(before):
        time.sleep(0.2)
        if (now := left()) != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            return False
    return True


def _until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


#: Errors that a fault explains, as the last line of a traceback begins: of drivers and brokers that lost somebody.
_LOST = re.compile(
    r"redis\.exceptions\.(Connection|Timeout)|(Connection\w*|BrokenPipe|Timeout|OS)Error|"
    r"(sqlalchemy\.exc|psycopg(\.errors)?|pymysql\.err)\.(Operational|Interface)Error"
)


def _tracebacks(site: Site) -> Counter[str]:
    """Return the last lines of all tracebacks in the logs of the instances, and how often each stands there."""
    found: Counter[str] = Counter()
    for instance in site.instances:
        inside = False
        for line in instance.running.text().splitlines():
            if line.startswith("Traceback"):
                inside = True
            elif inside and re.match(r"[\w.]+(?::|$)", line):
                found[line[:160]] += 1
                inside = False
    return found
