"""What claiming and submitting cost with many jobs in front, on the state store itself.

The nasty case: the jobs wait in 440 lanes; the first nine tenths of them belong to a tenant that has all that it may
have, and to paused databases; four tenants take turns at the rest. Figures are milliseconds, one connection, nothing
else running. Before each engine the load of the machine is told (jobs that wanted to run in the last minute).

    python benchmarks/claim.py --url sqlite:///bench.db --url postgresql://postgres@127.0.0.1/bench \
        --url mysql://root@127.0.0.1/bench --jobs 1000000

With ``--groups`` the jobs wait in so many groups of five, each of one task with a limit
of two, and thus with a lane of its own:

    python benchmarks/claim.py --url postgresql://postgres@127.0.0.1/bench --groups 5000

With ``--workers`` so many processes then end one job and claim the next, as fast as they can, for some seconds with
only few jobs waiting, in a database of ``--beside``, and again with all of them; in turns, because machines are slower
at one time than at another; servers only.

    python benchmarks/claim.py --url postgresql://postgres@127.0.0.1/bench --jobs 1000000 --workers 10 \
        --beside postgresql://postgres@127.0.0.1/beside

``--delay`` measures them in the database of ``--beside`` once more, so many milliseconds away, each way.

The databases must be empty; the tables stay in them (``--explain`` shows the plans of all that a claim asks).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import make_url

from benchmarks.lists import noted, plan
from jobber.jobs import Job, NewGroup, NewJob
from jobber.store import Apart, Claim, Gate, GateKind, Store, Success
from tests.blackhole import Proxy

QUEUES = ("fast", "slow")
TASKS = tuple(f"task{n}" for n in range(22))
DATABASES = tuple(f"db{n}" for n in range(10))
#: Those of the tenant that is full, those that are paused, and the one that is free.
BUSY, PAUSED, FREE = DATABASES[:5], DATABASES[5:9], DATABASES[9]
FULL = Gate(GateKind.TENANT, "full")
TENANTS = ("a", "b", "c", "d")
BULK = 1000
#: Jobs that are claimed besides those of the rounds.
EXTRA = 11
OUT = "the benchmark ran out of jobs"


def new_job(name: str, n: int, db: str = FREE) -> NewJob:
    """Return a job that differs from its neighbours in queue and task; there is a lane for each pair and database."""
    tenant = "full" if db in BUSY else TENANTS[n // len(QUEUES) % len(TASKS) % len(TENANTS)]
    return NewJob(
        tenant=tenant,
        job_id=f"{name}-{n}",
        queue=QUEUES[n % len(QUEUES)],
        task=TASKS[n // len(QUEUES) % len(TASKS)],
        db=db,
        results="r",
        table=f"results_{name}_{n}",
        args=[n],
    )


def fill(store: Store, count: int) -> list[float]:
    """Submit ``count`` jobs, nine tenths of them blocked and first; return the seconds per bulk."""
    blocked = count * 9 // 10
    held = (*BUSY, *PAUSED)
    times = []
    for start in range(0, count, BULK):
        jobs = [
            new_job("fill", n, held[n // 44 % len(held)] if n < blocked else FREE)
            for n in range(start, min(start + BULK, count))
        ]
        times.append(timed(lambda jobs=jobs: store.submit(jobs)))
    return times


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def quantile(times: Sequence[float], q: float) -> float:
    """Return the ``q`` quantile in milliseconds."""
    return sorted(times)[min(len(times) - 1, int(len(times) * q))] * 1000


def measure(url: str, count: int, rounds: int, report: Callable[[str, str, Sequence[float]], None]) -> None:
    """Measure one engine, empty first, then filled."""
    store = Store(url)
    store.migrate()
    engine = url.split(":", maxsplit=1)[0].split("+", maxsplit=1)[0]
    worker = store.register("bench", QUEUES, 10, lease=86_400)

    def apart(label: str, times: int) -> None:
        claims, ends = [], []
        for _ in range(times):
            jobs: list[Job] = []
            claims.append(timed(lambda jobs=jobs: jobs.extend(turn(store, worker, [], 1).jobs)))
            ends += [timed(lambda job=job: store.succeed(job, rows=1, columns=[])) for job in jobs]
        assert len(ends) == times, OUT
        report(engine, f"{label}: claim alone, k = 1", claims)
        report(engine, f"{label}: end alone", ends)

    def together(label: str, k: int, times: int) -> None:
        ended, took = turn(store, worker, [], k).jobs, []
        for _ in range(times):
            began, jobs = time.perf_counter(), turn(store, worker, ended, k).jobs
            took.append(time.perf_counter() - began)
            assert jobs, OUT
            ended = jobs
        finish(store, ended)
        report(engine, f"{label}: end and claim, k = {k}", took)

    def claims(label: str) -> None:
        apart(label, rounds)
        together(label, 1, rounds)
        together(label, 10, rounds // 10)

    few = [new_job("few", n) for n in range(rounds * 3 + EXTRA)]
    report(engine, "empty: submit one", [timed(lambda job=job: store.submit([job])) for job in few])
    claims("empty")
    drain(store, worker)
    # The tenant runs one job and may run no other.
    store.set_limits({FULL: 1})
    store.submit([new_job("one", 0, BUSY[0])])
    (held,) = turn(store, worker, [], BULK).jobs
    assert held.tenant == FULL.name
    for db in PAUSED:
        report(engine, "pause a database", [timed(lambda db=db: store.pause(Gate(GateKind.DATABASE, db), "bench"))])
    report(engine, f"bulk submit of {BULK}, up to {count:,} waiting", fill(store, count))
    settle(store)
    later = [new_job("later", n) for n in range(rounds)]
    report(engine, "full: submit one", [timed(lambda job=job: store.submit([job])) for job in later])
    claims("full")
    report(engine, "full: list 100 pending", [timed(lambda: store.pending("fast", limit=100)) for _ in range(20)])
    report(engine, "full: runnable queues", [timed(store.runnable_queues) for _ in range(20)])
    report(engine, "full: what is lost", [timed(store.lost) for _ in range(20)])
    store.close()


def turn(store: Store, worker: int, ended: Sequence[Job], limit: int) -> Claim:
    """End jobs and claim others, as a worker does."""
    ends = [success(job) for job in ended]
    try:
        return store.finish_and_claim(worker, ends, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=limit)
    except Apart:
        store.finish(ends)
        return store.claim(worker, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=limit)


def finish(store: Store, ended: Sequence[Job]) -> None:
    """End jobs, and claim nothing."""
    store.finish([success(job) for job in ended])


def success(job: Job) -> Success:
    """Return how a job ends."""
    return Success(job, 1, [])


def settle(store: Store) -> None:
    """Have the server do what it puts off: it would be doing it while it is measured, for what was filled in before."""
    if not store._database.engine.row_locks:
        return  # no server
    if store._database.engine.name == "postgresql":
        with store._database._pool.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.connection.dbapi_connection.patience = 600.0  # type: ignore[union-attr]
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")
            connection.detach()
    time.sleep(SETTLING)


#: Where servers listen whose URLs do not say.
DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def drain(store: Store, worker: int) -> None:
    """Run all jobs that can run."""
    jobs: Sequence[Job] = ()
    while jobs := turn(store, worker, jobs, 100).jobs:
        pass


#: Seconds for which a server is left alone before it is measured.
SETTLING = 20.0
#: Seconds for which the workers are measured; jobs that wait for them: more than they can do in that time; how often.
SPELL, STOCK, SPELLS = 5.0, 5_000, 5


def compare(url: str, beside: str, workers: int) -> None:
    """Say how many jobs workers finish with few jobs waiting, ``beside``, and with all that wait at ``url``."""
    full, few = Store(url), Store(beside)
    few.migrate()
    worker = few.register("bench", QUEUES, 10, lease=86_400)
    ratios = []
    for _ in range(SPELLS):
        before = crowd(beside, workers, few)
        drain(few, worker)
        after = crowd(url, workers, full)
        ratios.append(after / before)
        print(f"{workers} workers finish {before:.0f} jobs/s with few waiting, {after:.0f} with all: {ratios[-1]:.2f}")
    print(f"median of the ratios: {sorted(ratios)[SPELLS // 2]:.2f}")
    full.close()
    few.close()


def far(url: str, workers: int, delay: float) -> None:
    """Say how many jobs workers finish whose state database is ``delay`` milliseconds away, each way."""
    least, usual, most = sorted(far_rates(url, workers, delay))
    print(f"{workers} workers finish {usual:.0f} jobs/s ({least:.0f} to {most:.0f}), the database {delay:g} ms away")


def far_rates(url: str, workers: int, delay: float) -> list[float]:
    """Return how many jobs a second those workers finish, three times."""
    parsed, store = make_url(url), Store(url)
    with Proxy(parsed.port or DEFAULT_PORTS[parsed.get_backend_name()], delay=delay / 1000) as proxy:
        away = parsed.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        rates = [crowd(away, workers, store) for _ in range(3)]
    store.close()
    return rates


def crowd(url: str, workers: int, store: Store) -> float:
    """Return how many jobs a second so many processes finish, each alone."""
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        begin, counts = manager.Event(), manager.list()
        crew = [context.Process(target=spin, args=(url, begin, counts), daemon=True) for _ in range(workers)]
        for one in crew:
            one.start()
        time.sleep(2 + workers * 0.3)
        store.submit([new_job(f"stock-{time.time_ns()}", n) for n in range(STOCK)])
        begin.set()
        for one in crew:
            one.join()
        return float(sum(counts)) / SPELL


def spin(url: str, begin: object, counts: object) -> None:
    """End a job and claim the next one, for a while; in a process of its own."""
    store, done = Store(url, pool_size=1), 0
    worker = store.register("spin", QUEUES, 1, lease=3600)
    begin.wait()  # type: ignore[attr-defined]
    until = time.monotonic() + SPELL
    jobs: Sequence[Job] = ()
    while time.monotonic() < until:
        done += len(jobs)
        jobs = turn(store, worker, jobs, 1).jobs
    counts.append(done)  # type: ignore[attr-defined]
    finish(store, jobs)
    store.close()


def measure_groups(url: str, count: int, rounds: int, report: Callable[[str, str, Sequence[float]], None]) -> None:
    """Measure one engine with ``count`` groups that wait."""
    store = Store(url)
    store.migrate()
    engine = url.split(":", maxsplit=1)[0].split("+", maxsplit=1)[0]
    worker = store.register("bench", QUEUES, 10, lease=86_400)
    groups = [
        NewGroup(
            group_id=f"g{n}",
            jobs=[
                replace(new_job(f"g{n}", place, DATABASES[0]), queue=QUEUES[n % 2], task=TASKS[n % 22])
                for place in range(5)
            ],
            concurrency=2,
            callback=new_job(f"g{n}", 5, DATABASES[0]),
        )
        for n in range(count)
    ]
    report(engine, "submit a group", [timed(lambda group=group: store.submit_group(group)) for group in groups])
    claims, ends = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        (job,) = store.claim(worker, queues=QUEUES, tasks=TASKS, databases=DATABASES, limit=1).jobs
        claims.append(time.perf_counter() - start)
        ends.append(timed(lambda job=job: store.succeed(job, rows=1, columns=[])))
    report(engine, f"{count:,} groups: claim, k = 1", claims)
    report(engine, f"{count:,} groups: finish", ends)
    store.close()


def explain(url: str) -> None:
    """Print the plans of all that a claim and the end of a job ask, together and apart."""
    store = Store(url)
    database = store._database
    engine = database.engine.name
    worker = store.register("bench", QUEUES, 10, lease=3600)
    with noted(database) as seen:
        for job in turn(store, worker, turn(store, worker, [], 1).jobs, 1).jobs:
            store.succeed(job, rows=1, columns=[])
        statements = [pair for pair in seen if pair[0][:6] in ("SELECT", "UPDATE", "DELETE", "WITH s", "WITH n")]
    for statement, parameters in statements:
        rows = plan(database, statement, parameters[0] if isinstance(parameters, list) else parameters)
        print(f"\n{engine}: {' '.join(statement.split())[:150]} …")
        print("\n".join(f"  {row[-1] if engine != 'mysql' else ' | '.join(map(str, row))}" for row in rows))
    store.close()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True, help="SQLAlchemy URL of an empty state database")
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs waiting (default 100,000)")
    parser.add_argument("--rounds", type=int, default=500, help="claims per figure (default 500)")
    parser.add_argument("--workers", type=int, default=0, help="measure so many worker processes, too")
    parser.add_argument("--beside", action="append", default=[], help="for the workers: another database per --url")
    parser.add_argument("--delay", type=float, default=0, help="... with the database so many milliseconds away, too")
    parser.add_argument("--explain", action="store_true", help="show the plans of the hot statements afterwards")
    parser.add_argument("--groups", type=int, default=0, help="measure with so many groups waiting instead of jobs")
    options = parser.parse_args()
    if options.groups * 5 < options.rounds and options.groups:
        parser.error("--groups must be at least a fifth of --rounds")
    if not options.groups and options.jobs < options.rounds * 30:
        parser.error("--jobs must be at least 30 times --rounds")
    if options.rounds < EXTRA:
        parser.error(f"--rounds must be at least {EXTRA}")
    if options.workers and len(options.beside) != len(options.url):
        parser.error("--workers needs a --beside for each --url")
    print("| engine | what | n | p50 ms | p99 ms |\n|---|---|---:|---:|---:|")

    def report(engine: str, what: str, times: Sequence[float]) -> None:
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        print(f"| {engine} | {what} | {len(times)} | {p50:.2f} | {p99:.2f} |", flush=True)

    for url in options.url:
        print(f"(load average {os.getloadavg()[0]:.1f})")
        if options.groups:
            measure_groups(url, options.groups, options.rounds, report)
        else:
            measure(url, options.jobs, options.rounds, report)
            if options.workers:
                beside = options.beside[options.url.index(url)]
                compare(url, beside, options.workers)
                if options.delay:
                    far(beside, options.workers, options.delay)
        if options.explain:
            explain(url)


if __name__ == "__main__":
    main()
