"""What every results backend promises."""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row, unique_names
from jobber.errors import Cancelled, Fenced, ResultsFailed, ResultsGone, ValueNotRepresentable
from jobber.results.base import STAGING_PREFIX, Claim, ResultsWriter
from tests.results.conftest import COLUMNS, Lab, load, read, target, write
from tests.servers import wait_until

ONE: list[Row] = [(1, "one")]
TWO: list[Row] = [(1, "uno"), (2, "dos")]
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
        with pytest.raises(Fenced), lab.another().begin(target(run=run, attempt=attempt), COLUMNS, Cancellation()):
            pass
        writer.write_batch(ONE)
        writer.publish()
    with pytest.raises(Fenced), lab.another().begin(target(run=run, attempt=attempt), COLUMNS, Cancellation()):
        pass
    assert read(lab.backend, 2) == ONE


@pytest.mark.parametrize("bulk", ["small", "bulky"])
def test_an_attempt_overtaken_while_it_loads_cannot_publish(lab: Lab, bulk: str) -> None:
    rows: list[Row] = ONE if bulk == "small" else [(n, BULKY) for n in range(4)]
    with lab.backend.begin(target(attempt=1), COLUMNS, Cancellation()) as old:
        old.write_batch(rows)
        write(lab.another(), target(attempt=2), TWO)
        old.write_batch(rows)
        with pytest.raises(Fenced):
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


def test_of_two_attempts_that_publish_at_once_exactly_one_wins_and_ledger_and_table_agree(lab: Lab) -> None:
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
        assert outcomes.count("won") <= 1
        entry = lab.ledger("SELECT run, attempt, rows FROM jobber_ledger")
        if "won" in outcomes:
            winner = outcomes.index("won") + 1
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
        assert lab.another().abandoned(3600) == []
        assert lab.another().abandoned(-60) == [Claim("results_a", 3, 2)]
        old = "julianday('now') - 1" if lab.backend.engine == "sqlite" else "now() - interval '1 day'"
        lab.ledger(f"UPDATE jobber_ledger SET claimed_at = {old}")
        assert lab.another().abandoned(3600) == [Claim("results_a", 3, 2)]
        assert lab.another().abandoned(2 * 86400) == []
        writer.publish()
    assert lab.backend.abandoned(-60) == []


@pytest.mark.parametrize("rerun", [False, True])
def test_fencing_an_abandoned_attempt_drops_what_it_left_and_takes_it_off_the_list(lab: Lab, rerun: bool) -> None:
    """A process that died, or whose database went away while it loaded, cleans up nothing."""
    if rerun:
        write(lab.backend, target(run=1), ONE)
    options = {} if lab.backend.engine == "sqlite" else {"segment_seconds": 0.05}
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
    [(lifetime,)] = lab.ledger("SELECT expires_at - published_at FROM jobber_ledger")
    seconds = lifetime.total_seconds() if hasattr(lifetime, "total_seconds") else lifetime * 86400
    assert seconds == pytest.approx(7200, abs=0.5)


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
    old = "julianday('now') - 2" if lab.backend.engine == "sqlite" else "now() - interval '2 days'"
    lab.ledger(f"UPDATE jobber_ledger SET claimed_at = {old}")
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


# -- names ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    'quo"te', "apo'strophe", "per%cent", "%s", "%(x)s", "{brace}", "select", "from", "ключ", "名前", "new\nline",
    "tab\t", "back\\slash", "semi;colon", " space ", "back`tick", "[bracket]", "$1", ":name", "?", "--", "/*",
    "é" * 31 + "x", "n" * 63, "n" * 64, "ctid", "xmin", "tableoid", "_rowid_", "rowid", "oid", "", "A", "a",
    'colon: "x"', "😀",
]  # fmt: skip


def test_column_names_survive_whatever_they_hold(lab: Lab) -> None:
    names = unique_names(HOSTILE)
    columns = [Column(name, Kind.INTEGER) for name in names]
    rows: list[Row] = [tuple(range(len(names))), tuple(reversed(range(len(names))))]
    write(lab.backend, target(), rows, columns)
    assert read(lab.backend, 1, columns) == rows


