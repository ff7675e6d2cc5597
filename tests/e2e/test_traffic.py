"""Priorities, limits, turns and rates over three worker processes, told from what the state database wrote down.

All jobs of a test become ready in one moment. Claims come one at a time, so the times at which jobs started say in
which order they were claimed; and an attempt counts as running from its start until after its end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest
import urllib3

from tests.e2e.running import Running, jobber
from tests.servers import Postgres, Redis, wait_until

TASKS = {"tasks.sql": "-- name: nap\n-- db: pg, narrow, paced, few\nSELECT pg_sleep($1);\n"}
SECOND = 1_000_000
#: The limits of the config.
TOTAL, NARROW, CALM, EACH_TENANT, ACME = 9, 2, 3, 4, 1
#: Starts per second, and how many may start at once after a rest.
PACE, BURST = 20, 10
#: Seconds between the look at the clock that lets a job start and the start that is written down, at most.
DECIDED = 0.25
CONFIG = """
[app]
data_dir = "{folder}/data"
sweep = 60
retry_delay = "100ms"
retry_delay_max = "500ms"
max_jobs = {TOTAL}
tenant_tag = "customer"
tenant_max_concurrent = {EACH_TENANT}
[job_queue.broker]
url = "{broker}"
[job_queue.state]
url = "{url}"
[queue.calm]
max_concurrent = {CALM}
[tenant.acme]
max_concurrent = {ACME}
[db.pg]
url = "{url}"
[db.narrow]
url = "{url}"
max_concurrent = {NARROW}
[db.paced]
url = "{url}"
max_starts = {PACE}
[db.few]
url = "{few}"
max_starts = 10
[results.main]
url = "{url}"
"""


class Ran(NamedTuple):
    """What became of a job."""

    run: int
    queue: str
    db: str
    tenant: str
    priority: int
    state: str
    started_at: int
    finished_at: int


@dataclass(frozen=True)
class Site:
    """A jobber with three worker processes of four threads each."""

    running: Running
    dsn: str

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def submit(self, group_id: str, jobs: list[dict[str, Any]], *, soon: bool = True) -> None:
        """Submit jobs at once, to become ready at once."""
        eta = (datetime.now(UTC) + timedelta(seconds=0.7)).isoformat()
        body = [{"task": "nap", **({"eta": eta} if soon else {}), **job} for job in jobs]
        answer = urllib3.request("POST", f"{self.running.url}/groups", json={"group_id": group_id, "jobs": body})
        assert answer.status == 200, answer.data

    def ran(self, group_id: str) -> list[Ran]:
        """Wait for jobs; return them in the order in which they started."""
        over = f"SELECT 1 FROM jobber_groups WHERE group_id = '{group_id}' AND finished_at IS NOT NULL"
        wait_until(lambda: bool(self.sql(over)), timeout=60)
        columns = ", ".join(Ran._fields)
        order = "started_at, priority DESC, run"  # those that one claim took started at the same time
        rows = self.sql(f"SELECT {columns} FROM jobber_finished_jobs WHERE group_id = '{group_id}' ORDER BY {order}")
        ran = [Ran(*row) for row in rows]
        assert {job.state for job in ran} == {"SUCCESS"}
        return ran

    def job(self, job_id: str) -> Any:
        return json.loads(urllib3.request("GET", f"{self.running.url}/jobs/{job_id}").data)["data"]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, migrated: str, redis_server: Redis
) -> Iterator[Site]:
    folder, database = tmp_path_factory.mktemp("traffic"), postgres.new_database(migrated)
    redis_server.flush()
    postgres.execute("CREATE ROLE traffic_few LOGIN CONNECTION LIMIT 1", database)
    url = postgres.url(database)
    few = url.replace("postgres@", "traffic_few@")
    text = CONFIG.format(folder=folder, broker=redis_server.url, url=url, few=few, **globals())
    flags = ("--worker-processes", "3", "--worker-concurrency", "4", "--queue-name", "default")
    more = ("--queue-name", "calm", "--queue-name", "other")
    with jobber(folder, text, TASKS, *flags, *more) as running:
        yield Site(running, postgres.dsn(database))
    postgres.drop_database(database)
    postgres.execute("DROP ROLE traffic_few", "postgres")


def most(jobs: list[Ran]) -> int:
    """Return how many of some jobs ran at a time, at most."""
    steps = sorted([(job.started_at, 1) for job in jobs] + [(job.finished_at, -1) for job in jobs])
    running = peak = 0
    for _, step in steps:
        running += step
        peak = max(peak, running)
    return peak


def test_no_limit_is_ever_exceeded_and_each_is_reached(site: Site) -> None:
    chance = Random(1)
    tenants = [None, None, "acme", "blue", "green"]
    jobs = [
        {
            "args": [0.25],
            "queue": chance.choice(["default", "calm", "other"]),
            "db": chance.choice(["pg", "pg", "narrow"]),
            "tags": {"customer": tenant} if (tenant := chance.choice(tenants)) else {},
        }
        for _ in range(60)
    ]
    site.submit("limits", jobs)
    ran = site.ran("limits")
    assert len(ran) == len(jobs)
    assert most(ran) == TOTAL  # more than two processes have threads
    assert most([job for job in ran if job.db == "narrow"]) == NARROW
    assert most([job for job in ran if job.queue == "calm"]) == CALM
    assert most([job for job in ran if job.tenant == "acme"]) == ACME
    for tenant in ("blue", "green"):
        assert 1 < most([job for job in ran if job.tenant == tenant]) <= EACH_TENANT


def test_jobs_of_a_queue_start_by_priority_then_age_over_all_processes(site: Site) -> None:
    chance = Random(2)
    site.submit("ranked", [{"args": [0.01], "db": "pg", "priority": chance.randint(1, 10)} for _ in range(60)])
    ran = site.ran("ranked")
    assert ran == sorted(ran, key=lambda job: (-job.priority, job.run))


def test_the_many_jobs_of_one_tenant_do_not_starve_the_few_of_another(site: Site) -> None:
    many = [{"args": [0.4], "db": "pg", "tags": {"customer": "many"}} for _ in range(12)]
    few = [{"args": [0.4], "db": "pg", "tags": {"customer": "few"}} for _ in range(3)]
    site.submit("fair", many + few)
    started = [job.tenant for job in site.ran("fair")]
    # They begin together, and none ends before each has had its first three.
    assert Counter(started[:6]) == {"many": 3, "few": 3}


def test_starts_keep_to_the_rate_of_their_database_and_reach_it(site: Site) -> None:
    site.submit("paced", [{"args": [0], "db": "paced"} for _ in range(50)])
    starts = [job.started_at for job in site.ran("paced")]
    for n, first in enumerate(starts):
        for m, last in enumerate(starts[n:], start=1):
            assert m <= BURST + PACE * ((last - first) / SECOND + DECIDED)
    # Two seconds at that rate; without anybody who looked, they would wait for the sweep.
    assert (starts[-1] - starts[0]) / SECOND < 10


def test_a_source_that_takes_no_more_connections_gets_half_of_its_rate(site: Site) -> None:
    jobs = [{"args": [0.5], "db": "few", "retries": 20} for _ in range(3)]
    site.submit("refused", jobs, soon=False)
    slowed = "SELECT slowed_for FROM jobber_rates WHERE db = 'few'"
    wait_until(lambda: site.sql(slowed) == [("too many connections",)])
    site.sql("ALTER ROLE traffic_few CONNECTION LIMIT -1")
    assert len(site.ran("refused")) == 3  # they were tried again
