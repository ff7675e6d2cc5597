"""PostgreSQL's types as jobber sees them: column kinds, text loaders, arguments.

OIDs of built-in types never change (https://www.postgresql.org/docs/current/catalog-pg-type.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from psycopg import Connection, sql
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq.abc import PGresult
from psycopg.types.bool import BoolLoader
from psycopg.types.numeric import FloatLoader, IntLoader
from psycopg.types.string import TextLoader

from jobber.columns import Column, Kind
from jobber.errors import BadArguments
from jobber.jobs import Scalar

NUMERIC, TIMESTAMPTZ = 1700, 1184
#: The largest OID of a type that PostgreSQL itself brings; its name never changes.
LAST_BUILTIN = 16383
#: Digits that a bounded NUMERIC may have.
_PRECISION_MAX = 1000

_KINDS = {
    16: Kind.BOOLEAN,
    17: Kind.BINARY,
    20: Kind.INTEGER,
    21: Kind.INTEGER,
    23: Kind.INTEGER,
    26: Kind.INTEGER,  # oid
    114: Kind.JSON,
    700: Kind.FLOAT,
    701: Kind.FLOAT,
    1082: Kind.DATE,
    1114: Kind.TIMESTAMP,
    TIMESTAMPTZ: Kind.TIMESTAMP,
    NUMERIC: Kind.NUMERIC,
    3802: Kind.JSON,  # jsonb
}


def columns_of(described: PGresult) -> tuple[Column, ...]:
    """Return the columns of a described statement; a domain is described as its base type by the server."""
    return tuple(
        _column((described.fname(i) or b"").decode(), described.ftype(i), described.fmod(i))
        for i in range(described.nfields)
    )


def _column(name: str, oid: int, modifier: int) -> Column:
    kind = _KINDS.get(oid, Kind.TEXT)
    if oid != NUMERIC or modifier < 0:
        return Column(name, kind)
    # numeric.c: ((precision << 16) | (scale & 0x7ff)) + 4, scale in 11 bits with a sign
    precision = (modifier - 4) >> 16 & 0xFFFF
    scale = ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    # PostgreSQL 15 allows scales below 0 and above the precision; no other engine does, and bounds that hold the same
    # values exist: NUMERIC(5,-2) is within NUMERIC(7,0), NUMERIC(3,5) within NUMERIC(5,5).
    if scale < 0:
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return Column(name, kind, precision, scale) if precision <= _PRECISION_MAX else Column(name, kind)


class _UtcLoader(Loader):
    """``timestamptz`` as the session prints it (TimeZone is UTC), without its offset of zero."""

    def load(self, data: Buffer) -> str:
        text = str(data, "ascii")
        if text.endswith("+00"):
            return text[:-3]
        if text.endswith("+00 BC"):
            return text[:-6] + " BC"
        if text.endswith("infinity"):
            return text
        # Only a query that changes TimeZone under its own feet gets here.
        raise ValueError(text)


class _Canonical(AdaptContext):
    """How result values become Python values: numbers and booleans typed, all else PostgreSQL's own text."""

    def __init__(self) -> None:
        self._adapters = AdaptersMap()
        self._adapters.register_loader(0, TextLoader)  # any type without a loader of its own
        for oid, kind in _KINDS.items():
            if kind is Kind.INTEGER:
                self._adapters.register_loader(oid, IntLoader)
            elif kind is Kind.FLOAT:
                self._adapters.register_loader(oid, FloatLoader)
            elif kind is Kind.BOOLEAN:
                self._adapters.register_loader(oid, BoolLoader)
        self._adapters.register_loader(TIMESTAMPTZ, _UtcLoader)

    @property
    def adapters(self) -> AdaptersMap:
        return self._adapters

    @property
    def connection(self) -> None:
        return None


CANONICAL = _Canonical()


def parameters(values: Sequence[Scalar]) -> list[bytes | None]:
    """Return arguments in text form; the server reads each as the type that it wants there.

    Raises:
        BadArguments: a text that PostgreSQL cannot hold.
    """
    return [None if value is None else _text(value, position) for position, value in enumerate(values, 1)]


def _text(value: str | int | Decimal | bool, position: int) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if not isinstance(value, str):
        return str(value).encode()
    if "\0" in value:
        raise BadArguments(f"argument {position} holds a NUL character; PostgreSQL has no text with it")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadArguments(f"argument {position} holds half of a surrogate pair, which is no character") from None


def literal(value: bytes | None, type_name: str, connection: Connection[object]) -> str:
    """Return an argument as a constant for a statement that takes none, quoted by the driver.

    Parameters:
        value: as ``parameters`` gave it.
        type_name: as the server's ``format_type`` writes it: quoted where need be, never user input.
    """
    quoted = "NULL" if value is None else sql.Literal(value.decode()).as_string(connection).strip()
    return f"({quoted}::{type_name})"
