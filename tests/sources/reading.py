"""How the tests read from a source: whole results, in either shape."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.jobs import Args
from jobber.sources.base import Query, RowStream, SchemaChanged, Shape, Source
from jobber.sqltext import parse

DECODED = frozenset({Shape.DECODED})
BOTH = frozenset(Shape)

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Result:
    columns: Sequence[Column]
    rows: list[Row]
    shape: Shape

    @property
    def kinds(self) -> list[Kind]:
        return [column.kind for column in self.columns]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


def query(source: Source, sql: str, args: Args | None = None, label: str = "") -> Query:
    return Query(parse(sql, source.engine), [] if args is None else args, label)


def read(
    source: Source,
    sql: str,
    args: Args | None = None,
    *,
    accepts: frozenset[Shape] = DECODED,
    timeout: float = 0,
    cancellation: Cancellation | None = None,
    label: str = "",
) -> Result:
    """Return all rows, read again as execution does when the columns turn out too narrow."""
    columns: Sequence[Column] | None = None
    for _ in range(10):
        try:
            with source.read(
                query(source, sql, args, label),
                accepts,
                timeout=timeout,
                cancellation=cancellation or Cancellation(),
                columns=columns,
            ) as stream:
                if stream.shape is Shape.ENCODED:
                    rows = []
                    for chunk in stream.chunks():
                        decoded = list(decode_copy(chunk.data, stream.columns))
                        assert len(decoded) == chunk.rows
                        rows += decoded
                else:
                    rows = [row for batch in stream.batches() for row in batch]
                return Result(list(stream.columns), rows, stream.shape)
        except SchemaChanged as changed:
            if columns == changed.columns:
                raise AssertionError("the schema changed into itself") from changed
            columns = changed.columns
    raise AssertionError("the schema never settled")


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def decode_copy(data: bytes, columns: Sequence[Column]) -> Iterator[Row]:
    """Read COPY text by the manual's rules, written apart from the product (sql-copy.html, "Text Format")."""
    text = data.decode()
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        fields = line.split("\t")
        assert len(fields) == len(columns)
        yield tuple(_field(field, column.kind) for field, column in zip(fields, columns, strict=True))


def _field(field: str, kind: Kind) -> Value:
    if field == r"\N":
        return None
    text = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), field, flags=re.DOTALL)
    if kind is Kind.INTEGER:
        return int(text)
    if kind is Kind.FLOAT:
        return float(text)
    if kind is Kind.BOOLEAN:
        return {"t": True, "f": False}[text]
    if kind is Kind.TIMESTAMP:
        # PostgreSQL's TIMESTAMP ignores an offset in its input (it is always that of UTC) and zeros at the end.
        return re.sub(r"\.?0+$", "", text.replace("+00", "")) if "." in text else text.replace("+00", "")
    return text


def consume(
    source: Source,
    sql: str,
    accepts: frozenset[Shape],
    cancellation: Cancellation,
    timeout: float = 0,
    *,
    label: str = "",
) -> int:
    return drain(source.read(query(source, sql, label=label), accepts, timeout=timeout, cancellation=cancellation))


def parts_of(stream: RowStream) -> Iterator[int]:
    """Count the rows of each chunk or batch."""
    if stream.shape is Shape.ENCODED:
        yield from (chunk.rows for chunk in stream.chunks())
    else:
        yield from (len(batch) for batch in stream.batches())


def drain(reading: AbstractContextManager[RowStream]) -> int:
    with reading as stream:
        return sum(parts_of(stream))
