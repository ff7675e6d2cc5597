"""Redis and RabbitMQ going away, coming back and losing everything: jobs run, and wake-ups flow again by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kombu
import psutil

from tests.e2e.running import Running, answers, jobber
from tests.servers import Postgres, RabbitMQ, Redis, free_port, wait_until

TASKS = {
    "tasks.sql": """\
-- name: nap
SELECT pg_sleep($1);

-- name: count_to
SELECT i FROM generate_series(1, $1) AS i;
"""
}
#: Far more than a wake-up takes, far less than the sweep of ``config``.
PROMPT = 3.0


def config(folder: Path, postgres: Postgres, database: str, url: str, *, sweep: float = 1, more: str = "") -> str:
    return f"""
[app]
data_dir = "{folder}/data"
lease = 3
heartbeat = 1
sweep = {sweep}
[job_queue.state]
url = "{postgres.url(database)}"
[job_queue.broker]
url = "{url}"
{more}
[db.pg]
url = "{postgres.url(database)}"
[results.main]
url = "{postgres.url(database)}"
"""


def seconds_of_a_job(running: Running) -> float:
    """Return how long a small job takes from its submission to its end."""
    began = time.monotonic()
    assert running.client.wait(running.client.submit("count_to", [1]).job_id, timeout=60).state == "SUCCESS"
    return time.monotonic() - began


def wakes_flow(running: Running) -> bool:
    """Return whether three small jobs in a row are done promptly, which the sweep would be too rare for."""
    return all(seconds_of_a_job(running) < PROMPT for _ in range(3))


@contextmanager
def apart(folder: Path, text: str) -> Iterator[tuple[Running, Running]]:
    """An instance that answers and one that works for it: no bell is heard between them, only the broker."""
    with (
        # One queue alone would be the default one.
        jobber(folder, text, TASKS, "--queue-name", "others", "--queue-name", "more") as front,
        jobber(folder, text, TASKS, "--queue-name", "default", worker_only=True) as back,
    ):
        yield front, back


def test_what_the_broker_loses_the_sweep_finds(
    tmp_path: Path, postgres: Postgres, database: str, broker: Redis | RabbitMQ
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database, broker.url), TASKS) as running:
        broker.stop()

        job = running.client.submit("count_to", [2])

        assert running.client.wait(job.job_id, timeout=20).state == "SUCCESS"
        assert running.stop(timeout=5) == 0
        running.process.returncode = 0


def test_a_broker_may_restart_while_jobs_run_and_wake_ups_flow_again(
    tmp_path: Path, postgres: Postgres, database: str, broker: Redis | RabbitMQ
) -> None:
    """kombu on Redis would end the worker, putting back messages through a channel that is closed."""
    with apart(tmp_path, config(tmp_path, postgres, database, broker.url, sweep=30)) as (running, back):
        (worker,) = back.workers()
        jobs = [running.client.submit("nap", [0.5]) for _ in range(30)]
        for _ in range(1 if isinstance(broker, RabbitMQ) else 2):
            time.sleep(0.7)
            broker.stop(kill=True)
            broker.start()

        assert {running.client.wait(job.job_id, timeout=60).state for job in jobs} == {"SUCCESS"}
        wait_until(lambda: wakes_flow(running), timeout=90)
        assert worker.is_running(), back.text()
        assert worker.status() != psutil.STATUS_ZOMBIE, back.text()
        for bad in ("Unrecoverable", "Traceback", "guest"):
            assert bad not in running.text() + back.text()


def test_a_start_without_the_broker_runs_jobs_and_heals_when_it_comes(
    tmp_path: Path, postgres: Postgres, database: str, broker: Redis | RabbitMQ
) -> None:
    broker.stop()
    running = Running(tmp_path, config(tmp_path, postgres, database, broker.url), TASKS)
    try:
        wait_until(lambda: answers(running), timeout=60)
        assert seconds_of_a_job(running) < 30

        broker.start()

        running.wait_ready()
        assert running.stop() == 0
    finally:
        running.kill()


# -- what is special about RabbitMQ -----------------------------------------------------------------------------------


def test_a_worker_consumes_again_after_rabbitmq_lost_its_queues(
    tmp_path: Path, postgres: Postgres, database: str, rabbitmq: RabbitMQ
) -> None:
    with apart(tmp_path, config(tmp_path, postgres, database, rabbitmq.url, sweep=30)) as (running, _):
        assert wakes_flow(running)
        with kombu.Connection(rabbitmq.url) as connection:
            connection.default_channel.queue_delete("jobber:default")

        wait_until(lambda: wakes_flow(running), timeout=90)


def test_a_rabbitmq_that_hangs_stops_nothing(
    tmp_path: Path, postgres: Postgres, database: str, rabbitmq: RabbitMQ
) -> None:
    """It still takes connections, and never answers: only time limits of one's own help."""
    node = psutil.Process(int((rabbitmq.folder / "pid").read_text()))
    with apart(tmp_path, config(tmp_path, postgres, database, rabbitmq.url)) as (running, back):
        assert wakes_flow(running)
        node.suspend()
        try:
            assert seconds_of_a_job(running) < 30
            wait_until(lambda: "the broker cannot be reached (no answer in time)" in running.text(), timeout=60)
            for each in (running, back):
                assert each.stop(timeout=8) == 0
                each.process.returncode = 0
        finally:
            node.resume()


