"""A cancel on PostgreSQL is heard wherever an attempt waits, and tells what became of a commit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Row
from jobber.errors import Cancelled
from jobber.results.postgresql import PostgresResults
from jobber.results.postgresql_pool import Connection
from tests.results.conftest import (
    BULKY,
    COLUMNS,
    ONE,
    TWO,
    PostgresLab,
    postgres_lab,
    read,
    target,
    transaction,
    write,
)
from tests.servers import Postgres, wait_until

CANCELLED = Cancelled("the job was cancelled")


def attempt(backend: PostgresResults, token: Cancellation, rows: list[Row], *parts: Callable[[], object]) -> int:
    """Load and publish run 2; what is in ``parts`` is called before publishing."""
    with backend.begin(target(run=2), COLUMNS, token) as writer:
        writer.write_batch(rows)
        for part in parts:
            part()
        return writer.publish()


def ended(future: Future[int], within: float = 5) -> BaseException | None:
    """Return the error of an attempt that was cancelled, once it has ended."""
    return future.exception(within)


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
@pytest.mark.parametrize("lock", ["ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"])
def test_a_cancel_is_heard_while_publishing_waits_for_a_reader(pg: PostgresLab, rows: list[Row], lock: str) -> None:
    write(pg.backend, target(run=1), ONE)
    token = Cancellation()
    with ThreadPoolExecutor(1) as pool, transaction(pg, f'LOCK TABLE "results_a" IN {lock} MODE'):
        publishing = pool.submit(attempt, pg.another(), token, rows)
        wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"), interval=0.001)
        began = time.monotonic()
        token.pull(CANCELLED)
        assert ended(publishing) is CANCELLED
        assert time.monotonic() - began < 3
    assert read(pg.backend, 1) == ONE
    wait_until(lambda: pg.tables() == {"results_a"})
    wait_until(lambda: pg.backend.abandoned(-60) == [])


@contextmanager
def hung(server: Postgres) -> Iterator[None]:
    """Stop every process of a server while the body runs; the kernel still takes connections for it."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    pids = [server.process.pid, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped while other tests use theirs."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.mark.parametrize("at", ["begin", "load", "seal", "publish", "leave"])
def test_a_cancel_is_heard_though_the_server_hangs_and_nothing_is_published_when_it_goes_on(
    own_server: Postgres, at: str
) -> None:
    with contextmanager(postgres_lab)(own_server) as lab, ThreadPoolExecutor(1) as pool:
        write(lab.backend, target(run=1), ONE)
        backend = lab.another(segment_seconds=0.5 if at == "seal" else 60)
        backend.prepare()
        token, reached, go_on = Cancellation(), threading.Event(), threading.Event()

        def run() -> int:
            if at == "begin":
                reached.set()
                go_on.wait(10)
            with backend.begin(target(run=2), COLUMNS, token) as writer:
                writer.write_batch(TWO if at == "publish" else BULKY)
                reached.set()
                go_on.wait(10)
                if at == "leave":
                    raise ZeroDivisionError
                if at != "publish":
                    for _ in range(20):
                        writer.write_batch(BULKY)
                return writer.publish()

        running = pool.submit(run)
        assert reached.wait(10)
        with hung(own_server):
            if at == "seal":
                time.sleep(0.6)  # the timer's thread waits for the server now
            go_on.set()
            time.sleep(0.3)
            assert not running.done()
            token.pull(CANCELLED)
            error = ended(running)
        assert isinstance(error, ZeroDivisionError) if at == "leave" else error is CANCELLED
        wait_until(lambda: lab.backend.abandoned(-60) == [] or at == "begin")
        lab.backend.fence("results_a", 2, 1)
        assert lab.backend.abandoned(-60) == []
        wait_until(lambda: lab.tables() == {"results_a"})
        assert read(lab.backend, 1) == ONE


@pytest.mark.parametrize(("seconds", "published"), [(0.3, True), (60, False)])
@pytest.mark.parametrize("rerun", [True, False], ids=["rerun", "first"])
def test_a_cancel_during_the_commit_tells_what_became_of_it(
    pg: PostgresLab, seconds: float, published: bool, rerun: bool
) -> None:
    if rerun:
        write(pg.backend, target(run=1), ONE)
    pg.backend.prepare()
    pg.query(
        f"""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT OR UPDATE ON jobber_ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.run = 2) EXECUTE FUNCTION dawdle()
        """
    )
    token = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(attempt, pg.another(), token, TWO)
        committing = "SELECT 1 FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'"
        wait_until(lambda: pg.query(committing), interval=0.001)
        token.pull(CANCELLED)
        assert ended(publishing) is (None if published else CANCELLED)
    if not rerun and not published:
        assert pg.ledger("SELECT run FROM jobber_ledger") == []
        assert pg.tables() == set()
        return
    run = 2 if published else 1
    assert pg.ledger("SELECT run FROM jobber_ledger") == [(run,)]
    assert read(pg.backend, run) == (TWO if published else ONE)
    wait_until(lambda: pg.tables() == {"results_a"})


def test_a_commit_whose_answer_is_lost_is_asked_after(pg: PostgresLab) -> None:
    backend = pg.another()
    with backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        commit = writer._commit

        def lose(connection: Connection) -> None:
            commit(connection)
            connection.close()
            connection.execute("SELECT 1")

        writer._commit = lose  # type: ignore[method-assign]
        assert writer.publish() == 2
    assert read(backend) == TWO
