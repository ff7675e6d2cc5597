"""Dates and timestamps that are looked at together: the same answer as one at a time."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobber.columns import Column, Kind
from jobber.sources.kinds import Unfit, to_column
from jobber.sources.sqlite_moments import SEPARATOR, are_canonical

COLUMNS = {kind: Column("c", kind) for kind in (Kind.DATE, Kind.TIMESTAMP)}
_DIGITS = {
    Kind.DATE: st.tuples(st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32)).map(
        lambda t: f"{t[0]:04}-{t[1]:02}-{t[2]:02}"
    ),
    Kind.TIMESTAMP: st.tuples(st.dates(), st.integers(0, 25), st.integers(0, 61), st.integers(0, 61)).map(
        lambda t: f"{t[0]} {t[1]:02}:{t[2]:02}:{t[3]:02}"
    ),
}
_REAL = {Kind.DATE: st.dates().map(date.isoformat), Kind.TIMESTAMP: st.datetimes().map(str)}


def is_canonical(text: str, column: Column) -> bool:
    try:
        return to_column(text, column, declared=True) == text
    except Unfit:
        return False


def asked(texts: list[str], column: Column) -> bool:
    return are_canonical(b"".join(text.encode() + SEPARATOR for text in texts), len(texts), column)


@pytest.mark.parametrize("kind", COLUMNS)
@given(data=st.data())
def test_many_are_canonical_if_each_is(kind: Kind, data: st.DataObject) -> None:
    usual = data.draw(st.lists(_REAL[kind], min_size=1, max_size=40))
    odd = data.draw(st.lists(_DIGITS[kind] | st.text(max_size=20) | _REAL[Kind.DATE], max_size=1))
    texts = data.draw(st.permutations([*usual, *odd]))
    assert asked(texts, COLUMNS[kind]) == all(is_canonical(text, COLUMNS[kind]) for text in texts)


def test_every_number_of_two_digits_is_judged_at_its_place() -> None:
    moment = datetime(2023, 1, 1)
    for kind, places in ((Kind.DATE, (5, 8)), (Kind.TIMESTAMP, (5, 8, 11, 14, 17))):
        usual = str(moment if kind is Kind.TIMESTAMP else moment.date())
        for place in places:
            for number in range(100):
                text = f"{usual[:place]}{number:02}{usual[place + 2 :]}"
                assert asked([usual, text], COLUMNS[kind]) == is_canonical(text, COLUMNS[kind])


def test_two_in_one_value_are_none() -> None:
    assert are_canonical(b"2024-01-01,2024-01-02,", 2, COLUMNS[Kind.DATE])
    assert not are_canonical(b"2024-01-01,2024-01-02,", 1, COLUMNS[Kind.DATE])
