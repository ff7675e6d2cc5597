"""Programs that use the peer's Go client work unchanged, on PostgreSQL and on MySQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.peer_client import ZERO_TIME, GoError, PeerClient, Struct, job_req
from tests.e2e.running import jobber
from tests.servers import MariaDB, Postgres, Redis, wait_until

#: The same tasks for both engines, but for what these call a placeholder and a pause.
TASKS = """\
-- name: get_profit_summary
SELECT SUM(amount) AS total, entry_date FROM entries WHERE user_id = {0} GROUP BY entry_date;

-- name: get_profit_summary_slowly
SELECT {1}({0});

-- name: misspelt
-- raw: 1
SELECT * FROM entires;
"""
ENTRIES = (
    "CREATE TABLE entries (user_id TEXT, amount DECIMAL(20,2), entry_date DATE)",
    "INSERT INTO entries VALUES ('USER1', 1.50, '2017-05-01'), ('USER1', 2.25, '2017-05-02'), ('USER2', 9, NULL)",
)
FINISHED = {"SUCCESS", "FAILURE", "CANCELLED"}


@dataclass(frozen=True)
class Peer:
    """The client of a running instance, and a look at the database that it reads and writes."""

    client: PeerClient
    query: Callable[[str], list[tuple[Any, ...]]]

    def rows_of(self, table: str) -> int | None:
        """Return how many rows a result table holds, None where there is no such table."""
        found = self.query(f"SELECT 1 FROM information_schema.tables WHERE table_name = '{table}'")
        return self.query(f"SELECT count(*) FROM {table}")[0][0] if found else None

    def polled(self, job_id: str) -> list[Struct]:
        """Return every status of a job until it is finished."""
        return polled(lambda: self.client.get_job_status(job_id))

    def started(self, job_id: str) -> None:
        """Wait until a job runs."""
        wait_until(lambda: self.client.get_job_status(job_id)["state"] == "STARTED")


def polled(ask: Callable[[], Struct]) -> list[Struct]:
    """Ask again and again until the answered state is final, as programs do; return all answers."""
    answers = [ask()]
    deadline = time.monotonic() + 30
    while answers[-1]["state"] not in FINISHED:
        assert time.monotonic() < deadline, answers[-1]
        time.sleep(0.05)
        answers.append(ask())
    return answers


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def peer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_server: Redis
) -> Iterator[Peer]:
    """The client of an instance that has everything but its wake-ups, which Redis carries, in one database."""
    on_postgresql = request.param == "postgresql"
    server: Postgres | MariaDB = request.getfixturevalue("postgres" if on_postgresql else "mariadb")
    database = server.new_database()

    def query(sql: str) -> list[tuple[Any, ...]]:
        if isinstance(server, MariaDB):
            return server.execute(sql, database)
        with psycopg.connect(server.dsn(database)) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    for statement in ENTRIES:
        query(statement)
    redis_server.flush()
    folder = tmp_path_factory.mktemp("peer")
    tasks = TASKS.format(*(("$1", "pg_sleep") if on_postgresql else ("?", "SLEEP")))
    with jobber(folder, config(folder, server.url(database), redis_server.url), {"queries.sql": tasks}) as running:
        client = PeerClient(running.url)
        yield Peer(client, query)
        client.close()
    server.drop_database(database)


def config(folder: Path, url: str, broker: str) -> str:
    return f"""
