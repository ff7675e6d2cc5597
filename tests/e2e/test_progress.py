"""How far a job is, and pauses, with a real worker; and the example of the docs, as it stands there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from tests.e2e.running import Running, jobber
from tests.servers import Postgres, wait_until
from tests.test_readme import blocks

ORCHESTRATION = Path(__file__).parent.parent.parent / "docs" / "orchestration.md"
ROWS = 5000

TASKS = {
    "tasks.sql": """\
-- name: trickle
SELECT i, pg_sleep(0.001)::text AS nap, repeat('x', 400) AS filler FROM sales WHERE i > $1;

-- name: nap
SELECT pg_sleep(0.1)::text AS nap;

-- name: yearly_report
SELECT count(*) AS sales FROM sales WHERE i < $1;
"""
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, migrated: str) -> Iterator[Running]:
    folder, database = tmp_path_factory.mktemp("jobber"), postgres.new_database(migrated)
    with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE sales AS SELECT i FROM generate_series(1, {ROWS}) i")
        connection.execute("ANALYZE sales")
    config = f"""
[app]
data_dir = "{folder}/data"
sweep = 60
[job_queue.state]
url = "{postgres.url(database)}"
[db.shop]
url = "{postgres.url(database)}"
[results.main]
url = "{postgres.url(database)}"
"""
    with jobber(folder, config, TASKS, "--worker-concurrency", "2") as instance:
        yield instance
    postgres.drop_database(database)


def ask(running: Running, method: str, path: str, body: Any = None) -> Any:
    answer = urllib3.request(method, running.url + path, body=None if body is None else json.dumps(body))
    assert answer.status == 200, answer.data
    return answer.json()["data"]


def watched(running: Running, job_id: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the progress of a job while it ran, each time that its rows were others, and the job in the end."""
    ask(running, "POST", "/tasks/trickle/jobs", {"job_id": job_id, "args": [0]})
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = ask(running, "GET", f"/jobs/{job_id}")
        if job["state"] == "SUCCESS":
            return seen, job
        assert job["state"] in ("PENDING", "STARTED"), job
        if job["state"] == "STARTED" and (not seen or job["progress"]["rows"] != seen[-1]["rows"]):
            seen.append(job["progress"])
        time.sleep(0.1)
    raise AssertionError(f"{job_id} did not end: {seen}")


def test_a_long_query_tells_its_rows_and_what_is_expected_first_by_the_planner_then_by_its_last_run(
    running: Running,
) -> None:
    for job_id, basis in (("first", "planner"), ("second", "history")):
        seen, job = watched(running, job_id)

        rows = [progress["rows"] for progress in seen]
        assert rows == sorted(rows)
        assert len(rows) >= 3
        expected = [progress for progress in seen if progress["total"] is not None]
        assert expected, seen
        assert {(progress["total"], progress["total_basis"]) for progress in expected} == {(ROWS, basis)}
        percents = [progress["percent"] for progress in expected]
        assert percents == sorted(percents)
        assert percents[-1] <= 99
        assert all(progress["rate"] > 0 and progress["eta"] for progress in expected if progress["rows"])
        assert any((progress["worker_memory"] or 0) > 10_000_000 for progress in seen)
        done = job["progress"]
        assert (done["phase"], done["rows"], done["percent"], done["eta"]) == ("done", ROWS, 100, None)
        assert done["bytes"] > ROWS * 400
        assert job["created_at"] <= job["started_at"] <= job["snapshot_at"] <= job["finished_at"]


def test_a_database_that_is_paused_amid_a_backlog_starts_nothing_more_within_a_second_and_then_goes_on(
    running: Running,
) -> None:
    jobs = [f"nap-{n}" for n in range(40)]
    ask(running, "POST", "/groups", {"group_id": "naps", "jobs": [{"task": "nap", "job_id": job} for job in jobs]})

    def counts() -> dict[str, int]:
        found: dict[str, int] = ask(running, "GET", "/groups/naps?jobs=false")["counts"]
        return found

    wait_until(lambda: counts()["SUCCESS"] >= 5, 30)
    ask(running, "POST", "/databases/shop/pause", {"reason": "migration"})
    time.sleep(1)
    left = counts()["PENDING"]
    assert left > 0
    assert counts()["STARTED"] == 0  # what ran has gone on to its end
    assert ask(running, "GET", "/databases/shop")["reason"] == "migration"
    waiting = ask(running, "GET", f"/jobs/{jobs[-1]}")
    assert [hold["text"] for hold in waiting["waiting_for"]] == ["database shop is paused: migration"]
    assert waiting["progress"]["position"] == left
    assert waiting["progress"]["starts_at"] is None
    time.sleep(1)
    assert counts()["PENDING"] == left

    ask(running, "POST", "/databases/shop/resume")

    wait_until(lambda: counts()["PENDING"] < left, 10)  # it is woken: the sweep comes every minute
    waiting = ask(running, "GET", f"/jobs/{jobs[-1]}")
    if waiting["state"] == "PENDING":
        at = datetime.fromisoformat(waiting["progress"]["starts_at"])
        assert abs(at.timestamp() - time.time()) < 60
    wait_until(lambda: counts()["SUCCESS"] == 40, 60)


def test_the_example_of_a_paused_source_runs_as_it_is_written(running: Running) -> None:
    section = ORCHESTRATION.read_text().partition("## Pauses\n")[2].partition("\n## ")[0]
    answers = []
    for _, language, code in blocks(section):
        assert language == "shell"
        for command in code.strip().splitlines():
            typed = command.replace("localhost:6060", running.url.removeprefix("http://"))
            done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True, timeout=90)
            answers.append(json.loads(done.stdout)["data"])
    paused, accepted, waiting, resumed, done = answers[:5]
    assert (paused["paused"], paused["reason"], resumed["paused"]) == (True, "migration", False)
    assert (accepted["state"], waiting["state"], done["state"]) == ("PENDING", "PENDING", "SUCCESS")
    assert json.dumps(waiting["waiting_for"]) in section
    assert done["count"] == 1