def test_a_worker_that_is_busy_beyond_rabbitmqs_patience_survives(
    tmp_path: Path, postgres: Postgres, database: str, rabbitmq: RabbitMQ
) -> None:
    """RabbitMQ closes the channel of a consumer that has not acknowledged for ``consumer_timeout``."""
    limits = "application:set_env(rabbit, consumer_timeout, {}), application:set_env(rabbit, channel_tick_interval, {})"
    rabbitmq.eval(limits.format(1000, 1000))
    try:
        with apart(tmp_path, config(tmp_path, postgres, database, rabbitmq.url, sweep=30)) as (running, back):
            (worker,) = back.workers()
            jobs = [running.client.submit("nap", [4]) for _ in range(3)]

            assert {running.client.wait(job.job_id, timeout=60).state for job in jobs} == {"SUCCESS"}

            wait_until(lambda: "PreconditionFailed" in back.text())
            assert worker.is_running(), back.text()
            assert "Unrecoverable" not in back.text()
            wait_until(lambda: wakes_flow(running), timeout=90)
    finally:
        rabbitmq.eval(limits.format(1_800_000, 60_000))


def test_several_instances_leave_nothing_but_durable_queues_of_their_prefix_behind(
    tmp_path: Path, postgres: Postgres, database: str, rabbitmq: RabbitMQ
) -> None:
    more = 'key_prefix = "shop."'
    text = config(tmp_path, postgres, database, rabbitmq.url, sweep=30, more=more)
    with (
        jobber(tmp_path, text, TASKS, "--queue-name", "high") as running,
        jobber(tmp_path, text, TASKS, "--queue-name", "low", worker_only=True),
    ):
        for queue in ("high", "low"):
            assert (
                running.client.wait(running.client.submit("count_to", [1], queue=queue).job_id, timeout=20).count == 1
            )
        assert len(queues(rabbitmq, "shop.")) == 4

    left = queues(rabbitmq, "shop.")
    assert {name: (durable, kind, expires) for name, durable, kind, expires in left} == {
        "shop.high": ("true", "classic", "3600000"),
        "shop.low": ("true", "classic", "3600000"),
    }


def queues(rabbitmq: RabbitMQ, prefix: str) -> list[tuple[str, str, str, str]]:
    """Return name, durability, type and milliseconds of life of the queues with a prefix."""
    listed = rabbitmq.control("list_queues", "--no-table-headers", "name", "durable", "type", "arguments")
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        (name, durable, kind, arguments.partition('"x-expires",')[2].partition("}")[0])
        for name, durable, kind, arguments in rows
        if name.startswith(prefix)
    ]


def test_check_says_why_rabbitmq_cannot_be_used(
    tmp_path: Path, postgres: Postgres, database: str, rabbitmq: RabbitMQ
) -> None:
    from tests.e2e.test_processes import run

    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "tasks.sql").write_text(TASKS["tasks.sql"])
    for url, reason in {
        rabbitmq.url.replace(":guest@", ":s3cr3t@"): "the user or the password is wrong",
        rabbitmq.url.removesuffix("/") + "nowhere": "there is no such virtual host, or the user may not use it",
        rabbitmq.url.replace(str(rabbitmq.port), str(free_port())): "Connection refused",
    }.items():
        (tmp_path / "config.toml").write_text(config(tmp_path, postgres, database, url))

        done = run(tmp_path, "--config", "config.toml", "--sql-directory", "sql", "check")

        assert done.returncode == 1
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
        assert line.endswith(f"the broker cannot be used: {reason}")
        assert "guest" not in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr
