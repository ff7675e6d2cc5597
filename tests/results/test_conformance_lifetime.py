"""What every results backend promises of the tables there: whose they are, and when they go."""

from __future__ import annotations

import time

import pytest

from jobber.errors import Fenced, ResultsFailed, ResultsGone
from tests.results.conftest import ONE, TWO, Lab, read, target, write

# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_strangers_table_is_never_replaced(lab: Lab) -> None:
    lab.backend.prepare()
    lab.make_stranger("results_a")
    with pytest.raises(ResultsFailed, match="not made by jobber") as caught:
        write(lab.backend, target(), ONE)
    assert not caught.value.retryable
    assert lab.query('SELECT * FROM "results_a"') == [("mine",)]
    assert lab.tables() == {"results_a"}


def test_a_strangers_table_is_never_dropped(lab: Lab) -> None:
    write(lab.backend, target("results_b", ttl=1), ONE)
    lab.make_stranger("results_a")
    lab.make_stranger("jobber_staging_of_nobody")
    lab.overdue("results_b")
    assert lab.backend.expire() == ["results_b"]
    assert lab.backend.drop("results_a", 1) is False
    lab.backend.fence("results_a", 9, 9)
    lab.backend.expire()
    assert lab.tables() == {"results_a", "jobber_staging_of_nobody"}


def test_the_result_of_another_job_is_never_replaced(lab: Lab) -> None:
    write(lab.backend, target(job_id="a"), ONE)
    with pytest.raises(ResultsFailed, match='job "a"'):
        write(lab.backend, target(run=2, job_id="b"), TWO)
    assert read(lab.backend) == ONE


# -- expiry and purge -------------------------------------------------------------------------------------------------


def test_results_expire_by_the_clock_of_the_results_database(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    write(lab.backend, target("results_a", ttl=3600), ONE)
    write(lab.backend, target("results_b", ttl=3600), ONE)
    write(lab.backend, target("results_c", ttl=0), ONE)
    monkeypatch.setattr(time, "time", lambda: 9e9)
    assert lab.backend.expire() == []
    lab.overdue("results_b")
    assert lab.backend.expire() == ["results_b"]
    assert lab.backend.expire() == []
    assert lab.tables() == {"results_a", "results_c"}
    with pytest.raises(ResultsGone):
        read(lab.backend, table="results_b")


def test_a_lifetime_counts_from_publishing(lab: Lab) -> None:
    write(lab.backend, target(ttl=7200), ONE)
    assert lab.lifetime() == pytest.approx(7200, abs=0.5)


def test_expiry_drops_at_most_so_many_and_the_oldest_first(lab: Lab) -> None:
    for n in range(4):
        write(lab.backend, target(f"results_{n}", ttl=1), ONE)
    for n in range(4):
        lab.overdue(f"results_{n}")
    assert len(lab.backend.expire(limit=3)) == 3
    assert len(lab.backend.expire(limit=3)) == 1
    assert lab.tables() == set()


def test_expiry_tolerates_tables_that_are_gone_already(lab: Lab) -> None:
    write(lab.backend, target(ttl=1), ONE)
    lab.overdue("results_a")
    _remove(lab, "results_a")
    assert lab.backend.expire() == ["results_a"]
    assert lab.backend.expire() == []


def _remove(lab: Lab, table: str) -> None:
    if lab.backend.engine == "sqlite":
        (lab.folder / f"{table}.db").unlink()  # type: ignore[attr-defined]
    else:
        lab.query(f'DROP TABLE "{table}"')


def test_an_expired_result_can_be_made_again(lab: Lab) -> None:
    write(lab.backend, target(run=1, ttl=1), ONE)
    lab.overdue("results_a")
    lab.backend.expire()
    write(lab.backend, target(run=2), TWO)
    assert read(lab.backend, 2) == TWO


def test_the_ledger_forgets_what_neither_is_a_result_nor_an_attempt_after_a_day(lab: Lab) -> None:
    lab.backend.fence("results_a", 1, 1)
    write(lab.backend, target("results_b"), ONE)
    lab.backend.expire()
    assert lab.ledger("SELECT count(*) FROM jobber_ledger") == [(2,)]
    lab.ledger(f"UPDATE jobber_ledger SET claimed_at = {lab.ago(2)}")
    lab.backend.expire()
    assert lab.ledger("SELECT table_name FROM jobber_ledger") == [("results_b",)]


def test_purge_drops_the_result_of_that_run_only(lab: Lab) -> None:
    write(lab.backend, target(run=2), ONE)
    assert lab.backend.drop("results_a", 1) is False
    assert lab.backend.drop("results_b", 2) is False
    assert lab.tables() == {"results_a"}
    assert lab.backend.drop("results_a", 2) is True
    assert lab.backend.drop("results_a", 2) is False
    assert lab.tables() == set()
    with pytest.raises(ResultsGone):
        read(lab.backend, 2)


def test_a_purged_attempt_does_not_come_back(lab: Lab) -> None:
    write(lab.backend, target(run=2), ONE)
    lab.backend.drop("results_a", 2)
    with pytest.raises(Fenced):
        write(lab.backend, target(run=2), ONE)


def test_a_result_that_was_removed_by_hand_is_gone(lab: Lab) -> None:
    write(lab.backend, target(), ONE)
    _remove(lab, "results_a")
    with pytest.raises(ResultsGone):
        read(lab.backend)
    write(lab.backend, target(run=2), TWO)
    assert read(lab.backend, 2) == TWO


def test_a_result_with_fewer_rows_than_the_ledger_says_is_gone(lab: Lab) -> None:
    """A crash of PostgreSQL empties UNLOGGED tables; an empty page would look like success."""
    write(lab.backend, target(), [(n, "x") for n in range(10)])
    assert read(lab.backend, offset=20) == []
    lab.query('DELETE FROM "results_a"' if lab.backend.engine == "sqlite" else 'TRUNCATE "results_a"')
    for offset in (0, 5, 20):
        with pytest.raises(ResultsGone):
            read(lab.backend, offset=offset)
