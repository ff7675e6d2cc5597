"""A request over HTTP becomes a typed table, on every source, results database, state store and broker."""

from __future__ import annotations

import itertools
import socket
import time
from decimal import Decimal

import pytest
import urllib3

from jobber.errors import InvalidRequest, JobIsFinished, JobIsLive, UnknownJob, UnknownTask
from tests.e2e.running import Running
from tests.servers import wait_until

RESULTS = ["pg_results", "pg_fast", "my_results", "lite_results"]
PAIRS = list(itertools.product(["pg", "my", "lite", "duck"], RESULTS))

#: How text and money are declared in a results database that is not PostgreSQL.
TEXT = {"my_results": "LONGTEXT"}
MONEY = {"my_results": "DECIMAL(20,2)", "lite_results": "DECIMAL_TEXT(20,2)"}


@pytest.mark.parametrize(("source", "results"), PAIRS)
def test_a_job_becomes_a_typed_table_on_every_pair(running: Running, source: str, results: str) -> None:
    job = running.client.submit("entries_of", {"user": "USER1"}, db=source, results=results)

    job = running.client.wait(job.job_id, timeout=20)

    assert (job.state, job.error, job.count) == ("SUCCESS", "", 2)
    assert [(column.name, column.type) for column in job.columns] == [
        ("id", "BIGINT"),
        ("user_id", TEXT.get(results, "TEXT")),
        ("amount", MONEY.get(results, "NUMERIC(20,2)")),
        ("entry_date", "DATE"),
        ("note", TEXT.get(results, "TEXT")),
    ]
    rows = list(running.client.results(job.job_id))
    assert [row["id"] for row in rows] == [1, 2]
    assert [Decimal(str(row["amount"])) for row in rows] == [Decimal("12.50"), Decimal("-0.01")]
    assert [row["entry_date"] for row in rows] == ["2017-05-01", "2017-12-31"]
    assert [row["note"] for row in rows] == ["tab\there", "ünïcode ✓ \\N"]


def test_a_wrong_number_of_args_fails_the_job_and_says_so(running: Running) -> None:
    job = running.client.wait(running.client.submit("get_profit_entries_by_date", ["USER1"]).job_id, timeout=20)

    assert job.state == "FAILURE"
    assert job.error == "the query has 3 placeholders, but 1 arg came"


def test_positional_args_reach_mysql_in_their_order(running: Running) -> None:
    job = running.client.submit("entries_between", ["USER1", "2017-01-01", "2017-12-01"])

    assert running.client.wait(job.job_id, timeout=20).count == 1


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("missing_table", 'relation "no_such_table" does not exist'),
        ("missing_table_my", "no_such_table' doesn't exist"),
    ],
)
def test_an_error_at_run_time_fails_the_job_with_the_engines_words(running: Running, task: str, words: str) -> None:
    job = running.client.wait(running.client.submit(task).job_id, timeout=20)

    assert job.state == "FAILURE"
    assert words in job.error


def test_a_live_id_is_refused_and_a_finished_one_runs_again(running: Running) -> None:
    running.client.submit("slow", [30], job_id="again")
    with pytest.raises(JobIsLive):
        running.client.submit("slow", [0], job_id="again")
    running.client.cancel("again")
    running.client.wait("again", timeout=10)

    running.client.submit("slow", [0], job_id="again")

    assert running.client.wait("again", timeout=20).state == "SUCCESS"
    with pytest.raises(JobIsFinished):
        running.client.cancel("again")


@pytest.mark.parametrize("task", ["slow", "slow_my"])
def test_cancelling_a_running_job_ends_its_query_within_two_seconds(running: Running, task: str) -> None:
    job = running.client.submit(task, [60])
    wait_until(lambda: running.client.job(job.job_id).state == "STARTED")
    began = time.monotonic()

    running.client.cancel(job.job_id)
    done = running.client.wait(job.job_id, timeout=10)

    assert done.state == "CANCELLED"
    assert time.monotonic() - began < 2


def test_a_job_with_a_start_time_says_that_it_waits_and_starts_within_a_second_of_it(running: Running) -> None:
    eta = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 2))
    job = running.client.submit("many", [3], eta=eta)

    waiting = running.client.job(job.job_id)
    assert waiting.state == "PENDING"
    assert [hold.gate for hold in waiting.waiting_for or ()] == ["start"]
    done = running.client.wait(job.job_id, timeout=10)
    assert done.state == "SUCCESS"
    assert done.started_at
    assert done.eta
    assert 0 <= (done.started_at - done.eta).total_seconds() < 1


def test_unknown_names_are_refused_at_once(running: Running) -> None:
    with pytest.raises(UnknownTask):
        running.client.submit("no_such_task")
    with pytest.raises(UnknownJob):
        running.client.job("no-such-job")
    with pytest.raises(InvalidRequest, match="all_entries"):
        running.client.submit("all_entries", db="no_such_db")


def test_many_jobs_at_once_all_finish(running: Running) -> None:
    jobs = [running.client.submit("many", [number]) for number in range(1, 101)]

    for number, job in enumerate(jobs, 1):
        assert running.client.wait(job.job_id, timeout=60).count == number


def test_idle_connections_keep_nobody_else_out(running: Running) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    try:
        for connection in idle:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        began = time.monotonic()

        assert urllib3.request("GET", running.url, timeout=5).status == 200

        assert time.monotonic() - began < 2
    finally:
        for connection in idle:
            connection.close()


def test_more_waiting_requests_than_threads_keep_nobody_else_from_an_answer(running: Running) -> None:
    job = running.client.submit("slow", [20])
    port = int(running.url.rsplit(":", 1)[1])
    request = f"GET /jobs/{job.job_id}?wait=15 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    try:
        for connection in waiting:
            connection.sendall(request)
        time.sleep(0.5)
        began = time.monotonic()

        assert running.client.tasks()

        assert time.monotonic() - began < 5
    finally:
        for connection in waiting:
            connection.close()
        running.client.cancel(job.job_id)
