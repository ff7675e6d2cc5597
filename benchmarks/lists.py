"""What lists and statistics cost with millions of jobs, and which plans the engines make for them.

Fills an empty state database with live and finished jobs (rare states, tasks that ended long ago, tags, groups), asks
for pages of every filter and for the statistics, and shows p50 and p99 in milliseconds; ``--explain`` also tells which
statements read a large table from end to end. Nothing else should be running.

    python benchmarks/lists.py --url postgresql://postgres@127.0.0.1/bench --url mysql://root@127.0.0.1/bench \
        --live 1000000 --finished 3000000 --explain

The tables stay in the databases: ``--filled`` measures again without filling.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from psycopg import RawCursor
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    Table,
    case,
    cast,
    event,
    insert,
    literal,
    literal_column,
    null,
    select,
    text,
)

from jobber.changing import Changes
from jobber.jobs import JobState
from jobber.store import Store
from jobber.store.database import Database
from jobber.store.engines import Rows, Statement
from jobber.store.listing import JobFilter
from jobber.store.schema import EMPTY, ORD_STEP, finished_jobs, groups, jobs, lanes, tags

DAY = 86_400 * 1_000_000
TASKS, DATABASES, QUEUES = 22, 10, ("fast", "slow", "rare")
CHUNK = 100_000
#: What a plan must not read from end to end; of an index that is read from its end on MariaDB says how far.
LARGE = ("jobber_jobs", "jobber_finished_jobs", "jobber_tags")
MANY = 6000

P, S, R = JobState.PENDING, JobState.STARTED, JobState.RETRY
OK, BAD, CANCELLED = JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED


def wanted(now: int) -> dict[str, JobFilter]:
    """Return the filters that are measured; ``early`` jobs are the oldest, ``rare`` ones few and everywhere."""

    def of(*states: JobState, **conditions: Any) -> JobFilter:
        return JobFilter(states=frozenset(states), **conditions)

    return {
        "all": of(),
        "state=PENDING": of(P),
        "state=STARTED": of(S),
        "state=RETRY": of(R),
        "state=PENDING,RETRY": of(P, R),
        "state=FAILURE": of(BAD),
        "state=CANCELLED": of(CANCELLED),
        "state=FAILURE,CANCELLED": of(BAD, CANCELLED),
        "state=RETRY,SUCCESS": of(R, OK),
        "task=task3": of(task="task3"),
        "task=rare": of(task="rare"),
        "task=early": of(task="early"),
        "task=unknown": of(task="unknown"),
        "queue=fast": of(queue="fast"),
        "queue=rare": of(queue="rare"),
        "group=nightly": of(group="nightly"),
        "tag.customer=c7": of(tags={"customer": "c7"}),
        "tag.env=prod": of(tags={"env": "prod"}),
        "tag.odd=one": of(tags={"odd": "one"}),
        "tag.env=prod, tag.customer=c8": of(tags={"env": "prod", "customer": "c8"}),
        "tag.env=prod, tag.customer=c7 (none)": of(tags={"env": "prod", "customer": "c7"}),
        "tag.customer=c7, state=FAILURE": of(BAD, tags={"customer": "c7"}),
        "tag.env=prod, state=RETRY": of(R, tags={"env": "prod"}),
        "tag.customer=c7, task=task3": of(task="task3", tags={"customer": "c7"}),
        "since an hour": of(since=now - DAY // 24),
        "until 5 days ago": of(until=now - 5 * DAY),
        "an hour 5 days ago": of(since=now - 5 * DAY, until=now - 5 * DAY + DAY // 24),
        "task=task3, state=FAILURE": of(BAD, task="task3"),
        "task=early, state=PENDING": of(P, task="early"),
        "task=early, state=FAILURE": of(BAD, task="early"),
        "task=task4, queue=fast": of(task="task4", queue="fast"),
        "task=task4, queue=slow (none)": of(task="task4", queue="slow"),
        "task=task3, until 5 days ago": of(task="task3", until=now - 5 * DAY),
        "state=RETRY, queue=fast": of(R, queue="fast"),
        "state=FAILURE, an hour 5 days ago": of(BAD, since=now - 5 * DAY, until=now - 5 * DAY + DAY // 24),
        "group=nightly, state=FAILURE": of(BAD, group="nightly"),
    }


# -- filling ----------------------------------------------------------------------------------------------------------


def fill(database: Database, live: int, finished: int) -> None:
    """Make so many live and finished jobs, submitted evenly over the last week, the finished ones first."""
    now: int = database.read(lambda connection: connection.execute(select(database.engine.now)).scalar_one())
    total = live + finished
    step = 7 * DAY // total
    first = (now - 7 * DAY) // 1000
    every = max(finished // 1000, 20)  # so many finished jobs per group of ten

    def write(statement: Any, rows: Any = None) -> None:
        database.write(lambda connection: connection.execute(statement, rows), unhurried=True)

    names = [(queue, task, db) for queue in QUEUES for task in range(TASKS) for db in range(DATABASES)]
    write(
        insert(lanes),
        [
            {"id": place + 1, "queue": queue, "task": _task(task), "db": f"db{db}", "tenant": "", "job_group": ""}
            | {"group_limit": 0, "suspect": False, "head": EMPTY, "version": 0}
            for place, (queue, task, db) in enumerate(names)
        ],
    )
    if database.engine.name == "postgresql":
        write(text("SELECT setval(pg_get_serial_sequence('jobber_lanes', 'id'), (SELECT max(id) FROM jobber_lanes))"))
    write(
        insert(groups),
        [
            {"run": first + 3 * n - 1, "group_id": "nightly", "live_id": None, "size": 10, "concurrency": 0}
            | {"succeeded": 10, "failed": 0, "cancelled": 0, "callback_run": None, "callback_url": None}
            | {"created_at": now - (total - n) * step, "finished_at": now}
            for n in range(0, finished, every)
        ],
    )
    for start in range(0, total, CHUNK):
        for begin, end, table in ((0, finished, finished_jobs), (finished, total, jobs)):
            low, high = max(start, begin), min(start + CHUNK, end)
            if low < high:
                n = _numbers(low, high)
                row = _row(n.c.n, table, begin=begin, end=end, at=now - total * step, step=step, run=first, every=every)
                write(insert(table).from_select(list(row), select(*(row.values()))))
                for tag in _tags(n, first):
                    write(insert(tags).from_select(["name", "value", "run"], tag))
    analyze(database)


def analyze(database: Database) -> None:
    """Have the engine look at its tables."""
    for table in LARGE:
        command = {"postgresql": f"ANALYZE {table}", "mysql": f"ANALYZE TABLE {table}", "sqlite": "ANALYZE"}
        database.write(
            lambda connection, sql=command[database.engine.name]: connection.execute(text(sql)).close(), unhurried=True
        )


def _task(number: int) -> str:
    return {20: "rare", 21: "early"}.get(number, f"task{number}")


def _numbers(low: int, high: int) -> Any:
    """Return the numbers from ``low`` on below ``high`` as a table, the same on every engine."""
    digit = "(" + " UNION ALL ".join(f"SELECT {d} AS d" for d in range(10)) + ")"
    places = range(len(str(CHUNK)) - 1)
    number = " + ".join([str(low), *(f"d{place}.d * {10**place}" for place in places)])
    together = text(" CROSS JOIN ".join(f"{digit} AS d{place}" for place in places))
    numbers = select(cast(literal_column(number), BigInteger).label("n")).select_from(together).subquery("numbers")
    return select(numbers.c.n).where(numbers.c.n < high).subquery("n")


def _text(prefix: str, number: ColumnElement[Any], suffix: str = "") -> ColumnElement[str]:
    shown = literal(prefix, String) + cast(number, String(20))
    return shown + suffix if suffix else shown


def _row(
    n: ColumnElement[Any], table: Table, *, begin: int, end: int, at: int, step: int, run: int, every: int
) -> dict[str, Any]:
    """Return the columns of job ``n``."""
    is_live = table is jobs
    early = n < begin + (end - begin) // 100
    task = case((early, 21), (n % 49_999 == 7, 20), else_=n % 20)
    queue = case((n % 49_999 == 11, 2), else_=n % 2)
    created = n * step + at
    started, took = created + n * 7919 % 100_000 * 1000, n * 104_729 % 60_000 * 1000
    number = n * 3 + run
    member = (n % every < 10) if not is_live else literal_column("1 = 0")
    if is_live:
        state = case((n % 20_000 == 5, S.value), (n % 99_999 == 9, R.value), else_=P.value)
    else:
        state = case((n % 10_000 == 3, CANCELLED.value), (n % 50 == 1, BAD.value), else_=OK.value)
    failed = state == BAD.value
    row: dict[str, Any] = {
        "run": number,
        "job_id": _text("bench-", n),
        "task": case((task == 21, "early"), (task == 20, "rare"), else_=_text("task", task)),
        "queue": case(*((queue == place, name) for place, name in enumerate(QUEUES)), else_=""),
        "db": _text("db", n % DATABASES),
        "result_table": _text("results_bench_", n),
        "tags": _text('{"customer": "c', n % 1000, '"}'),
        "group_id": case((member, "nightly"), else_=""),
        "group_run": case((member, number - n % every * 3 - 1), else_=null()),
        "state": state,
        "attempt": case((literal(is_live) & (state == P.value), 0), else_=1),
        "rows": null() if is_live else n % 1000,
        "error_code": case((failed & (n % 3 == 0), "timed_out"), (failed, "query_failed"), else_=""),
        "created_at": created,
        "started_at": null() if is_live else started,
        "finished_at": null() if is_live else started + took,
        "expires_at": null(),
    }
    row |= {"results": "r", "args": "[]", "columns": "[]", "worker": "", "error": "", "priority": 5}
    row |= dict.fromkeys(["retries", "ttl", "timeout", "failures", "rescues", "rows_so_far", "bytes_so_far"], 0)
    row |= {"cancel_requested": literal_column("false")}
    if is_live:
        row |= {"lane": (queue * TASKS + task) * DATABASES + n % DATABASES + 1, "ended_attempt": 0, "ended_as": ""}
        row |= {"ord": case((state == P.value, number + 5 * ORD_STEP), else_=null())}
    plain = {name: value if isinstance(value, ColumnElement) else literal(value) for name, value in row.items()}
    return {name: cast(value, BigInteger) if name.endswith(("_at", "_run")) else value for name, value in plain.items()}


def _tags(n: Any, run: int) -> Iterator[Select[Any]]:
    number = n.c.n * 3 + run
    yield select(literal("customer"), _text("c", n.c.n % 1000), number)
    yield select(literal("env"), literal("prod"), number).where(n.c.n % 2 == 0)
    yield select(literal("odd"), literal("one"), number).where(n.c.n % 99_999 == 13)


# -- plans ------------------------------------------------------------------------------------------------------------


@contextmanager
def noted(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements that run meanwhile, with their parameters."""
    statements: list[tuple[str, Any]] = []
    exchange = database.engine.exchange

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    def sent(driver: Any, several: Sequence[Statement], *, commit: bool) -> list[Rows]:
        statements.extend(several)
        return exchange(driver, several, commit=commit)

    pool = database._pool
    event.listen(pool, "before_cursor_execute", note)
    try:
        with patch.object(database.engine, "exchange", sent):
            yield statements
    finally:
        event.remove(pool, "before_cursor_execute", note)


