"""``/readyz`` over real servers that stop, hang and come back, and what becomes of jobs meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import urllib3

from jobber.errors import StateUnavailable
from tests.e2e.running import Running, jobber, role_of
from tests.servers import Postgres, Redis, Server, wait_until

TASKS = {
    "tasks.sql": """\
-- name: here
-- db: here
-- results: here
SELECT i FROM generate_series(1, $1) AS i;

-- name: nap
-- db: here
-- results: here
SELECT pg_sleep($1);

-- name: far
-- db: far
-- results: here
SELECT 1 AS one;
"""
}
FAR = [("results", "far"), ("database", "far")]


@dataclass
class World:
    """A jobber with its state on one server, its broker on another, and a source and a results database on a third."""

    running: Running
    state: Postgres
    far: Postgres
    broker: Redis

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return status and facts of /readyz, which waits for nobody longer than 2 s."""
        began = time.monotonic()
        answer = urllib3.request("GET", f"{self.running.url}/readyz", retries=False, timeout=10)
        assert time.monotonic() - began < 5
        document = json.loads(answer.data)
        assert "s3cr3t" not in answer.data.decode()
        return answer.status, document["data"] if answer.status == 200 else document["error"]

    def missing(self) -> dict[tuple[str, str], str]:
        """Return what is missing, and why."""
        _, facts = self.ask()
        return {(of["kind"], of["name"]): of["error"] for of in facts["dependencies"] if not of["ok"]}

    def wait_for(self, status: int, missing: list[tuple[str, str]]) -> None:
        wait_until(lambda: self.ask()[0] == status and sorted(self.missing()) == sorted(missing), 60, interval=0.2)

    def works(self, task: str = "here") -> bool:
        """Return whether a job succeeds."""
        args = [3] if task == "here" else []
        return self.running.client.wait(self.running.client.submit(task, args).job_id, timeout=40).state == "SUCCESS"


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, redis_server: Redis
) -> Iterator[World]:  # the servers of the session show that the programs are installed
    folder = tmp_path_factory.mktemp("readiness")
    here = postgres.new_database()
    with contextlib.ExitStack() as servers:
        state, far, broker = Postgres(), Postgres(), Redis()
        for server in (state, far, broker):
            servers.callback(server.remove)
            server.start()
        far_url = far.url("postgres").replace("postgres@", "postgres:s3cr3t@")
        text = f"""
[app]
data_dir = "{folder}/data"
sweep = 1
[job_queue.state]
url = "{state.url("postgres")}"
[job_queue.broker]
url = "{broker.url}"
[db.here]
url = "{postgres.url(here)}"
[db.far]
url = "{far_url}"
[results.here]
url = "{postgres.url(here)}"
[results.far]
url = "{far_url}"
"""
        with jobber(folder, text, TASKS) as running:
            yield World(running, state, far, broker)
    postgres.drop_database(here)


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """While the body runs, the server is gone."""
    server.stop(kill=True)
    try:
        yield
    finally:
        (server.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        server.start()


@contextlib.contextmanager
def hanging(server: Server) -> Iterator[None]:
    """While the body runs, the server still takes connections, and never answers."""
    assert server.process
    main = psutil.Process(server.process.pid)
    main.suspend()
    family = main.children(recursive=True)
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in [*family, main]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def test_all_that_an_instance_depends_on_is_asked(world: World) -> None:
    status, facts = world.ask()

    assert (status, facts["ready"], facts["draining"]) == (200, True, False)
    assert [(of["kind"], of["name"], of["required"]) for of in facts["dependencies"]] == [
        ("state", "state", True),
        ("broker", "broker", False),
        ("results", "here", False),
        ("results", "far", False),
        ("database", "here", False),
        ("database", "far", False),
    ]
    assert world.missing() == {}


def test_a_source_and_a_results_database_that_are_down_are_listed_and_the_jobs_of_others_succeed(world: World) -> None:
    with stopped(world.far):
        world.wait_for(200, FAR)

        assert all("refused" in why for why in world.missing().values()), world.missing()
        assert world.works()
    world.wait_for(200, [])
    assert world.works("far")


def test_a_database_that_hangs_is_listed_in_time_and_probes_pile_up_nothing(world: World) -> None:
    main = next(process for process in world.running.family() if role_of(process) == "api")
    (api,) = main.children()
    with hanging(world.far):
        world.wait_for(200, FAR)
        assert all("no answer within 2 s" in why for why in world.missing().values()), world.missing()

        threads, connections = api.num_threads(), len(api.net_connections())
        for _ in range(15):
            assert world.ask()[0] == 200
            time.sleep(0.05)

        assert api.num_threads() < threads + 10
        assert len(api.net_connections()) < connections + 10
    world.wait_for(200, [])


def test_a_broker_that_is_down_is_listed_and_jobs_succeed(world: World) -> None:
    with stopped(world.broker):
        world.wait_for(200, [("broker", "broker")])

        assert world.works()
    world.wait_for(200, [])


def test_without_its_state_database_an_instance_is_not_ready_until_it_is_back(world: World) -> None:
    with stopped(world.state):
        world.wait_for(503, [("state", "state")])

        _, facts = world.ask()
        assert (facts["code"], facts["ready"], facts["draining"]) == ("not_ready", False, False)
        assert "the state database cannot be reached" in world.missing()["state", "state"]
        with pytest.raises(StateUnavailable):
            world.works()
    world.wait_for(200, [])
    assert world.works()


def test_a_state_database_that_hangs_makes_it_unready_in_time(world: World) -> None:
    with hanging(world.state):
        world.wait_for(503, [("state", "state")])

        assert "no answer within 2 s" in world.missing()["state", "state"]
    world.wait_for(200, [])


def test_an_instance_that_drains_is_not_ready(world: World) -> None:
    """The last one: it ends the instance, which the fixture expects."""
    job = world.running.client.submit("nap", [60])
    wait_until(lambda: world.running.client.job(job.job_id).state == "STARTED")
    world.running.process.send_signal(signal.SIGTERM)

    wait_until(lambda: world.ask()[0] == 503)

    _, facts = world.ask()
    assert (facts["code"], facts["draining"]) == ("not_ready", True)
    assert world.missing() == {}
