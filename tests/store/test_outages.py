"""The state database is down, locked, empty or out of reach."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from jobber.errors import ConfigError, JobIsLive, SourceUnavailable, StateUnavailable
from jobber.store import Store, database, migrations
from jobber.store.database import TryAgain
from jobber.store.engines import postgresql, sqlite
from tests.blackhole import Proxy
from tests.servers import MariaDB, Postgres, ServerMissing, wait_until
from tests.store.conftest import DATABASES, QUEUES, TASKS, Bench, new_job

#: Seconds that a machine may be busy with something else.
SLACK = 5.0

CALLS: dict[str, Callable[[Store], Any]] = {
    "ping": lambda store: store.ping(),
    "get": lambda store: store.get("a"),
    "submit": lambda store: store.submit([new_job("b")]),
    "claim": lambda store: store.claim(1, queues=QUEUES, tasks=TASKS, databases=DATABASES),
    "heartbeat": lambda store: store.heartbeat(1, {}, lease=60),
    "cancel": lambda store: store.cancel("a"),
    "migrate": lambda store: store.migrate(),
}


@pytest.fixture(params=[Postgres, MariaDB], ids=["postgresql", "mariadb"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDB]:
    try:
        server: Postgres | MariaDB = request.param()
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{missing} is not installed")
    server.start()
    yield server
    server.remove()


def stop(server: Postgres | MariaDB, *, kill: bool = False) -> None:
    """Stop it by a fast shutdown, which waits for no client, or like a power cut."""
    assert server.process is not None
    if isinstance(server, Postgres):
        server.process.send_signal(signal.SIGINT)
    server.stop(kill=kill)


def is_away(store: Store) -> bool:
    try:
        store.now()
    except StateUnavailable:
        return True
    return False


def test_a_stopped_server_is_unavailable_and_works_again_once_it_is_back(own_server: Postgres | MariaDB) -> None:
    store = Store(own_server.url(own_server.new_database()))
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    job = bench.started("a")
    for kill in (False, True):
        stop(own_server, kill=kill)
        wait_until(lambda: is_away(store))  # PostgreSQL's processes outlive their parent by a moment
        for name, call in CALLS.items():
            with pytest.raises(StateUnavailable) as refused:
                call(store)
            for secret in (str(own_server.port), "127.0.0.1", "postgres", "root"):
                assert secret not in str(refused.value), name
            assert "refused" in str(refused.value)
        own_server.start()
        # At the first try: connections that died while they lay idle are replaced.
        assert store.get("a") == job
    store.succeed(job, rows=1, columns=[])
    # It restarts between two calls, and nobody notices.
    bench.submit("b")
    stop(own_server)
    own_server.start()
    assert bench.ids() == ["b"]
    store.close()


def test_a_locked_file_is_unavailable_until_it_is_free(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/state.db?timeout=0.05")
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    bench.submit("a")
    blocker = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateUnavailable, match="too busy"):
        bench.claim()
    # Readers do not wait for the writer.
    assert store.get("a").job_id == "a"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert bench.ids() == ["a"]
    store.close()


def test_a_file_that_stays_locked_keeps_many_callers_no_longer_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was stopped in the midst of a write; each caller of ours would wait for the one before it."""
    monkeypatch.setattr(sqlite, "TIMEOUT", 0.5)
    monkeypatch.setattr(database, "PATIENCE", 0.5)
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    blocker = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    def ask() -> None:
        with pytest.raises(StateUnavailable, match="too busy"):
            store.submit([new_job("a")])

    began = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2 + SLACK
    blocker.close()
    store.submit([new_job("a")])
    store.close()


def test_what_the_caller_was_waiting_for_in_vain_is_not_taken_for_a_silent_state_database(tmp_path: Path) -> None:
    """A worker writes down that a source timed out while it handles that very error."""
    store = Store(f"sqlite:///{tmp_path}/state.db?timeout=0.05")
    store.migrate()
    blocker = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        raise SourceUnavailable("no answer") from TimeoutError()
    except SourceUnavailable:
        with pytest.raises(StateUnavailable, match="too busy"):
            store.submit([new_job("a")])
    blocker.close()
    store.close()


def test_work_that_loses_every_race_is_told_that_the_database_is_busy(bare_url: str) -> None:
    store = Store(bare_url)

    def lose(_: Connection) -> None:
        raise TryAgain

    with pytest.raises(StateUnavailable, match="too busy"):
        store._database.write(lose)
    store.close()


def test_a_database_without_tables_says_so(bare_url: str) -> None:
    store = Store(bare_url)
    store.ping()
    for call in (CALLS["get"], CALLS["submit"]):
        with pytest.raises(StateUnavailable, match="does not have this version's tables yet"):
            call(store)
    store.close()


