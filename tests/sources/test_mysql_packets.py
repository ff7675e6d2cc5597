"""Rows of MySQL's protocol are cut as they were sent, in whatever pieces they come, and never end before their end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql import err

from jobber.mysql import Connection
from jobber.sources.mysql.packets import NULL, RowFields, RowPackets
from jobber.sources.mysql.rowforms import text_row

END = b"\xfe\0\0\2\0"
MORE_RESULTS = b"\xfe\0\0\x0a\0"
ERROR = b"\xff\x25\x05#70100Query execution was interrupted"

Value = bytes | None


class Wire:
    """What a server has sent, handed out in pieces; after it the connection is gone."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = iter(sizes)

    def receive(self, most: int) -> bytes:
        size = min(next(self._sizes, most), most)
        piece, self._data = self._data[:size], self._data[size:]
        if not piece:
            raise err.OperationalError(2013, "the server ended the connection")
        return piece

    def receive_all(self, size: int) -> bytes:
        if len(self._data) < size:
            raise err.OperationalError(2013, "the server ended the connection")
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def packet(payload: bytes, number: int = 0) -> bytes:
    return struct.pack("<I", len(payload) | (number & 255) << 24) + payload


def field(value: Value) -> bytes:
    if value is None:
        return b"\xfb"
    if len(value) < 251:
        return bytes([len(value)]) + value
    return b"\xfc" + struct.pack("<H", len(value)) + value


def sent(rows: list[list[Value]], end: bytes = END) -> bytes:
    packets = [*(b"".join(map(field, row)) for row in rows), end]
    return b"".join(packet(payload, number) for number, payload in enumerate(packets))


def read(data: bytes, columns: int, sizes: list[int], most: int = 1000) -> Iterator[Value]:
    packets = RowPackets(cast(Connection, Wire(data, sizes)))
    while packets.read(rows := RowFields(text_row(columns)), most):
        fields = rows.fields
        assert fields.nulls == sum(value is NULL for value in fields.flat)
        assert len(fields.flat) % columns == 0
        yield from (None if value is NULL else value for value in fields.flat)


values = st.none() | st.binary(max_size=6) | st.sampled_from([b"\\N", b"x" * 250, b"x" * 251, b"x" * 300])
tables = st.integers(1, 4).flatmap(
    lambda width: st.tuples(st.just(width), st.lists(st.lists(values, min_size=width, max_size=width), max_size=20))
)


@settings(deadline=None)
@given(tables, st.lists(st.integers(1, 50)), st.integers(1, 2000))
def test_rows_are_the_same_in_whatever_pieces_they_come(
    table: tuple[int, list[list[Value]]], sizes: list[int], most: int
) -> None:
    width, rows = table
    assert list(read(sent(rows), width, sizes, most)) == [value for row in rows for value in row]


@settings(deadline=None)
@given(tables, st.integers(0, 2000))
def test_a_result_that_is_cut_off_is_an_error_and_never_a_short_result(
    table: tuple[int, list[list[Value]]], kept: int
) -> None:
    width, rows = table
    data = sent(rows)
    with pytest.raises(err.OperationalError, match="ended the connection"):
        list(read(data[: min(kept, len(data) - 1)], width, []))


@settings(deadline=None)
@given(tables, st.lists(st.integers(1, 50)))
def test_a_result_that_ends_in_an_error_raises_it(table: tuple[int, list[list[Value]]], sizes: list[int]) -> None:
    width, rows = table
    with pytest.raises(err.Error, match="interrupted"):
        list(read(sent(rows, ERROR), width, sizes))


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 4))
def test_bytes_that_are_no_rows_are_an_error(data: bytes, columns: int) -> None:
    packets = RowPackets(cast(Connection, Wire(data, [])))
    try:
        while packets.read(RowFields(text_row(columns)), 1000):
            pass
    except err.Error:
        return
    assert packets.ended


@pytest.mark.parametrize(
    "data",
    [
        sent([], MORE_RESULTS),
        sent([]) + packet(b"\1a"),
        sent([[b"a", b"b"]]),
        packet(b"") + sent([]),
        packet(b"\xfd\xff") + packet(END),
        packet(b"\x09a") + packet(END),
    ],
    ids=["a second result", "more behind the end", "a field too many", "an empty row", "half a length", "half a field"],
)
def test_what_does_not_fit_the_protocol_ends_the_query(data: bytes) -> None:
    with pytest.raises(err.OperationalError, match=r"cannot be read|ended the connection"):
        list(read(data, 1, []))
