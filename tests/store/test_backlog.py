"""Caps on waiting jobs: exact under concurrent submissions, and whole for what comes as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import event, text

from jobber.errors import BacklogFull, InvalidRequest, UnknownGroup, UnknownJob
from jobber.jobs import JobState
from jobber.store import Gate, GateKind, Limits, Store, admission
from tests.store.conftest import Bench, new_group, new_job

QUEUE = Gate(GateKind.QUEUE, "q")
EACH_TENANT, ACME = Gate(GateKind.TENANT, ""), Gate(GateKind.TENANT, "acme")


def cap(store: Store, **pending: int) -> None:
    """Set how many jobs may wait in a queue, or, with an underscore before its name, for a tenant."""
    gates = {name: Gate(*_gate(name)) for name in pending}
    store.announce({gates[name]: Limits(pending=count) for name, count in pending.items()}, {})


def _gate(name: str) -> tuple[GateKind, str]:
    return (GateKind.TENANT, name.removeprefix("_")) if name.startswith("_") else (GateKind.QUEUE, name)


@pytest.fixture
def statements(bench: Bench) -> Iterator[list[str]]:
    """What the store's connections are told."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(bench.store._database._pool, "after_cursor_execute", note)
    yield seen
    event.remove(bench.store._database._pool, "after_cursor_execute", note)


def test_a_full_queue_takes_nothing_until_a_job_leaves_and_other_queues_do(bench: Bench) -> None:
    cap(bench.store, q=2)
    bench.submit("a", "b")
    with pytest.raises(BacklogFull) as refused:
        bench.submit("c")
    assert refused.value.details == {"queue": "q", "limit": 2}
    assert "queue q has as many waiting jobs as it may have (2)" in refused.value.message
    with pytest.raises(UnknownJob):
        bench.store.get("c")
    bench.submit("elsewhere", queue="p")
    (started,) = bench.claim(queues=["q"]).jobs
    bench.submit("c")
    with pytest.raises(BacklogFull):
        bench.submit("d")
    bench.store.cancel("b")
    bench.submit("d")
    bench.store.retry(started, error="no", code="c", delay=60)  # is never refused, and counts
    with pytest.raises(BacklogFull):
        bench.submit("e")


def test_delayed_jobs_and_callbacks_count_and_what_comes_as_a_whole_is_refused_as_a_whole(bench: Bench) -> None:
    cap(bench.store, q=4, p=1)
    bench.submit("later", eta=bench.store.now() + 3_600_000_000)
    with pytest.raises(BacklogFull):
        bench.submit("a", "b", "c", "d")
    with pytest.raises(BacklogFull):
        bench.store.submit_group(new_group("g", "a", "b", "c", "d"))
    with pytest.raises(UnknownGroup):
        bench.store.group("g")
    bench.store.submit_group(new_group("g", "a", "b", "c"))
    with pytest.raises(BacklogFull):  # its callback waits there
        bench.submit("behind", queue="p")
    for job in bench.claim(9).jobs:
        bench.store.succeed(job, rows=1, columns=[])
    assert bench.ids(9) == ["g-done"]


def test_more_than_will_ever_fit_is_told_so(bench: Bench) -> None:
    cap(bench.store, q=2)
    with pytest.raises(InvalidRequest, match=r"more jobs than may wait for queue q \(2\): there will never be room"):
        bench.submit("a", "b", "c")


def test_every_tenant_has_its_own_backlog_and_may_have_its_own_cap(bench: Bench) -> None:
    cap(bench.store, _=1, _acme=2)
    bench.submit("a", "b", tenant="acme")
    bench.submit("c", tenant="umbrella")
    bench.submit("d", "e", "f")  # of nobody
    for tenant, job_id in (("acme", "g"), ("umbrella", "h")):
        with pytest.raises(BacklogFull) as refused:
            bench.submit(job_id, tenant=tenant, queue="p", task="u", db="db1")
        assert refused.value.details["tenant"] == tenant
    bench.store.cancel("c")
    bench.submit("h", tenant="umbrella", queue="p")


def test_a_cap_that_is_set_or_changed_elsewhere_counts_from_the_next_submission_on(bench: Bench) -> None:
    other = Store(bench.store._database._pool.url.render_as_string(hide_password=False))
    bench.submit("a", "b")
    cap(other, q=2)
    with pytest.raises(BacklogFull):
        bench.submit("c")
    cap(other, q=3)
    bench.submit("c")
    cap(other, q=10)
    bench.submit("d")  # takes room under the new cap …
    cap(other, q=4)
    with pytest.raises(BacklogFull):  # … of which nothing is left under the next one
        bench.submit("e")
    cap(other)
    bench.submit("e")
    other.close()


def test_no_submission_of_eight_threads_goes_over_a_cap(bench: Bench) -> None:
    cap(bench.store, q=50, _=30)
    barrier = threading.Barrier(8)

    def submit(thread: int) -> int:
        barrier.wait(30)
        taken = 0
        for n in range(8):
            size = n % 3 + 1
            with suppress(BacklogFull):
                bench.submit(*(f"{thread}-{n}-{i}" for i in range(size)), tenant="a" if thread % 2 else "b")
                taken += size
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(submit, range(8)))
    waiting = bench.store.pending("q")
    assert taken == len(waiting)
    assert 48 <= len(waiting) <= 50  # two or three at a time did not fit any more
    assert max(sum(job.tenant == tenant for job in waiting) for tenant in "ab") <= 30


