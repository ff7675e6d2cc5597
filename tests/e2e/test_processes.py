"""The processes of an instance: stopping, dying, reloading, and how work spreads over them."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest

from jobber.errors import Draining
from jobber.jobs import Job, NewJob
from jobber.store import Store
from tests.e2e.running import Running, answers, jobber, role_of, run
from tests.e2e.short_leases import TASKS, config
from tests.servers import Postgres, wait_until


def url_of(broker: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a broker."""
    url: str = request.getfixturevalue("redis_url") if broker == "redis" else request.getfixturevalue("rabbitmq").url
    return url


@pytest.fixture(scope="module")
def kept_database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """Name of the database of ``kept``."""
    name = postgres.new_database(migrated)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, kept_database: str) -> Iterator[Running]:
    """An instance for all tests that leave theirs running: to start one takes seconds of processor time."""
    folder = tmp_path_factory.mktemp("kept")
    with jobber(folder, config(folder, postgres, kept_database), TASKS) as running:
        yield running


def stop_within_a_second(running: Running) -> None:
    """Stop an idle instance; on a machine that is busy with others it gets another try."""
    for _ in range(3):
        began = time.monotonic()
        assert running.stop() == 0
        if time.monotonic() - began < 1:
            running.process.returncode = 0
            return
        running.start()
        running.wait_ready()
    raise AssertionError("it takes more than a second to stop")


