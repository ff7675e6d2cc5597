"""Loading on PostgreSQL: rows that do not fit, loads that are slow or lost, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.errors import ResultsFailed, ValueNotRepresentable
from jobber.sources.base import Chunk
from tests.results.conftest import (
    BULKY,
    COLUMNS,
    ONE,
    TWO,
    PostgresLab,
    load,
    postgres_lab,
    read,
    target,
    transaction,
    write,
)
from tests.servers import Postgres, wait_until


@pytest.fixture(params=[False, True], ids=["logged", "unlogged"])
def either(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[PostgresLab]:
    yield from postgres_lab(postgres, unlogged=request.param)


def test_encoded_rows_are_stored_as_they_come(either: PostgresLab) -> None:
    columns = [Column("a", Kind.INTEGER), Column("b", Kind.FLOAT), Column("c", Kind.BOOLEAN), Column("d", Kind.TEXT)]
    with either.backend.begin(target(), columns, Cancellation()) as writer:
        writer.write_chunk(Chunk(b"1\t0.1\tt\ta\\tb\\\\\n\\N\t\\N\t\\N\t\\N\n", 2))
        writer.write_chunk(Chunk(b"3\tNaN\tf\t\\\\N\n", 1))
        assert writer.publish() == 3
    rows = read(either.backend, 1, columns)
    assert rows[:2] == [(1, 0.1, True, "a\tb\\"), (None, None, None, None)]
    assert repr(rows[2]) == repr((3, float("nan"), False, "\\N"))


def test_a_chunk_that_lies_about_its_rows_fails_the_attempt(pg: PostgresLab) -> None:
    with pytest.raises(ResultsFailed, match="stored 2 rows of 3"):
        load(pg.backend, target(), Chunk(b"1\ta\n2\tb\n", 3))


@pytest.mark.parametrize("bad", [b"ok\xff", b"nul\0"])
def test_bytes_that_are_no_text_are_traced_to_their_column(pg: PostgresLab, bad: bytes) -> None:
    columns = [*COLUMNS, Column("last", Kind.TEXT)]
    good, wrong = Chunk(b"1\ta\tb\n2\tc\td\n", 2), Chunk(b"3\te\tf\n4\tg\t" + bad + b"\n", 2)
    with pytest.raises(ValueNotRepresentable) as caught:
        load(pg.backend, target(), good, wrong, columns=columns)
    assert caught.value.details["column"] == "last"


def test_a_bad_value_deep_in_a_large_load_is_named(either: PostgresLab) -> None:
    with pytest.raises(ValueNotRepresentable, match=r'column "id" cannot hold "x1"'):
        load(either.backend, target(), *[BULKY] * 5, Chunk(b"x1\tbad\n", 1))
    assert either.tables() == set()


def test_a_load_that_failed_once_cannot_go_on_without_the_lost_rows(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        writer.write_chunk(Chunk(b"x1\tbad\n", 1))
        with pytest.raises(ValueNotRepresentable):
            writer.publish()
        with pytest.raises(ValueNotRepresentable):
            writer.write_batch(BULKY)
        with pytest.raises(ValueNotRepresentable):
            writer.publish()
    assert pg.tables() == set()


def test_a_slow_load_keeps_no_transaction_open_and_the_order_of_its_rows(either: PostgresLab) -> None:
    backend = either.another(segment_seconds=0.05)
    rows: list[Row] = []
    with backend.begin(target(), COLUMNS, Cancellation()) as writer:
        for part in range(3):
            batch: list[Row] = [(part * 100 + n, "x" * width) for n, width in enumerate([900_000, 20, 7000] * 5)]
            rows += batch
            writer.write_batch(batch)
            wait_until(lambda n=part + 1: len(either.tables()) == n)
            busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'jobber results main' AND state <> 'idle'"
            assert either.query(f"{busy} AND xact_start IS NOT NULL") == []
        assert "results_a" not in either.tables()
        writer.publish()
    assert read(backend) == rows
    assert either.tables() == {"results_a"}
    assert either.ledger("SELECT staging, leftovers, rows FROM jobber_ledger") == [(None, [], len(rows))]


def test_whoever_overtakes_a_slow_load_drops_what_it_committed(pg: PostgresLab) -> None:
    slow = pg.another(segment_seconds=0.05)
    with slow.begin(target(attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        wait_until(pg.tables)
        write(pg.backend, target(attempt=2), ONE)
        assert pg.tables() == {"results_a"}
        with pytest.raises(Exception, match="overtaken"):
            writer.publish()
    assert read(pg.backend) == ONE


def test_a_staging_table_that_somebody_keeps_open_is_dropped_by_the_janitor(pg: PostgresLab) -> None:
    slow = pg.another(segment_seconds=0.05)
    slow.give_up = lambda *_, **__: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    with slow.begin(target(attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        wait_until(pg.tables)
        [staging] = pg.tables()
        with transaction(pg, f"SELECT count(*) FROM {staging}"):
            pg.backend.fence("results_a", 1, 1)
            write(pg.backend, target(attempt=2), ONE)
            assert pg.tables() == {"results_a", staging}
    pg.backend.expire()
    assert pg.tables() == {"results_a"}
    assert pg.ledger("SELECT leftovers FROM jobber_ledger") == [([],)]


def test_a_worker_that_dies_leaves_a_staging_table_that_the_next_attempt_drops(pg: PostgresLab) -> None:
    dying = pg.another(segment_seconds=0.05)
    context = dying.begin(target(attempt=1), COLUMNS, Cancellation())
    context.__enter__().write_batch(BULKY)
    wait_until(pg.tables)
    dying.give_up = lambda *_, **__: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    write(pg.backend, target(attempt=2), ONE)
    assert pg.tables() == {"results_a"}
    context.__exit__(None, None, None)


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_publishing_again_after_a_lost_acknowledgement_is_harmless(either: PostgresLab, rows: list[Row]) -> None:
    with either.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(rows)
        assert writer.publish() == len(rows)
        writer._published = False  # the answer never arrived
        assert writer.publish() == len(rows)
    assert read(either.backend) == rows
    assert either.tables() == {"results_a"}


def test_unlogged_tables_are_unlogged_however_they_were_filled(postgres: Postgres) -> None:
    with contextmanager(postgres_lab)(postgres, unlogged=True) as lab:
        slow = lab.another(segment_seconds=0.01)
        write(lab.backend, target("results_small"), ONE)
        write(lab.backend, target("results_bulky"), BULKY)
        with slow.begin(target("results_slow"), COLUMNS, Cancellation()) as writer:
            for count in (1, 2):
                writer.write_batch(BULKY)
                wait_until(lambda n=count + 2: len(lab.tables()) == n)
            writer.publish()
        kinds = lab.query(
            "SELECT DISTINCT relpersistence FROM pg_class "
            "WHERE relname LIKE 'results\\_%' AND relnamespace = current_schema()::regnamespace"
        )
        assert kinds == [("u",)]
