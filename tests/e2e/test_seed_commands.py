"""Every ``curl`` of the README of sql-jobber, the ancestor, typed as it stands there, port and all.

A ``.curlrc`` makes ``localhost:6060`` the server of a test, which listens on a free port: two runs on one machine do
not meet, nor does a run meet a jobber that serves there.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.running import Running, jobber
from tests.e2e.seed import COMMANDS
from tests.servers import MariaDB, Postgres, wait_until

#: The README's tasks for MySQL. Two slips are mended: WHERE stands before GROUP BY, and the task that it names twice,
#: once to be prepared at start and once not, has two names.
MYSQL_TASKS = """\
-- queries.sql

-- name: get_profit_summary
SELECT SUM(amount) AS total, entry_date FROM entries WHERE user_id = ? GROUP BY entry_date;

-- name: get_profit_entries
-- db: db0, other_db
-- queue: myqueue
-- results: my_res_db
SELECT * FROM entries WHERE user_id = ?;

-- name: get_profit_entries_by_date
SELECT * FROM entries WHERE user_id = ? AND timestamp > ? and timestamp < ?;

-- name: get_profit_entries_by_date_raw
-- raw: 1
-- This query will not be prepared (raw=1)
SELECT * FROM entries WHERE user_id = ? AND timestamp > ? and timestamp < ?;
"""
#: The same for PostgreSQL, whose placeholders are numbered.
POSTGRESQL_TASKS = MYSQL_TASKS.replace("= ?", "= $1").replace("> ?", "> $2").replace("< ?", "< $3")
ENTRIES = (
    "CREATE TABLE entries (user_id TEXT, amount DECIMAL(20,2), entry_date DATE, timestamp TIMESTAMP NULL)",
    "INSERT INTO entries VALUES ('USER1', 1.50, '2017-05-01', '2017-05-01 10:00:00')",
    "INSERT INTO entries VALUES ('USER1', 2.25, '2017-05-02', '2017-05-02 23:59:59')",
    "INSERT INTO entries VALUES ('USER2', 9.99, '2017-05-02', '2017-05-02 00:00:00')",
)


@dataclass(frozen=True)
class Terminal:
    """A shell in which ``localhost:6060`` is a running instance."""

    running: Running

    def type(self, command: str) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and the JSON body that a curl command gets."""
        environment = {**os.environ, "CURL_HOME": str(self.running.folder)}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    def accepted(self, command: str) -> Any:
        """Return the data of a success."""
        status, envelope = self.type(command)
        assert (status, envelope["status"]) == (200, "success"), envelope
        return envelope["data"]

    def finished(self, command: str = COMMANDS["check a job's status"]) -> Any:
        """Ask for a status until it is final."""
        wait_until(lambda: self.accepted(command)["state"] not in ("PENDING", "STARTED"), timeout=30, interval=0.1)
        return self.accepted(command)


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def terminal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal beside an instance with a database of that engine as source and for results, and all queues."""
    on_postgresql = request.param == "postgresql"
    server: Postgres | MariaDB = request.getfixturevalue("postgres" if on_postgresql else "mariadb")
    database = server.new_database()
    with psycopg.connect(server.dsn(database)) if isinstance(server, Postgres) else server.connect(database) as source:
        for statement in ENTRIES:
            source.cursor().execute(statement)
    folder = tmp_path_factory.mktemp("seed")
    queues = ("default", "myqueue", "high_priority", "low_priority")
    flags = [word for queue in queues for word in ("--queue-name", queue)]
    tasks = {"queries.sql": POSTGRESQL_TASKS if on_postgresql else MYSQL_TASKS}
    with jobber(folder, config(folder, server.url(database)), tasks, *flags) as running:
        (folder / ".curlrc").write_text(
            f'connect-to = "localhost:6060:127.0.0.1:{running.port}"\nsilent\nnoproxy = "*"\n'
            'write-out = "\\n%{http_code}"\n'
        )
        yield Terminal(running)
    server.drop_database(database)


def config(folder: Path, url: str) -> str:
    return f"""
