"""The lattice of kinds: widening ends, and no value is changed on the way."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobber.columns import Column, Kind
from jobber.sources.base import SchemaChanged
from jobber.sources.inference import Inference
from jobber.sources.kinds import Unfit, join, kind_of, to_column
from jobber.sources.texts import json_text, plain_text

kinds = st.sampled_from(list(Kind))
numbers = st.one_of(
    st.integers(), st.floats(), st.decimals(allow_nan=False, allow_infinity=False, places=3), st.booleans()
)
values = st.one_of(
    st.none(), numbers, st.text(), st.binary(), st.dates(), st.datetimes(), st.datetimes(timezones=st.just(UTC)),
    st.lists(st.integers()), st.sampled_from(["2024-01-01", "2024-01-01 10:00:00", "1.5", "{}", "NaN"]),
)  # fmt: skip
columns = st.one_of(st.none(), kinds.map(lambda kind: Column("c", kind)), st.just(Column("c", Kind.NUMERIC, 5, 2)))


@given(kinds, kinds, kinds)
def test_joining_kinds_is_a_least_upper_bound(a: Kind, b: Kind, c: Kind) -> None:
    assert join(a, a) is a
    assert join(a, b) is join(b, a)
    assert join(join(a, b), c) is join(a, join(b, c))
    assert join(join(a, b), b) is join(a, b)
    assert join(a, Kind.TEXT) is Kind.TEXT


@given(columns, st.lists(values, min_size=1), st.integers(1, 5))
def test_widening_ends_and_every_value_survives(declared: Column | None, data: list[object], size: int) -> None:
    rows = [(value,) for value in data]
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    asked = None
    for _ in range(8):  # kinds only widen: the longest chain has six steps, bounds add one
        inference = Inference(["c"], [declared], asked)
        inference.learn(batches[0])
        try:
            canonical = [row for batch in batches for row in inference.canonical(batch)]
            break
        except SchemaChanged as changed:
            asked = changed.columns
    else:
        raise AssertionError("never settled")
    (column,) = inference.columns
    for value, (shown,) in zip(data, canonical, strict=True):
        if value is None:
            assert shown is None
            continue
        assert type(shown) is {Kind.INTEGER: int, Kind.FLOAT: float, Kind.BOOLEAN: bool}.get(column.kind, str)
        if isinstance(value, int | Decimal) and column.kind in {Kind.INTEGER, Kind.FLOAT, Kind.NUMERIC}:
            assert Decimal(shown) == Decimal(value)
        if isinstance(value, float) and column.kind in {Kind.FLOAT, Kind.NUMERIC}:
            assert float(shown) == value or math.isnan(value)
        if isinstance(value, str) and column.kind is not Kind.TIMESTAMP:
            assert shown == (value if column.kind is not Kind.BOOLEAN else shown)
        if isinstance(value, bytes):
            assert bytes.fromhex(str(shown)[2:]) == value


@given(numbers)
def test_a_number_in_a_numeric_column_keeps_all_of_its_digits(number: float | Decimal) -> None:
    shown = to_column(number, Column("c", Kind.NUMERIC))
    assert isinstance(shown, str)
    assert "e" not in shown.lower() or shown.endswith("Infinity")
    if isinstance(number, float):
        assert float(shown) == number or math.isnan(number)
    else:
        assert Decimal(shown) == number


@given(st.datetimes(timezones=st.integers(-720, 720).map(lambda m: timezone(timedelta(minutes=m)))))
def test_a_zoned_moment_becomes_utc_or_stays_text(moment: datetime) -> None:
    column = Column("c", Kind.TIMESTAMP)
    try:
        shown = to_column(moment, column)
    except Unfit:
        assert moment.year in {1, 9999}
        return
    assert datetime.fromisoformat(str(shown)).replace(tzinfo=UTC) == moment
    assert to_column(moment.isoformat(), column, declared=True) == shown


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (True, Kind.BOOLEAN, "true"),
        (2**63, Kind.NUMERIC, "9223372036854775808"),
        (Decimal("1E+3"), Kind.NUMERIC, "1000"),
        (Decimal("0.10"), Kind.NUMERIC, "0.10"),
        (1e22, Kind.FLOAT, "1e+22"),
        (date(1, 2, 3), Kind.DATE, "0001-02-03"),
        (datetime(2024, 1, 1, 10, 0, 0, 500000), Kind.TIMESTAMP, "2024-01-01 10:00:00.5"),
        (datetime(2024, 1, 1, 10, tzinfo=timezone(timedelta(hours=2))), Kind.TIMESTAMP, "2024-01-01 08:00:00"),
        (time(10, 0, 0, 1), Kind.TEXT, "10:00:00.000001"),
        (timedelta(days=3, hours=2, microseconds=500000), Kind.TEXT, "3 days 02:00:00.5"),
        (timedelta(days=1), Kind.TEXT, "1 day"),
        (timedelta(seconds=-1), Kind.TEXT, "-00:00:01"),
        (timedelta(0), Kind.TEXT, "00:00:00"),
        (b"\x00\xff", Kind.BINARY, r"\x00ff"),
        (memoryview(b"a"), Kind.BINARY, r"\x61"),
        (UUID(int=1), Kind.TEXT, "00000000-0000-0000-0000-000000000001"),
        ([1, None, "é"], Kind.JSON, '[1, null, "é"]'),
    ],
)
def test_values_of_drivers_have_a_kind_and_a_text(value: object, kind: Kind, text: str) -> None:
    assert kind_of(value) is kind
    assert plain_text(value) == text


def test_nested_values_become_json_that_keeps_digits() -> None:
    nested = {"a": [Decimal("1.50"), math.nan, True, None], 2: date(2024, 1, 1), "b": b"\x01", "c": (1.5, "\n")}
    text = json_text(nested)
    assert '"a": [1.50, "NaN", true, null]' in text
    assert json.loads(text) == {"a": [1.5, "NaN", True, None], "2": "2024-01-01", "b": r"\x01", "c": [1.5, "\n"]}
