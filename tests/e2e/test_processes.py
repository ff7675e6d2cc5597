"""The processes of an instance: stopping, dying, reloading, and how work spreads over them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from jobber.errors import Draining, ServerUnreachable
from jobber.store import Store
from tests.e2e.running import Running, jobber, run
from tests.e2e.short_leases import TASKS, config
from tests.servers import Postgres, wait_until


def url_of(broker: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a broker; nothing for the embedded one."""
    if broker == "embedded":
        return ""
    url: str = request.getfixturevalue("redis_url") if broker == "redis" else request.getfixturevalue("rabbitmq").url
    return url


@pytest.mark.parametrize("broker", ["embedded", "redis", "rabbitmq"])
def test_an_idle_instance_stops_within_a_second(
    tmp_path: Path, postgres: Postgres, database: str, request: pytest.FixtureRequest, broker: str
) -> None:
    text = config(tmp_path, postgres, database, url_of(broker, request))
    with jobber(tmp_path, text, TASKS) as running:
        running.client.wait(running.client.submit("count_to", [1]).job_id, timeout=20)
        began = time.monotonic()

        assert running.stop() == 0

        assert time.monotonic() - began < 1
        running.process.returncode = 0


def test_who_waits_for_a_job_is_answered_when_the_instance_stops(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [0], queue="nobody_serves")
        answered: list[str] = []
        waiter = threading.Thread(target=lambda: answered.append(running.client.job(job.job_id, wait=30).state))
        waiter.start()
        time.sleep(0.5)

        assert running.stop() == 0

        waiter.join(2)
        assert answered == ["PENDING"]
        running.process.returncode = 0


def test_a_running_job_does_not_outlive_a_supervisor_that_was_killed(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [60])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")
        family = running.family()
        running.process.kill()
        running.process.wait()

        wait_until(lambda: not any(alive(process) for process in family), timeout=10)
        assert state_of(postgres, database, job.job_id) == "PENDING"
        running.process.returncode = 0


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        family = running.family()
        running.process.kill()
        running.process.wait()

        wait_until(lambda: not any(alive(process) for process in family), timeout=5)
        running.process.returncode = 0


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [1])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED", interval=0.01)

        (worker,) = running.workers()
        worker.kill()

        done = running.client.wait(job.job_id, timeout=40)
        assert (done.state, done.attempt) == ("SUCCESS", 2)


@pytest.mark.parametrize("which", ["its main process", "the one that serves"])
def test_a_killed_api_is_replaced(tmp_path: Path, postgres: Postgres, database: str, which: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        main, serving = [process for process in running.family() if process.cmdline()[-1:] == ["api"]]

        (main if which == "its main process" else serving).kill()

        wait_until(lambda: not alive(serving), timeout=10)
        wait_until(lambda: answers(running), timeout=60)
        assert running.client.wait(running.client.submit("count_to", [5]).job_id, timeout=20).count == 5


def answers(running: Running) -> bool:
    try:
        return bool(running.client.tasks())
    except ServerUnreachable:
        return False


def test_sigterm_lets_a_running_job_finish(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [2])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")

        assert running.stop() == 0

        assert state_of(postgres, database, job.job_id) == "SUCCESS"
        running.process.returncode = 0


def test_a_job_that_does_not_finish_in_time_goes_back_to_its_queue(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS, "--drain-timeout", "0.5") as running:
        job = running.client.submit("nap", [60])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")

        assert running.stop() == 0

        assert state_of(postgres, database, job.job_id) == "PENDING"
        assert sleeping(postgres) == 0
        running.process.returncode = 0


def test_while_it_drains_it_accepts_nothing_and_answers_everything_else(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [4])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(running), timeout=3)

        assert running.client.job(job.job_id).state == "STARTED"
        assert running.process.wait(20) == 0
        assert state_of(postgres, database, job.job_id) == "SUCCESS"
        running.kill()
        running.process.returncode = 0


def refuses(running: Running) -> bool:
    """Return whether a submission is refused because the instance is stopping."""
    try:
        running.client.submit("count_to", [1])
    except Draining:
        return True
    return False