[app]
data_dir = "{folder}/data"
[db.db0]
url = "{url}"
[db.other_db]
url = "{url}"
[results.my_res_db]
url = "{url}"
results_table = "results_%s"
"""


def test_a_job_is_scheduled_and_its_status_told(terminal: Terminal) -> None:
    posted = terminal.accepted(COMMANDS["schedule a job"])

    shown: dict[str, object] = {
        "job_id": "myjob",
        "task_name": "get_profit_entries_by_date",
        "queue": "default",
        "eta": None,
        "retries": 0,
    }
    assert shown.items() <= posted.items()
    # Nothing lies between the dates that the README types.
    shown = {"job_id": "myjob", "status": "SUCCESS", "results": [{"Type": "int64", "Value": 0}], "error": ""}
    assert shown.items() <= terminal.finished().items()


def test_with_dates_in_their_order_the_rows_are_counted(terminal: Terminal) -> None:
    terminal.accepted(COMMANDS["schedule a job"].replace('"2017-12-01", "2017-01-01"', '"2017-01-01", "2017-12-01"'))

    shown = {"job_id": "myjob", "status": "SUCCESS", "results": [{"Type": "int64", "Value": 2}], "error": ""}
    assert shown.items() <= terminal.finished().items()


def test_a_group_is_refused_for_the_brace_that_the_readme_forgot(terminal: Terminal) -> None:
    command = COMMANDS["schedule a group of jobs"]
    body = command.split("--data ")[1].strip("'")

    status, envelope = terminal.type(command)

    assert (status, envelope["error"]["code"]) == (400, "invalid_request")
    assert envelope["message"] == (
        f"the body is not valid JSON: it ends too early, at line 1, column {len(body) + 1}; still missing: }}"
    )
    for path in ("groups/mygroup", "jobs/myjob2"):
        assert terminal.type(f"curl localhost:6060/{path}")[0] == 404


def test_with_its_brace_the_group_runs(terminal: Terminal) -> None:
    posted = terminal.accepted(COMMANDS["schedule a group of jobs"].removesuffix("'") + "}'")

    assert posted["group_id"] == "mygroup"
    for job, job_id in zip(posted["jobs"], ("myjob", "myjob2"), strict=True):
        shown = {
            "job_id": job_id,
            "task": "get_profit_entries_by_date",
            "queue": "default",
            "eta": None,
            "retries": 0,
        }
        assert shown.items() <= job.items()
    ended = terminal.finished("curl localhost:6060/groups/mygroup")
    assert (ended["state"], ended["concurrency"]) == ("SUCCESS", 3)
    assert [(job["job_id"], job["status"]) for job in ended["jobs"]] == [("myjob", "SUCCESS"), ("myjob2", "SUCCESS")]


def test_a_job_is_sent_to_the_high_priority_queue(terminal: Terminal) -> None:
    posted = terminal.accepted(COMMANDS["send a job to the high priority queue"])

    assert (posted["job_id"], posted["queue"]) == ("myjob", "high_priority")
    assert terminal.finished()["status"] == "SUCCESS"


def test_a_job_without_its_args_is_accepted_and_fails_for_them(terminal: Terminal) -> None:
    posted = terminal.accepted(COMMANDS["send another job to the low priority queue"])

    assert (posted["job_id"], posted["queue"]) == ("myjob", "low_priority")
    failed = terminal.finished()
    assert (failed["status"], failed["results"], failed["error_code"]) == ("FAILURE", [], "bad_arguments")
    assert failed["error"] == "the query has 3 placeholders, but 0 args came"


@pytest.mark.parametrize("task", ["get_profit_summary", "get_profit_entries", "get_profit_entries_by_date_raw"])
def test_the_other_tasks_of_the_readme_run(terminal: Terminal, task: str) -> None:
    args = '["USER1", "2017-01-01", "2017-12-01"]' if task.endswith("raw") else '["USER1"]'
    posted = terminal.accepted(f"""curl localhost:6060/tasks/{task}/jobs --data '{{"args": {args}}}'""")

    assert posted["queue"] == ("myqueue" if task == "get_profit_entries" else "default")
    assert terminal.finished(f"curl localhost:6060/jobs/{posted['job_id']}")["count"] == 2


def test_the_other_routes_that_the_readme_lists_answer(terminal: Terminal) -> None:
    tasks = {task["name"] for task in terminal.accepted("curl localhost:6060/tasks")}
    assert tasks >= {"get_profit_summary", "get_profit_entries", "get_profit_entries_by_date"}
    later = COMMANDS["send a job to the high priority queue"].replace("high_priority", "later").replace("myjob", "job2")
    terminal.accepted(later)

    pending = terminal.accepted("curl localhost:6060/jobs/queue/later")

    assert [(job["job_id"], job["status"]) for job in pending] == [("job2", "PENDING")]
    assert terminal.accepted("curl -X DELETE localhost:6060/jobs/job2")["status"] == "CANCELLED"
    assert terminal.accepted("curl localhost:6060/jobs/queue/later") == []
    terminal.accepted("curl -X DELETE 'localhost:6060/jobs/job2?purge=true'")
    status, envelope = terminal.type("curl localhost:6060/jobs/job2")
    assert (status, envelope["error"]["code"]) == (404, "unknown_job")
