"""What submitting costs on the state store: one job after another, a thousand at once, and what each promise adds.

Jobs per second of one connection; of several threads with ``--threads``. Every kind is measured ``--rounds`` times in
turn, so that what else the machine does hits all alike; the median is told, and its ratio to the plain kind.

    python benchmarks/submission.py --url postgresql://postgres@127.0.0.1/bench --rounds 7

The database must be empty; the tables stay in it. ``--only plain`` measures what an older checkout has, too:

    PYTHONPATH=/path/of/older/checkout python benchmarks/submission.py --only plain --url …
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from jobber.jobs import NewJob
from jobber.store import Store

SINGLE, BULK = 200, 1000
_ids = itertools.count()

Submit = Callable[[int], object]


def new_jobs(count: int, **fields: object) -> list[NewJob]:
    """Return jobs of IDs that have not been there, in two queues and ten lanes."""
    jobs = []
    for n in itertools.islice(_ids, count):
        plain = {"queue": ("fast", "slow")[n % 2], "task": f"task{n % 5}", "db": "db", "results": "r", "args": [n]}
        jobs.append(NewJob(**{"job_id": f"j{n}", "table": f"results_j{n}", **plain, **fields}))  # type: ignore[arg-type]
    return jobs


def plain_kinds(store: Store) -> dict[str, Submit]:
    """Return ways to submit that every version has: each takes how many jobs to submit at once."""
    return {"plain": lambda count: store.submit(new_jobs(count))}


def kinds(store: Store) -> dict[str, Submit]:
    """Return the ways to submit, the plain one first."""
    from jobber.jobs import fingerprint
    from jobber.store import Gate, GateKind, Limits, Receipt

    roomy = Limits(pending=2**31 - 1)
    store.announce({Gate(GateKind.QUEUE, "capped"): roomy, Gate(GateKind.TENANT, "capped"): roomy}, {})
    receipts = itertools.count()
    known = {"task": "known", "version": "v", "args": [], "fingerprint": fingerprint("known", "v", [])}
    flying = {"task": "flying", "version": "v", "args": [], "fingerprint": fingerprint("flying", "v", [])}
    store.submit(new_jobs(1, queue="known", **known))
    worker = store.register("bench", ["known"], 1, lease=3600)
    (job,) = store.claim(worker, queues=["known"], tasks=["known"], databases=["db"], limit=1).jobs
    store.succeed(job, rows=1, columns=[])

    def with_receipt(count: int) -> object:
        receipt = Receipt(f"key{next(receipts)}", "digest", lambda jobs: f"{jobs[0].run} " * 250)
        return store.submit(new_jobs(count), receipt=receipt)

    return {
        **plain_kinds(store),
        "each by itself (POST /jobs)": lambda count: store.batches.submit(new_jobs(count)),
        "with a tag": lambda count: store.submit(new_jobs(count, tags={"by": "me"})),
        "queue with a cap": lambda count: store.submit(new_jobs(count, queue="capped")),
        "queue and tenant with caps": lambda count: store.submit(new_jobs(count, queue="capped", tenant="capped")),
        "with an Idempotency-Key": with_receipt,
        "max_age, and there is a result": lambda count: store.submit(new_jobs(count, max_age=3600, **known)),
        "max_age, and there is none": lambda count: store.submit(new_jobs(count, max_age=3600, fingerprint=1)),
        "single_flight, all share one": lambda count: store.submit(new_jobs(count, single_flight=True, **flying)),
    }


def rate(submit: Submit, size: int, count: int, threads: int) -> float:
    """Return the jobs per second of submitting ``count`` in bulks of ``size``."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: submit(size), range(count // size)))
    return count / (time.perf_counter() - start)


def measure(ways: dict[str, Submit], rounds: int, threads: int) -> None:
    """Measure and print each way."""
    for size, count in ((1, SINGLE * threads), (BULK, BULK)):
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for submit in ways.values():
            rate(submit, size, size * 5, threads)
        for _ in range(rounds):
            for name, submit in ways.items():
                rates[name].append(rate(submit, size, count, threads))
        usual = statistics.median(rates["plain"])
        for name, found in rates.items():
            middle = statistics.median(found)
            print(f"{'one at a time' if size == 1 else f'{size:,} at once':14} {name:34}", end="")
            print(f"{middle:9,.0f} jobs/s {middle / usual:6.2f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="SQLAlchemy URL of an empty database")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["plain"], help="what older versions have, too")
    options = parser.parse_args(arguments)
    store = Store(options.url)
    store.migrate()
    measure((plain_kinds if options.only else kinds)(store), options.rounds, options.threads)
    store.close()


if __name__ == "__main__":
    main()