def full_scans(database: Database, statements: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the plans, with their statements, that read one of the large tables from end to end."""
    found = []
    for statement, parameters in {statement: (statement, parameters) for statement, parameters in statements}.values():
        for row in plan(database, statement, parameters):
            line = " | ".join(map(str, row))
            if is_full_scan(database.engine.name, row):
                found.append(f"{line}\n    {statement}")
    return found


def plan(database: Database, statement: str, parameters: Any) -> Sequence[Any]:
    """Return the lines of the plan that the engine makes for a statement."""
    with database._pool.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        words = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}.get(database.engine.name)
        # MySQL has tables of plans if asked to; MariaDB has nothing else, and does not understand the question.
        words = words or ("EXPLAIN" if driver.is_mariadb else "EXPLAIN FORMAT=TRADITIONAL")
        if "$1" in statement:  # it went past SQLAlchemy
            return RawCursor(driver).execute(f"{words} {statement}", parameters).fetchall()
        return connection.exec_driver_sql(f"{words} {statement}", parameters).all()


def is_full_scan(engine: str, row: Any) -> bool:
    """Whether a line of a plan says that a large table is read from end to end."""
    if engine == "mysql":
        found = row._mapping
        many = int(found["rows"] or 0) > MANY
        return found["table"] in LARGE and (found["type"] == "ALL" or (found["type"] == "index" and many))
    line = str(row[-1])
    if engine == "sqlite":
        return bool(re.match(rf"SCAN ({'|'.join(LARGE)})$", line))
    return bool(re.search(rf"Seq Scan on ({'|'.join(LARGE)})\b", line))


# -- measuring --------------------------------------------------------------------------------------------------------


def measured(work: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds that each of some rounds takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)


def measure(url: str, options: argparse.Namespace, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Measure one engine."""
    store = Store(url)
    store.migrate()
    database = store._database
    if not options.filled:
        (took,) = measured(lambda: fill(database, options.live, options.finished), 1)
        report({"engine": database.engine.name, "what": "fill", "n": 1, "p50": took, "p99": took, "found": ""})
    for name, filter_ in wanted(store.now()).items():
        # The first page, and one in the middle of the list.
        for below, where in ((None, ""), (options.middle and _middle(database), ", later page")):
            if where and not below:
                continue
            with noted(database) as statements:
                page = store.lists.page(filter_, below=below, limit=options.limit)
            scans = full_scans(database, statements) if options.explain else []
            times = measured(
                lambda f=filter_, b=below: store.lists.page(f, below=b, limit=options.limit), options.rounds
            )
            found = f"{len(page.jobs)}{'' if page.below is None else '+'}"
            report(_figure(database, f"{name}{where}", times, found))
            for scan in scans:
                print(f"  reads all of a table: {scan}")
    for hours in options.hours:
        figures = store.statistics.make(hours)
        count = sum(tally.states.total() for tally in figures.tasks.values())
        times = measured(lambda h=hours: store.statistics.make(h), 3)
        whole = "" if figures.complete else ", not all of them"
        report(_figure(database, f"statistics of {hours:g} hours{whole}", times, f"{count:,}"))
    if options.cancel:
        cancel(store, options.cancel, report)
    store.close()


def cancel(store: Store, count: int, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Cancel so many waiting jobs by a filter while a worker claims and finishes others."""
    database = store._database
    page = store.lists.runs(JobFilter(states=frozenset({P})), ["created_at"], live=True, limit=count)
    since = page.rows[-1]["created_at"]
    worker = store.register("bench", QUEUES, 10, lease=86_400)
    served = {"queues": QUEUES, "tasks": [_task(n) for n in range(TASKS)], "databases": [f"db{n}" for n in range(10)]}
    with database._pool.begin() as connection:  # lanes are filled with no ready job in sight
        connection.execute(lanes.update().values(head=0))
    claims: list[float] = []
    done = threading.Event()

    def claim() -> None:
        while not done.is_set():
            start = time.perf_counter()
            got = store.claim(worker, limit=1, **served)
            claims.append((time.perf_counter() - start) * 1000)
            for job in got.jobs:
                store.succeed(job, rows=0, columns=[])

    changes = Changes(store=store, bulk=None, queueing=None, accept=lambda: None, wake=lambda _: None)  # type: ignore[arg-type]
    worker_thread = threading.Thread(target=claim)
    worker_thread.start()
    time.sleep(2)
    before = sorted(claims)
    claims.clear()
    start, cancelled, below = time.perf_counter(), 0, None
    while True:
        tally = changes.cancel_all(JobFilter(states=frozenset({P}), since=since), below=below)
        cancelled, below = cancelled + tally.done, tally.below
        if below is None:
            break
    took = (time.perf_counter() - start) * 1000
    meanwhile = sorted(claims)
    done.set()
    worker_thread.join()
    report(_figure(database, "claim, before", before, ""))
    report(_figure(database, "claim, during the cancel", meanwhile, ""))
    report(_figure(database, "cancel by filter", [took], f"{cancelled:,}"))


def _figure(database: Database, what: str, times: Sequence[float], found: str) -> dict[str, Any]:
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    return {"engine": database.engine.name, "what": what, "n": len(times), "p50": p50, "p99": p99, "found": found}


def _middle(database: Database) -> int:
    ends = [text("SELECT min(run) FROM jobber_finished_jobs"), text("SELECT max(run) FROM jobber_jobs")]
    low, high = (database.read(lambda connection, sql=sql: connection.execute(sql).scalar_one()) for sql in ends)
    return (low + high) // 2


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True, help="SQLAlchemy URL of an empty state database")
    parser.add_argument("--live", type=int, default=100_000, help="live jobs (default 100,000)")
    parser.add_argument("--finished", type=int, default=300_000, help="finished jobs (default 300,000)")
    parser.add_argument("--rounds", type=int, default=20, help="pages per figure (default 20)")
    parser.add_argument("--limit", type=int, default=100, help="jobs per page (default 100)")
    parser.add_argument("--filled", action="store_true", help="measure what an earlier run has filled")
    parser.add_argument("--middle", action="store_true", help="measure a page in the middle of each list, too")
    parser.add_argument("--hours", type=float, action="append", default=[], help="also statistics of so many hours")
    parser.add_argument("--cancel", type=int, default=0, help="in the end cancel so many jobs by a filter")
    parser.add_argument("--explain", action="store_true", help="tell which statements read all of a large table")
    parser.add_argument("--json", action="store_true", help="an object per line instead of a table")
    options = parser.parse_args()
    if not options.json:
        print("| engine | what | n | p50 ms | p99 ms | found |\n|---|---|---:|---:|---:|---:|", flush=True)

    def report(figure: Mapping[str, Any]) -> None:
        if options.json:
            print(json.dumps(figure), flush=True)
        else:
            engine, what, n, p50, p99, found = figure.values()
            print(f"| {engine} | {what} | {n} | {p50:.2f} | {p99:.2f} | {found} |", flush=True)

    for url in options.url:
        measure(url, options, report)


if __name__ == "__main__":
    main()