def test_an_error_names_a_column_with_a_hostile_name(lab: Lab) -> None:
    for run, name in enumerate(unique_names(HOSTILE), 1):
        columns = [Column("first", Kind.INTEGER), Column(name, Kind.INTEGER)]
        with pytest.raises(ValueNotRepresentable) as caught:
            write(lab.backend, target(run=run), [(1, 2), (1, 1 << 63)], columns)
        assert caught.value.details["column"] == name
        assert str(1 << 63) in caught.value.message


def test_job_ids_that_differ_in_case_or_at_the_end_have_tables_of_their_own(lab: Lab) -> None:
    ids = ["abc", "ABC", "Abc", "x" * 99 + "1", "x" * 99 + "2", "a:b", "a-b", "a_b"]
    names = [lab.backend.table_name(job_id) for job_id in ids]
    assert len({name.lower() if lab.backend.engine == "sqlite" else name for name in names}) == len(ids)
    assert all(len(name.encode()) <= 63 for name in names)
    for run, (job_id, name) in enumerate(zip(ids, names, strict=True), 1):
        write(lab.backend, target(name, run=run, job_id=job_id), [(run, job_id)])
    for run, (job_id, name) in enumerate(zip(ids, names, strict=True), 1):
        assert read(lab.backend, run, table=name) == [(run, job_id)]


# -- values -----------------------------------------------------------------------------------------------------------

EXTREMES: dict[Kind, list[object]] = {
    Kind.INTEGER: [0, -1, 2**63 - 1, -(2**63), None],
    Kind.NUMERIC: ["0", "-0.000000000000000000001", "12345678901234567890.123", "9" * 131, "1.10", None],
    Kind.FLOAT: [0.1, 1e308, -5e-324, 1 / 3, math.inf, -math.inf, 123456789.0, 1e22, None],
    Kind.BOOLEAN: [True, False, None],
    Kind.DATE: ["0001-01-01", "9999-12-31", "2024-02-29", None],
    Kind.TIMESTAMP: ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2024-02-29 12:00:00.5", None],
    Kind.JSON: ['{"a": [1, 2.50, null]}', '"text"', "12345678901234567890.10", "null", None],
    Kind.BINARY: ["\\x", "\\x00ff", "\\x" + "ab" * 5000, None],
    Kind.TEXT: [
        *(
            "",
            " ",
            "10",
            "9",
            "\\N",
            "\\.",
            "\\",
            "\t",
            "\n",
            "\r\n",
            "a\tb\\tc",
            "NULL",
            "\x1f\x1e\x1d",
            "\x7f",
            "1e5",
        ),
        *("é" * 3000, "😀", "\ufeff", "'\"", "0x10", "-0", "inf", "a" * 100_000, None),
    ],
}


@pytest.mark.parametrize("kind", Kind)
def test_extreme_values_come_back_as_they_went_in(lab: Lab, kind: Kind) -> None:
    columns = [Column("n", Kind.INTEGER), Column("v", kind)]
    rows: list[Row] = [(n, value) for n, value in enumerate(EXTREMES[kind])]  # type: ignore[misc]
    write(lab.backend, target(), rows, columns)
    got = read(lab.backend, 1, columns)
    assert got == rows
    assert [type(value) for _, value in got] == [type(value) for _, value in rows]


def test_bounded_numbers_keep_their_scale(lab: Lab) -> None:
    columns = [Column("v", Kind.NUMERIC, 20, 4), Column("u", Kind.NUMERIC, 20, 0), Column("w", Kind.NUMERIC, 3, -2)]
    rows: list[Row] = [("1.2500", "18446744073709551615", "12300"), ("-0.0001", "0", None)]
    write(lab.backend, target(), rows, columns)
    assert read(lab.backend, 1, columns) == rows


