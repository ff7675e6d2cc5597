"""Numbers of runs: they grow whatever becomes of the state database."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from jobber.jobs import PRIORITY_HIGHEST, PRIORITY_LOWEST
from jobber.store import Store, migrations, runs
from jobber.store.database import Database
from jobber.store.schema import EMPTY, order
from tests.store.conftest import Bench, new_job


@pytest.fixture
def database(bare_url: str) -> Database:
    database = Database(bare_url, pool_size=8)
    database.write(migrations.upgrade)
    return database


@pytest.fixture
def counting(bare_url: str) -> Iterator[Store]:
    """A store in a database of its own, whose counter may be set."""
    store = Store(bare_url)
    store.migrate()
    yield store
    store.close()


def take(database: Database, count: int = 1) -> list[int]:
    return database.write(lambda connection: runs.begin(database, connection, count).runs)


def now_ms(database: Database) -> int:
    return database.write(lambda connection: runs.begin(database, connection, 1).now) // 1000


def set_last(database: Database, value: int) -> None:
    """Set the last number that counts as given out, as a backup would."""
    if database.engine.sequences:
        statement = "SELECT setval('jobber_run_seq', :value)"
    else:
        statement = "UPDATE jobber_counters SET value = :value WHERE name = 'run'"
    database.write(lambda connection: connection.execute(text(statement), {"value": value}))


def test_the_tables_are_made_with_a_counter_that_begins_at_the_clock(database: Database) -> None:
    """Without ``catch_up``: another process may submit before this one gets there."""
    (first,) = take(database)
    assert abs(first - now_ms(database)) < 60_000
    database.close()


def test_a_new_state_database_numbers_on_from_the_lost_one(state_url: str, tmp_path: Path) -> None:
    """The ledgers of results outlive it, and fence all that is older than what they know."""
    lost, new = Store(state_url), Store(f"sqlite:///{tmp_path}/new.db")
    lost.migrate()
    (before,) = lost.submit([new_job("a")])
    new.migrate()
    (after,) = new.submit([new_job("a")])
    assert after.run > before.run
    lost.close()
    new.close()


def test_a_restored_backup_numbers_on_from_what_was_lost(tmp_path: Path) -> None:
    state, backup = tmp_path / "state.db", tmp_path / "backup.db"
    store = Store(f"sqlite:///{state}")
    store.migrate()
    store.submit([new_job("before")])
    store.close()
    shutil.copy(state, backup)
    store = Store(f"sqlite:///{state}")
    lost = store.submit([new_job(f"lost{n}") for n in range(3)])
    store.close()
    shutil.copy(backup, state)
    store = Store(f"sqlite:///{state}")
    store.migrate()
    (after,) = store.submit([new_job("lost2")])
    assert after.run > max(job.run for job in lost)
    store.close()


def test_a_counter_that_is_behind_is_raised_at_start(counting: Store) -> None:
    set_last(counting._database, 41)
    assert take(counting._database) == [42]
    counting.migrate()
    (run,) = take(counting._database)
    assert abs(run - counting.now() // 1000) < 60_000


def test_a_counter_that_is_ahead_goes_on_from_where_it_is(counting: Store) -> None:
    ahead = counting.now() // 1000 + 3_600_000
    set_last(counting._database, ahead)
    counting.migrate()
    assert take(counting._database, 2) == [ahead + 1, ahead + 2]


def test_nobody_counts_while_the_counter_is_raised(counting: Store) -> None:
    """Else a number that was given out after the look at the counter would be given out again after the raise."""
    set_last(counting._database, 41)
    taken: list[int] = []
    taking = threading.Thread(target=lambda: taken.extend(take(counting._database)))

    def count_meanwhile(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        in_write = connection.get_execution_options().get("jobber_write")
        if in_write and "jobber_" in statement and not taking.ident:
            taking.start()
            taking.join(0.3)
            assert taken == []

    event.listen(counting._database._pool, "after_cursor_execute", count_meanwhile)
    runs.catch_up(counting._database)
    taking.join(30)
    assert len(taken) == 1
    assert taken[0] > 42


def test_a_counter_that_was_raised_since_the_look_is_left_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last(database, 41)
    ahead = now_ms(database) + 3_600_000
    write = database.write

    def late(work: Callable[[Connection], Any]) -> Any:
        monkeypatch.undo()
        set_last(database, ahead)
        return write(work)

    monkeypatch.setattr(database, "write", late)
    runs.catch_up(database)
    assert take(database) == [ahead + 1]
    database.close()


def test_instances_that_start_while_others_count_give_no_number_out_twice(database: Database) -> None:
    """They count slower than the clock, so that every start finds the counter a little behind."""
    taken: list[int] = []
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            taken.extend(take(database))
            time.sleep(0.005)

    counting = [threading.Thread(target=count) for _ in range(3)]
    raising = [threading.Thread(target=lambda: [runs.catch_up(database) for _ in range(40)]) for _ in range(3)]
    for thread in (*counting, *raising):
        thread.start()
    for thread in raising:
        thread.join(60)
    stop.set()
    for thread in counting:
        thread.join(60)
    assert len(set(taken)) == len(taken) > 0
    database.close()


def test_every_place_in_a_lane_is_below_an_empty_lanes_head_and_priority_goes_before_age(bench: Bench) -> None:
    (job,) = bench.submit("a")
    far = job.run * 100
    assert order(PRIORITY_HIGHEST, far) < order(PRIORITY_HIGHEST - 1, job.run)
    assert order(PRIORITY_LOWEST, far) < EMPTY < 2**63
