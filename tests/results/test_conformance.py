"""What every results backend promises: results whole or not at all, from one attempt alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.errors import Cancelled, Fenced, ResultsFailed, ResultsGone
from jobber.results.base import STAGING_PREFIX, Claim, ResultsWriter
from tests.results.conftest import COLUMNS, ONE, TWO, Lab, load, read, target, write
from tests.servers import wait_until

#: Text enough to overflow every buffer.
BULKY = "x" * 2_000_000


def staging_left(lab: Lab) -> list[str]:
    return [table for table in lab.tables() if table.startswith(STAGING_PREFIX)]


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_published_result_is_a_table_that_an_application_can_read(lab: Lab) -> None:
    assert write(lab.backend, target(), TWO) == 2
    assert lab.tables() == {"results_a"}
    assert lab.query('SELECT id, name FROM "results_a" ORDER BY id') == TWO


def test_select_star_shows_the_columns_of_the_query_and_nothing_else(lab: Lab) -> None:
    write(lab.backend, target(), ONE)
    assert lab.query('SELECT * FROM "results_a"') == ONE


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_nothing_is_visible_before_publish(lab: Lab, bulk: str) -> None:
    rows: list[Row] = ONE if bulk == "small" else [(n, BULKY) for n in range(4)]

    def check(writer: ResultsWriter) -> None:
        assert "results_a" not in lab.tables()
        assert writer.rows == len(rows)

    write(lab.backend, target(), rows, before=check)
    assert "results_a" in lab.tables()


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_leaving_without_publish_leaves_nothing(lab: Lab, bulk: str) -> None:
    with lab.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(ONE if bulk == "small" else [(n, BULKY) for n in range(4)])
    assert lab.tables() == set()


def test_leaving_by_an_error_leaves_nothing_and_passes_the_error_on(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError):
        load(lab.backend, target(), ONE, lambda _: 1 / 0)
    assert lab.tables() == set()


def test_an_attempt_that_gave_up_may_begin_once_more(lab: Lab) -> None:
    with lab.backend.begin(target(run=2, attempt=3), COLUMNS, Cancellation()) as writer:
        writer.write_batch([(n, BULKY) for n in range(4)])
    write(lab.backend, target(run=2, attempt=3), ONE)
    assert read(lab.backend, 2) == ONE


def test_publishing_twice_is_harmless(lab: Lab) -> None:
    with lab.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        assert writer.publish() == 2
        assert writer.publish() == 2
    assert read(lab.backend) == TWO


def test_a_rerun_keeps_the_old_result_readable_until_the_new_one_is_published(lab: Lab) -> None:
    write(lab.backend, target(run=1), ONE)
    write(lab.backend, target(run=2), TWO, before=lambda _: _same(read(lab.backend, 1), ONE))
    assert read(lab.backend, 2) == TWO
    with pytest.raises(ResultsGone):
        read(lab.backend, 1)


def _same(left: object, right: object) -> None:
    assert left == right


def test_a_rerun_may_have_other_columns(lab: Lab) -> None:
    write(lab.backend, target(run=1), ONE)
    other = (Column("total", Kind.NUMERIC, 10, 2),)
    write(lab.backend, target(run=2), [("1.50",)], other)
    assert read(lab.backend, 2, other) == [("1.50",)]
    with pytest.raises(ResultsGone):
        read(lab.backend, 1)


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_a_failed_rerun_leaves_the_old_result(lab: Lab, bulk: str) -> None:
    write(lab.backend, target(run=1), ONE)
    with lab.backend.begin(target(run=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO if bulk == "small" else [(n, BULKY) for n in range(4)])
    assert read(lab.backend, 1) == ONE
    assert lab.tables() == {"results_a"}


def test_a_result_without_rows_is_still_a_typed_table(lab: Lab) -> None:
    assert write(lab.backend, target(), []) == 0
    assert read(lab.backend) == []
    assert lab.query('SELECT * FROM "results_a"') == []


def test_a_result_without_columns_is_refused(lab: Lab) -> None:
    with pytest.raises(ResultsFailed, match="no columns"), lab.backend.begin(target(), (), Cancellation()):
        pass


# -- fencing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "attempt"), [(1, 9), (2, 1), (2, 2)])
def test_an_attempt_that_is_not_newer_is_fenced_at_begin(lab: Lab, run: int, attempt: int) -> None:
    with lab.backend.begin(target(run=2, attempt=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch([(1, BULKY)])
        with pytest.raises(Fenced), lab.another().begin(target(run=run, attempt=attempt), COLUMNS, Cancellation()):
            pass
        writer.publish()
    with pytest.raises(Fenced), lab.another().begin(target(run=run, attempt=attempt), COLUMNS, Cancellation()):
        pass
    assert read(lab.backend, 2) == [(1, BULKY)]


@pytest.mark.parametrize(("run", "attempt"), [(1, 9), (2, 1), (2, 2)])
def test_an_attempt_that_is_not_newer_never_takes_the_place_of_one_that_began_at_the_same_time(
    lab: Lab, run: int, attempt: int
) -> None:
    """One of a small result may be told when it publishes."""
    with ExitStack() as stack:
        older = lab.another().begin(target(run=run, attempt=attempt), COLUMNS, Cancellation())
        if attempt == 2:
            write(lab.backend, target(run=2, attempt=2), TWO)
            with pytest.raises(Fenced):
                stack.enter_context(older).publish()
        else:
            late = stack.enter_context(older)
            late.write_batch(ONE)
            write(lab.backend, target(run=2, attempt=2), TWO)
            with pytest.raises(Fenced):
                late.publish()
    assert read(lab.backend, 2) == TWO
    assert lab.tables() == {"results_a"}


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_an_attempt_overtaken_while_it_loads_cannot_publish(lab: Lab, bulk: str) -> None:
    rows: list[Row] = ONE if bulk == "small" else [(n, BULKY) for n in range(4)]
    with lab.backend.begin(target(attempt=1), COLUMNS, Cancellation()) as old:
        old.write_batch(rows)
        write(lab.another(), target(attempt=2), TWO)
        with pytest.raises(Fenced):
            old.write_batch(rows)
            old.publish()
    assert read(lab.backend) == TWO
    assert lab.tables() == {"results_a"}


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_a_fenced_attempt_cannot_publish_and_leaves_the_old_result(lab: Lab, bulk: str) -> None:
    write(lab.backend, target(run=1), ONE)
    with lab.backend.begin(target(run=2, attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO if bulk == "small" else [(n, BULKY) for n in range(4)])
        lab.another().fence("results_a", 2, 1)
        assert staging_left(lab) == []
        with pytest.raises(Fenced):
            writer.publish()
    assert read(lab.backend, 1) == ONE
    assert lab.tables() == {"results_a"}


def test_fencing_stops_an_attempt_that_has_not_begun_yet_but_not_the_next(lab: Lab) -> None:
    lab.backend.fence("results_a", 1, 3)
    with pytest.raises(Fenced), lab.backend.begin(target(attempt=3), COLUMNS, Cancellation()):
        pass
    write(lab.backend, target(attempt=4), ONE)
    assert read(lab.backend) == ONE


def test_fencing_an_older_attempt_does_not_touch_a_newer_one(lab: Lab) -> None:
    with lab.backend.begin(target(run=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch(ONE)
        lab.another().fence("results_a", 1, 99)
        writer.publish()
    lab.backend.fence("results_a", 2, 1)
    assert read(lab.backend, 2) == ONE


def test_giving_up_after_being_fenced_does_not_lift_the_fence(lab: Lab) -> None:
    with lab.backend.begin(target(attempt=1), COLUMNS, Cancellation()):
        lab.backend.fence("results_a", 1, 1)
    with pytest.raises(Fenced), lab.backend.begin(target(attempt=1), COLUMNS, Cancellation()):
        pass


def test_of_two_attempts_that_publish_at_once_the_newer_is_never_fenced_and_ledger_and_table_agree(lab: Lab) -> None:
    """On PostgreSQL the older may publish before the newer is registered, which then takes its place."""
    for run in range(1, 9):
        barrier = threading.Barrier(2)

        def attempt(number: int, run: int = run, barrier: threading.Barrier = barrier) -> str:
            backend = lab.another()
            try:
                with backend.begin(target(run=run, attempt=number), COLUMNS, Cancellation()) as writer:
                    writer.write_batch([(number, "x")] * number)
                    barrier.wait(10)
                    writer.publish()
            except Fenced:
                barrier.abort()
                return "fenced"
            except threading.BrokenBarrierError:
                return "alone"
            return "won"

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(attempt, (1, 2)))
        assert outcomes[1] != "fenced"
        assert outcomes.count("won") <= 1 or lab.backend.engine == "postgresql"
        entry = lab.ledger('SELECT run, attempt, "rows" FROM jobber_ledger')
        if "won" in outcomes:
            winner = max(number for number, outcome in enumerate(outcomes, 1) if outcome == "won")
            assert entry == [(run, winner, winner)]
            assert read(lab.backend, run) == [(winner, "x")] * winner
        assert staging_left(lab) == []


def test_an_older_attempt_that_publishes_while_a_newer_one_begins_never_wins_over_it(lab: Lab) -> None:
    for run in range(1, 9):
        with lab.backend.begin(target(run=run, attempt=1), COLUMNS, Cancellation()) as old:
            old.write_batch(ONE)
            with ThreadPoolExecutor(2) as pool:
                older = pool.submit(old.publish)
                newer = pool.submit(write, lab.another(), target(run=run, attempt=2), TWO)
                assert newer.result(30) == 2
                assert older.exception(30) is None or isinstance(older.exception(), Fenced)
        assert read(lab.backend, run) == TWO
        assert lab.tables() == {"results_a"}


# -- cancelling and abandoned attempts --------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_a_cancel_before_publishing_ends_it_with_the_reason_and_leaves_the_old_result(lab: Lab, bulk: str) -> None:
    write(lab.backend, target(run=1), ONE)
    token = Cancellation()
    with lab.backend.begin(target(run=2), COLUMNS, token) as writer:
        writer.write_batch(TWO if bulk == "small" else [(n, BULKY) for n in range(4)])
        token.pull(Cancelled("the job was cancelled"))
        with pytest.raises(Cancelled):
            writer.publish()
    assert read(lab.backend, 1) == ONE
    wait_until(lambda: lab.tables() == {"results_a"})
    wait_until(lambda: lab.backend.abandoned(-60) == [])


def test_a_cancel_after_publishing_changes_nothing(lab: Lab) -> None:
    token = Cancellation()
    with lab.backend.begin(target(), COLUMNS, token) as writer:
        writer.write_batch(TWO)
        assert writer.publish() == 2
        token.pull(Cancelled("the job was cancelled"))
        assert writer.publish() == 2
    assert read(lab.backend) == TWO
    assert lab.tables() == {"results_a"}


def test_attempts_that_may_still_publish_are_listed_by_their_age(lab: Lab) -> None:
    write(lab.backend, target("results_b"), ONE)
    lab.backend.fence("results_c", 1, 1)
    with lab.backend.begin(target(run=3, attempt=2), COLUMNS, Cancellation()) as writer:
        writer.write_batch([(1, BULKY)])
        assert lab.another().abandoned(3600) == []
        assert lab.another().abandoned(-60) == [Claim("results_a", 3, 2)]
        lab.ledger(f"UPDATE jobber_ledger SET claimed_at = {lab.ago(1)}")
        assert lab.another().abandoned(3600) == [Claim("results_a", 3, 2)]
        assert lab.another().abandoned(2 * 86400) == []
        writer.publish()
    assert lab.backend.abandoned(-60) == []


@pytest.mark.parametrize("rerun", [False, True])
def test_fencing_an_abandoned_attempt_drops_what_it_left_and_takes_it_off_the_list(lab: Lab, rerun: bool) -> None:
    """A process that died, or whose database went away while it loaded, cleans up nothing."""
    if rerun:
        write(lab.backend, target(run=1), ONE)
    options = {"segment_seconds": 0.05} if lab.backend.engine == "postgresql" else {}
    dead = lab.another(**options)
    context = dead.begin(target(run=2), COLUMNS, Cancellation())
    context.__enter__().write_batch([(n, BULKY) for n in range(4)])
    wait_until(lambda: staging_left(lab))
    wait_until(lambda: lab.backend.abandoned(0) == [Claim("results_a", 2, 1)])

    lab.backend.fence("results_a", 2, 1)

    assert staging_left(lab) == []
    assert lab.backend.abandoned(-60) == []
    context.__exit__(None, None, None)
    if rerun:
        assert read(lab.backend, 1) == ONE


# -- opening ----------------------------------------------------------------------------------------------------------


def test_preparing_is_harmless_however_often_and_by_however_many(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: lab.another().prepare(), range(8)))
    lab.backend.prepare()
    write(lab.backend, target(), ONE)
    lab.another().prepare()
    assert read(lab.another()) == ONE


def test_many_threads_share_a_backend(lab: Lab) -> None:
    def job(n: int) -> list[Row]:
        table = f"results_{n}"
        write(lab.backend, target(table, run=n, job_id=str(n)), [(n, "x")] * 3)
        return read(lab.backend, n, table=table)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(job, range(1, 41))) == [[(n, "x")] * 3 for n in range(1, 41)]
