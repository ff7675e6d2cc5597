"""What a row's payload holds: the fields of the text protocol, or those of the binary one as text.

In the text protocol each field has its length in front
(https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html). The binary
one has forms of its own for numbers and times
(https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html); they become the text that the
text protocol would send, but with every digit of a number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from pymysql.constants import FIELD_TYPE as TYPE

from jobber.mysql import ColumnPacket
from jobber.mysql.protocol import LENGTHS, SHORT, UNSIGNED
from jobber.mysql.protocol import NULL as NULL_LENGTH
from jobber.sources.mysql.packets import NULL, CutRow, torn

_Read = Callable[[bytes, int], tuple[bytes, int]]

#: Digits of which a float32 keeps all, digits that always give it back, and where it begins to have fewer.
_KEPT, _ENOUGH, _NORMAL = 6, 9, 2.0**-126
_float = struct.Struct("<f")
#: Digits of a second that the protocol knows.
_MICROS = 6


def text_row(columns: int) -> CutRow:
    """Return what takes a row of the text protocol apart."""
    places = range(columns)

    def cut(data: bytes, at: int, end: int, take: Callable[[bytes], None]) -> int:
        nulls = 0
        for _ in places:
            length = data[at]
            at += 1
            if length > SHORT:
                if length == NULL_LENGTH:
                    take(NULL)
                    nulls += 1
                    continue
                length, at = _length(data, at - 1)
            take(data[at : (at := at + length)])
        if at != end:
            raise torn()
        return nulls

    return cut


def binary_row(definitions: Sequence[ColumnPacket]) -> CutRow:
    """Return what takes a row of the binary protocol apart."""
    # Two bits of the bitmap of NULLs are kept for something else.
    columns = [(i + 2 >> 3, 1 << (i + 2 & 7), _reader(definition)) for i, definition in enumerate(definitions)]
    head = 1 + (len(columns) + 7 + 2 >> 3)

    def cut(data: bytes, at: int, end: int, take: Callable[[bytes], None]) -> int:
        bitmap, nulls = at + 1, 0
        at += head
        for place, bit, read in columns:
            if data[bitmap + place] & bit:
                take(NULL)
                nulls += 1
            else:
                value, at = read(data, at)
                take(value)
        if at != end:
            raise torn()
        return nulls

    return cut


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return a length, and where what it is the length of begins."""
    first = data[at]
    if first <= SHORT:
        return first, at + 1
    size = LENGTHS.get(first, 0)
    if not size:
        raise torn()
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _reader(definition: ColumnPacket) -> _Read:
    code, digits = definition.type_code, definition.scale
    if form := _WHOLE.get(code):
        return _whole(form.upper() if definition.flags & UNSIGNED else form)
    if code in _TIMES:
        text = _TIMES[code]
        return lambda data, at: (text(data, at, digits), at + 1 + data[at])
    return _OTHERS.get(code, _read_string)


def _whole(code: str) -> _Read:
    form = struct.Struct(f"<{code}")
    return lambda data, at: (str(form.unpack_from(data, at)[0]).encode(), at + form.size)


def _read_float(data: bytes, at: int) -> tuple[bytes, int]:
    (value,) = _float.unpack_from(data, at)
    return shortest_float32(value).encode(), at + _float.size


def _read_double(data: bytes, at: int) -> tuple[bytes, int]:
    return repr(struct.unpack_from("<d", data, at)[0]).encode(), at + 8


def _read_string(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _length(data, at)
    return data[at : at + length], at + length


def shortest_float32(value: float) -> str:
    """Return the fewest digits that give the same float32 back.

    Parameters:
        value: a float32.
    """
    same = _float.pack(value)
    text = ""
    for digits in range(_KEPT if abs(value) >= _NORMAL else 1, _ENOUGH + 1):
        text = f"{value:.{digits}g}"
        try:
            if _float.pack(float(text)) == same:
                break
        except OverflowError:  # rounded up beyond the largest
            continue
    return text


def _date(data: bytes, at: int, _digits: int = 0) -> bytes:
    year, month, day = struct.unpack_from("<HBB", data, at + 1) if data[at] else (0, 0, 0)
    return b"%04d-%02d-%02d" % (year, month, day)


def _moment(data: bytes, at: int, digits: int) -> bytes:
    size = data[at]
    hour, minute, second = struct.unpack_from("<BBB", data, at + 5) if size > 4 else (0, 0, 0)
    micros = struct.unpack_from("<I", data, at + 8)[0] if size > 7 else 0
    return b"%b %02d:%02d:%02d%b" % (_date(data, at), hour, minute, second, _fraction(micros, digits))


def _time(data: bytes, at: int, digits: int) -> bytes:
    size = data[at]
    negative, days, hour, minute, second = struct.unpack_from("<?IBBB", data, at + 1) if size else (False, 0, 0, 0, 0)
    micros = struct.unpack_from("<I", data, at + 9)[0] if size > 8 else 0
    clock = b"%02d:%02d:%02d" % (days * 24 + hour, minute, second)
    return (b"-" if negative else b"") + clock + _fraction(micros, digits)


def _fraction(micros: int, digits: int) -> bytes:
    """Return so many digits of a fraction, and all where fewer would not hold it or nobody says how many."""
    text = b"%06d" % micros
    if digits > _MICROS or text[digits:].strip(b"0"):
        digits = _MICROS if micros else 0
    return b"." + text[:digits] if digits else b""


#: Whole numbers as ``struct`` writes them, signed.
_WHOLE = {TYPE.TINY: "b", TYPE.SHORT: "h", TYPE.YEAR: "h", TYPE.INT24: "i", TYPE.LONG: "i", TYPE.LONGLONG: "q"}
_TIMES: Mapping[int, Callable[[bytes, int, int], bytes]] = {
    TYPE.DATE: _date,
    TYPE.NEWDATE: _date,
    TYPE.DATETIME: _moment,
    TYPE.TIMESTAMP: _moment,
    TYPE.TIME: _time,
}
_OTHERS: Mapping[int, _Read] = {TYPE.FLOAT: _read_float, TYPE.DOUBLE: _read_double}
