"""Geometries as text: what ``ST_AsText`` says of them, with the reference system in front where there is one.

A value comes as the number of its reference system and well-known binary
(https://dev.mysql.com/doc/refman/8.4/en/gis-data-formats.html). Coordinates stay in the order that they are stored in,
as in PostGIS: longitude first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal

#: Well-known binary nests collections; one value of MySQL's cannot nest deeper than this in practice.
_DEPTH = 64
_NAMES = {
    1: "POINT",
    2: "LINESTRING",
    3: "POLYGON",
    4: "MULTIPOINT",
    5: "MULTILINESTRING",
    6: "MULTIPOLYGON",
    7: "GEOMETRYCOLLECTION",
}
_POINT = 1
#: Powers of ten within which the servers write numbers without an exponent.
_PLAIN = range(-14, 16)
#: Characters beyond which MySQL prefers an exponent.
_WIDTH = 25


def well_known_text(value: bytes, *, mariadb: bool) -> str:
    """Return a geometry as text: ``POINT(1 2)``, ``SRID=4326;POINT(1 2)``.

    Parameters:
        value: as the server sends it.
        mariadb: whether it is written as MariaDB does: the points of a MULTIPOINT without parentheses, and long numbers
            without an exponent.

    Raises:
        ValueError: it is no geometry.
    """
    try:
        reader = _Reader(value, mariadb)
        text = reader.geometry(0)
    except (struct.error, KeyError) as error:
        raise ValueError("the bytes are no geometry") from error
    if reader.at != len(value):
        raise ValueError("bytes follow the geometry")
    return f"SRID={reader.srid};{text}" if reader.srid else text


class _Reader:
    def __init__(self, value: bytes, mariadb: bool) -> None:
        self._value = value
        self._mariadb = mariadb
        (self.srid,) = struct.unpack_from("<I", value)
        self.at = 4

    def geometry(self, depth: int) -> str:
        number, name, order = self._head()
        return name + self._body(number, order, depth)

    def _head(self) -> tuple[int, str, str]:
        order = "<" if self._take("<B") else ">"
        number = self._take(order + "I")
        return number, _NAMES[number], order

    def _body(self, number: int, order: str, depth: int) -> str:
        if depth > _DEPTH:
            raise ValueError("it is nested too deep")
        match _NAMES[number]:
            case "POINT":
                return f"({self._point(order)})"
            case "LINESTRING":
                return self._several(order, lambda: self._point(order))
            case "POLYGON":
                return self._several(order, lambda: self._several(order, lambda: self._point(order)))
            case "GEOMETRYCOLLECTION":
                return self._several(order, lambda: self.geometry(depth + 1))
            case _:
                return self._several(order, lambda: self._part(number, depth))

    def _part(self, number: int, depth: int) -> str:
        part, _, order = self._head()
        # A MULTIPOINT holds points, and so on.
        if part != number - 3:
            raise ValueError("its parts are of another type")
        return self._point(order) if part == _POINT and self._mariadb else self._body(part, order, depth + 1)

    def _several(self, order: str, one: Callable[[], str]) -> str:
        count = self._take(order + "I")
        # Each takes at least four bytes: a wrong count does not get far.
        if count * 4 > len(self._value):
            raise ValueError("it is cut off")
        return "(" + ",".join(one() for _ in range(count)) + ")" if count else " EMPTY"

    def _point(self, order: str) -> str:
        x, y = struct.unpack_from(order + "dd", self._value, self.at)
        self.at += 16
        return " ".join(number_text(number, mariadb=self._mariadb) for number in (x, y))

    def _take(self, form: str) -> int:
        number: int
        (number,) = struct.unpack_from(form, self._value, self.at)
        self.at += struct.calcsize(form)
        return number


def number_text(value: float, *, mariadb: bool) -> str:
    """Return a number as the servers write it: the fewest digits that give it back, ``1e15``, ``1.5e-16``."""
    number = Decimal(repr(value)).normalize()
    if not number.is_finite():
        raise ValueError("a coordinate is no number")
    sign, digits, exponent = number.as_tuple()
    if not number:
        return "-0" if sign else "0"
    point = len(digits) + int(exponent)
    if point in _PLAIN and (mariadb or len(format(number, "f")) <= _WIDTH):
        return format(number, "f")
    written = "".join(map(str, digits))
    mantissa = f"{written[0]}.{written[1:]}" if len(written) > 1 else written
    return f"{'-' if sign else ''}{mantissa}e{point - 1}"
