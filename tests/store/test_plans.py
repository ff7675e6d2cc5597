"""No question that is asked often reads a large table from end to end, on the servers, with many jobs of all kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import lists
from jobber.jobs import JobState
from jobber.store import Store, statistics, walking
from jobber.store.listing import JobFilter

LIVE, FINISHED = 10_000, 20_000


@pytest.fixture
def filled(server_url: str) -> Iterator[Store]:
    store = Store(server_url)
    store.migrate()
    lists.fill(store._database, LIVE, FINISHED)
    yield store
    store.close()


def test_lists_and_looks_go_by_indexes(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # As small beside these tables as they are beside large ones.
    for name, value in {"FIRST": 50, "STEP": 200, "LOOK": 50, "SHORT": 100, "WINDOW": 500}.items():
        monkeypatch.setattr(walking, name, value)
    monkeypatch.setattr(statistics, "PART", 500)
    monkeypatch.setattr(statistics, "MOST", 2000)
    database, scans = filled._database, {}
    middle = filled.now() // 1000 - 3 * 86_400_000
    with lists.noted(database) as seen:
        for name, wanted in lists.wanted(filled.now()).items():
            for below in (None, middle):
                seen.clear()
                filled.lists.page(wanted, below=below)
                scans[f"{name} below {below}"] = lists.full_scans(database, [*seen])
        (waiting,) = filled.lists.page(JobFilter(states=frozenset({JobState.PENDING})), limit=1).jobs
        looks = {
            "status by ID": lambda: filled.get(waiting.job_id),
            "status of a finished job": lambda: filled.get("bench-7"),
            "runs of an ID": lambda: filled.finished("bench-7"),
            "pending list": lambda: filled.pending("fast", limit=100),
            "what holds it back": lambda: filled.waiting_for(waiting),
            "members of a group": lambda: filled.group("nightly"),
            "the newest of some IDs": lambda: filled.changes.newest([f"bench-{n}" for n in range(20)]),
            "the newest runs of some IDs": lambda: filled.changes.newest_runs([f"bench-{n}" for n in range(20)]),
            "what is due": filled.due,
            "statistics": lambda: filled.statistics.make(100),
        }
        for name, look in looks.items():
            seen.clear()
            look()
            # The states of live jobs are counted, all of them: in the index, that is.
            scans[name] = lists.full_scans(
                database, [pair for pair in seen if "GROUP BY jobber_jobs.state" not in pair[0]]
            )
    assert {name: found for name, found in scans.items() if found} == {}
    # The check itself: of a question that no index answers, and one that the primary key does.
    for question, found in (("", True), ("WHERE run = 1", False)):
        statement = f"SELECT args FROM jobber_finished_jobs {question}"
        assert bool(lists.full_scans(database, [(statement, None)])) is found
