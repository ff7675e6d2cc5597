"""Small jobs with and without broker events, through a private jobber, from state to result, in turn.

    python benchmarks/events.py --broker amqp://guest:guest@127.0.0.1:5672// \
        --state postgresql://postgres@127.0.0.1/bench --source postgresql://postgres@127.0.0.1/bench \
        --results postgresql://postgres@127.0.0.1/bench

Nothing of the databases must be jobber's. As in ``delayed.py``, all jobs wait behind a pause that is lifted: the rate
counts from the first start to the last end. With events it is also told how long after that the outbox was empty.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from delayed import Bench, add_options, private_jobber, write_config


def measure(options: argparse.Namespace, *, events: bool) -> dict[str, float]:
    """Run the jobs with a jobber of their own; return the rate, and how long the last events took."""
    with tempfile.TemporaryDirectory(prefix="jobber-bench-") as name:
        folder = Path(name)
        path = write_config(folder, options)
        if events:
            path.write_text(path.read_text() + f'\n[events]\nenabled = true\nurl = "{options.broker}"\n')
        bench = Bench(path)
        with private_jobber(folder, options):
            bench.without_delay(200)  # connections, and what else is made once
            rate = bench.without_delay(options.jobs)
            ended = time.monotonic()
            while events and bench.store.outbox.size()[0]:
                time.sleep(0.05)
            late = time.monotonic() - ended
        bench.close()
    return {"rate": round(rate, 1), "told_after_s": round(late, 2)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True, help="kombu URL of the broker that is told")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of each kind (default 2,000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of both kinds in turn (default 3)")
    add_options(parser)
    options = parser.parse_args()
    ratios = []
    for number in range(options.rounds):
        kinds = (True, False) if number % 2 else (False, True)
        found = {events: measure(options, events=events) for events in kinds}
        ratios.append(found[True]["rate"] / found[False]["rate"])
        figures = {"off": found[False]["rate"], "on": found[True]["rate"], "ratio": round(ratios[-1], 3)}
        print(json.dumps(figures | {"told_after_s": found[True]["told_after_s"]}), flush=True)
    print(f"{options.jobs:,} jobs, median of {options.rounds}: {median(ratios):.2f} of the rate without events")


if __name__ == "__main__":
    main()