def test_an_idle_instance_stops_within_a_second(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        running.client.wait(running.client.submit("count_to", [1]).job_id, timeout=20)

        stop_within_a_second(running)


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


def test_nothing_outlives_a_supervisor_that_was_killed_and_the_next_one_waits_for_the_address(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        family = running.family()
        for process in family[1:]:
            process.suspend()  # so that they hold the address for a while
        running.process.kill()
        running.process.wait()

        running.start()

        time.sleep(1)
        for process in family[1:]:
            process.resume()
        running.wait_ready()
        wait_until(lambda: not any(alive(process) for process in family), timeout=5)


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_killed_worker_is_replaced_and_its_job_runs_again(kept: Running) -> None:
    job = kept.client.submit("nap", [3])
    wait_until(lambda: kept.client.job(job.job_id).state == "STARTED", interval=0.01)

    (worker,) = kept.workers()
    worker.kill()

    done = kept.client.wait(job.job_id, timeout=40)
    assert (done.state, done.attempt) == ("SUCCESS", 2)
    assert "the worker process was killed (SIGKILL); starting another" in kept.text()


@pytest.mark.parametrize("which", ["its main process", "the one that serves"])
def test_a_killed_api_is_replaced_and_what_it_had_accepted_runs(
    kept: Running, postgres: Postgres, kept_database: str, which: str
) -> None:
    main, serving = [process for process in kept.family() if role_of(process) == "api"]
    # All that it did before it died: it woke nobody.
    accepted = NewJob(
        job_id=f"accepted_{len(which)}",
        task="count_to",
        queue="default",
        db="pg",
        results="main",
        table=f"accepted_{len(which)}",
        args=[3],
    )
    with closing(Store(postgres.url(kept_database))) as store:
        store.submit([accepted])

    (main if which == "its main process" else serving).kill()

    wait_until(lambda: not alive(serving), timeout=10)
    wait_until(lambda: answers(kept), timeout=60)
    assert kept.client.wait(accepted.job_id, timeout=20).count == 3
    assert kept.client.wait(kept.client.submit("count_to", [5]).job_id, timeout=20).count == 5


def test_sigterm_lets_a_running_job_finish(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [2])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")

        assert running.stop() == 0

        assert state_of(postgres, database, job.job_id) == "SUCCESS"
        running.process.returncode = 0


def test_jobs_that_do_not_finish_in_time_go_back_to_their_queue_whatever_they_do(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    """One queries, one writes, and one waits for a reader to publish; none has a retry to spend."""
    text = config(tmp_path, postgres, database)
    with jobber(tmp_path, text, TASKS, "--drain-timeout", "0.5") as running:
        submit = running.client.submit
        old = running.client.wait(submit("count_to", [3], job_id="publishes").job_id, timeout=20)
        with psycopg.connect(postgres.dsn(database)) as reader:
            reader.execute(f"SELECT * FROM {old.table}")
            submit("nap", [60], job_id="queries")
            submit("flood", job_id="writes")
            submit("count_to", [5], job_id="publishes")
            phases = {"queries": "querying", "writes": "writing", "publishes": "publishing"}
            wait_until(lambda: all(running.client.job(name).progress.phase == phases[name] for name in phases))

            assert running.stop() == 0

            jobs = jobs_of(postgres, database, *phases)
            assert [(job.state, job.attempt, job.failures, job.error) for job in jobs] == [("PENDING", 1, 0, "")] * 3
            assert len(reader.execute(f"SELECT * FROM {old.table}").fetchall()) == 3
        assert busy(postgres, database) == 0
        assert rows(postgres, database, "SELECT run FROM jobber_running") == []
        assert rows(postgres, database, "SELECT tablename FROM pg_tables WHERE tablename ~ 'staging'") == []
        running.process.returncode = 0

    with jobber(tmp_path, text, TASKS) as again:
        for name in ("queries", "writes"):
            again.client.cancel(name)
        done = again.client.wait("publishes", timeout=20)
        assert (done.state, done.attempt, done.count) == ("SUCCESS", 2, 5)


def test_while_it_drains_it_accepts_nothing_and_does_everything_else(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        job = running.client.submit("nap", [60])
        wait_until(lambda: running.client.job(job.job_id).state == "STARTED")
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(running))
        assert running.client.job(job.job_id).state == "STARTED"

        running.client.cancel(job.job_id)

        # Long before its time to finish is over.
        assert running.process.wait(10) == 0
        assert state_of(postgres, database, job.job_id) == "CANCELLED"
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

        assert time.monotonic() - began < 10
        assert state_of(postgres, database, job.job_id) == "PENDING"
        running.process.returncode = 0


def test_a_stop_while_the_state_database_is_away_takes_its_time_and_no_more_and_loses_no_job(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    """One job ends and cannot say so, one is still running when its time to finish is over."""
    state = postgres.new_database()
    text = config(tmp_path, postgres, database, state=state)
    with jobber(tmp_path, text, TASKS, "--drain-timeout", "1") as running:
        ends = running.client.submit("nap", [0.5], job_id="ends")
        stays = running.client.submit("nap", [60], job_id="stays")
        wait_until(lambda: all(running.client.job(job.job_id).state == "STARTED" for job in (ends, stays)))
        postgres.execute(f'ALTER DATABASE "{state}" ALLOW_CONNECTIONS false')
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{state}'")
        began = time.monotonic()

        assert running.stop(timeout=30) == 0

        # Its time, and ten seconds beyond which workers are killed.
        assert time.monotonic() - began < 1 + 10 + 3
        assert busy(postgres, database) == 0
        postgres.execute(f'ALTER DATABASE "{state}" ALLOW_CONNECTIONS true')
        running.process.returncode = 0

    with jobber(tmp_path, text, TASKS) as again:
        done = again.client.wait("ends", timeout=40)
        assert (done.state, done.attempt, done.count) == ("SUCCESS", 1, 1)  # what it published is found
        wait_until(lambda: again.client.job("stays").attempt == 2, timeout=40)
        again.client.cancel("stays")
    postgres.drop_database(state)


def jobs_of(postgres: Postgres, database: str, *job_ids: str) -> list[Job]:
    """Return jobs from the store, past any server."""
    with closing(Store(postgres.url(database))) as store:
        return [store.get(job_id) for job_id in job_ids]


def state_of(postgres: Postgres, database: str, job_id: str) -> str:
    """Return the state of a job."""
    return jobs_of(postgres, database, job_id)[0].state


def rows(postgres: Postgres, database: str, query: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.dsn(database)) as connection:
        return connection.execute(query).fetchall()


def busy(postgres: Postgres, database: str) -> int:
    """Return how many queries of jobs the server runs in a database."""
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        found = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query LIKE '%%job=%%'"
        return len(connection.execute(found, [database]).fetchall())


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_one_bulk_of_jobs_fills_every_slot_of_every_process_and_idle_they_stop_within_a_second(
    tmp_path: Path, postgres: Postgres, database: str, request: pytest.FixtureRequest, broker: str
) -> None:
    # The sweep is rare: it would hide a wake-up that a busy process hoards.
    text = config(tmp_path, postgres, database, url_of(broker, request), sweep=60)
    flags = ("--worker-processes", "2", "--worker-concurrency", "3")
    with jobber(tmp_path, text, TASKS, *flags) as running:
        jobs = [running.client.submit("nap", [60]) for _ in range(6)]

        wait_until(lambda: all(running.client.job(job.job_id).state == "STARTED" for job in jobs), timeout=20)
        for job in jobs:
            running.client.cancel(job.job_id)
        assert {running.client.wait(job.job_id, timeout=20).state for job in jobs} == {"CANCELLED"}
        stop_within_a_second(running)


def test_wiping_the_embedded_brokers_folder_stops_nothing(kept: Running) -> None:
    broker = kept.folder / "data" / "broker"
    shutil.rmtree(broker)

    for _ in range(3):
        job = kept.client.submit("count_to", [2])
        assert kept.client.wait(job.job_id, timeout=20).state == "SUCCESS"

    wait_until((broker / "messages").is_dir, timeout=10)


def test_sighup_loads_new_tasks_and_keeps_the_old_ones_when_the_new_are_bad(kept: Running) -> None:
    file = kept.folder / "sql" / "added.sql"
    added = "-- name: added\n-- queue: new_queue\nSELECT 42 AS answer;\n"
    file.write_text(added)

    assert "reloaded" in reload(kept)

    done = kept.client.wait(kept.client.submit("added").job_id, timeout=20)
    assert list(kept.client.results(done.job_id)) == [{"answer": 42}]
    file.write_text(added + "-- name: locking\nSELECT 1 AS one FOR UPDATE;\n")

    assert re.search(r"reloaded: \d+ tasks\n  warning: \S+added.sql:5: task locking: FOR UPDATE", reload(kept))

    kept.client.create_schedule("added", schedule_id="added", cron="0 0 1 1 *")
    file.write_text(added.replace("SELECT", "-- cron: 0 7 * * *\nSELECT"))
    ignored = r"added.sql:1: task added: its cron tag is not obeyed: there is a schedule of this name"

    assert re.search(rf"reloaded: \d+ tasks\n  warning: \S+{ignored}", reload(kept))
    words = [*kept.command[:-2], "check"]  # it listens nowhere
    checked = subprocess.run(words, cwd=kept.folder, capture_output=True, text=True, check=False)
    assert re.search(ignored, checked.stdout), checked.stdout + checked.stderr

    file.write_text("-- name: added\nSELECT nonsense FROM nowhere;\n")

    refusal = reload(kept, status=1)

    assert "added.sql" in refusal
    assert "nowhere" in refusal
    assert kept.client.wait(kept.client.submit("added").job_id, timeout=20).state == "SUCCESS"
    file.unlink()


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


def test_a_reload_that_cannot_be_noted_ends_nothing(kept: Running) -> None:
    notes, aside = kept.folder / "data" / "run", kept.folder / "data" / "aside"
    notes.rename(aside)
    notes.write_text("a file where the folder was")
    kept.process.send_signal(signal.SIGHUP)

    wait_until(lambda: "could not note the reload" in kept.text())
    assert kept.client.wait(kept.client.submit("count_to", [1]).job_id, timeout=20).state == "SUCCESS"
    notes.unlink()
    aside.rename(notes)


def test_processes_are_forked_from_one_without_threads_and_share_its_memory(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    with jobber(tmp_path, config(tmp_path, postgres, database), TASKS) as running:
        wait_until(lambda: sorted(map(role_of, running.family()[1:])) == ["api", "api", "worker"])
        assert psutil.Process(running.process.pid).num_threads() == 1
        infos = [process.memory_full_info() for process in running.family()]
        assert sum(info.pss for info in infos) < 0.7 * sum(info.rss for info in infos)
