"""What thousands of jobs at once cost the state store: taken in together, cancelled, ended by one that they wait for.

Each case is measured with a quarter of the jobs, too: four times as many must take four times as long, not more. Most
cases are one transaction, during which others wait; ``statements`` says how many it makes, and ``CPU s`` how long this
process was busy with it, whatever else the machine does (on SQLite that is all there is to do).

    python benchmarks/bulk.py --url sqlite:////tmp/bench.db --url postgresql://postgres@127.0.0.1/bench --jobs 10000

The databases must be empty; the tables stay in them. ``--only`` chooses cases by a part of their names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from jobber.jobs import JobState, NewGroup, NewJob, fingerprint
from jobber.store import Receipt, Store
from jobber.store.history import move
from jobber.store.parts import parts

#: Jobs of one transaction of a cancel, as ``jobber.changing`` has it.
PART = 500
SERVED = {"queues": ["bulk"], "tasks": ["t"], "databases": ["db"]}
_names = itertools.count()

Work = Callable[[], object]


def job(name: str, args: Sequence[Any] = (), **fields: Any) -> NewJob:
    """Return a job whose SQL is the same for all, so that its args make it equal to others."""
    plain: dict[str, Any] = {"task": "t", "version": "v", "queue": "bulk", "db": "db", "results": "r"}
    same = fingerprint("t", "v", list(args))
    return NewJob(
        job_id=name, table=f"results_{name}", args=list(args), **{**plain, "fingerprint": same, "priority": 5, **fields}
    )


class Cases:
    """The cases. Each makes what it needs, and returns what is to be measured."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.worker = store.register("bench", ["bulk"], 1, lease=86_400)

    def all(self) -> dict[str, Callable[[int], Work]]:
        """Return the cases by name."""
        takes: dict[str, Callable[[int], list[NewJob]]] = {
            "plain": self.jobs,
            "max_age, each another result": self.taking,
            "max_age, all one result": lambda count: self.taking(count, results=1),
            "max_age, no result": lambda count: self.jobs(count, max_age=3600),
            "single_flight, each its own": lambda count: self.jobs(count, single_flight=True),
            "single_flight, all share one": lambda count: self.jobs(count, same=True, single_flight=True),
            "all depend on the first": self.fan,
            "each depends on the one before": self.chain,
        }
        found: dict[str, Callable[[int], Work]] = {}
        for name, jobs in takes.items():
            found[f"group: {name}"] = lambda count, jobs=jobs: self.group(jobs(count))  # type: ignore[misc]
        for name, jobs in takes.items():
            found[f"bulk: {name}"] = lambda count, jobs=jobs: self.bulk(jobs(count))  # type: ignore[misc]
        found["bulk with a key: max_age, each another result"] = lambda count: self.bulk(self.taking(count), key=True)
        found["the parent fails"] = lambda count: self.ending(self.fan(count), self.fail)
        found["the parent succeeds"] = lambda count: self.ending(self.fan(count), self.succeed)
        found["the first of a chain fails"] = lambda count: self.ending(self.chain(count), self.fail)
        shared = lambda count: self.jobs(count, same=True, single_flight=True)  # noqa: E731
        found["the shared run succeeds"] = lambda count: self.ending(shared(count), self.succeed)
        found["the shared run is cancelled"] = lambda count: self.ending(shared(count), self.store.cancelled)
        found["cancel: all children of one"] = lambda count: self.cancelling(self.fan(count), count - 1)
        found["cancel: parents of a child each"] = lambda count: self.cancelling(self.pairs(count), count // 2)
        found["cancel: shared by one each"] = lambda count: self.cancelling(self.shared_pairs(count), count // 2)
        return found

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def jobs(self, count: int, *, same: bool = False, **fields: Any) -> list[NewJob]:
        """Return jobs, equal ones or not."""
        first = next(_names)
        return [job(f"j{first}-{n}", [first, 0 if same else n], **fields) for n in range(count)]

    def taking(self, count: int, results: int | None = None) -> list[NewJob]:
        """Return jobs that take earlier results, which are there."""
        results = results or count
        earlier = self.jobs(results)
        self.finish(earlier)
        first = next(_names)
        return [job(f"j{first}-{n}", earlier[n % results].args, max_age=3600) for n in range(count)]  # type: ignore[arg-type]

    def fan(self, count: int) -> list[NewJob]:
        """Return jobs that wait for the first of them."""
        first, *others = self.jobs(count)
        return [first, *self.waiting(others, [first.job_id] * len(others))]

    def chain(self, count: int) -> list[NewJob]:
        """Return jobs each of which waits for the one before."""
        jobs = self.jobs(count)
        return [jobs[0], *self.waiting(jobs[1:], [one.job_id for one in jobs])]

    def pairs(self, count: int) -> list[NewJob]:
        """Return parents, then a child of each."""
        parents = self.jobs(count // 2)
        return [*parents, *self.waiting(self.jobs(count // 2), [one.job_id for one in parents])]

    def shared_pairs(self, count: int) -> list[NewJob]:
        """Return jobs, then one that shares the run of each."""
        leaders = self.jobs(count // 2, single_flight=True)
        first = next(_names)
        return [*leaders, *(job(f"j{first}-{n}", one.args, single_flight=True) for n, one in enumerate(leaders))]  # type: ignore[arg-type]

    @staticmethod
    def waiting(jobs: Sequence[NewJob], parents: Sequence[str]) -> list[NewJob]:
        """Return jobs with a parent for each."""
        return [
            job(one.job_id, one.args, depends_on=(parent,))  # type: ignore[arg-type]
            for one, parent in zip(jobs, parents, strict=False)
        ]

    def finish(self, new: Sequence[NewJob]) -> None:
        """Have jobs run and succeed, without a worker."""
        database = self.store._database
        for some in parts(new):
            runs = [one.run for one in self.store.submit(some)]
            ended = {"state": JobState.SUCCESS.value, "started_at": self.store.now(), "rows": 1}
            database.write(lambda connection, runs=runs, ended=ended: move(database, connection, runs, ended))  # type: ignore[misc]

    # -- what is measured ----------------------------------------------------------------------------------------------

    def group(self, new: Sequence[NewJob]) -> Work:
        """Submit a group."""
        made = NewGroup(group_id=f"g{next(_names)}", jobs=list(new), callback=None)
        return lambda: self.store.submit_group(made)

    def bulk(self, new: Sequence[NewJob], *, key: bool = False) -> Work:
        """Submit jobs each of which is accepted by itself; in one transaction with an Idempotency-Key."""
        receipt = Receipt(f"key{next(_names)}", "digest", lambda jobs: f"{len(jobs)}") if key else None
        return lambda: self.store.batches.submit(new, receipt=receipt)

    def ending(self, new: Sequence[NewJob], end: Callable[[Any], object]) -> Work:
        """End the first of some jobs, which runs."""
        self.clear()
        self.store.submit_group(NewGroup(group_id=f"g{next(_names)}", jobs=list(new), callback=None))
        (first,) = self.store.claim(self.worker, limit=1, **SERVED).jobs
        if end == self.store.cancelled:
            self.store.cancel(first.job_id)
        return lambda: end(first)

    def cancelling(self, new: Sequence[NewJob], count: int) -> Work:
        """Cancel jobs that wait: all but the first ones if there is one parent, else the parents."""
        made = self.store.submit_group(NewGroup(group_id=f"g{next(_names)}", jobs=list(new), callback=None))
        wanted = [one.run for one in made.jobs]
        wanted = wanted[1:] if count == len(wanted) - 1 else wanted[:count]

        def cancel() -> None:
            for some in parts(wanted, PART):
                self.store.changes.cancel(some)

        return cancel

    def fail(self, one: Any) -> None:
        """End a job with an error."""
        self.store.fail(one, error="no", code="query_failed")

    def succeed(self, one: Any) -> None:
        """End a job with a result."""
        self.store.succeed(one, rows=1, columns=[])

    def clear(self) -> None:
        """Cancel whatever waits, so that a claim takes what is to run."""
        while found := self.store.pending("bulk", limit=1000):
            self.store.changes.cancel([one.run for one in found])


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Give the statements of the body; one that is sent with many rows counts once."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(store._database._pool, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store._database._pool, "before_cursor_execute", note)


def measured(store: Store, case: Callable[[int], Work], jobs: int, rounds: int) -> tuple[float, float, int]:
    """Return the seconds that a case takes, those of our processor among them, and its statements."""
    times, busy, number = [], [], 0
    for _ in range(rounds):
        work = case(jobs)
        with counted(store) as statements:
            start, began = time.perf_counter(), time.process_time()
            work()
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - began)
        number = len(statements)
    return statistics.median(times), statistics.median(busy), number


def measure(url: str, options: argparse.Namespace, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Measure one engine."""
    store = Store(url)
    store.migrate()
    for name, case in Cases(store).all().items():
        if not any(part in name for part in options.only or [""]):
            continue
        quarter, *_ = measured(store, case, options.jobs // 4, options.rounds)
        whole, busy, statements = measured(store, case, options.jobs, options.rounds)
        times = {"seconds": whole, "busy": busy, "quarter": quarter, "growth": whole / quarter}
        figures = {**times, "statements": statements}
        report({"engine": store._database.engine.name, "what": name, "jobs": options.jobs, **figures})
    store.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True, help="SQLAlchemy URL of an empty database")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", help="cases whose name has this in it")
    parser.add_argument("--json", action="store_true", help="an object per line instead of a table")
    options = parser.parse_args(arguments)
    if not options.json:
        print("| engine | what | jobs | s | CPU s | s of a quarter | growth | statements |")
        print("|---|---|---:|---:|---:|---:|---:|---:|")

    def report(figure: Mapping[str, Any]) -> None:
        if options.json:
            print(json.dumps(figure), flush=True)
        else:
            engine, what, jobs, *times, statements = figure.values()
            seconds, busy, quarter, growth = times
            told = f"{seconds:.2f} | {busy:.2f} | {quarter:.2f} | {growth:.1f}"
            print(f"| {engine} | {what} | {jobs:,} | {told} | {statements:,} |", flush=True)

    for url in options.url:
        measure(url, options, report)


if __name__ == "__main__":
    main()
