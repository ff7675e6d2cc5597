"""A worker cut off from one of its databases, or from the broker, while it runs jobs: a black hole takes every byte.

Two instances of one state. All that ``cut`` says to a server goes through proxies of its own; ``whole`` has one before
its state only, so that the state can hang for both. Leases are short.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest
import urllib3
from sqlalchemy import create_engine, text

from jobber.client import JobStatus
from jobber.errors import Unavailable
from tests.blackhole import Proxy
from tests.e2e.running import Running, jobber, seconds
from tests.servers import MariaDB, Postgres, Redis, wait_until

TASKS = {
    "tasks.sql": """\
-- name: nap
-- db: source
-- Tells who ran it.
SELECT current_setting('application_name') AS instance, pg_sleep($1)::text AS slept;

-- name: drip
-- db: direct
-- Some ten megabytes a second, for an hour.
SELECT i, repeat('x', 10000) AS filler, pg_sleep(0.001)::text AS slept FROM generate_series(1, 3600000) AS i;
"""
}
#: Seconds of the lease; jobs at a time.
LEASE, SLOTS = 3, 4
#: How many attempts write, and what they have left behind.
WRITING: LiteralString = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%FROM STDIN%' AND state = 'active'"
)
STAGED: LiteralString = "SELECT count(*) FROM pg_class WHERE relname LIKE 'jobber_staging_%'"
#: Seconds within which a running job's thread is free after a cancel.
CANCELLED = 2.0
#: Seconds after which a state database that says nothing is given up; on MySQL the URL may say so.
SILENCE, SILENCE_ON_MARIADB = 12, 4
#: Seconds that a machine may be busy with something else.
SLACK = 10.0


@dataclass(frozen=True)
class Pair:
    """The two instances, and the ways of ``cut`` to what it needs: ``state``, ``results``, ``source``, ``broker``."""

    cut: Running
    whole: Running
    ways: dict[str, Proxy]
    postgres: Postgres
    database: str
    state_url: str
    silence: int

    def start(self, naps: Mapping[str, float], results: Mapping[str, str] | None = None) -> None:
        """Submit naps (seconds by ID) and return once ``cut`` runs them all, though both serve their queue."""
        # The other one has its hands full until the lease of this one is over.
        fillers = [self.whole.client.submit("nap", [LEASE + 1], queue="its").job_id for _ in range(SLOTS)]
        wait_until(lambda: all(self.job(job_id).state == "STARTED" for job_id in fillers), timeout=30)
        for job_id, length in naps.items():
            into = (results or {}).get(job_id, "main")
            self.whole.client.submit("nap", [length], job_id=job_id, queue="shared", results=into)
        wait_until(lambda: all(self.job(job_id).worker == "cut" for job_id in naps), timeout=30)

    def job(self, job_id: str) -> JobStatus:
        return self.whole.client.job(job_id)

    def done(self, job_id: str, timeout: float = 60) -> JobStatus:
        return self.whole.client.wait(job_id, timeout=timeout)

    def works_on(self) -> bool:
        """Return whether ``cut`` runs jobs, and in all of its threads."""
        jobs = [self.whole.client.submit("nap", [0.2], queue="mine") for _ in range(SLOTS)]
        return {(done.state, done.worker) for done in (self.done(job.job_id) for job in jobs)} == {("SUCCESS", "cut")}

    def endings(self, job_id: str) -> list[str]:
        """Return how each attempt of a job ended."""
        return [attempt.ending for attempt in self.job(job_id).attempts or ()]

    def identity(self) -> int:
        """Return the ID under which ``cut`` is on the list of workers."""
        engine = create_engine(self.state_url)
        with engine.connect() as connection:
            newest: int = connection.execute(text("SELECT max(id) FROM jobber_workers WHERE name = 'cut'")).scalar_one()
        engine.dispose()
        return newest

    def instance(self, job_id: str) -> str:
        """Return which of the two has written the result of a nap."""
        (row,) = self.whole.client.results(job_id)
        return str(row["instance"])

    def asked(self, query: LiteralString) -> int:
        """Return the number that the database of source and results answers."""
        with psycopg.connect(self.postgres.dsn(self.database)) as connection:
            found = connection.execute(query).fetchone()
            assert found is not None
            return int(found[0])


def config(
    folder: Path, name: str, *, state: str, direct: str, source: str, results: str, more: str, broker: str
) -> str:
    return f"""
