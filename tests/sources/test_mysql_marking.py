"""Rows marked in place become the same COPY text, or the same error, as rows cut into their fields."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql import err

from jobber.columns import Column, Kind
from jobber.errors import ValueNotRepresentable
from jobber.mysql import Connection
from jobber.sources.base import Chunk, Source
from jobber.sources.mysql import source
from jobber.sources.mysql.marking import MarkedRows, Marking
from jobber.sources.mysql.packets import RowFields, RowPackets
from jobber.sources.mysql.rowforms import text_row
from jobber.sources.mysql.types import Field
from jobber.sources.mysql.values import Values
from tests.sources.reading import BOTH, read
from tests.sources.test_mysql_packets import END, Value, Wire, packet, sent

KINDS = (Kind.TEXT, Kind.JSON, Kind.INTEGER, Kind.DATE, Kind.TIMESTAMP)
SMALL = [
    b"\\",
    b"\\N",
    b"\t",
    b"\n",
    b"\r",
    b"\xfb",
    b"\xfc",
    b"\xfd",
    b"\xfe",
    b"\xff",
    "ž".encode(),
    b"\xc5",
    b"\xbe",
]
TEXTS = st.none() | st.lists(st.sampled_from([*SMALL, b"", b"x" * 240, b"x" * 300]), max_size=4).map(b"".join)
PLAIN = st.sampled_from([b"", b"x", "žluť".encode(), b"x" * 250, b"x" * 251, b"x" * 900, b"\\N", b"a\tb\nc\rd\\"])
REAL = st.dates().map(lambda day: str(day).encode())
DAYS = REAL | st.sampled_from(
    [b"0000-00-00", b"2024-00-10", b"2024-02-29", b"2023-02-29", b"0000-05-05", b"2024-04-31"]
)


def field(kind: Kind) -> Field:
    return Field(Column("c", kind), None, fraction=False, free=kind in {Kind.TEXT, Kind.JSON})


def values_of(kind: Kind, *, sound: bool) -> st.SearchStrategy[Value]:
    match kind:
        case Kind.INTEGER:
            return st.none() | st.integers().map(lambda number: str(number).encode())
        case Kind.DATE | Kind.TIMESTAMP:
            days = st.sampled_from([b"2024-02-29", b"2024-12-31"]) if sound else DAYS
            return st.none() | (days if kind is Kind.DATE else days.map(lambda day: day + b" 10:00:00"))
        case _:
            return st.none() | PLAIN if sound else TEXTS


@st.composite
def tables(draw: st.DrawFn, *, sound: bool = False) -> tuple[list[Kind], list[list[Value]]]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    row = st.tuples(*(values_of(kind, sound=sound) for kind in kinds)).map(list)
    return kinds, draw(st.lists(row, max_size=12))


def marked(wire: Wire, values: Values, most: int) -> Iterator[Chunk]:
    packets, marking = RowPackets(cast(Connection, wire)), Marking(values)
    while packets.read(rows := MarkedRows(marking), most):
        yield rows.chunk()


def cut(wire: Wire, values: Values, most: int) -> Iterator[Chunk]:
    packets, width = RowPackets(cast(Connection, wire)), len(values.columns)
    while packets.read(rows := RowFields(text_row(width)), most):
        yield values.encoded(rows.fields)


def outcome(chunks: Iterator[Chunk]) -> tuple[bytes, int] | str:
    try:
        found = list(chunks)
    except ValueNotRepresentable as error:
        return str(error)
    return b"".join(chunk.data for chunk in found), sum(chunk.rows for chunk in found)


@settings(deadline=None, max_examples=300)
@given(tables(), st.lists(st.integers(1, 400)), st.sampled_from([1, 100, 100_000]), st.sampled_from(["null", "fail"]))
def test_marked_rows_are_those_that_are_cut_or_fail_alike(
    table: tuple[list[Kind], list[list[Value]]], sizes: list[int], most: int, zero_dates: str
) -> None:
    kinds, rows = table
    values = Values([field(kind) for kind in kinds], zero_dates)
    # Where several values are wrong, the two may name different ones.
    one, other = (outcome(way(Wire(sent(rows), sizes), values, most)) for way in (marked, cut))
    assert one == other or (isinstance(one, str) and isinstance(other, str))


@settings(deadline=None)
@given(tables(sound=True), st.lists(st.integers(1, 400)))
def test_values_that_are_text_are_never_cut(table: tuple[list[Kind], list[list[Value]]], sizes: list[int]) -> None:
    kinds, rows = table

    class Marked(Values):
        def encoded(self, _: object) -> Chunk:
            raise AssertionError("rows were cut")

    text, count = cast(
        "tuple[bytes, int]", outcome(marked(Wire(sent(rows), sizes), Marked([*map(field, kinds)], "fail"), 500))
    )
    assert count == text.count(b"\n") == len(rows)


def test_a_row_longer_than_a_packet_comes_in_its_turn() -> None:
    long = b"x\ty" * 6_000_000
    payload = b"\xfe" + struct.pack("<Q", len(long)) + long
    part = 0xFFFFFF
    data = packet(b"\6before") + packet(payload[:part]) + packet(payload[part:]) + sent([[b"behind"]])
    values = Values([field(Kind.TEXT)], "fail")
    chunks = list(marked(Wire(data, []), values, 256 * 1024))
    assert [chunk.rows for chunk in chunks] == [1, 1, 1]
    assert b"".join(chunk.data for chunk in chunks) == b"before\n" + long.replace(b"\t", b"\\t") + b"\nbehind\n"


@pytest.mark.parametrize("length", [b"\xfc\x05", b"\xfd\x01\0", b"\xfe\0\0\0\0\0\0\0", b"\xff", b"\x09"])
def test_a_length_that_leads_out_of_the_row_is_an_error(length: bytes) -> None:
    data = packet(b"\1a" + length) + packet(END)
    values = Values([field(Kind.TEXT), field(Kind.DATE)], "null")
    with pytest.raises(err.OperationalError, match="cannot be read"):
        list(marked(Wire(data, []), values, 1000))


def test_a_length_of_three_bytes_is_left_out() -> None:
    long = "ž".encode() * 40_000
    data = packet(b"\xfb\xfd" + struct.pack("<I", len(long))[:3] + long) + packet(END)
    values = Values([field(Kind.TEXT), field(Kind.TEXT)], "fail")
    assert [*marked(Wire(data, []), values, 1000)] == [Chunk(b"\\N\t" + long + b"\n", 1)]


def test_an_answer_that_is_text_is_marked_and_another_is_cut(maria: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = []

    class Noted(Marking):
        def __init__(self, values: Values) -> None:
            super().__init__(values)
            marked.append(values)

    monkeypatch.setattr(source, "Marking", Noted)
    plain = "SELECT 1 AS a, 'x\\ty' AS b, DATE '2024-02-29' AS c UNION ALL SELECT NULL, 'ž', NULL"
    assert read(maria, plain, accepts=BOTH).rows == [(1, "x\ty", "2024-02-29"), (None, "ž", None)]
    assert len(marked) == 1
    for other in ("SELECT x'00' AS a", "SELECT PI() AS a"):  # bytes, and the binary protocol
        assert len(read(maria, other, accepts=BOTH).rows) == 1
    assert len(marked) == 1