def test_a_third_signal_kills_workers_that_hear_nothing(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        (worker,) = running.workers()
        worker.suspend()
        for _ in range(2):
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert running.process.poll() is None

        assert running.stop(timeout=10) == 0

        assert not alive(worker)
        running.process.returncode = 0


def test_a_second_signal_does_not_wait_for_running_jobs(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [60])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        began = time.monotonic()

        assert running.stop() == 0

        assert time.monotonic() - began < 3
        assert state_of(postgres, database, job.job_id) == "PENDING"
        running.process.returncode = 0


def state_of(postgres: Postgres, database: str, job_id: str) -> str:
    """Return the state of a job from the store, past any server."""
    store = Store(postgres.url(database))
    try:
        return store.get(job_id).state
    finally:
        store.close()


def sleeping(postgres: Postgres) -> int:
    """Return how many queries sleep in the server."""
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' "
            "AND pid <> pg_backend_pid()"
        ).fetchone()
        assert row
        count: int = row[0]
        return count


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_one_bulk_of_jobs_fills_every_slot_of_every_process(
    tmp_path: Path, postgres: Postgres, database: str, request: pytest.FixtureRequest, broker: str
) -> None:
    text = config(tmp_path, postgres, database, url_of(broker, request))
    flags = ("--worker-processes", "2", "--worker-concurrency", "3")
    with jobber(tmp_path, text, TASKS, *flags) as running:
        jobs = [running.client.submit("nap", [6]) for _ in range(6)]

        # Well within the sweep, which would hide a wake-up that a busy process hoards.
        wait_until(lambda: all(running.client.job(job.job_id).state == "STARTED" for job in jobs), timeout=4)
        for job in jobs:
            running.client.cancel(job.job_id)


def test_wiping_the_embedded_brokers_folder_stops_nothing(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        shutil.rmtree(tmp_path / "data" / "broker")

        for _ in range(3):
            job = running.client.submit("count_to", [2])
            assert running.client.wait(job.job_id, timeout=20).state == "SUCCESS"

        wait_until((tmp_path / "data" / "broker" / "messages").is_dir, timeout=10)


def test_sighup_loads_new_tasks_and_keeps_the_old_ones_when_the_new_are_bad(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        added = "-- name: added\n-- queue: new_queue\nSELECT 42 AS answer;\n"
        (tmp_path / "sql" / "added.sql").write_text(added)

        assert "reloaded" in reload(running)

        done = running.client.wait(running.client.submit("added").job_id, timeout=20)
        assert list(running.client.results(done.job_id)) == [{"answer": 42}]
        (tmp_path / "sql" / "added.sql").write_text("-- name: added\nSELECT nonsense FROM nowhere;\n")

        refusal = reload(running, status=1)

        assert "added.sql" in refusal
        assert "nowhere" in refusal
        assert running.client.wait(running.client.submit("added").job_id, timeout=20).state == "SUCCESS"


def reload(running: Running, status: int = 0) -> str:
    """Run ``jobber reload`` and return what it says."""
    done = subprocess.run([*running.command, "reload"], cwd=running.folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_reload_signals_nobody_for_the_note_of_a_killed_instance(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    """Its process ID may be anybody's by now, and SIGHUP ends most programs."""
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "config.toml").write_text(config(tmp_path, postgres, database))
        note = tmp_path / "data" / "run" / f"{innocent.pid}.json"
        note.parent.mkdir(parents=True)
        note.write_text(f'{{"pid": {innocent.pid}, "reloads": 0}}')

        done = run(tmp_path, "--config", "config.toml", "reload")

        assert done.returncode == 1
        assert "no jobber runs" in done.stderr
        assert innocent.poll() is None
        assert not note.exists()
    finally:
        innocent.kill()
        innocent.wait()


def test_a_reload_that_cannot_be_noted_ends_nothing(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        shutil.rmtree(tmp_path / "data" / "run")
        (tmp_path / "data" / "run").write_text("a file where the folder was")
        running.process.send_signal(signal.SIGHUP)

        wait_until(lambda: "could not note the reload" in running.text())
        assert running.client.wait(running.client.submit("count_to", [1]).job_id, timeout=20).state == "SUCCESS"
