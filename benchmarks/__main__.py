"""``make bench``: measure jobber beside baselines, on private servers with their default durability.

    python -m benchmarks                       # all of it, about forty minutes
    python -m benchmarks --short               # what a laptop does in a few minutes
    python -m benchmarks --only jobs --only idle

The exit status is 0 also where a goal is missed, and 1 where a measurement failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import plots, reporting
from benchmarks.lab import SCALES, Lab, Scale, machine
from benchmarks.parts import PARTS, Part
from benchmarks.reporting import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line says; return the exit status."""
    options = _options(arguments)
    told = Console(stderr=True, highlight=False)
    if options.drawn:
        found = reporting.together([json.loads(path.read_text()) for path in options.drawn])
    else:
        scale = replace(SCALES[options.scale], **({"rounds": options.rounds} if options.rounds else {}))
        wanted = [part for part in PARTS if (part.name in options.only if options.only else not part.asked)]
        found = run(wanted, options.scale, scale, told)
        if options.keep:
            told.print(f"[dim]figures kept in {reporting.keep(found)}[/dim]", soft_wrap=True)
    if options.plots:
        for path in plots.draw(found, options.plots):
            told.print(f"[dim]drawn: {path}[/dim]", soft_wrap=True)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        reporting.show(Console(highlight=False, width=None if sys.stdout.isatty() else 140), found)
    return int(any(part["failed"] for part in found["parts"]))


def run(parts: Sequence[Part], name: str, scale: Scale, told: Console) -> dict[str, Any]:
    """Measure and return all that was found."""
    began = time.monotonic()
    facts = machine()
    with _progress(told, began) as say:
        lab = Lab(scale, say)
        try:
            # What is printed by the way must not stand in what --json prints.
            with contextlib.redirect_stdout(sys.stderr):
                outcomes = [measure(part, lab, told, required=name == "full") for part in parts]
            facts["servers"] = lab.versions()
        finally:
            lab.close()
    facts["seconds"] = round(time.monotonic() - began)
    return reporting.as_json(name, facts, outcomes)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--only", action="append", choices=names, metavar="PART", help=f"one of {', '.join(names)}")
    parser.add_argument("--short", action="store_const", const="short", dest="scale", help="less of everything")
    parser.add_argument("--scale", choices=[*SCALES], help="how much is measured (default full)")
    parser.set_defaults(scale="full")  # of an option that two arguments set, the first one's default would win
    parser.add_argument("--rounds", type=int, help="measurements of each kind")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    parser.add_argument("--no-keep", action="store_false", dest="keep", help="write no file of figures")
    parser.add_argument(
        "--from",
        action="append",
        dest="drawn",
        type=Path,
        metavar="FILE",
        help="measure nothing and show a file of figures; of several, what the later ones have",
    )
    parser.add_argument("--plots", metavar="FOLDER", help="draw the figures as SVG into this folder")
    return parser.parse_args(arguments)


def measure(part: Part, lab: Lab, told: Console, *, required: bool) -> Outcome:
    """Measure a part; what goes wrong stands in its outcome. A server that is missing does if it is ``required``."""
    outcome = Outcome(part)
    began = time.monotonic()
    say = lab.say
    missing = [name for name in (*part.needs, *(part.uses if required else ())) if not lab.has(name)]
    if missing:
        why = f"not installed: {', '.join(missing)} (make servers)"
        return Outcome(part, failed=why) if required else Outcome(part, skipped=why)
    lab.say = lambda text: say(f"{part.name}: {text}")
    try:
        for figure in part.measure(lab):
            outcome.figures.append(figure)
            work, ours, theirs, value, *_ = (cell.split("\n")[0].strip() for cell in reporting.cells(figure.as_json()))
            told.print(f"{part.name}: {work}: {ours}, baseline {theirs}, {value}", soft_wrap=True)
    except Exception as error:  # noqa: BLE001  # the others are measured still
        told.print(traceback.format_exc(), markup=False)
        first, *others = str(error).strip().splitlines() or [""]
        outcome.failed = f"{type(error).__name__}: {first}" + (f" … {others[-1]}" if others else "")
    finally:
        lab.say = say
    outcome.seconds = time.monotonic() - began
    return outcome


@contextlib.contextmanager
def _progress(told: Console, began: float) -> Iterator[Callable[[str], None]]:
    """Give what tells how far it is: a line that changes on a terminal, else one after the other."""
    if not told.is_terminal:
        yield lambda text: told.print(f"{time.monotonic() - began:6.0f} s  {text}", soft_wrap=True)
        return
    with told.status("") as status:
        yield lambda text: status.update(f"{time.monotonic() - began:.0f} s  {text}")


if __name__ == "__main__":
    # So that the servers and all that they left go, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