[app]
data_dir = "{folder}/data"
[job_queue.broker]
url = "{broker}"
[job_queue.state]
url = "{url}"
[db.my_db]
url = "{url}"
[results.my_results]
url = "{url}"
results_table = "results_%s"
"""


def test_a_slow_job_is_polled_to_success(peer: Peer) -> None:
    posted = peer.client.post_job(job_req("get_profit_summary_slowly", job_id="slow", retries=3, args=["0.5"]))

    assert posted == {
        "job_id": "slow",
        "task": "get_profit_summary_slowly",
        "queue": "default",
        "eta": None,
        "retries": 3,
    }
    *before, last = peer.polled("slow")
    assert {answer["state"] for answer in before} <= {"PENDING", "STARTED"}
    assert last == {"job_id": "slow", "state": "SUCCESS", "count": 1, "error": ""}


def test_a_job_without_an_id_gets_one_and_its_rows_can_be_read(peer: Peer) -> None:
    posted = peer.client.post_job(job_req("get_profit_summary", args=["USER1"], db="my_db", ttl=600))

    assert posted["job_id"]
    assert peer.polled(posted["job_id"])[-1]["count"] == 2


def test_an_id_is_refused_while_its_job_is_live_and_runs_again_after(peer: Peer) -> None:
    job = job_req("get_profit_summary_slowly", job_id="again", args=["60"])
    peer.client.post_job(job)
    with pytest.raises(GoError, match="again"):
        peer.client.post_job(job)
    peer.client.delete_job("again", purge=False)
    assert peer.polled("again")[-1]["state"] == "CANCELLED"

    peer.client.post_job(job | {"args": ["0"]})

    assert peer.polled("again")[-1]["state"] == "SUCCESS"


def test_a_failed_job_tells_why(peer: Peer) -> None:
    peer.client.post_job(job_req("misspelt", job_id="misspelt", retries=2))

    failed = peer.polled("misspelt")[-1]

    assert (failed["state"], failed["count"]) == ("FAILURE", 0)
    assert "entires" in failed["error"]


def test_what_is_not_there_is_an_error(peer: Peer) -> None:
    asks: list[tuple[Callable[[], object], str]] = [
        (lambda: peer.client.get_job_status("aaaa"), "aaaa"),
        (lambda: peer.client.delete_job("aaaa", purge=True), "aaaa"),
        (lambda: peer.client.post_job(job_req("no_such_task", job_id="x")), "no_such_task"),
        (lambda: peer.client.post_job(job_req("get_profit_summary", job_id="x", db="no_such_db")), "no_such_db"),
        (lambda: peer.client.post_job(job_req("get_profit_summary", job_id="x", eta="tomorrow")), "eta"),
    ]
    for ask, words in asks:
        with pytest.raises(GoError, match=words):
            ask()
    with pytest.raises(GoError):
        peer.client.get_job_status("x")


def test_the_jobs_of_a_queue_that_nobody_serves_are_listed_until_they_are_deleted(peer: Peer) -> None:
    assert peer.client.get_pending_jobs("test") == []
    eta = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    said: list[Struct] = [
        {"job_id": "job1", "args": ["USER1"]},
        {"job_id": "job2"},
        {"job_id": "job3", "eta": f"{eta:%Y-%m-%d %H:%M:%S}"},
    ]
    posted = [peer.client.post_job(job_req("get_profit_summary", queue="test", retries=3, **job)) for job in said]

    assert [job["eta"] for job in posted] == [None, None, eta]
    pending = peer.client.get_pending_jobs("test")
    assert [job["ID"] for job in pending] == ["job1", "job2", "job3"]
    same = {"Status": "PENDING", "Queue": "test", "Schedule": "", "MaxRetry": 3, "Retried": 0, "PrevErr": ""}
    for job in pending:
        assert same.items() <= job.items()
        assert (job["ProcessedAt"], job["Job"]) == (ZERO_TIME, {"Task": "get_profit_summary"})
    for job in posted:
        peer.client.delete_job(job["job_id"], purge=False)
        assert peer.client.get_job_status(job["job_id"])["state"] == "CANCELLED"
    assert peer.client.get_pending_jobs("test") == []


def test_deleting_a_running_job_ends_it(peer: Peer) -> None:
    for purge in (False, True):
        peer.client.post_job(job_req("get_profit_summary_slowly", job_id="running", args=["60"]))
        peer.started("running")
        before = peer.client.get_job_status("running")
        assert before == {"job_id": "running", "state": "STARTED", "count": 0, "error": ""}

        peer.client.delete_job("running", purge=purge)

        assert peer.polled("running")[-1] == {"job_id": "running", "state": "CANCELLED", "count": 0, "error": ""}


def test_a_finished_job_is_deleted_with_purge_only_and_its_rows_with_it(peer: Peer) -> None:
    peer.client.post_job(job_req("get_profit_summary", job_id="done", args=["USER1"]))
    assert peer.polled("done")[-1]["state"] == "SUCCESS"
    assert peer.rows_of("results_done") == 2
    with pytest.raises(GoError):
        peer.client.delete_job("done", purge=False)
    assert peer.rows_of("results_done") == 2

    peer.client.delete_job("done", purge=True)

    assert peer.rows_of("results_done") is None
    with pytest.raises(GoError, match="done"):
        peer.client.get_job_status("done")


# -- groups -----------------------------------------------------------------------------------------------------------


def test_a_slow_group_is_polled_to_success(peer: Peer) -> None:
    jobs = [
        job_req("get_profit_summary_slowly", job_id="first", args=["0.5"]),
        job_req("get_profit_summary", job_id="second", args=["USER1"], retries=3, queue="default", ttl=600),
        job_req("get_profit_summary_slowly", args=["0.3"]),
    ]
    posted = peer.client.post_job_group("slow_group", jobs)

    assert posted["group_id"] == "slow_group"
    assert [job["job_id"] for job in posted["jobs"][:2]] == ["first", "second"]
    generated = posted["jobs"][2]["job_id"]
    assert generated
    assert [(job["task"], job["queue"], job["eta"], job["retries"]) for job in posted["jobs"]] == [
        (job["task"], "default", None, job["retries"]) for job in jobs
    ]
    *before, last = polled(lambda: peer.client.get_group_status("slow_group"))
    assert {answer["state"] for answer in before} <= {"PENDING", "STARTED"}
    assert last == {
        "group_id": "slow_group",
        "state": "SUCCESS",
        "jobs": [
            {"job_id": job_id, "state": "SUCCESS", "count": count, "error": ""}
            for job_id, count in (("first", 1), ("second", 2), (generated, 1))
        ],
    }


def test_a_group_without_an_id_gets_one_and_tells_of_the_job_that_failed(peer: Peer) -> None:
    posted = peer.client.post_job_group("", [job_req("misspelt"), job_req("get_profit_summary", args=["USER1"])])

    ended = polled(lambda: peer.client.get_group_status(posted["group_id"]))[-1]

    assert ended["state"] == "FAILURE"
    assert [job["state"] for job in ended["jobs"]] == ["FAILURE", "SUCCESS"]
    assert "entires" in ended["jobs"][0]["error"]


def test_a_group_with_a_job_that_cannot_be_is_refused_as_a_whole(peer: Peer) -> None:
    good = job_req("get_profit_summary", job_id="good", args=["USER1"])
    with pytest.raises(GoError, match="no_such_task"):
        peer.client.post_job_group("refused", [good, job_req("no_such_task")])

    with pytest.raises(GoError):
        peer.client.get_group_status("refused")
    with pytest.raises(GoError):
        peer.client.get_job_status("good")


def test_deleting_a_live_group_cancels_its_jobs(peer: Peer) -> None:
    jobs = [
        job_req("get_profit_summary_slowly", job_id="runs", args=["60"]),
        job_req("get_profit_summary", job_id="waits", queue="nobody_serves", args=["USER1"]),
    ]
    for purge in (False, True):
        peer.client.post_job_group("live_group", jobs)
        peer.started("runs")
        live = peer.client.get_group_status("live_group")
        assert (live["state"], [job["state"] for job in live["jobs"]]) == ("STARTED", ["STARTED", "PENDING"])

        peer.client.delete_group_job("live_group", purge=purge)

        ended = polled(lambda: peer.client.get_group_status("live_group"))[-1]
        assert (ended["state"], {job["state"] for job in ended["jobs"]}) == ("CANCELLED", {"CANCELLED"})


def test_a_finished_group_is_deleted_with_purge_only_and_its_rows_with_it(peer: Peer) -> None:
    jobs = [job_req("get_profit_summary", job_id=f"member{number}", args=["USER1"]) for number in (1, 2)]
    peer.client.post_job_group("done_group", jobs)
    assert polled(lambda: peer.client.get_group_status("done_group"))[-1]["state"] == "SUCCESS"
    with pytest.raises(GoError):
        peer.client.delete_group_job("done_group", purge=False)
    assert [peer.rows_of(f"results_member{number}") for number in (1, 2)] == [2, 2]

    peer.client.delete_group_job("done_group", purge=True)

    assert [peer.rows_of(f"results_member{number}") for number in (1, 2)] == [None, None]
    with pytest.raises(GoError, match="done_group"):
        peer.client.get_group_status("done_group")
    for job in jobs:
        with pytest.raises(GoError):
            peer.client.get_job_status(job["job_id"])
