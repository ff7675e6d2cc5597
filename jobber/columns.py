"""Column types of a result: the kinds that jobber knows, their type on every results engine, and column names.

A source says of each column which ``Kind`` it is; a results backend gives that kind a type of its own. Values travel
in one *canonical form* per kind, made of five Python types only (``None, bool, int, float, str``), so that every
source can feed every backend:

=============  ==========================================================================================
``INTEGER``    ``int`` within 64 bits, signed
``NUMERIC``    ``str``: plain decimal digits (``-12.50``), or ``NaN``, ``Infinity``, ``-Infinity``
``FLOAT``      ``float``, NaN and infinities included
``BOOLEAN``    ``bool``
``DATE``       ``str``: ``YYYY-MM-DD``; outside the years 1–9999 the form that PostgreSQL prints (``infinity``,
               ``0044-03-15 BC``, ``12345-01-01``)
``TIMESTAMP``  ``str``: ``YYYY-MM-DD HH:MM:SS[.ffffff]``, without trailing zeros in the fraction; the exceptions
               as for DATE. Zoned timestamps arrive converted to UTC, without an offset.
``JSON``       ``str``: the document's text
``BINARY``     ``str``: ``\\x`` and two hex digits per byte
``TEXT``       ``str``: any text; also the source engine's own text form of every type not named above
=============  ==========================================================================================
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

#: One row of a decoded batch, values in canonical form.
Row = tuple[bool | int | float | str | None, ...]

#: PostgreSQL's limit for identifiers, in bytes; MySQL's is 64 characters. One rule serves all engines.
NAME_MAX_BYTES = 63

#: Names that no column of a PostgreSQL table can have (https://www.postgresql.org/docs/current/ddl-system-columns.html).
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
#: The name by which SQLite gives a row's place; a column of this name would hide it
#: (https://sqlite.org/lang_createtable.html#rowid).
ROW_PLACE = "_rowid_"

#: Names that InnoDB keeps for itself, in any case
#: (https://dev.mysql.com/doc/refman/8.4/en/innodb-multi-versioning.html and innodb-fulltext-index.html).
INNODB_COLUMNS = frozenset({"db_row_id", "db_trx_id", "db_roll_ptr", "fts_doc_id"})

#: What no MySQL identifier holds: NUL and characters outside of the Basic Multilingual Plane
#: (https://dev.mysql.com/doc/refman/8.4/en/identifiers.html).
_NO_NAME = re.compile("[\0\U00010000-\U0010ffff]")
#: Nor does one end in any of these.
_SPACE = " \t\n\v\f\r"


class Kind(StrEnum):
    """What a column holds, independent of any engine."""

    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    JSON = "json"
    BINARY = "binary"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result.

    Parameters:
        name: the name in the result table.
        kind: what it holds.
        precision: all digits of a NUMERIC that has bounds, else None.
        scale: its digits after the point, else None.
    """

    name: str
    kind: Kind
    precision: int | None = None
    scale: int | None = None


#: The type of each kind on each results engine; docs/type-mapping.md shows the same table and a test compares them.
#: NUMERIC with bounds gets ``(precision,scale)`` appended where ``BOUNDED`` says so.
RESULT_TYPES: Mapping[str, Mapping[Kind, str]] = {
    "postgresql": {
        Kind.INTEGER: "BIGINT",
        Kind.NUMERIC: "NUMERIC",
        Kind.FLOAT: "NUMERIC",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.DATE: "DATE",
        Kind.TIMESTAMP: "TIMESTAMP",
        Kind.JSON: "JSONB",
        Kind.BINARY: "TEXT",
        Kind.TEXT: "TEXT",
    },
    # Tables are utf8mb4_bin: text is compared by code point.
    "mysql": {
        Kind.INTEGER: "BIGINT",
        Kind.NUMERIC: "DECIMAL",
        Kind.FLOAT: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.DATE: "DATE",
        # TIMESTAMP ends in 2038, and without (6) both round to seconds.
        Kind.TIMESTAMP: "DATETIME(6)",
        Kind.JSON: "JSON",
        # TEXT ends at 64 KiB.
        Kind.BINARY: "LONGTEXT",
        Kind.TEXT: "LONGTEXT",
    },
    "sqlite": {
        Kind.INTEGER: "BIGINT",
        # A declared type without CHAR, CLOB or TEXT in its name has NUMERIC affinity, which turns text that looks like
        # a number into one (https://sqlite.org/datatype3.html#determination_of_column_affinity). ISO dates never do.
        Kind.NUMERIC: "DECIMAL_TEXT",
        Kind.FLOAT: "REAL",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.DATE: "DATE",
        Kind.TIMESTAMP: "TIMESTAMP",
        Kind.JSON: "JSON_TEXT",
        Kind.BINARY: "TEXT",
        Kind.TEXT: "TEXT",
    },
}