[app]
data_dir = "{folder}/{name}"
lease = {LEASE}
heartbeat = 1
sweep = 1
log_level = "info"
[job_queue.state]
url = "{state}"
{f'[job_queue.broker]{chr(10)}url = "{broker}"' if broker else ""}
[db.source]
url = "{source}?application_name={name}"
[db.direct]
url = "{direct}"
[results.main]
url = "{results}"
{more}
"""


@contextmanager
def pair_of(
    folder: Path, state: Postgres | MariaDB, postgres: Postgres, mariadb: MariaDB, redis: Redis
) -> Iterator[Pair]:
    database, on_mariadb = postgres.new_database(), mariadb.new_database()
    state_url = state.url(database if state is postgres else on_mariadb)
    silence, options = SILENCE, ""
    if state is mariadb:
        silence, options = SILENCE_ON_MARIADB, f"?read_timeout={SILENCE_ON_MARIADB}&connect_timeout=2"
    direct = postgres.url(database)
    redis.flush()
    with ExitStack() as stack:
        ways = {
            way: stack.enter_context(Proxy(server.port))
            for way, server in {
                "state": state,
                "state of whole": state,
                "results": postgres,
                "source": postgres,
                "broker": redis,
            }.items()
        }

        def through(way: str, url: str, server: Postgres | MariaDB | Redis) -> str:
            return url.replace(f":{server.port}/", f":{ways[way].port}/")

        more = f'[results.lite]\nurl = "sqlite:///{folder}/lite"\n[results.other]\nurl = "{mariadb.url(on_mariadb)}"'
        texts = {
            "cut": config(
                folder,
                "cut",
                state=through("state", state_url, state) + options,
                direct=direct,
                source=through("source", direct, postgres),
                results=through("results", direct, postgres),
                broker=through("broker", redis.url, redis),
                more=more,
            ),
            "whole": config(
                folder,
                "whole",
                state=through("state of whole", state_url, state),
                direct=direct,
                source=direct,
                results=direct,
                broker=redis.url,
                more=more,
            ),
        }
        queues = {"cut": "mine", "whole": "its"}
        running = {}
        for name, text in texts.items():
            (folder / name).mkdir()
            flags = ["--worker-name", name, "--worker-concurrency", str(SLOTS)]
            flags += ["--queue-name", "shared", "--queue-name", queues[name]]
            running[name] = stack.enter_context(jobber(folder / name, text, TASKS, *flags))
        yield Pair(running["cut"], running["whole"], ways, postgres, database, state_url, silence)
        for way in ways.values():
            way.forward()
    postgres.drop_database(database)
    mariadb.drop_database(on_mariadb)


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, mariadb: MariaDB, redis_server: Redis
) -> Iterator[Pair]:
    """State, results and source on PostgreSQL, all in one database."""
    with pair_of(tmp_path_factory.mktemp("cut-off"), postgres, postgres, mariadb, redis_server) as pair:
        yield pair


def test_the_system_watches_every_connection(pair: Pair) -> None:
    """A peer whose machine or network vanished is noticed soon: the system asks after seconds of silence, not hours."""
    assert pair.works_on()
    found = keepalives([process.pid for process in pair.cut.family()])
    for name in ("state", "results", "source", "broker"):
        times = found.get(pair.ways[name].port, [])
        assert times, f"no connection to the {name}"
        assert all(time is not None and time <= 30 for time in times), (name, times)


def keepalives(pids: Sequence[int]) -> dict[int, list[float | None]]:
    """Return in how many seconds the system looks after each connection (None: never), by the port it leads to."""
    timers = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, timer, *_ = line.split()
        kind, left = timer.split(":")
        ports = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        timers[ports] = int(left, 16) / 100 if int(kind, 16) else None
    found: dict[int, list[float | None]] = {}
    for pid in pids:
        for connection in psutil.Process(pid).net_connections("tcp4"):
            if connection.raddr and connection.status == psutil.CONN_ESTABLISHED:
                time = timers.get((connection.laddr.port, connection.raddr.port))
                found.setdefault(connection.raddr.port, []).append(time)
    return found


def test_a_source_that_is_a_black_hole_ends_jobs_by_their_limit_and_by_a_cancel(pair: Pair) -> None:
    client, way = pair.whole.client, pair.ways["source"]
    limited = {"queue": "mine", "timeout": 2}
    for job_id in ("limited", "cancelled"):
        client.submit(
            "nap", [600], job_id=job_id, db="source", **(limited if job_id == "limited" else {"queue": "mine"})
        )  # type: ignore[arg-type]
    wait_until(lambda: pair.job("cancelled").state == "STARTED" == pair.job("limited").state, timeout=30)
    began = time.monotonic()
    way.swallow()
    try:
        client.submit("nap", [600], job_id="connecting", db="source", **limited)  # type: ignore[arg-type]
        pair.cut.client.cancel("cancelled")
        assert pair.done("cancelled").state == "CANCELLED"
        assert seconds(began) < CANCELLED + SLACK / 2
        for job_id in ("limited", "connecting"):
            done = pair.done(job_id)
            assert (done.state, "longer than its" in done.error) == ("FAILURE", True), done
        # The limit, its grace, the time that a query has to end; and the one that connects began a little later.
        assert seconds(began) < 2 + 1 + 2 + SLACK
    finally:
        way.forward()
    assert pair.works_on()


def test_results_that_are_a_black_hole_end_jobs_by_their_limit_and_by_a_cancel(pair: Pair) -> None:
    client, way = pair.whole.client, pair.ways["results"]
    for job_id, timeout in {"dripped": 0, "late": 4}.items():
        client.submit("drip", job_id=job_id, queue="mine", results="main", timeout=timeout)
    wait_until(lambda: pair.asked(WRITING) == 2, timeout=30)
    began = time.monotonic()
    way.swallow()
    try:
        pair.cut.client.cancel("dripped")
        assert pair.done("dripped").state == "CANCELLED"
        assert seconds(began) < CANCELLED + SLACK / 2
        assert pair.done("late").state == "FAILURE"
        assert seconds(began) < 4 + 1 + 2 + SLACK
        # The same job, elsewhere.
        client.submit("nap", [0], job_id="dripped", queue="its", results="main")
        assert pair.done("dripped").state == "SUCCESS"
        assert pair.instance("dripped") == "whole"
    finally:
        way.forward()
    assert pair.works_on()
    # What was held back has arrived now.
    wait_until(lambda: pair.asked(WRITING) == 0, timeout=30)
    assert pair.asked(STAGED) == 0
    assert pair.instance("dripped") == "whole"


def test_a_broker_that_is_a_black_hole_delays_nothing_but_wake_ups(pair: Pair) -> None:
    way = pair.ways["broker"]
    way.swallow()
    try:
        began = time.monotonic()
        jobs = [pair.cut.client.submit("nap", [0], queue="mine") for _ in range(20)]
        assert seconds(began) < SLACK / 2
        # An idle worker looks for itself at every sweep.
        assert {pair.done(job.job_id).worker for job in jobs} == {"cut"}
        assert seconds(began) < SLACK
    finally:
        way.forward()
    assert pair.works_on()


def test_a_worker_that_was_stopped_past_its_lease_is_fenced_off_when_it_goes_on(pair: Pair) -> None:
    """In the database of the state, in one of another make, and in files."""
    jobs = {"in-main": "main", "in-other": "other", "in-lite": "lite"}
    pair.start(dict.fromkeys(jobs, 1.5), jobs)
    before = pair.identity()
    (worker,) = pair.cut.workers()
    worker.suspend()
    try:
        for job_id in jobs:
            done = pair.done(job_id)
            assert (done.state, done.worker, done.attempt) == ("SUCCESS", "whole", 2)
    finally:
        worker.resume()
    wait_until(lambda: all(f"job {job_id} attempt 1" in pair.cut.text() for job_id in jobs), timeout=30)
    assert pair.works_on()
    assert pair.identity() > before
    for job_id in jobs:
        assert pair.instance(job_id) == "whole"
        assert pair.endings(job_id) == ["rescued", "success"]


def test_nobody_is_declared_lost_because_the_state_database_hung(pair: Pair) -> None:
    pair.start({"patient": LEASE * 2 + 2})
    for way in ("state", "state of whole"):
        pair.ways[way].swallow()
    time.sleep(LEASE * 1.5)
    # It answers one of them before the other, who could not have renewed its lease yet.
    pair.ways["state of whole"].forward()
    time.sleep(LEASE / 2)
    pair.ways["state"].forward()

    done = pair.done("patient")

    assert (done.state, done.worker, done.attempt) == ("SUCCESS", "cut", 1)


# -- the state ---------------------------------------------------------------------------------------------------------


class Pollers:
    """Two hundred clients that ask an instance for a job, again and again."""

    def __init__(self, running: Running) -> None:
        self._url = f"{running.url}/jobs/short"
        self._pool = urllib3.PoolManager(maxsize=200, retries=False, timeout=60)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._answers: list[tuple[float, float, int]] = []  # when they were asked for, how long they took, their status
        self._threads = [threading.Thread(target=self._poll) for _ in range(200)]
        for thread in self._threads:
            thread.start()

    def asked_after(self, moment: float) -> list[tuple[float, int]]:
        """Return how long answers took, and their status, that were asked for after a moment."""
        with self._lock:
            return [(took, status) for asked, took, status in self._answers if asked > moment]

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._pool.clear()

    def _poll(self) -> None:
        while not self._over.wait(1):
            asked = time.monotonic()
            status = self._pool.request("GET", self._url).status
            with self._lock:
                self._answers.append((asked, time.monotonic() - asked, status))


def test_a_worker_without_its_state_database_loses_its_jobs_to_others_and_starts_anew(pair: Pair) -> None:
    """Its API answers 503 meanwhile, however many ask."""
    way = pair.ways["state"]
    pair.start({"short": 1, "long": 2 * LEASE + 1})
    before = pair.identity()
    pollers = Pollers(pair.cut)
    began = time.monotonic()
    way.swallow()
    try:
        short, long = pair.done("short"), pair.done("long")
        # What it had published stands, though it could not say so; what it had not is somebody else's now.
        assert (short.state, short.worker, short.attempt) == ("SUCCESS", "cut", 1)
        assert (long.state, long.worker, long.attempt) == ("SUCCESS", "whole", 2)
        with pytest.raises(Unavailable):
            pair.cut.client.submit("nap", [0])
        wait_until(lambda: "does not answer: no answer in time" in pair.cut.text(), timeout=pair.silence + SLACK)
        wait_until(lambda: len(pollers.asked_after(began + pair.silence)) > 100, timeout=3 * SLACK)
        late = pollers.asked_after(began + pair.silence)
    finally:
        way.forward()
        pollers.stop()
    # The first ones wait until it is noticed; from then on one at a time does.
    assert max(took for took, _ in pollers.asked_after(began)) < pair.silence + SLACK
    assert {status for _, status in late} == {503}
    assert sum(took < 1 for took, _ in late) > 0.8 * len(late)
    assert pair.works_on()
    assert pair.identity() > before
    assert pair.instance("long") == "whole"
    assert pair.endings("short").count("success") == 1
    assert pair.endings("long") == ["rescued", "success"]