def test_submissions_beside_claims_never_exceed_the_cap(bench: Bench) -> None:
    cap(bench.store, q=20)
    over, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            found = len(bench.store.pending("q", limit=100))
            over.extend([found] if found > 20 else [])

    def submit(thread: int) -> None:
        for n in range(15):
            with suppress(BacklogFull):
                bench.submit(f"{thread}-{n}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(5) as pool:
        submitters = [pool.submit(submit, thread) for thread in range(4)]
        while not all(done.done() for done in submitters):
            for job in bench.claim(3).jobs:
                bench.store.succeed(job, rows=1, columns=[])
        for done in submitters:
            done.result()
    stop.set()
    watcher.join()
    assert over == []


def test_where_no_cap_is_set_a_submission_asks_nothing_more(bench: Bench, statements: list[str]) -> None:
    bench.submit("a")
    bench.store.pause(Gate(GateKind.DATABASE, "db1"), "so that there are gates")
    bench.submit("b")
    del statements[:]
    bench.submit("c", tenant="acme")
    assert not [told for told in statements if "backlog" in told or "jobber_gates " in told]
    cap(bench.store, p=1)  # of another queue
    bench.submit("d")
    del statements[:]
    bench.submit("e")
    assert not [told for told in statements if "backlog" in told]


def test_jobs_are_not_counted_for_each_submission(bench: Bench, statements: list[str]) -> None:
    cap(bench.store, q=1000)
    bench.submit("a")
    del statements[:]
    for n in range(20):
        bench.submit(f"b{n}")
    assert sum("count(" in told.lower() for told in statements) <= 5  # one a second; few machines need five


def test_a_count_is_good_for_a_second_also_when_the_clock_is_set_back(bench: Bench) -> None:
    cap(bench.store, q=3)
    bench.submit("a")  # room for two more, as far as the row knows
    later = text("UPDATE jobber_backlogs SET counted_at = counted_at + 3600000000, free = 100")
    bench.store._database.write(lambda connection: connection.execute(later))
    with pytest.raises(BacklogFull):
        bench.submit("b", "c", "d")
    earlier = text("UPDATE jobber_backlogs SET counted_at = counted_at - 7200000000, free = 100")
    bench.store._database.write(lambda connection: connection.execute(earlier))
    with pytest.raises(BacklogFull):
        bench.submit("b", "c", "d")


def test_a_large_backlog_that_is_full_is_not_counted_for_every_refusal(
    bench: Bench, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MANY", 2)
    monkeypatch.setattr(admission, "_RESPITE", 60.0)
    cap(bench.store, q=2)
    bench.submit("a", "b")
    backlog = bench.store._submitter.backlog
    with pytest.raises(BacklogFull):
        bench.submit("c")
    ((gate, (limit, until)),) = backlog._full_until.items()
    backlog._full_until[gate] = limit, until + 60
    del statements[:]
    with pytest.raises(BacklogFull):
        bench.submit("c")
    assert not [told for told in statements if "jobber_backlogs" in told]
    backlog._full_until[gate] = limit, until - 60
    bench.store.cancel("a")
    bench.submit("c")


def test_when_to_try_again_follows_from_how_fast_the_queue_moves(bench: Bench) -> None:
    cap(bench.store, q=3)

    def told(*job_ids: str) -> int:
        with pytest.raises(BacklogFull) as refused:
            bench.submit(*job_ids)
        assert f"try again in {refused.value.retry_after} s" in refused.value.message
        return refused.value.retry_after

    bench.submit("a", "b", "c")
    assert told("d") == 5  # nobody knows
    for job_id in ("e0", "e1", "e2", "e3", "e4"):
        bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
        bench.submit(job_id)
    moved = text("UPDATE jobber_finished_jobs SET finished_at = finished_at - 40000000 WHERE run = :run")
    first = bench.store.get("a").run
    bench.store._database.write(lambda connection: connection.execute(moved, {"run": first}))
    one, three = told("f"), told("f", "g", "h")
    assert 8 <= one <= 12  # five in the last 40 s
    assert 22 <= three <= 36


def test_rows_that_nobody_used_for_a_day_are_dropped_and_come_back(bench: Bench) -> None:
    cap(bench.store, _=5)
    bench.submit("a", tenant="acme")
    old = text("UPDATE jobber_backlogs SET counted_at = counted_at - 90000000000")
    bench.store._database.write(lambda connection: connection.execute(old))
    bench.store.prune(3600)
    left = text("SELECT count(*) FROM jobber_backlogs")
    assert bench.store._database.read(lambda connection: connection.execute(left).scalar_one()) == 0
    bench.submit("b", tenant="acme")


def test_a_job_that_is_refused_leaves_nothing_behind_and_takes_no_room(bench: Bench) -> None:
    cap(bench.store, q=10, _acme=1)
    bench.submit("a", tenant="acme")
    for n in range(20):  # each takes room in the queue first, and is then refused for its tenant
        with pytest.raises(BacklogFull):
            bench.store.submit([replace(new_job(f"x{n}"), tenant="acme")])
    bench.submit(*(f"b{n}" for n in range(9)))
    assert {job.state for job in bench.store.pending("q")} == {JobState.PENDING}
