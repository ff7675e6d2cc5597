"""MySQL's types as jobber sees them: the kind of a column, and how its values become canonical text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from pymysql.constants import FIELD_TYPE as TYPE

from jobber.columns import Column, Kind
from jobber.mysql import ColumnPacket
from jobber.mysql.protocol import BINARY_CHARSET, UNSIGNED
from jobber.sources.mysql.geometry import well_known_text

#: Flag of a number that is printed with zeros in front.
_ZEROFILL = 1 << 6
#: Scale of a DOUBLE that is printed with as many digits as it takes.
_ALL_DIGITS = 31
#: Digits that a DECIMAL may have; the server may name more for an expression.
_DECIMAL_MAX = 65
#: Digits of the largest BIGINT UNSIGNED.
_UNSIGNED_DIGITS = 20

#: Of any other type, text and bytes are told apart by the character set.
_KINDS = {
    TYPE.TINY: Kind.INTEGER,
    TYPE.SHORT: Kind.INTEGER,
    TYPE.INT24: Kind.INTEGER,
    TYPE.LONG: Kind.INTEGER,
    TYPE.LONGLONG: Kind.INTEGER,
    TYPE.YEAR: Kind.INTEGER,
    TYPE.DECIMAL: Kind.NUMERIC,
    TYPE.FLOAT: Kind.FLOAT,
    TYPE.DOUBLE: Kind.FLOAT,
    TYPE.DATE: Kind.DATE,
    TYPE.NEWDATE: Kind.DATE,
    TYPE.DATETIME: Kind.TIMESTAMP,
    TYPE.TIMESTAMP: Kind.TIMESTAMP,
    TYPE.JSON: Kind.JSON,
    TYPE.TIME: Kind.TEXT,
    TYPE.BIT: Kind.TEXT,
    TYPE.GEOMETRY: Kind.TEXT,
    TYPE.NULL: Kind.TEXT,
}

#: Makes the canonical text of a value from what the server sends; ValueError where it is none.
Form = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of an answer.

    Parameters:
        column: as the result will have it.
        form: how its values become canonical text; None where they are that already.
        fraction: whether its times may have zeros at the end of their fraction.
        free: whether a value may hold any character.
    """

    column: Column
    form: Form | None
    fraction: bool
    free: bool


def fields_of(
    definitions: Sequence[ColumnPacket], *, mariadb: bool, texts: Mapping[int, Form] = MappingProxyType({})
) -> tuple[Field, ...]:
    """Return the columns of an answer.

    Parameters:
        definitions: as the server sent them.
        mariadb: whether it is MariaDB; it writes some geometries otherwise than MySQL does.
        texts: what converts text that does not come in UTF-8, by the column's position.
    """
    return tuple(_field(definition, mariadb, texts.get(n)) for n, definition in enumerate(definitions))


def columns_of(definitions: Sequence[ColumnPacket]) -> tuple[Column, ...]:
    """Return the columns of a described statement."""
    return tuple(_column(definition) for definition in definitions)


def rounded(definition: ColumnPacket) -> bool:
    """Tell whether the text protocol rounds the values of a column.

    It prints a FLOAT with six digits, and a DOUBLE that has a scale (``DOUBLE(10,2)``, ``PI()``) with that many digits
    after the point; the value may have more.
    """
    if definition.type_code == TYPE.DOUBLE:
        return bool(definition.scale < _ALL_DIGITS)
    return bool(definition.type_code == TYPE.FLOAT)


def _column(definition: ColumnPacket) -> Column:
    code, name = definition.type_code, definition.name
    if code == TYPE.NEWDECIMAL:
        return _decimal(definition)
    if code == TYPE.LONGLONG and definition.flags & UNSIGNED:
        return Column(name, Kind.NUMERIC, _UNSIGNED_DIGITS, 0)
    if definition.format_name == "json":
        return Column(name, Kind.JSON)
    return Column(name, _KINDS.get(code) or (Kind.BINARY if definition.charsetnr == BINARY_CHARSET else Kind.TEXT))


def _decimal(definition: ColumnPacket) -> Column:
    """Undo how the server makes a length of digits: one for the point, one for the sign."""
    scale = definition.scale
    precision = definition.length - (1 if scale else 0) - (0 if definition.flags & UNSIGNED else 1)
    if not 0 <= scale <= precision <= _DECIMAL_MAX:
        return Column(definition.name, Kind.NUMERIC)
    return Column(definition.name, Kind.NUMERIC, max(precision, 1), scale)


def _field(definition: ColumnPacket, mariadb: bool, text: Form | None) -> Field:
    column = _column(definition)
    form: Form | None = None
    if text is not None:
        form = text
    elif column.kind is Kind.BINARY:
        form = _hexadecimal
    elif column.kind is Kind.NUMERIC and definition.flags & _ZEROFILL:
        form = _without_zeros
    elif definition.type_code == TYPE.BIT:
        form = partial(_bits, digits=definition.length)
    elif definition.type_code == TYPE.GEOMETRY:
        form = partial(_geometry, mariadb=mariadb)
    return Field(
        column,
        form,
        fraction=column.kind is Kind.TIMESTAMP and definition.scale > 0,
        free=column.kind in {Kind.TEXT, Kind.JSON} and form is text,
    )


def _hexadecimal(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _without_zeros(value: bytes) -> bytes:
    whole, point, fraction = value.partition(b".")
    return (whole.lstrip(b"0") or b"0") + point + fraction


def _bits(value: bytes, digits: int) -> bytes:
    return f"{int.from_bytes(value, 'big'):0{digits}b}".encode()


def _geometry(value: bytes, mariadb: bool) -> bytes:
    return well_known_text(value, mariadb=mariadb).encode()
