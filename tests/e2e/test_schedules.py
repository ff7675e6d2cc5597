"""Schedules fired by real processes: one of them fires, whoever dies, and a restart makes up for what was missed.

The clock is not waited for where it can be moved instead: the next fire time of a schedule is a column.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from tests.e2e.running import Running, in_one_database, jobber
from tests.e2e.test_processes import reload
from tests.servers import Postgres, wait_until
from tests.test_readme import blocks

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
TASKS = {
    "tasks.sql": "-- name: one\nSELECT 1 AS one;\n",
    "sales.sql": "\n".join(re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)),
}
SECOND = 1_000_000


@dataclass(frozen=True)
class Site:
    """A jobber with three worker processes, and its state."""

    running: Running
    dsn: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the data that an answer holds; None where there is no such thing."""
        answer = urllib3.request(method, f"{self.running.url}{path}", json=body, retries=urllib3.Retry(5, 5, 0))
        assert answer.status in (200, 404), answer.data
        return json.loads(answer.data)["data"]

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def fires(self, schedule_id: str) -> list[int]:
        """Return the seconds at which a schedule fired, oldest first; each has a job that ended well."""
        name = f"'{schedule_id}'"
        fired = self.sql(f"SELECT fire_at, job_id FROM jobber_fires WHERE schedule_id = {name} ORDER BY 1")
        done = f"SELECT job_id FROM jobber_finished_jobs WHERE schedule = {name} AND state = 'SUCCESS'"
        wait_until(lambda: len(self.sql(done)) >= len(fired), timeout=30)
        made = [job_id for (job_id,) in self.sql(f"SELECT job_id FROM jobber_finished_jobs WHERE schedule = {name}")]
        made += [job_id for (job_id,) in self.sql(f"SELECT job_id FROM jobber_jobs WHERE schedule = {name}")]
        assert len(made) == len(set(made))
        assert {job_id for _, job_id in fired} <= set(made)
        return [at // SECOND for at, _ in fired]

    def come(self, schedule_id: str, ago: int = 0) -> None:
        """Make a schedule due ``ago`` seconds ago."""
        now = "(extract(epoch FROM clock_timestamp())::bigint * 1000000)"
        self.sql(f"UPDATE jobber_schedules SET next_at = {now} - {ago * SECOND} WHERE schedule_id = '{schedule_id}'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, migrated: str) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("schedules")
    database = postgres.new_database(migrated)
    url = postgres.url(database)
    with jobber(
        folder, in_one_database(folder, url), TASKS, "--worker-processes", "3", "--worker-concurrency", "4"
    ) as running:
        yield Site(running, postgres.dsn(database))
    postgres.drop_database(database)


def test_three_processes_fire_every_second_once_though_one_of_them_dies(site: Site) -> None:
    body = {"schedule_id": "beat", "task": "one", "interval": 1, "missed": "all", "overlap": "allow"}
    site.call("POST", "/schedules", body)
    wait_until(lambda: len(site.fires("beat")) >= 2, timeout=30)
    workers = site.running.workers()
    assert len(workers) == 3

    workers[0].kill()

    wait_until(lambda: len(site.fires("beat")) >= 5, timeout=60)
    told = site.call("DELETE", "/schedules/beat")
    times = site.fires("beat")
    assert {later - sooner for sooner, later in pairwise(times)} == {1}
    assert told["runs"] in (len(times), len(times) - 1)


def test_schedules_that_are_due_together_each_fire_once_and_at_once(site: Site) -> None:
    names = [f"nightly-{n}" for n in range(10)]
    for name in names:
        site.call("POST", "/schedules", {"schedule_id": name, "task": "one", "cron": "0 3 1 1 *"})

    for name in names:
        site.come(name)

    wait_until(lambda: all(site.call("GET", f"/schedules/{name}")["runs"] == 1 for name in names), timeout=30)
    assert [len(site.fires(name)) for name in names] == [1] * len(names)
    late = "SELECT max(created_at - fire_at) FROM jobber_fires WHERE schedule_id LIKE 'nightly-%'"
    assert site.sql(late)[0][0] < 5 * SECOND


def test_a_reload_makes_edits_and_removes_the_schedule_of_a_tag(site: Site) -> None:
    file = site.running.folder / "sql" / "tagged.sql"

    def tagged(cron: str) -> Any:
        file.write_text(f"-- name: tagged\n{cron}SELECT 2 AS two;\n")
        reload(site.running)

    tagged("-- cron: 0 3 * * *\n-- timezone: Europe/Berlin\n")
    wait_until(lambda: site.call("GET", "/schedules/tagged") is not None)
    assert site.call("GET", "/schedules/tagged")["source"] == "tag"
    site.come("tagged")
    wait_until(lambda: site.call("GET", "/schedules/tagged")["runs"] == 1, timeout=30)
    assert len(site.fires("tagged")) == 1

    tagged("-- cron: 30 4 * * *\n")
    wait_until(lambda: site.call("GET", "/schedules/tagged")["cron"] == "30 4 * * *")
    tagged("")
    wait_until(lambda: site.call("GET", "/schedules/tagged") is None)


def test_the_commands_of_the_page_about_schedules_do_what_it_says(site: Site) -> None:
    answers = []
    for _, _, code in blocks(PAGE):
        command = ["bash", "-euc", code.replace("localhost:6060", f"localhost:{site.running.port}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        answers += [json.loads(line) for line in done.stdout.splitlines()]
    made, seen, paused, job, resumed, listed, deleted = [answer["data"] for answer in answers]

    assert made == seen
    assert (made["args"], made["priority"], made["ttl"], len(made["next_runs"])) == ({"region": "north"}, 8, 604800, 5)
    assert (paused["reason"], resumed["reason"]) == ("the shop is being moved", None)
    assert re.fullmatch(r"sales-north:\d{8}T\d{6}-\d{3}", job["job_id"])
    assert {"sales-north", "nightly_sales"} <= {schedule["schedule_id"] for schedule in listed}
    assert (deleted["last_job_id"], deleted["fires"][0]["outcome"]) == (job["job_id"], "run")
    assert site.call("GET", "/schedules/nightly_sales")["timezone"] == "Europe/Berlin"
    assert site.call("GET", f"/jobs/{job['job_id']}?wait=30")["state"] == "SUCCESS"


def test_a_restart_fires_what_was_missed_as_the_policy_says(site: Site) -> None:
    for missed in ("once", "all", "skip"):
        body = {"schedule_id": missed, "task": "one", "interval": 3600, "missed": missed, "overlap": "allow"}
        # Its newest time lies half an hour back.
        (start,) = site.sql(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '26.5 hours', 'YYYY-MM-DD HH24:MI:SS')"
        )
        site.call("POST", "/schedules", body | {"start_at": start[0]})
    assert site.running.stop() == 0

    site.sql(
        "UPDATE jobber_schedules SET next_at = next_at - 4 * 3600000000 WHERE schedule_id IN ('once', 'all', 'skip')"
    )
    site.running.start()
    site.running.wait_ready()

    wait_until(lambda: len(site.fires("all")) == 4, timeout=30)
    wait_until(lambda: len(site.fires("once")) == 1, timeout=30)
    assert site.fires("once") == site.fires("all")[3:]
    assert [fire["outcome"] for fire in site.call("GET", "/schedules/skip")["fires"]] == ["missed"]
