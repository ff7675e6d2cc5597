"""``python -m tests.chaos``: what ``make chaos`` runs."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path

from tests.chaos.plan import FAULTS
from tests.chaos.report import Screen
from tests.chaos.run import Options, run

STATES = ("postgresql", "mariadb")


def main(arguments: list[str]) -> int:
    """Make the runs that the arguments ask for; 1 if one of them found a violation."""
    options = _parse(arguments)
    # As Ctrl-C does: what was started is ended first.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(128 + signal.SIGTERM))
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    screen = Screen()
    again = f"--jobs {options.jobs} --seconds {options.seconds:g} --state {options.state} --layout {options.layout}"
    screen.line(f'seed {seed}; the same again: make chaos CHAOS_ARGS="--seed {seed} {again}"')
    reports = []
    for number, state in enumerate(STATES if options.state == "both" else (options.state,)):
        shared = options.layout == "shared"
        if options.layout == "any":
            shared = bool((seed + number) % 2)
        wanted = Options(
            seed=seed,
            state=state,
            shared=shared,
            jobs=options.jobs,
            seconds=options.seconds,
            gap=options.gap,
            faults=tuple(options.faults.split(",")) if options.faults else tuple(FAULTS),
            keep=options.keep,
        )
        with screen:
            reports.append(run(wanted, screen.teller(state)))
        screen.table(reports[-1])
        screen.violations(reports[-1])
    if options.json:
        options.json.write_text(json.dumps([report.json() for report in reports], indent=1, default=str))
    return int(any(report.violations for report in reports))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats a run; a random one without it")
    parser.add_argument("--jobs", type=int, default=3000, help="runs that are asked for (%(default)s)")
    parser.add_argument("--seconds", type=float, default=120, help="of load and faults (%(default)s)")
    parser.add_argument("--gap", type=float, default=1.5, help="seconds between two faults (%(default)s)")
    parser.add_argument("--state", choices=[*STATES, "both"], default="both", help="the state database (%(default)s)")
    parser.add_argument(
        "--layout",
        choices=["own", "shared", "any"],
        default="any",
        help="whether the state has a server of its own; any: the seed decides (%(default)s)",
    )
    parser.add_argument("--faults", help=f"only these, with commas between: {', '.join(FAULTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports for machines")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run without violations, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
