"""A cancel on MySQL and MariaDB is heard wherever an attempt waits, and tells what became of a rename."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Row
from jobber.errors import Cancelled
from jobber.mysql import Connection
from jobber.results.mysql import MysqlResults, tables
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, MysqlLab, mysql_lab, read, reading, target, write
from tests.servers import MariaDB, wait_until

CANCELLED = Cancelled("the job was cancelled")


def attempt(backend: MysqlResults, token: Cancellation, rows: list[Row], *parts: Callable[[], object]) -> int:
    """Load and publish run 2; what is in ``parts`` is called before publishing."""
    with backend.begin(target(run=2), COLUMNS, token) as writer:
        writer.write_batch(rows)
        for part in parts:
            part()
        return writer.publish()


def ended(future: Future[int], within: float = 8) -> BaseException | None:
    """Return the error of an attempt that was cancelled, once it has ended."""
    return future.exception(within)


def settled(lab: MysqlLab) -> None:
    wait_until(lambda: lab.tables() == {"results_a"})
    wait_until(lambda: lab.backend.abandoned(-60) == [])


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_a_cancel_is_heard_while_publishing_waits_for_a_reader(my: MysqlLab, rows: list[Row]) -> None:
    write(my.backend, target(run=1), ONE)
    token = Cancellation()
    with ThreadPoolExecutor(1) as pool, reading(my):
        publishing = pool.submit(attempt, my.another(), token, rows)
        wait_until(my.renaming, interval=0.001)
        began = time.monotonic()
        token.pull(CANCELLED)
        assert ended(publishing) is CANCELLED
        assert time.monotonic() - began < 4
        assert read(my.backend, 1) == ONE
    settled(my)
    assert read(my.backend, 1) == ONE


def test_a_cancel_in_the_midst_of_a_statement_leaves_none_of_its_rows(my: MysqlLab) -> None:
    write(my.backend, target(run=1), ONE)
    token = Cancellation()
    with pytest.raises(Cancelled):
        attempt(my.another(), token, BULKY, lambda: token.pull(CANCELLED))
    settled(my)
    assert read(my.backend, 1) == ONE


@contextmanager
def hung(server: MariaDB) -> Iterator[None]:
    """Stop the server while the body runs; the kernel still takes connections for it."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_server() -> Iterator[MariaDB]:
    """A server that may be stopped while other tests use theirs."""
    server = MariaDB()
    server.start()
    yield server
    server.remove()


@pytest.mark.parametrize("insert", [False, True], ids=["load", "insert"])
@pytest.mark.parametrize("at", ["begin", "load", "publish", "leave"])
def test_a_cancel_is_heard_though_the_server_hangs_and_nothing_is_published_when_it_goes_on(
    own_server: MariaDB, at: str, insert: bool
) -> None:
    with contextmanager(mysql_lab)(own_server, insert=insert) as lab, ThreadPoolExecutor(1) as pool:
        write(lab.backend, target(run=1), ONE)
        backend = lab.another()
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
            go_on.set()
            time.sleep(0.3)
            assert not running.done()
            began = time.monotonic()
            token.pull(CANCELLED)
            error = ended(running)
            assert time.monotonic() - began < 4
        assert isinstance(error, ZeroDivisionError) if at == "leave" else error is CANCELLED
        wait_until(lambda: lab.backend.abandoned(-60) == [] or at == "begin")
        lab.backend.fence("results_a", 2, 1)
        assert lab.backend.abandoned(-60) == []
        wait_until(lambda: lab.tables() == {"results_a"})
        assert read(lab.backend, 1) == ONE


@pytest.mark.parametrize("published", [True, False])
def test_a_cancel_beside_the_rename_tells_what_became_of_it(
    my: MysqlLab, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    write(my.backend, target(run=1), ONE)
    token = Cancellation()
    rename = tables.rename

    def cancelled(connection: Connection, *pairs: tuple[str, str], **how: Any) -> None:
        if published:
            rename(connection, *pairs, **how)
        token.pull(CANCELLED)
        if not published:
            rename(connection, *pairs, **how)

    backend = my.another()
    monkeypatch.setattr(tables, "rename", cancelled)
    if published:
        assert attempt(backend, token, TWO) == 2
    else:
        with pytest.raises(Cancelled):
            attempt(backend, token, TWO)
    settled(my)
    assert read(my.backend, 2 if published else 1) == (TWO if published else ONE)


def test_a_rename_whose_answer_is_lost_is_asked_after(my: MysqlLab, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = tables.rename

    def lose(connection: Connection, *pairs: tuple[str, str], **how: Any) -> None:
        rename(connection, *pairs, **how)
        connection.abort()

    monkeypatch.setattr(tables, "rename", lose)
    with my.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        assert writer.publish() == 2
    assert read(my.backend) == TWO
    assert my.ledger('SELECT run, attempt, "rows", staging FROM jobber_ledger') == [(1, 1, 2, None)]
