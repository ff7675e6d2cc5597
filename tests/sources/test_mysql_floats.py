"""Floating point of MySQL and MariaDB arrives to the last bit."""

from __future__ import annotations

import struct
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.sources.base import Shape, Source
from jobber.sources.mysql.rowforms import shortest_float32
from tests.sources.engines import MysqlEngine
from tests.sources.reading import BOTH, DECODED, read


@settings(max_examples=500, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_digits_of_a_float32_give_it_back(value: float) -> None:
    text = shortest_float32(value)
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    # No shorter one does.
    digits = len(Decimal(text).normalize().as_tuple().digits)
    assert digits <= 9
    if digits > 6:
        assert struct.pack("<f", float(f"{value:.{digits - 1}g}")) != struct.pack("<f", value)


def _loaded(mysql: MysqlEngine, declared: str, values: list[float]) -> None:
    mysql.watch("DROP TABLE IF EXISTS floats")
    mysql.watch(f"CREATE TABLE floats (i INT PRIMARY KEY, v {declared})")
    if values:
        rows = ", ".join(f"({i}, {value!r})" for i, value in enumerate(values))
        mysql.watch(f"INSERT INTO floats VALUES {rows}")


def test_every_float_arrives_as_the_float32_that_it_is(mysql: MysqlEngine, maria: Source) -> None:
    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=100))
    def check(values: list[float]) -> None:
        # MySQL flushes what is too small for a float32 that is normal, and knows no sign of zero when it reads one.
        values = [value for value in values if abs(value) > 1.2e-38]
        _loaded(mysql, "FLOAT", values)
        for accepts in (DECODED, BOTH):
            rows = read(maria, "SELECT v FROM floats ORDER BY i", accepts=accepts).rows
            assert [struct.pack("<f", row[0]) for row in rows] == [struct.pack("<f", value) for value in values]

    check()


def test_every_double_arrives_to_the_last_bit(mysql: MysqlEngine, maria: Source) -> None:
    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=100))
    def check(values: list[float]) -> None:
        values = [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, *filter(None, values)]
        _loaded(mysql, "DOUBLE", values)
        for sql in ("SELECT v FROM floats ORDER BY i", "SELECT v, PI() FROM floats ORDER BY i"):
            for accepts in (DECODED, BOTH):
                assert [row[0] for row in read(maria, sql, accepts=accepts).rows] == values

    check()


def test_a_double_with_a_scale_is_not_rounded_to_it(
    mysql: MysqlEngine, maria: Source, accepts: frozenset[Shape]
) -> None:
    _loaded(mysql, "DOUBLE(10,2)", [0.1, 0.2])
    assert read(maria, "SELECT SUM(v), AVG(v) FROM floats", accepts=accepts).rows == [(0.1 + 0.2, (0.1 + 0.2) / 2)]
