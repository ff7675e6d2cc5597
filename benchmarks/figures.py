"""What the figures of operators and the outlook of a job cost with many jobs waiting.

The jobs are those of ``claim.py``: 440 lanes, nine tenths of them of databases that are paused. Figures are
milliseconds, one connection, nothing else running.

    python benchmarks/figures.py --url sqlite:///bench.db --url postgresql://postgres@127.0.0.1/bench \
        --url mysql://root@127.0.0.1/bench --jobs 1000000

The databases must be empty; the tables stay in them.
"""

from __future__ import annotations

import argparse

from claim import DATABASES, QUEUES, TASKS, fill, quantile, timed

from jobber.store import Store


def measure(url: str, count: int, rounds: int) -> None:
    """Fill a store and print what its figures cost."""
    store = Store(url)
    store.migrate()
    fill(store, count)
    worker = store.register("bench", QUEUES, 20, lease=600)
    ended = store.claim(worker, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=20).jobs
    for job in ended:  # so that there is a pace
        store.succeed(job, rows=1, columns=[])
    first, last = store.pending(QUEUES[0], limit=1)[0], store.get(f"fill-{count - 1}")

    def count_anew() -> None:
        store.figures._good_until = 0.0
        store.figures.backlog()

    works = {
        "counts of queues and databases": count_anew,
        "pauses, limits, who serves what": store.figures.now,
        "workers": store.figures.workers,
        "outlook of the first job": lambda: store.prospects.outlook(first),
        "outlook of the last job": lambda: store.prospects.outlook(last),
    }
    print(f"{store._database.engine.name}, {count} jobs")
    for name, work in works.items():
        times = [timed(work) for _ in range(rounds)]
        print(f"  {name:34} p50 {quantile(times, 0.5):8.1f}   p99 {quantile(times, 0.99):8.1f}")
    store.close()


def main() -> None:
    """Measure each database that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    for url in arguments.url:
        measure(url, arguments.jobs, arguments.rounds)


if __name__ == "__main__":
    main()