#: What an engine's type cannot hold; a value that is not here must survive.
UNFIT = [
    ("postgresql", Column("c", Kind.TEXT), "nul\0here"),
    ("postgresql", Column("c", Kind.JSON), '"\\u0000"'),
    ("postgresql", Column("c", Kind.JSON), "{broken"),
    ("postgresql", Column("c", Kind.NUMERIC, 10, 2), "1.239"),
    ("postgresql", Column("c", Kind.NUMERIC, 4, 2), "123.00"),
    ("postgresql", Column("c", Kind.TIMESTAMP), "2024-01-01 00:00:00.1234567"),
    ("postgresql", Column("c", Kind.DATE), "2024-02-30"),
    ("sqlite", Column("c", Kind.FLOAT), math.nan),
    ("sqlite", Column("c", Kind.DATE), "infinity"),
    ("sqlite", Column("c", Kind.DATE), "0044-03-15 BC"),
    ("sqlite", Column("c", Kind.DATE), "0000-01-01"),
    ("sqlite", Column("c", Kind.DATE), "1234567890"),
    ("sqlite", Column("c", Kind.TIMESTAMP), "-infinity"),
    ("sqlite", Column("c", Kind.TIMESTAMP), "12345-01-01 00:00:00"),
    ("any", Column("c", Kind.INTEGER), 2**63),
    ("any", Column("c", Kind.TEXT), "half \ud800 pair"),
]


def test_a_value_that_does_not_fit_fails_the_attempt_with_column_and_value(lab: Lab) -> None:
    unfit = [(column, value) for engine, column, value in UNFIT if engine in ("any", lab.backend.engine)]
    for run, (column, value) in enumerate(unfit, 1):
        rows: list[Row] = [(1, None), (2, value), (3, None)]  # type: ignore[list-item]
        with pytest.raises(ValueNotRepresentable) as caught:
            write(lab.backend, target(run=run), rows, [Column("id", Kind.INTEGER), column])
        assert '"c"' in caught.value.message
        shown = value if isinstance(value, str) else repr(value)
        shown = shown.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        assert shown in caught.value.message
        assert not caught.value.retryable
        assert lab.tables() == set()


def test_long_values_are_cut_in_errors(lab: Lab) -> None:
    value = "9" * 5000 if lab.backend.engine != "sqlite" else "\ud800" + "9" * 5000
    kind = Kind.DATE if lab.backend.engine != "sqlite" else Kind.TEXT
    with pytest.raises(ValueNotRepresentable) as caught:
        write(lab.backend, target(), [(value,)], [Column("c", kind)])
    assert len(caught.value.message) < 1000


def test_text_with_nul_is_never_cut(lab: Lab) -> None:
    rows: list[Row] = [(1, "before\0after")]
    try:
        write(lab.backend, target(), rows)
    except ValueNotRepresentable:
        return
    assert read(lab.backend) == rows


# -- order and size ---------------------------------------------------------------------------------------------------


def test_rows_keep_their_order_whatever_their_width(lab: Lab) -> None:
    """PostgreSQL fills gaps that wide rows leave, unless the table is filled by the transaction that made it."""
    random.seed(7)
    rows: list[Row] = [(n, "x" * random.choice([20, 300, 1500, 1990, 700, 40])) for n in range(50_000)]
    write(lab.backend, target(), rows)
    assert [row[0] for row in read(lab.backend, limit=50_000)] == list(range(50_000))
    assert read(lab.backend, offset=43_210, limit=3) == rows[43_210:43_213]
    assert read(lab.backend, offset=49_999, limit=3) == rows[49_999:]


def test_a_result_may_have_a_thousand_columns(lab: Lab) -> None:
    columns = [Column(f"c{n}", Kind.INTEGER) for n in range(1000)]
    rows: list[Row] = [tuple(range(1000)), tuple(range(1, 1001))]
    write(lab.backend, target(), rows, columns)
    assert read(lab.backend, 1, columns) == rows


def test_more_columns_than_the_engine_has_fail_clearly_and_for_good(lab: Lab) -> None:
    columns = [Column(f"c{n}", Kind.INTEGER) for n in range(2500)]
    with pytest.raises(ResultsFailed, match="columns") as caught:
        write(lab.backend, target(), [tuple(range(2500))], columns)
    assert not caught.value.retryable


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