def test_a_database_that_is_being_migrated_says_so(bare_url: str) -> None:
    store = Store(bare_url)
    store._database.write(lambda connection: migrations.upgrade(connection, "0001"))
    for call in (CALLS["get"], CALLS["submit"]):
        with pytest.raises(StateUnavailable, match="does not have this version's tables yet"):
            call(store)
    store.close()


def test_a_newer_database_is_refused(bare_url: str) -> None:
    store = Store(bare_url)
    store.migrate()
    newer = text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    store._database.write(lambda connection: connection.execute(newer))
    with pytest.raises(ConfigError, match="are those of a newer jobber"):
        store.migrate()
    store.close()


@pytest.mark.parametrize("count", [1, 3])
def test_no_argument_of_a_job_is_in_what_is_logged_of_an_error(bare_url: str, count: int) -> None:
    store = Store(bare_url)
    store.migrate()
    jobs = [new_job(f"a{n}", args=["hunter2"], tags={"a": "hunter3"}) for n in range(count)]
    store.submit(jobs)
    with pytest.raises(JobIsLive) as live:
        store.submit(jobs)
    store._database.write(lambda connection: connection.execute(text("DROP TABLE jobber_jobs")))
    with pytest.raises(StateUnavailable) as refused:
        store.submit(jobs)
    for error in (live.value, refused.value):
        logged = "".join(traceback.format_exception(error))
        assert "jobber_jobs" in logged
        assert "hunter" not in logged
    store.close()


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/secret/state.db")
    with pytest.raises(StateUnavailable) as refused:
        store.migrate()
    assert "secret" not in str(refused.value)
    store.close()


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql", "mariadb"])
def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_secret(scheme: str) -> None:
    store = Store(f"{scheme}://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(StateUnavailable, match="refused") as refused:
        store.ping()
    for secret in ("hunter2", "127.0.0.1", "me'"):
        assert secret not in str(refused.value)
    assert refused.value.retry_after > 0
    store.close()


@pytest.fixture(params=["postgresql", "mariadb"])
def far(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, mariadb: MariaDB
) -> Iterator[tuple[Store, Proxy]]:
    """A store behind a proxy, which waits a second for an answer and two for a connection."""
    server: Postgres | MariaDB = postgres if request.param == "postgresql" else mariadb
    monkeypatch.setattr(postgresql, "PATIENCE", 1)
    database = server.new_database()
    with Proxy(server.port) as way:
        url = server.url(database).replace(f":{server.port}/", f":{way.port}/") + "?connect_timeout=2"
        store = Store(url + ("&read_timeout=1" if server is mariadb else ""))
        store.migrate()
        yield store, way
        store.close()
    server.drop_database(database)


def test_a_database_that_says_nothing_is_given_up_and_asked_by_one_at_a_time(far: tuple[Store, Proxy]) -> None:
    store, way = far
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    job = bench.started("a")
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(StateUnavailable, match="cannot be reached or does not answer"):
            store.ping()
        took.append(time.monotonic() - began)

    def all_ask(count: int) -> None:
        took.clear()
        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took.sort()

    way.swallow()
    # Of the first, some hang until it is noticed; more than there are connections, so that some wait for one.
    all_ask(40)
    assert took[-1] < 2 + 5 + SLACK
    # From then on one of them finds out whether it lasts.
    all_ask(40)
    assert took[-2] < 1
    assert took[-1] < 2 + SLACK
    # A commit of which nobody knows whether it arrived.
    way.forward()
    wait_until(lambda: answers(store), timeout=SLACK)

    def swallowed(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        way.swallow()

    with pytest.raises(StateUnavailable, match="no answer in time"):
        store._database.write(swallowed)
    way.forward()
    wait_until(lambda: answers(store), timeout=SLACK)
    assert store.get("a") == job
    store.succeed(job, rows=1, columns=[])


def answers(store: Store) -> bool:
    try:
        store.ping()
    except StateUnavailable:
        return False
    return True


def test_a_statement_of_a_migration_may_take_its_time(far: tuple[Store, Proxy]) -> None:
    store, _ = far
    slow = text("SELECT pg_sleep(1.5)" if store._database.engine.name == "postgresql" else "SELECT SLEEP(1.5)")
    with pytest.raises(StateUnavailable, match="no answer in time"):
        store._database.write(lambda connection: connection.execute(slow))
    store._database.write(lambda connection: connection.execute(slow), unhurried=True)
    with pytest.raises(StateUnavailable, match="no answer in time"):
        store._database.write(lambda connection: connection.execute(slow))
