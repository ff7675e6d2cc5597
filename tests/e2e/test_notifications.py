"""What others are told of jobs, when jobber's processes are killed in the middle: broker events and webhooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import urllib3
from standardwebhooks import Webhook

from jobber.client import Client
from jobber.jobs import FINISHED, TRANSITIONS, JobState
from tests.e2e.running import Running
from tests.e2e.short_leases import config
from tests.listening import Consumer, Receiver, in_turn, status
from tests.servers import Postgres, RabbitMQ, wait_until

SECRET = "a secret that signs calls"
TASKS = {
    "tasks.sql": """\
-- name: count_to
SELECT i, pg_sleep($2) FROM generate_series(1, $1) AS i;

-- name: talks
SELECT shout('half of it is done') AS said;

-- name: wrong
-- raw: 1
SELECT * FROM nowhere;
"""
}
SHOUT = """
CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE '%', $1; RETURN $1; END $$
"""


@pytest.fixture(scope="module")
def state(postgres: Postgres, migrated: str) -> Iterator[str]:
    """Name of the database that holds the state, the source and the results."""
    name = postgres.new_database(migrated)
    postgres.execute(SHOUT, name)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, state: str, rabbitmq: RabbitMQ
) -> Iterator[Running]:
    """A jobber that tells RabbitMQ of every change, and signs webhooks; a test may kill it and start it again."""
    folder, database = tmp_path_factory.mktemp("jobber"), state
    text = config(folder, postgres, database, rabbitmq.url)
    text += f'[events]\nenabled = true\n[webhooks]\nsecret = "{SECRET}"\n'
    running = Running(folder, text, TASKS, "--worker-processes", "2", "--worker-concurrency", "4")
    try:
        running.wait_ready()
        yield running
        assert running.stop() == 0, running.text()
        assert SECRET not in running.text()
    finally:
        running.kill()
        print(running.text()[-4000:])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def kill_and_start(running: Running) -> None:
    """Kill every process of jobber at once, and start it again."""
    running.kill()
    running.start()
    running.wait_ready()


def ask(running: Running, path: str, body: object = None) -> Any:
    """Return what the API answers."""
    method = "GET" if body is None else "POST"
    response = urllib3.request(method, running.url + path, body=None if body is None else json.dumps(body))
    answer = response.json()
    assert answer["status"] == "success", answer
    return answer["data"]


def is_legal(states: list[str]) -> bool:
    """Whether a job can have gone this way, from its submission to its end."""
    steps = [JobState(state) for state in states]
    legal = all(after in TRANSITIONS[before] for before, after in pairwise(steps))
    return legal and steps[0] is JobState.PENDING and steps[-1] in FINISHED


def test_a_consumer_hears_of_every_change_in_order_though_jobber_is_killed_in_the_middle(
    running: Running, rabbitmq: RabbitMQ
) -> None:
    consumer = Consumer(rabbitmq.url, "follower", "job.*")
    client = Client(running.url)
    jobs = []
    for number in range(100):
        wrong = number % 10 == 0
        args = [] if wrong else [3, 1 if number == 63 else 0]
        jobs.append(client.submit("wrong" if wrong else "count_to", args, job_id=f"job{number}"))
        if number == 63:
            wait_until(lambda: consumer.states().get("job63", [])[-1:] == ["STARTED"], 60)
            kill_and_start(running)
    ends = {job.job_id: client.wait(job.job_id, timeout=120).state for job in jobs}

    wait_until(lambda: {job_id: states[-1] for job_id, states in consumer.states().items()} == ends, 60)
    consumer.close()

    told = consumer.states()
    assert len(told) == 100
    assert all(is_legal(states) for states in told.values()), [s for s in told.values() if not is_legal(s)]
    assert {ends[f"job{number}"] for number in range(0, 100, 10)} == {"FAILURE"}
    quiet = [states for states in told.values() if len(states) == 3]
    assert all(states in (["PENDING", "STARTED", "SUCCESS"], ["PENDING", "STARTED", "FAILURE"]) for states in quiet)
    assert len(quiet) >= 80
    assert told["job63"] == ["PENDING", "STARTED", "PENDING", "STARTED", "SUCCESS"]


def test_the_call_of_a_job_and_of_a_group_comes_though_jobber_is_killed_over_it(
    running: Running, receiver: Receiver, postgres: Postgres, state: str
) -> None:
    hung, over = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        hung.set()
        over.wait(120)  # else it would fail at once, and be made again at a time of its own

    receiver.answers["/job"] = in_turn(hang, status(200))
    receiver.answers["/group"] = status(200)
    client = Client(running.url)
    members = [{"task": "count_to", "args": [1, 0]}, {"task": "wrong"}]
    ask(running, "/tasks/count_to/jobs", {"job_id": "told", "args": [2, 0], "callback_url": f"{receiver.url}/job"})
    assert client.wait("told", timeout=60).state == "SUCCESS"
    assert hung.wait(60)

    kill_and_start(running)
    over.set()
    # As if the time was over for which the call was taken.
    postgres.execute("UPDATE jobber_webhooks SET next_at = 0", state)
    ask(running, "/groups", {"group_id": "g", "jobs": members, "callback_url": f"{receiver.url}/group"})
    wait_until(lambda: len(receiver.to("/job")) == 2 and receiver.to("/group"), 60)

    first, second = receiver.to("/job")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    told = Webhook(SECRET.encode()).verify(second.body, second.headers)
    assert (told["event"], told["job"]["job_id"], told["job"]["count"]) == ("job.success", "told", 2)
    (call,) = receiver.to("/group")
    told = Webhook(SECRET.encode()).verify(call.body, call.headers)
    assert (told["event"], told["group"]["counts"]["FAILURE"]) == ("group.failure", 1)


def test_what_the_source_says_while_a_query_runs_stands_in_the_history_of_its_job(running: Running) -> None:
    client = Client(running.url)
    job = client.wait(client.submit("talks", []).job_id, timeout=60)
    assert job.state == "SUCCESS"

    events = ask(running, f"/jobs/{job.job_id}/events")
    provenance = ask(running, f"/jobs/{job.job_id}/provenance")

    assert [event["event"] for event in events] == ["submitted", "started", "log", "success"]
    assert events[2]["message"] == "database pg: NOTICE: half of it is done"
    assert provenance["sql"] == "SELECT shout('half of it is done') AS said"
