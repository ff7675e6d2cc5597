"""Names and types of result columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobber.columns import (
    INNODB_COLUMNS,
    NAME_MAX_BYTES,
    RESULT_TYPES,
    ROW_PLACE,
    SYSTEM_COLUMNS,
    Column,
    Kind,
    result_type,
    shorten,
    unique_names,
)

#: Names that collide often: few letters in both cases, long ones, and the forms that the rules themselves produce.
names = st.one_of(
    st.text(max_size=80),
    st.text("aA_2é", max_size=6),
    st.sampled_from(["a_2", "A_2", "a_3", "", "column_1", "COLUMN_2", "ß", "SS", "x" * 63, "x" * 64, "X" * 64, "ctid"]),
    st.sampled_from(sorted(SYSTEM_COLUMNS)),
    st.sampled_from([ROW_PLACE, ROW_PLACE.upper(), f"{ROW_PLACE}_2"]),
)


@given(st.lists(names, max_size=30))
def test_names_are_unique_however_case_is_folded_never_empty_never_too_long(given_names: Sequence[str]) -> None:
    unique = unique_names(given_names)
    assert len(unique) == len(given_names)
    assert len({name.casefold() for name in unique}) == len(unique)
    assert all(1 <= len(name.encode()) <= NAME_MAX_BYTES for name in unique)
    assert not set(unique) & SYSTEM_COLUMNS
    assert ROW_PLACE not in {name.casefold() for name in unique}


@given(st.lists(names, max_size=30))
def test_making_names_unique_again_changes_nothing(given_names: Sequence[str]) -> None:
    unique = unique_names(given_names)
    assert unique_names(unique) == unique


@given(st.lists(st.text(min_size=1, max_size=15), unique_by=str.casefold, max_size=10))
def test_names_that_are_fine_stay_as_they_are(given_names: Sequence[str]) -> None:
    reserved = SYSTEM_COLUMNS | INNODB_COLUMNS | {ROW_PLACE}
    unfit = any(
        name[-1] in " \t\n\v\f\r" or {"\0", "\u0307", "İ"} & {*name} or max(name) > "\uffff" for name in given_names
    )
    assert unfit or unique_names(given_names) == given_names or reserved & {name.casefold() for name in given_names}


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        (["", ""], ["column_1", "column_2"]),
        (["a ", "a", "  ", "b\t", "\r\n"], ["a", "a_2", "column_3", "b", "column_5"]),
        (["😀x", "a\0b"], ["_x", "a_b"]),
        (["db_row_id", "DB_TRX_ID"], ["db_row_id_2", "DB_TRX_ID_2"]),
        (["FTS_DOC_ID", "fts_doc_id"], ["FTS_DOC_ID_2", "fts_doc_id_3"]),
        (["Id", "İd", "i\u0307d", "ıd"], ["Id", "İd_2", "i\u0307d_3", "ıd"]),
        (["id", "ID", "Id"], ["id", "ID_2", "Id_3"]),
        (["a", "a", "a_2"], ["a", "a_2", "a_2_2"]),
        (["column_2", ""], ["column_2", "column_2_2"]),
        (["ctid", "xmin", "XMIN", "_rowid_"], ["ctid_2", "xmin_2", "XMIN", "_rowid__2"]),
        (["x" * 63, "X" * 63], ["x" * 63, "X" * 61 + "_2"]),
    ],
)
def test_the_rules_by_example(given_names: list[str], expected: list[str]) -> None:
    assert unique_names(given_names) == expected


def test_a_long_name_is_cut_and_ends_in_its_hash() -> None:
    name = "n" * 64
    assert unique_names([name]) == ["n" * 56 + "_" + hashlib.sha256(name.encode()).hexdigest()[:6]]


@given(st.text(max_size=100), st.integers(4, 12), st.booleans(), st.none() | st.text(max_size=100))
def test_a_shortened_name_fits_and_keeps_its_beginning(name: str, digits: int, always: bool, of: str | None) -> None:
    short = shorten(name, digits, always=always, of=of)
    assert len(short.encode()) <= NAME_MAX_BYTES
    if len(name.encode()) <= NAME_MAX_BYTES and not always:
        assert short == name
    else:
        kept, _, tail = short.rpartition("_")
        assert name.startswith(kept)
        assert tail == hashlib.sha256((name if of is None else of).encode()).hexdigest()[:digits]


@given(st.text(min_size=64, max_size=90))
def test_long_names_that_differ_at_the_end_stay_different(name: str) -> None:
    assert shorten(name + "1", 8) != shorten(name + "2", 8)


@pytest.mark.parametrize("engine", RESULT_TYPES)
def test_every_kind_has_a_type_on_every_engine(engine: str) -> None:
    assert set(RESULT_TYPES[engine]) == set(Kind)
    for kind in Kind:
        unbounded = "DECIMAL(65,30)" if (engine, kind) == ("mysql", Kind.NUMERIC) else RESULT_TYPES[engine][kind]
        assert result_type(engine, Column("c", kind)) == unbounded


@pytest.mark.parametrize(
    ("precision", "scale", "expected"),
    [
        (10, 2, "NUMERIC(10,2)"),
        (20, None, "NUMERIC(20,0)"),
        (3, -2, "NUMERIC(5,0)"),
        (3, 5, "NUMERIC(5,5)"),
        (1000, 0, "NUMERIC(1000,0)"),
        (1001, 0, "NUMERIC"),
        (None, None, "NUMERIC"),
    ],
)
def test_bounds_of_numbers_hold_every_value_of_the_source(
    precision: int | None, scale: int | None, expected: str
) -> None:
    assert result_type("postgresql", Column("c", Kind.NUMERIC, precision, scale)) == expected
