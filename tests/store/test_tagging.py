"""Tags of runs: found by, moved with, forgotten with them."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from jobber.errors import JobIsLive
from jobber.store import Store
from jobber.store.listing import JobFilter
from jobber.store.schema import tags
from tests.store.conftest import Bench, new_group, new_job


def found(store: Store, **wanted: str) -> list[str]:
    return [job.job_id for job in store.lists.page(JobFilter(tags=wanted)).jobs]


def rows(store: Store) -> int:
    count: int = store._database.read(
        lambda connection: connection.execute(select(func.count(tags.c.run))).scalar_one()
    )
    return count


def test_a_job_is_found_by_its_tags_live_and_finished_until_it_is_forgotten(bench: Bench) -> None:
    store = bench.store
    store.submit([new_job("a", tags={"k": "1", "l": "2"}), new_job("b", tags={"k": "1"}), new_job("c")])
    assert (found(store, k="1"), found(store, l="2"), found(store, k="1", l="3")) == (["b", "a"], ["a"], [])
    (job,) = bench.claim().jobs
    store.succeed(job, rows=0, columns=[])
    store.cancel("b")
    assert found(store, k="1") == ["b", "a"]
    store.purge("a")
    assert (found(store, k="1"), rows(store)) == (["b"], 1)
    store.prune(0)
    assert rows(store) == 0


def test_members_of_groups_are_found_by_their_tags(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", jobs=[new_job(job_id, tags={"k": job_id}) for job_id in ("a", "b")]))
    assert found(bench.store, k="b") == ["b"]


def test_tags_are_compared_byte_for_byte_whatever_they_hold(bench: Bench) -> None:
    """Of any length, with blanks at their ends, in any case, with what PostgreSQL or UTF-8 cannot hold."""
    long = "x" * 200
    values = ["a", "A", "a ", "ä", "a\u0308", "", long, long + "y", long + "Y", "\0", "a\0", "\ud800", "\ud801", "😀"]
    bench.store.submit([new_job(f"j{n}", tags={"k": value, value or "empty": "1"}) for n, value in enumerate(values)])
    for number, value in enumerate(values):
        assert found(bench.store, k=value) == [f"j{number}"], ascii(value)
        if value not in ("", "k"):
            assert found(bench.store, **{value: "1"}) == [f"j{number}"], ascii(value)


def test_a_submission_that_is_refused_leaves_no_tags(bench: Bench) -> None:
    bench.submit("a", tags={"k": "1"})
    with pytest.raises(JobIsLive):
        bench.store.submit([new_job("b", tags={"k": "1"}), new_job("a", tags={"k": "1"})])
    assert (found(bench.store, k="1"), rows(bench.store)) == (["a"], 1)
