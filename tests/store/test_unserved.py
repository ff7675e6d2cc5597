"""A job in a queue that no worker serves says so: nothing else will ever make it run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobber.jobs import NewJob
from jobber.store import Hold, Store
from tests.servers import wait_until


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    store = Store(state_url)
    store.migrate()
    yield store
    store.close()


def test_a_job_in_a_queue_that_nobody_serves_says_so_until_somebody_does(store: Store) -> None:
    new = NewJob(job_id="a", task="t", queue="lonely", db="d", results="r", table="results_a")
    (job,) = store.submit([new])
    worker = store.register("w", ["default"], 1, lease=30)
    alone = [Hold("queue", "lonely", "no worker serves the queue lonely")]
    assert store.waiting_for(job) == alone

    store.serves(worker, ["default", "lonely"])
    assert store.waiting_for(job) == []

    store.unregister(worker)
    assert store.waiting_for(job) == alone


def test_a_worker_that_is_silent_for_longer_than_its_lease_serves_nothing(store: Store) -> None:
    (job,) = store.submit([NewJob(job_id="a", task="t", queue="q", db="d", results="r", table="results_a")])
    store.register("w", ["q"], 1, lease=1)
    assert store.waiting_for(job) == []

    wait_until(lambda: store.waiting_for(job) != [])
