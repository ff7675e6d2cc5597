"""What fencing promises on every engine: an attempt is stopped for ever, or what it published is told."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.errors import Fenced, ResultsFailed
from jobber.results.base import Published
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, Lab, read, target, write

#: Where it makes no difference whether tables are logged.
ENGINES = pytest.mark.parametrize("lab", ["postgresql", "mysql", "sqlite"], indirect=True)

TYPED = (Column("id", Kind.INTEGER), Column('n "ü" %s', Kind.NUMERIC, 12, 3), Column("a" * 63, Kind.NUMERIC))
TYPED_ROWS: list[Row] = [(1, "1.500", "2.5"), (2, None, None)]


# -- what was published -----------------------------------------------------------------------------------------------


def test_fencing_tells_what_the_attempt_published_however_often_it_is_asked(lab: Lab) -> None:
    write(lab.backend, target(run=2, attempt=3), TYPED_ROWS, TYPED)
    for backend in (lab.backend, lab.another(), lab.another()):
        assert backend.fence("results_a", 2, 3) == Published(2, TYPED)
    assert read(lab.backend, 2, TYPED) == TYPED_ROWS
    assert lab.tables() == {"results_a"}


@ENGINES
@pytest.mark.parametrize("rows", [[], BULKY], ids=["none", "bulky"])
def test_fencing_tells_of_a_rerun_of_any_size(lab: Lab, rows: list[Row]) -> None:
    write(lab.backend, target(run=1), TYPED_ROWS, TYPED)
    write(lab.backend, target(run=2), rows)
    assert lab.another().fence("results_a", 2, 1) == Published(len(rows), COLUMNS)
    assert lab.another().fence("results_a", 1, 1) is None


@ENGINES
def test_fencing_tells_nothing_of_what_others_published(lab: Lab) -> None:
    write(lab.backend, target(run=2, attempt=2), ONE)
    for run, attempt in ((2, 1), (1, 2), (2, 3), (3, 2)):
        assert lab.another().fence("results_a", run, attempt) is None
    assert lab.another().fence("results_b", 2, 2) is None
    assert lab.another().fence("results_a", 2, 2) == Published(1, COLUMNS)
    assert read(lab.backend, 2) == ONE


@ENGINES
def test_a_result_stands_and_is_told_of_while_a_newer_attempt_loads_and_that_one_goes_on(lab: Lab) -> None:
    write(lab.backend, target(run=1), TYPED_ROWS, TYPED)
    with lab.backend.begin(target(run=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        assert lab.another().fence("results_a", 1, 1) == Published(2, TYPED)
        writer.publish()
    assert lab.another().fence("results_a", 1, 1) is None
    assert lab.another().fence("results_a", 2, 1) == Published(len(BULKY), COLUMNS)


def empty(lab: Lab) -> None:
    """A crash of PostgreSQL empties UNLOGGED tables."""
    lab.query('DELETE FROM "results_a"')


def remove(lab: Lab) -> None:
    if lab.backend.engine == "sqlite":
        (lab.folder / "results_a.db").unlink()  # type: ignore[attr-defined]
    else:
        lab.query('DROP TABLE "results_a"')


def expire(lab: Lab) -> None:
    lab.overdue("results_a")
    lab.backend.expire()


def purge(lab: Lab) -> None:
    lab.backend.drop("results_a", 4)


def test_a_result_that_does_not_stand_whole_is_not_told_of(lab: Lab) -> None:
    for run, harm in enumerate((empty, remove, expire, purge), 1):
        write(lab.backend, target(run=run, ttl=3600), TWO)
        harm(lab)
        assert lab.another().fence("results_a", run, 1) is None, harm
    write(lab.backend, target(run=9), TWO)
    remove(lab)
    lab.make_stranger("results_a")
    assert lab.another().fence("results_a", 9, 1) is None
    assert lab.query('SELECT * FROM "results_a"') == [("mine",)]


# -- or never ---------------------------------------------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("rows", [ONE, BULKY], ids=["small", "bulky"])
def test_an_attempt_that_was_rescued_and_comes_back_neither_publishes_nor_begins_again(
    lab: Lab, rows: list[Row]
) -> None:
    write(lab.backend, target(run=1), ONE)
    frozen = lab.another()
    with frozen.begin(target(run=2, attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(rows)
        assert lab.backend.fence("results_a", 2, 1) is None
        for published, expected in ((1, ONE), (2, TWO)):
            if published == 2:
                write(lab.backend, target(run=2, attempt=2), TWO)
            with pytest.raises(Fenced):
                if published == 1:
                    writer.write_batch(BULKY)
                writer.publish()
            assert read(lab.backend, published) == expected
    with pytest.raises(Fenced):
        write(frozen, target(run=2, attempt=1), rows)
    assert read(lab.backend, 2) == TWO
    assert lab.another().fence("results_a", 2, 1) is None
    assert lab.another().fence("results_a", 2, 2) == Published(2, COLUMNS)
    assert lab.tables() == {"results_a"}


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_of_an_attempt_that_is_fenced_while_it_publishes_either_nothing_or_all_is_told_and_true(
    lab: Lab, rows: list[Row]
) -> None:
    write(lab.backend, target(run=1), ONE)
    rescuer = lab.another()
    standing, expected = 1, ONE
    for run in range(2, 7 if rows is TWO else 4):
        with lab.backend.begin(target(run=run), COLUMNS, Cancellation()) as writer, ThreadPoolExecutor(1) as pool:
            writer.write_batch(rows)
            publishing = pool.submit(writer.publish)
            time.sleep(random.uniform(0, 0.02))
            told = rescuer.fence("results_a", run, 1)
            if told is None:
                assert isinstance(publishing.exception(20), Fenced)
            else:
                assert told == Published(len(rows), COLUMNS)
                assert publishing.result(20) == len(rows)
                standing, expected = run, rows
        assert read(rescuer, standing) == expected
        assert lab.tables() == {"results_a"}


# -- ledgers of earlier versions --------------------------------------------------------------------------------------


def make_older(lab: Lab) -> None:
    """Take from the ledger what an earlier version did not have."""
    for column in ("columns",) if lab.backend.engine == "postgresql" else ("columns", "claim_columns"):
        lab.ledger(f'ALTER TABLE jobber_ledger DROP COLUMN "{column}"')


@ENGINES
def test_a_ledger_of_an_earlier_version_is_brought_up_to_date_by_however_many_at_once(lab: Lab) -> None:
    write(lab.backend, target(run=1, ttl=3600), ONE)
    make_older(lab)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda backend: backend.prepare(), [lab.another() for _ in range(8)]))
    backend = lab.another()
    assert read(backend) == ONE
    assert backend.fence("results_a", 1, 1) is None  # nobody noted its columns
    write(backend, target(run=2), TWO)
    assert backend.fence("results_a", 2, 1) == Published(2, COLUMNS)


@ENGINES
def test_the_first_use_of_a_ledger_of_an_earlier_version_brings_it_up_to_date(lab: Lab) -> None:
    write(lab.backend, target(run=1), ONE)
    make_older(lab)
    assert lab.another().fence("results_a", 1, 1) is None
    make_older(lab)
    write(lab.another(), target(run=2), TWO)
    assert lab.another().fence("results_a", 2, 1) == Published(2, COLUMNS)


@ENGINES
@pytest.mark.parametrize("left", ["NULL", '\'1.2 [["x","text",null,null]]\''], ids=["none", "another's"])
def test_a_result_of_a_process_of_an_earlier_version_is_not_told_of(lab: Lab, left: str) -> None:
    """It publishes as ever, and leaves the columns that it does not know of as they are."""
    write(lab.backend, target(run=1), ONE)
    lab.ledger(f'UPDATE jobber_ledger SET "columns" = {left}')
    assert lab.another().fence("results_a", 1, 1) is None
    assert read(lab.backend) == ONE


@ENGINES
def test_a_ledger_that_is_up_to_date_is_prepared_though_somebody_reads_it(lab: Lab) -> None:
    write(lab.backend, target(), ONE)
    with lab.reading("jobber_ledger"):
        lab.another(publish_timeout=0.0).prepare()


@pytest.mark.parametrize("lab", ["postgresql", "mysql"], indirect=True)
def test_an_older_ledger_waits_for_who_reads_it_and_holds_up_nobody_else(lab: Lab) -> None:
    write(lab.backend, target(), ONE)
    make_older(lab)
    with ThreadPoolExecutor(1) as pool:
        with lab.reading("jobber_ledger"):
            with pytest.raises(
                ResultsFailed, match='"jobber_ledger" in results database "main" is held open by a reader'
            ):
                lab.another(publish_timeout=0.0).prepare()
            patient = pool.submit(lab.another().prepare)
            for _ in range(5):
                assert lab.ledger("SELECT run FROM jobber_ledger") == [(1,)]
            assert not patient.done()
        patient.result(20)
