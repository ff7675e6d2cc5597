"""Loading on MySQL and MariaDB: rows that do not fit, on both ways in, and what is left of loads that are lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.errors import ResultsFailed, ValueNotRepresentable
from jobber.mysql import Connection
from jobber.results.mysql import load as loading
from jobber.sources.base import Chunk
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, MysqlLab, is_mysql, load, mysql_lab, read, target, write
from tests.servers import MariaDB

MIXED = [Column("a", Kind.INTEGER), Column("b", Kind.FLOAT), Column("c", Kind.BOOLEAN), Column("d", Kind.TEXT)]


@pytest.fixture(params=["load", "insert"])
def either(request: pytest.FixtureRequest, mariadb: MariaDB) -> Iterator[MysqlLab]:
    yield from mysql_lab(mariadb, insert=request.param == "insert")


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SEGMENT", 2_000_000)


def test_encoded_rows_are_read_by_the_rules_of_copy(either: MysqlLab) -> None:
    columns = [*MIXED, Column("e", Kind.TIMESTAMP), Column("f", Kind.BINARY)]
    chunks = [
        Chunk(b"1\t0.1\tt\ta\\tb\\\\\t2024-01-01 00:00:00+00\t\\\\x00ff\n\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n", 2),
        Chunk(b"3\t1e+300\tf\t\\\\N\t2024-01-01 00:00:00.5\t\\\\x\n", 1),
        Chunk(b"4\t-0.5\tf\t\\b\\f\\n\\r\\t\\v\\\\f\\\\v'\"+00\t9999-12-31 23:59:59.999999+00\t\\\\x\n", 1),
    ]
    assert load(either.backend, target(), *chunks, columns=columns) == 4
    assert read(either.backend, 1, columns) == [
        (1, 0.1, True, "a\tb\\", "2024-01-01 00:00:00", "\\x00ff"),
        (None,) * 6,
        (3, 1e300, False, "\\N", "2024-01-01 00:00:00.5", "\\x"),
        (4, -0.5, False, "\b\f\n\r\t\v\\f\\v'\"+00", "9999-12-31 23:59:59.999999", "\\x"),
    ]


def test_zones_are_dropped_from_where_on_they_come_and_the_server_looks_for_none_before(
    either: MysqlLab, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    start_load = Connection.start_load

    def noted(self: Connection, sql: str, offered: str) -> None:
        statements.append(sql)
        start_load(self, sql, offered)

    monkeypatch.setattr(Connection, "start_load", noted)
    columns = [Column("a", Kind.TIMESTAMP), Column("b", Kind.TEXT)]
    text = "x" * 100_000
    rows = [("2024-01-01 00:00:00", text)] * 25 + [("2024-01-01 00:00:00.25+00", f"{text}+00")] * 25
    chunks = [Chunk(f"{at}\t{text}\n".encode(), 1) for at, text in rows]
    assert load(either.backend, target(), *chunks, columns=columns) == 50
    assert read(either.backend, 1, columns) == [(at.removesuffix("+00"), text) for at, text in rows]
    if either.backend.can_load:
        # A segment in full, and one that ends where the first zone comes.
        assert ["REPLACE" in sql for sql in statements] == [False, False, True, True]


def test_rows_of_one_empty_text_are_rows(either: MysqlLab) -> None:
    columns = [Column("only", Kind.TEXT)]
    rows: list[Row] = [("",), (None,), ("",), ("x",), ("",)]
    write(either.backend, target(), rows, columns)
    assert read(either.backend, 1, columns) == rows


@pytest.mark.parametrize(("data", "rows"), [(b"1\ta\n2\tb\n", 3), (b"1\ta\n2\n", 2), (b"1\ta\n2\tb\tc\n", 2)])
def test_a_chunk_that_lies_fails_the_attempt(either: MysqlLab, data: bytes, rows: int) -> None:
    with pytest.raises(ResultsFailed) as caught:
        load(either.backend, target(), Chunk(data, rows))
    assert not caught.value.retryable
    assert either.tables() == set()


@pytest.mark.parametrize(
    ("column", "field"),
    [
        (Column("c", Kind.INTEGER), b"9223372036854775808"),
        (Column("c", Kind.INTEGER), b"x1"),
        (Column("c", Kind.FLOAT), b"NaN"),
        (Column("c", Kind.FLOAT), b"Infinity"),
        (Column("c", Kind.NUMERIC), b"-Infinity"),
        (Column("c", Kind.NUMERIC), b"0." + b"1" * 31),
        (Column("c", Kind.NUMERIC, 5, 2), b"1.239"),
        (Column("c", Kind.NUMERIC, 5, 2), b"1000"),
        (Column("c", Kind.DATE), b"infinity"),
        (Column("c", Kind.DATE), b"0044-03-15 BC"),
        (Column("c", Kind.DATE), b"12345-01-01"),
        (Column("c", Kind.DATE), b"0000-01-01"),
        (Column("c", Kind.TIMESTAMP), b"0044-03-15 12:00:00+00 BC"),
        (Column("c", Kind.TIMESTAMP), b"294276-12-31 23:59:59.999999+00"),
        (Column("c", Kind.TIMESTAMP), b"-infinity"),
        (Column("c", Kind.JSON), b"{broken"),
        (Column("c", Kind.TEXT), b"ok\xff"),
        (Column("c", Kind.TEXT), b"half \xed\xa0\x80 pair"),
    ],
    ids=lambda part: part.kind.value if isinstance(part, Column) else None,
)
def test_a_value_that_would_be_changed_fails_the_attempt_on_either_way(
    either: MysqlLab, column: Column, field: bytes
) -> None:
    columns = [Column("id", Kind.INTEGER), column, Column("last", Kind.TEXT)]
    good, wrong = Chunk(b"1\t\\N\tx\n", 1), Chunk(b"2\t\\N\ty\n3\t" + field + b"\tz\n4\t\\N\t\\N\n", 3)
    with pytest.raises(ValueNotRepresentable) as caught:
        load(either.backend, target(), good, wrong, columns=columns)
    assert caught.value.details["column"] == "c"
    assert field.decode(errors="backslashreplace").replace("+00", "") in caught.value.message
    assert either.tables() == set()


def test_both_ways_say_the_same_of_a_value_that_does_not_fit(mariadb: MariaDB) -> None:
    said = []
    for insert in (False, True):
        for lab in mysql_lab(mariadb, insert=insert):
            with pytest.raises(ValueNotRepresentable) as caught:
                write(lab.backend, target(), [(1, "1.5"), (2, "1.239")], [COLUMNS[0], Column("c", Kind.NUMERIC, 9, 2)])
            said.append(caught.value.message)
    assert said[0] == said[1] == 'column "c" cannot hold "1.239": digits would be rounded away'


def test_zeros_beyond_the_scale_lose_nothing(either: MysqlLab) -> None:
    columns = [Column("v", Kind.NUMERIC), Column("w", Kind.NUMERIC, 10, 2)]
    write(either.backend, target(), [("1.5" + "0" * 300, "1.5" + "0" * 200), ("-0.0", "0" * 90 + "1")], columns)
    assert read(either.backend, 1, columns) == [("1.5", "1.50"), ("0", "1.00")]


def test_floats_keep_every_bit(either: MysqlLab) -> None:
    columns = [Column("v", Kind.FLOAT)]
    values = [5e-324, -2.2250738585072009e-308, 1.7976931348623157e308, 0.1 + 0.2, 2**53 + 2.0, -1e-7, math.pi]
    write(either.backend, target(), [(value,) for value in values], columns)
    assert read(either.backend, 1, columns) == [(value,) for value in values]


def test_json_is_kept_exactly_or_refused(either: MysqlLab) -> None:
    columns = [Column("v", Kind.JSON)]
    for run, document in enumerate(["123456789012345678901234567890", '{"a": [1.00000000000000000000001]}'], 1):
        if is_mysql(either):
            with pytest.raises(ValueNotRepresentable, match="doubles"):
                write(either.backend, target(run=run), [(document,)], columns)
        else:
            write(either.backend, target(run=run), [(document,)], columns)
            assert read(either.backend, run, columns) == [(document,)]
    fine = ['"12345678901234567890.12345"', "1e30", "-9223372036854775808", "1234567.25", '{"k": 0.1234567890123456}']
    write(either.backend, target(run=9), [(document,) for document in fine], columns)
    assert either.query('SELECT count(*) FROM "results_a" WHERE v IS NOT NULL') == [(len(fine),)]


def test_json_that_the_server_finds_too_deep_is_named(either: MysqlLab) -> None:
    deep = "[" * 200 + "]" * 200
    with pytest.raises(ValueNotRepresentable, match=r'column "v" cannot hold "\[\[\['):
        write(either.backend, target(), [("1",), (deep,), ("2",)], [Column("v", Kind.JSON)])


def test_values_of_ten_megabytes_are_kept(either: MysqlLab) -> None:
    rows: list[Row] = [(1, "é" * 5_000_000), (2, "x")]
    write(either.backend, target(), rows)
    assert read(either.backend) == rows


def test_a_value_beyond_what_the_server_takes_in_one_piece_is_told_so(either: MysqlLab) -> None:
    [(most,)] = either.query("SELECT @@max_allowed_packet")
    with pytest.raises(ValueNotRepresentable, match=r'column "name" cannot hold "xxx.*max_allowed_packet') as caught:
        write(either.backend, target(), [(1, "x" * (most + 1))])
    assert len(caught.value.message) < 1000
    assert either.tables() == set()


def test_values_beyond_one_packet_of_the_protocol_are_kept_where_the_server_takes_them(either: MysqlLab) -> None:
    [(before,)] = either.query("SELECT @@GLOBAL.max_allowed_packet")
    either.query("SET GLOBAL max_allowed_packet = 67108864")
    try:
        rows: list[Row] = [(1, "x" * 20_000_000), (2, None)]
        write(either.backend, target(), rows)
        assert read(either.backend) == rows
    finally:
        either.query(f"SET GLOBAL max_allowed_packet = {before}")


def test_rows_of_many_segments_are_numbered_without_gaps(either: MysqlLab, small_segments: None) -> None:
    rows: list[Row] = [(n, "x" * 1000) for n in range(10_000)]
    write(either.backend, target(), rows)
    assert either.query('SELECT max("_rowid_"), count(*) FROM "results_a"') == [(10_000, 10_000)]
    assert read(either.backend, offset=7_777, limit=2) == rows[7_777:7_779]


def test_pages_are_right_though_the_server_counts_in_steps(my: MysqlLab) -> None:
    my.query("SET GLOBAL auto_increment_increment = 3")
    try:
        rows: list[Row] = [(n, str(n)) for n in range(100)]
        write(my.another(), target(), rows)
        assert my.query('SELECT max("_rowid_") > 100 FROM "results_a"') == [(1,)]
        assert read(my.backend, offset=40, limit=20) == rows[40:60]
    finally:
        my.query("SET GLOBAL auto_increment_increment = 1")


def test_a_bad_value_deep_in_a_large_load_is_named(either: MysqlLab, small_segments: None) -> None:
    with pytest.raises(ValueNotRepresentable, match=r'column "id" cannot hold "x1"'):
        load(either.backend, target(), *[BULKY] * 3, Chunk(b"7\tgood\nx1\tbad\n", 2))
    assert either.tables() == set()


def test_a_load_that_failed_once_cannot_go_on_without_the_lost_rows(either: MysqlLab, small_segments: None) -> None:
    with either.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        with pytest.raises(ValueNotRepresentable):
            load_bad(writer.write_chunk, writer.write_batch)
        with pytest.raises(ValueNotRepresentable):
            writer.write_batch(BULKY)
        with pytest.raises(ValueNotRepresentable):
            writer.publish()
    assert either.tables() == set()


def load_bad(write_chunk: object, write_batch: object) -> None:
    write_chunk(Chunk(b"x1\tbad\n", 1))  # type: ignore[operator]
    write_batch(BULKY)  # type: ignore[operator]


def test_an_error_of_the_source_in_the_midst_of_a_statement_leaves_nothing(either: MysqlLab) -> None:
    write(either.backend, target(run=1), ONE)

    def break_off(_: object) -> None:
        [(staged,)] = [(name,) for name in either.tables() if name != "results_a"]
        assert either.query(f'SELECT count(*) FROM "{staged}"') == [(0,)]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(either.backend, target(run=2), BULKY[:2], break_off)
    assert either.tables() == {"results_a"}
    assert read(either.backend, 1) == ONE


def test_a_server_that_forbids_load_data_gets_inserts(my: MysqlLab) -> None:
    my.query("SET GLOBAL local_infile = 0")
    try:
        backend = my.another()
        assert write(backend, target(), TWO) == 2
        assert not backend.can_load
        # It was allowed when the first connections were made.
        assert write(my.backend, target("results_b"), BULKY) == len(BULKY)
        assert not my.backend.can_load
        assert read(my.backend, table="results_b") == BULKY
    finally:
        my.query("SET GLOBAL local_infile = 1")


def test_settings_of_the_server_change_no_value(mariadb: MariaDB) -> None:
    odd = {
        "sql_mode": "'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,NO_AUTO_VALUE_ON_ZERO,PIPES_AS_CONCAT'",
        "time_zone": "'+09:00'",
        "sql_notes": "0",
        "max_error_count": "0",
        "lc_messages": "'de_DE'",
        "net_read_timeout": "1",
    }
    before = {name: mariadb.execute(f"SELECT @@GLOBAL.{name}")[0][0] for name in odd}
    for name, value in odd.items():
        mariadb.execute(f"SET GLOBAL {name} = {value}")
    try:
        for lab in mysql_lab(mariadb):
            columns = [Column("t", Kind.TIMESTAMP), Column("d", Kind.TEXT), Column("n", Kind.NUMERIC)]
            rows: list[Row] = [("2024-03-04 05:06:07.8", "a\\b\t'\"", "1.5")]
            write(lab.backend, target(), rows, columns)
            assert read(lab.backend, 1, columns) == rows
            with pytest.raises(ValueNotRepresentable, match='"n"'):
                write(lab.backend, target(run=2), [("2024-03-04 05:06:07", "x", "0." + "1" * 31)], columns)
    finally:
        for name, value in before.items():
            mariadb.execute(f"SET GLOBAL {name} = " + (f"'{value}'" if isinstance(value, str) else str(value)))


def test_columns_of_a_target_are_indexed(either: MysqlLab) -> None:
    columns = [Column("a", Kind.INTEGER), Column("b`c", Kind.TEXT), Column("d", Kind.TIMESTAMP)]
    where = target()
    where = type(where)(where.table, where.job_id, 1, 1, 0, index=("a", "b`c", "d"))
    rows: list[Row] = [(1, "x" * 5000, "2024-01-01 00:00:00"), (1, None, None)]
    write(either.backend, where, rows, columns)
    assert read(either.backend, 1, columns) == rows
    assert len({row[2] for row in either.query('SHOW INDEX FROM "results_a"')}) == 4