#: Digits in all, and after the point, that a NUMERIC with bounds may declare. A source that declares more gets the type
#: without bounds, and so does one that declares none. A bare DECIMAL of MySQL would be DECIMAL(10,0), which rounds
#: (https://dev.mysql.com/doc/refman/8.4/en/fixed-point-types.html).
_NUMERIC_LIMITS: Mapping[str, tuple[int, int]] = {"postgresql": (1000, 1000), "mysql": (65, 30), "sqlite": (1000, 1000)}
_UNBOUNDED: Mapping[str, str] = {"mysql": "DECIMAL(65,30)"}


def result_type(engine: str, column: Column) -> str:
    """Return the SQL type that ``column`` has in a result table on ``engine``, a key of ``RESULT_TYPES``."""
    name = RESULT_TYPES[engine][column.kind]
    if column.kind is not Kind.NUMERIC:
        return name
    unbounded = _UNBOUNDED.get(engine, name)
    if column.precision is None:
        return unbounded
    # A negative scale (PostgreSQL 15, Oracle) counts zeros before the point, one beyond the precision zeros after it;
    # older servers take neither, so both get a type that holds the same values.
    scale = max(column.scale or 0, 0)
    precision = max(column.precision - min(column.scale or 0, 0), scale)
    most_digits, most_fraction = _NUMERIC_LIMITS[engine]
    return f"{name}({precision},{scale})" if precision <= most_digits and scale <= most_fraction else unbounded


def encode_columns(columns: Iterable[Column]) -> str:
    """Return columns as JSON text."""
    return json.dumps([[c.name, c.kind.value, c.precision, c.scale] for c in columns], separators=(",", ":"))


def decode_columns(encoded: str) -> tuple[Column, ...]:
    """Return the columns that ``encode_columns`` wrote."""
    rows: Sequence[Sequence[Any]] = json.loads(encoded)
    return tuple(Column(name, Kind(kind), precision, scale) for name, kind, precision, scale in rows)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the column names of a result: unique however an engine folds case, never empty, never too long.

    An empty name becomes ``column_N`` (N counts from 1); a name equal to an earlier one but for case gets ``_2``,
    ``_3`` …, and so does one that an engine keeps for itself (``ctid``, ``xmin`` …, ``_rowid_``, ``DB_ROW_ID`` …); a
    name of more than 63 bytes of UTF-8 is cut and ends in ``_`` and 6 hex digits of its hash. Of what MySQL's names
    cannot hold, white space at the end is dropped, and characters beyond U+FFFF become ``_``.

    Parameters:
        names: names as the source gave them, in order.
    """
    taken = {ROW_PLACE, *INNODB_COLUMNS}
    unique = []
    for position, given in enumerate(names, 1):
        name = _NO_NAME.sub("_", given).rstrip(_SPACE)
        wanted = shorten(name or f"column_{position}", 6)
        candidate, n = wanted, 1
        while _folded(candidate) in taken or candidate in SYSTEM_COLUMNS:
            n += 1
            suffix = f"_{n}"
            candidate = _cut(wanted, NAME_MAX_BYTES - len(suffix)) + suffix
        taken.add(_folded(candidate))
        unique.append(candidate)
    return unique


def named(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns of a query under the names that they have in the result (``unique_names``)."""
    names = unique_names([column.name for column in columns])
    return tuple(replace(column, name=name) for column, name in zip(columns, names, strict=True))


def shorten(name: str, digits: int, *, always: bool = False, of: str | None = None) -> str:
    """Return ``name``, cut to 63 bytes and ended with ``_`` and ``digits`` hex digits of its SHA-256 if it is longer.

    Parameters:
        name: any text.
        digits: hex digits of the hash.
        always: add the hash even where the name is short enough (two names may differ in case only).
        of: what is hashed, if not the name.
    """
    if len(name.encode()) <= NAME_MAX_BYTES and not always:
        return name
    suffix = "_" + hashlib.sha256((name if of is None else of).encode()).hexdigest()[:digits]
    return _cut(name, NAME_MAX_BYTES - len(suffix)) + suffix


def _folded(name: str) -> str:
    """Return what names that some engine takes for the same have in common: MySQL drops the dot of the Turkish İ."""
    return name.casefold().replace("i\u0307", "i")


def _cut(text: str, size: int) -> str:
    """Return the longest prefix of ``text`` of at most ``size`` bytes of UTF-8, never half a character."""
    return text.encode()[:size].decode(errors="ignore")
