"""How often jobs may start on a database: a token bucket that all instances share."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import Connection, text, update

from jobber.store import Hold, Store
from jobber.store.rates import Rate
from jobber.store.schema import jobs
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench, set_back

SECOND = 1_000_000
#: Starts per second, so few that none comes while a test runs.
RARE = 0.01


def rate(bench: Bench, per_second: float, db: str = "db0") -> None:
    bench.store.announce({}, {db: per_second})


def pass_time(bench: Bench, seconds: float) -> None:
    """Make all times of the rates as if so many seconds had passed."""
    columns = ("next_at", "slowed_until", "short_until")
    earlier = ", ".join(f"{column} = {column} - {int(seconds * SECOND)}" for column in columns)
    statement = text(f"UPDATE jobber_rates SET {earlier}")
    bench.store._database.write(lambda connection: connection.execute(statement))


def test_no_more_start_than_the_rate_allows_and_what_waits_says_so(bench: Bench) -> None:
    rate(bench, RARE)
    bench.submit("a", "b", "c")
    assert bench.ids(9) == ["a"]
    assert bench.ids(9) == []
    held = bench.store.waiting_for(bench.store.get("b"))
    assert held == [Hold("rate", "db0", "db0: 0.01 starts per second reached")]
    pass_time(bench, 99)
    assert bench.ids(9) == []
    pass_time(bench, 1)
    assert bench.store.waiting_for(bench.store.get("b")) == []
    assert bench.ids(9) == ["b"]
    pass_time(bench, 1000)  # tokens of half a second are kept, at least one
    assert bench.ids(9) == ["c"]


def test_what_a_rate_holds_back_holds_up_nobody_else(bench: Bench) -> None:
    rate(bench, RARE)
    bench.submit("a", "b", priority=9)
    bench.submit("c", db="db1")
    bench.submit("d", db="db1", queue="p")
    claim = bench.claim()
    assert ([job.job_id for job in claim.jobs], claim.more) == (["a"], {"q", "p"})
    assert sorted(bench.ids(9)) == ["c", "d"]
    assert bench.store.runnable_queues() == frozenset()


def test_a_job_that_somebody_holds_costs_no_rate_though_another_one_starts(server_url: str) -> None:
    store = Store(server_url)
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    rate(bench, RARE)
    bench.submit("a", "b", "other")
    pass_time(bench, 1000)
    bench.store._database.write(lambda connection: connection.execute(text("UPDATE jobber_rates SET pace = 200000")))
    (held,) = [bench.store.get("a")]

    def claim(connection: Connection) -> list[str]:
        connection.execute(update(jobs).where(jobs.c.run == held.run).values(cancel_requested=True))
        return bench.ids(2)

    assert bench.store._database.write(claim) == ["b"]
    assert bench.ids() == ["a"]  # the second of the two tokens that are kept
    store.close()


@pytest.mark.parametrize(
    ("pace", "waited", "allowed"),
    [
        (100_000, 0, 0),
        (100_000, 1, 1),
        (100_000, 250_000, 3),
        (100_000, 100_000_000, 5),  # those of half a second
        (1_000_000, 100_000_000, 1),  # at least one
        (300_000, 100_000_000, 1),
        (200_000, 100_000_000, 2),
    ],
)
def test_a_bucket_holds_the_tokens_of_half_a_second(pace: int, waited: int, allowed: int) -> None:
    now = 10**15
    found = Rate(pace, now - waited + (waited == 0), "", now)
    assert found.allowed == allowed
    if allowed:
        assert now < found.after(allowed) <= now + pace
        assert Rate(pace, found.after(allowed), "", now).allowed == 0
        assert Rate(pace, found.after(allowed), "", found.after(allowed)).allowed == 1


def test_in_the_long_run_all_that_the_rate_allows_start_and_no_more() -> None:
    # Looks that come when they come, some late: 10 a second for 100 seconds, and what the bucket held at first.
    now, next_at, starts = 10**15, 0, 0
    for step in range(1000):
        now += (step * 7919) % 200_000
        found = Rate(100_000, next_at, "", now)
        starts += found.allowed
        next_at = found.after(found.allowed) if found.allowed else next_at
    passed = (now - 10**15) / SECOND
    assert 10 * passed - 1 <= starts <= 10 * passed + 5


def test_a_database_that_is_overloaded_gets_half_of_its_rate_for_a_minute(bench: Bench) -> None:
    rate(bench, 0.1)
    bench.submit("a", "b", "c", "d")
    bench.store.slow_down("db0", "too many connections")
    assert bench.ids(9) == ["a"]
    (hold,) = bench.store.waiting_for(bench.store.get("b"))
    assert hold.text == "db0: 0.05 starts per second reached (halved: too many connections)"
    pass_time(bench, 19)
    assert bench.ids(9) == []
    pass_time(bench, 1)
    assert bench.ids(9) == ["b"]
    pass_time(bench, 40)
    assert bench.ids(9) == ["c"]
    (hold,) = bench.store.waiting_for(bench.store.get("d"))
    assert hold.text == "db0: 0.1 starts per second reached"


def test_a_database_without_a_rate_cannot_be_slowed_down(bench: Bench) -> None:
    bench.store.slow_down("db0", "too many connections")
    bench.submit("a", "b")
    assert bench.ids(9) == ["a", "b"]
    assert bench.store.due().starts is None


def test_who_waits_for_a_start_is_woken_when_there_is_one_and_once(bench: Bench, state_url: str) -> None:
    rate(bench, RARE)
    bench.submit("a", "b")
    bench.submit("c", queue="p")
    bench.submit("d", queue="x", db="db1")
    assert bench.store.due().starts is None
    assert bench.ids() == ["a"]
    due = bench.store.due().starts
    assert due is not None
    assert 90 < due <= 100
    assert bench.store.refill() == frozenset()
    pass_time(bench, 100)
    assert bench.store.due().starts == 0
    other = Store(state_url)
    assert other.refill() == {"q", "p"}
    assert bench.store.refill() == frozenset()
    assert bench.store.due().starts is None
    other.close()


def test_who_takes_a_start_that_others_wait_for_too_leaves_them_to_be_woken(bench: Bench) -> None:
    rate(bench, 5)
    bench.submit("a", "b", "c", "d", "e", "f")
    bench.submit("far", queue="p")
    assert len(bench.ids(9, queues=["q"])) == 2
    wait_until(lambda: bench.store.due().starts == 0)
    pass_time(bench, 10)
    assert len(bench.ids(1, queues=["q"])) == 1  # one is left
    assert bench.store.due().starts == 0
    assert bench.store.refill() == {"q", "p"}


def test_all_instances_share_a_rate(bench: Bench, state_url: str) -> None:
    rate(bench, 20)
    bench.submit(*(f"j{n}" for n in range(100)))
    stores = [Store(state_url) for _ in range(2)]
    started: list[str] = []
    began = time.monotonic()

    def work(store: Store) -> None:
        mine = Bench(store, store.register("w", ["q"], 9, lease=60))
        while time.monotonic() < began + 0.8 or (len(started) <= 12 and time.monotonic() < began + 10):
            started.extend(mine.ids(3))

    crew = [threading.Thread(target=work, args=[store]) for store in stores for _ in range(2)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    passed = time.monotonic() - began
    assert len(set(started)) == len(started)
    assert 20 * 0.6 < len(started) <= 10 + 20 * passed + 1
    for store in stores:
        store.close()


def test_another_rate_counts_at_once_in_every_process_and_none_removes_it(bench: Bench, state_url: str) -> None:
    bench.submit(*(f"j{n}" for n in range(9)))
    assert bench.ids() == ["j0"]
    other = Bench(Store(state_url), bench.worker)
    rate(other, RARE)
    assert bench.ids(9) == ["j1"]
    rate(other, RARE, "db1")  # of another config: that of db0 stays
    assert bench.ids(9) == []
    rate(other, 1)  # who waits for the next start waits a second at most from now on
    pass_time(bench, 1)
    assert bench.ids(9) == ["j2"]
    rate(other, 0)
    assert bench.ids(3) == ["j3", "j4", "j5"]
    other.store.close()


def test_a_clock_that_is_set_back_holds_nothing_up(bench: Bench) -> None:
    rate(bench, 1)
    bench.store.slow_down("db0", "too many connections")
    bench.submit("a", "b", "c")
    assert bench.ids(9) == ["a"]
    set_back(bench.store, "rates", "next_at", "slowed_until")
    assert bench.ids(9) == ["b"]
    (hold,) = bench.store.waiting_for(bench.store.get("c"))
    assert hold.text == "db0: 1 start per second reached"
