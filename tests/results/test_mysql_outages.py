"""Results on MySQL and MariaDB when the server is down, breaks a connection or crashes, and when workers die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.errors import Fenced, ResultsUnavailable
from jobber.mysql import Connection
from jobber.results.base import Published
from jobber.results.mysql import MysqlResults, tables
from tests.forking import start
from tests.results import dying
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, MysqlLab, load, mysql_lab, read, target, write
from tests.servers import MariaDB, free_port, wait_until

JOBBERS = "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"


def test_a_server_that_is_down_is_unavailable_and_no_secret_is_told() -> None:
    url = f"mysql+pymysql://someuser:hunter2@127.0.0.1:{free_port()}/somewhere"
    backend = MysqlResults(ResultsSettings(name="main", url=url, engine="mysql"))
    with pytest.raises(ResultsUnavailable, match='"main" is not available: Connection refused') as caught:
        write(backend, target(), ONE)
    assert caught.value.retryable
    for secret in ("hunter2", "someuser", "127.0.0.1", "somewhere"):
        assert secret not in caught.value.message


def kill_all(lab: MysqlLab) -> None:
    for (number,) in lab.query(JOBBERS):
        lab.query(f"KILL {number}")
    wait_until(lambda: not lab.query(JOBBERS))


def test_connections_that_the_server_closed_while_idle_cost_no_attempt(my: MysqlLab) -> None:
    write(my.backend, target(), ONE)
    kill_all(my)
    assert read(my.backend) == ONE


@pytest.mark.parametrize("insert", [False, True], ids=["load", "insert"])
def test_a_connection_that_breaks_in_the_middle_of_a_load_ends_the_attempt_and_leaves_the_old_result(
    mariadb: MariaDB, insert: bool
) -> None:
    for lab in mysql_lab(mariadb, insert=insert):
        write(lab.backend, target(run=1), ONE)
        with pytest.raises(ResultsUnavailable):
            load(lab.another(), target(run=2), BULKY, lambda _, lab=lab: kill_all(lab), BULKY)
        assert read(lab.backend, 1) == ONE
        assert lab.tables() == {"results_a"}


# -- workers that die -------------------------------------------------------------------------------------------------


def die_at(lab: MysqlLab, step: str) -> None:
    """Have a worker that ends like one that was killed, at one of its steps."""
    worker = start(dying.write_on_mysql, lab.settings.url, step)
    worker.join(60)
    assert worker.exitcode == -9


@pytest.mark.parametrize(
    ("step", "first", "published"),
    [
        *((step, "fence", False) for step in ("claimed", "created", "loading", "stored")),
        *(("renaming", first, False) for first in ("fence", "rows", "rerun", "expire")),
        *(("renamed", first, True) for first in ("fence", "rows", "rerun", "expire")),
        ("published", "expire", True),
    ],
)
def test_a_worker_that_is_killed_leaves_the_old_result_or_the_new_one_whoever_comes_first(
    my: MysqlLab, step: str, first: str, published: bool
) -> None:
    write(my.backend, target(run=1), ONE)
    die_at(my, step)
    expected = (2, BULKY) if published else (1, ONE)
    if first == "rows":
        assert read(my.backend, expected[0]) == expected[1]
    elif first == "rerun":
        with my.backend.begin(target(run=2, attempt=2), COLUMNS, Cancellation()) as writer:
            assert read(my.backend, expected[0]) == expected[1]
            writer.write_batch(TWO)
            writer.publish()
        expected = (2, TWO)
    elif first == "expire":
        my.backend.expire()
    told = my.backend.fence("results_a", 2, 1)
    assert told == (Published(len(BULKY), COLUMNS) if published and first != "rerun" else None)
    assert my.backend.abandoned(-60) == []
    with pytest.raises(Fenced):
        write(my.backend, target(run=2, attempt=1), TWO)
    assert read(my.backend, expected[0]) == expected[1]
    my.backend.expire()
    assert my.tables() == {"results_a"}
    assert my.ledger('SELECT run, "rows", staging, leftovers FROM jobber_ledger') == [
        (expected[0], len(expected[1]), None, None)
    ]
    if published and first != "rerun":
        assert my.lifetime() == pytest.approx(3600, abs=0.5)


def test_a_worker_that_hangs_in_the_midst_of_publishing_is_disconnected(my: MysqlLab) -> None:
    my.backend.locks.patience = 1
    hanging = my.another()
    write(my.backend, target(run=1), ONE)
    with hanging.connections.connection() as connection:
        stuck = hanging.locks.held(connection, "results_a")
        stuck.__enter__()
        write(my.backend, target(run=2), TWO)
        stuck.__exit__(None, None, None)
    assert read(my.backend, 2) == TWO


# -- servers that crash -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mortal() -> Iterator[MariaDB]:
    """A server that may be killed."""
    server = MariaDB()
    server.start()
    yield server
    server.remove()


@pytest.mark.parametrize("at", ["load", "before", "after"])
def test_a_server_that_crashes_keeps_the_old_result_or_the_new_one(
    mortal: MariaDB, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = tables.rename

    def crash(connection: Connection, *pairs: tuple[str, str], **how: Any) -> None:
        if at == "after":
            rename(connection, *pairs, **how)
        mortal.stop(kill=True)
        if at == "before":
            rename(connection, *pairs, **how)

    for lab in mysql_lab(mortal):
        write(lab.backend, target(run=1), ONE)
        if at == "load":
            with pytest.raises(ResultsUnavailable):
                load(lab.backend, target(run=2), BULKY, lambda _: mortal.stop(kill=True), BULKY)
        else:
            with monkeypatch.context() as patched:
                patched.setattr(tables, "rename", crash)
                with pytest.raises(ResultsUnavailable):
                    load(lab.backend, target(run=2), BULKY)
        mortal.start()
        assert lab.backend.fence("results_a", 2, 1) == (Published(len(BULKY), COLUMNS) if at == "after" else None)
        assert read(lab.backend, 2 if at == "after" else 1) == (BULKY if at == "after" else ONE)
        write(lab.backend, target(run=2, attempt=2), TWO)
        lab.backend.expire()
        assert read(lab.backend, 2) == TWO
        assert lab.tables() == {"results_a"}


def test_half_a_rename_is_undone(my: MysqlLab) -> None:
    """What a server without atomic DDL may leave when it crashes: the old table is away and the new one not there."""
    write(my.backend, target(run=1), ONE)
    lost = my.another()
    lost.give_up = lambda *_: None  # type: ignore[method-assign]  # it died
    with lost.begin(target(run=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        my.query(f'RENAME TABLE "results_a" TO "{tables.trash_name(writer.staging)}"')
    assert my.another().fence("results_a", 2, 1) is None
    assert read(my.backend, 1) == ONE
    my.backend.expire()
    assert my.tables() == {"results_a"}
