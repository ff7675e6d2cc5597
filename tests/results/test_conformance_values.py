"""What every results backend promises of what it is given: names, values, order and size."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobber.columns import Column, Kind, Row, unique_names
from jobber.errors import ResultsFailed, ValueNotRepresentable
from tests.results.conftest import ENGINES, Lab, any_lab, is_mysql, read, target, write


@pytest.fixture(params=[*ENGINES, "mysql-insert"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """An empty results database, one per engine and way into it."""
    yield from any_lab(request, tmp_path)


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


#: Where an engine's type holds less; UNFIT says what becomes of the rest.
FEWER: dict[tuple[str, Kind], list[object]] = {
    ("mysql", Kind.NUMERIC): [
        *("0", "-0.000000000000000000001", "12345678901234567890.123", "9" * 35, f"0.{'9' * 30}", "1.1", None)
    ],
    ("mysql", Kind.FLOAT): [0.1, 1e308, -5e-324, 1 / 3, 2.2250738585072014e-308, 123456789.0, 1e22, None],
}


@pytest.mark.parametrize("kind", Kind)
def test_extreme_values_come_back_as_they_went_in(lab: Lab, kind: Kind) -> None:
    columns = [Column("n", Kind.INTEGER), Column("v", kind)]
    values = FEWER.get((lab.backend.engine, kind), EXTREMES[kind])
    if kind is Kind.JSON and is_mysql(lab):
        values = ['{"a": [1, 2.5, null]}', '"text"', "18446744073709551615", "0.1", "null", None]
    rows: list[Row] = [(n, value) for n, value in enumerate(values)]  # type: ignore[misc]
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
    ("mysql", Column("c", Kind.FLOAT), math.nan),
    ("mysql", Column("c", Kind.FLOAT), math.inf),
    ("mysql", Column("c", Kind.FLOAT), -math.inf),
    ("mysql", Column("c", Kind.NUMERIC), "NaN"),
    ("mysql", Column("c", Kind.NUMERIC), "Infinity"),
    ("mysql", Column("c", Kind.NUMERIC), "9" * 36),
    ("mysql", Column("c", Kind.NUMERIC), "0." + "0" * 30 + "1"),
    ("mysql", Column("c", Kind.NUMERIC, 10, 2), "1.239"),
    ("mysql", Column("c", Kind.NUMERIC, 4, 2), "123.00"),
    ("mysql", Column("c", Kind.JSON), "{broken"),
    ("mysql", Column("c", Kind.TIMESTAMP), "2024-01-01 00:00:00.1234567"),
    ("mysql", Column("c", Kind.TIMESTAMP), "infinity"),
    ("mysql", Column("c", Kind.TIMESTAMP), "0044-03-15 12:00:00 BC"),
    ("mysql", Column("c", Kind.TIMESTAMP), "0000-01-01 00:00:00"),
    ("mysql", Column("c", Kind.TIMESTAMP), "12345-01-01 00:00:00"),
    ("mysql", Column("c", Kind.DATE), "2024-02-30"),
    ("mysql", Column("c", Kind.DATE), "-infinity"),
    ("mysql", Column("c", Kind.DATE), "0044-03-15 BC"),
    ("mysql", Column("c", Kind.DATE), "0000-01-01"),
    ("mysql", Column("c", Kind.DATE), "10000-01-01"),
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
    # InnoDB keeps a row in half a page: 990 integers, of shorter values more.
    kind, value = (Kind.TEXT, str) if lab.backend.engine == "mysql" else (Kind.INTEGER, int)
    columns = [Column(f"c{n}", kind) for n in range(1000)]
    rows: list[Row] = [tuple(map(value, range(1000))), tuple(map(value, range(1, 1001)))]
    write(lab.backend, target(), rows, columns)
    assert read(lab.backend, 1, columns) == rows


def test_more_columns_than_the_engine_has_fail_clearly_and_for_good(lab: Lab) -> None:
    columns = [Column(f"c{n}", Kind.INTEGER) for n in range(2500)]
    with pytest.raises(ResultsFailed, match="columns") as caught:
        write(lab.backend, target(), [tuple(range(2500))], columns)
    assert not caught.value.retryable
