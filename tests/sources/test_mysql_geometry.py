"""Geometries of MySQL and MariaDB are the text that the server writes."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.sources.base import Shape, Source
from jobber.sources.mysql.geometry import well_known_text
from tests.sources.reading import read

GEOMETRIES = [
    "POINT(1 2)",
    "POINT(100000000000000 1e15)",
    "POINT(0.00000000000000123456789 1.23456e-16)",
    "POINT(-1.5 1.2345678901234568e17)",
    "LINESTRING(0 0,1 1,2.5 3)",
    "POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))",
    "MULTIPOINT(1 2,3 4)",
    "MULTILINESTRING((1 1,2 2),(3 3,4 4.5))",
    "MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))",
    "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(1 1,2 2),MULTIPOINT(1 1))",
    "GEOMETRYCOLLECTION EMPTY",
]


@pytest.mark.parametrize("text", GEOMETRIES)
def test_a_geometry_is_the_text_that_the_server_writes(maria: Source, accepts: frozenset[Shape], text: str) -> None:
    geometry = f"ST_GeomFromText('{text}')"
    [(ours, servers, with_system)] = read(
        maria, f"SELECT {geometry}, ST_AsText({geometry}), ST_GeomFromText('{text}', 3857)", accepts=accepts
    ).rows
    assert ours == servers
    assert with_system == f"SRID=3857;{servers}"


def test_any_coordinate_is_written_as_the_server_writes_it(maria: Source) -> None:
    numbers = st.floats(allow_nan=False, allow_infinity=False).filter(bool)

    @settings(max_examples=10, deadline=None)
    @given(st.lists(numbers, min_size=1, max_size=100))
    def check(values: list[float]) -> None:
        # Well-known binary: MariaDB's reader of text loses the last digit of some numbers.
        points = [struct.pack("<BIdd", 1, 1, value, 1.0).hex() for value in values]
        geometries = ", ".join(f"ST_GeomFromWKB(x'{point}'), ST_AsText(ST_GeomFromWKB(x'{point}'))" for point in points)
        [row] = read(maria, f"SELECT {geometries}").rows
        assert row[::2] == row[1::2]

    check()


@pytest.mark.parametrize(
    "value",
    [b"", b"\0\0\0\0", b"\0\0\0\0\1\1\0\0\0", b"\0\0\0\0\1\x09\0\0\0", b"\0\0\0\0\1\1\0\0\0" + b"\0" * 17,
     b"\0\0\0\0\1\2\0\0\0\xff\xff\xff\xff", b"\0\0\0\0\1\1\0\0\0" + struct.pack("<dd", math.nan, 1),
     b"\0\0\0\0\1\4\0\0\0\1\0\0\0\1\2\0\0\0\0\0\0\0", b"\0\0\0\0" + b"\1\7\0\0\0\1\0\0\0" * 1000],
)  # fmt: skip
def test_bytes_that_are_no_geometry_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"geometry|cut off|number|type|deep"):
        well_known_text(value, mariadb=True)


def test_big_endian_geometries_are_read_too() -> None:
    value = struct.pack("<I", 0) + struct.pack(">BIdd", 0, 1, 1.5, -2.0)
    assert well_known_text(value, mariadb=True) == "POINT(1.5 -2)"
