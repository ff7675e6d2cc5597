from __future__ import annotations

import pytest
from sqlalchemy import text

from jobber.errors import ConfigError, UnknownJob
from jobber.store import Store
from tests.servers import wait_until
from tests.store.conftest import QUEUES, Bench, set_back


def test_one_holder_leads_until_its_term_is_over(store: Store) -> None:
    assert store.lead("maintenance", "a", lease=0.3)
    assert not store.lead("maintenance", "b", lease=60)
    assert store.lead("schedules", "b", lease=60)
    assert store.lead("maintenance", "a", lease=0.3)
    wait_until(lambda: store.lead("maintenance", "b", lease=60))
    assert not store.lead("maintenance", "a", lease=60)


def test_a_role_is_not_kept_for_longer_because_the_clock_is_set_back(store: Store) -> None:
    assert store.lead("maintenance", "dead", lease=60)
    set_back(store, "leaders", "lease_until")
    assert store.lead("maintenance", "next", lease=60)
    assert not store.lead("maintenance", "third", lease=60)


def test_prune_forgets_what_is_old_and_nothing_else(bench: Bench) -> None:
    for job_id in ("a", "b", "c"):
        bench.store.succeed(bench.started(job_id), rows=1, columns=[])
    bench.submit("live")
    assert bench.store.prune(3600) == 0
    wait_until(lambda: bench.store.prune(0, limit=2) == 2)
    with pytest.raises(UnknownJob):
        bench.store.get("a")
    assert bench.store.get("c").rows == 1
    assert bench.store.prune(0) == 1
    assert bench.ids() == ["live"]


def test_prune_forgets_dead_workers_once_their_attempts_are_rescued(bench: Bench) -> None:
    bench.submit("a", "b")
    dying = bench.store.register("dying", QUEUES, 2, lease=0)
    first, second = bench.claim(2, worker=dying).jobs
    bench.store.rescue(first, max_rescues=3)
    bench.store.prune(3600)
    assert [job.run for job in bench.store.lost()] == [second.run]
    bench.store.rescue(second, max_rescues=3)
    bench.store.prune(3600)
    assert bench.store.lost() == []
    assert bench.store.heartbeat(bench.worker, {}, lease=60).cancelled == frozenset()


def test_runs_that_may_have_published_though_they_did_not_succeed_are_listed(bench: Bench) -> None:
    before = bench.store.now()
    bench.store.fail(bench.started("plain"), error="no such column", code="query_failed")
    bench.store.fail(bench.started("unheard"), error="away", code="results_unavailable")
    bench.store.cancel(bench.submit("waiting")[0].job_id)
    bench.submit("lost", "again")
    dying = bench.store.register("dying", QUEUES, 2, lease=0)
    lost, again = bench.claim(2, worker=dying).jobs
    for job in (lost, again):
        bench.store.rescue(job, max_rescues=3)
    bench.store.cancel("lost")
    (second,) = bench.claim(1).jobs
    bench.store.succeed(second, rows=1, columns=[])

    found = bench.store.doubtful(before)

    assert [job.job_id for job in found] == ["unheard", "lost"]
    assert [job.job_id for job in bench.store.doubtful(before, limit=1)] == ["unheard"]
    last = found[-1]
    assert bench.store.doubtful(last.finished_at or 0, after=last.run) == []
    # All jobs of a group may end at the very same moment.
    at_once = text(f"UPDATE jobber_finished_jobs SET finished_at = {last.finished_at}")
    bench.store._database.write(lambda connection: connection.execute(at_once))
    assert bench.store.doubtful(last.finished_at or 0, after=found[0].run, limit=1) == [last]


def test_the_clock_is_the_databases_and_moves(store: Store) -> None:
    first = store.now()
    wait_until(lambda: store.now() > first)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "mssql+pyodbc://u:pw@h/db"]
)
def test_a_database_that_cannot_hold_the_state_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Store(url)
    assert "pw" not in str(refused.value)
