"""COPY read past libpq: the same rows however the bytes come, and the general way where TLS lies in between."""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Kind
from jobber.config import DatabaseSettings
from jobber.errors import Cancelled, QueryFailed, TimedOut
from jobber.jobs import Scalar
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sources.postgresql import source as module
from jobber.sources.postgresql.failures import ServerError
from jobber.sources.postgresql.wire import CopyOut
from tests.blackhole import Proxy
from tests.servers import Postgres
from tests.sources.reading import BOTH, read

#: Rows whose lengths have bytes that look like the end of a row, or like the beginning of another.
TRICKY = [b"\n", b"d\n", b"a\td\n", *(b"x" * (length - 5) + b"\n" for length in (0x0A, 0x640A, 0x6400, 0x0A6400))]


def message(kind: bytes, body: bytes) -> bytes:
    return struct.pack("!cI", kind, len(body) + 4) + body


BEGUN = message(b"1", b"") + message(b"2", b"") + message(b"H", b"\0\0\0")


def ended(rows: int) -> bytes:
    """Return what the server says at the end of a COPY."""
    return message(b"c", b"") + message(b"C", b"COPY %d\0" % rows) + message(b"Z", b"T")


ENDED = ended(20)
ROLLED_BACK = message(b"C", b"ROLLBACK\0") + message(b"Z", b"I")
NOTICE = message(b"N", b"SINFO\0Mfound d\0\0")


def spoken(data: bytes, piece: int) -> tuple[CopyOut, socket.socket, list[bytes]]:
    """Return a COPY whose server says ``data``, so many bytes at a time, and the notices that came."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    said: list[bytes] = []

    def speak() -> None:
        with theirs, suppress(OSError):
            for at in range(0, len(data), piece):
                theirs.sendall(data[at : at + piece])
            theirs.shutdown(socket.SHUT_WR)
            theirs.recv(2**16)

    threading.Thread(target=speak, daemon=True).start()

    def wait(events: int) -> int:
        poll = select.poll()
        poll.register(ours, events)
        return poll.poll(5000)[0][1]

    def notice(fields: Callable[[int], bytes | None]) -> None:
        said.append(fields(ord("M")) or b"")

    copy = CopyOut(ours.fileno(), wait, notice)
    copy.start("COPY", "ROLLBACK")
    return copy, ours, said


@pytest.mark.parametrize("length", [0x01640041, 0x01416400, 0x02640000, 0x0164000A])
def test_the_length_of_a_large_row_is_not_taken_for_the_beginning_of_another(length: int) -> None:
    rows = [b"x\ty\n", b"S" * (length - 5) + b"\n", b"after\n"]
    data = BEGUN + b"".join(message(b"d", row) for row in rows) + ended(3) + ROLLED_BACK
    copy, ours, _ = spoken(data, 2**20)
    with ours:
        found = list(iter(copy.chunk, (b"", 0)))
    assert b"".join(data for data, _ in found) == b"".join(rows)
    assert (sum(count for _, count in found), copy.end()) == (3, 3)


@pytest.mark.parametrize(
    ("ending", "clean"),
    [
        (ROLLED_BACK, True),
        (message(b"Z", b"E"), False),  # it is still in the transaction
        (message(b"E", b"SERROR\0C57014\0Mcanceled\0\0") + message(b"Z", b"I"), False),  # locks may be left
        (ROLLED_BACK + message(b"A", b"\0\0\0\1n\0x\0")[:7], False),  # libpq would read on in the middle
    ],
)
def test_a_connection_is_lent_again_only_as_it_was_before(ending: bytes, clean: bool) -> None:
    copy, ours, _ = spoken(BEGUN + message(b"d", b"row\n") + ended(1) + ending, 2**20)
    with ours:
        assert copy.chunk() == (b"row\n", 1)
        copy.drain(lambda: None)
    assert copy.end() == 1  # the rows came whole
    assert copy.is_clean is clean


@pytest.mark.parametrize("piece", [1009, 4096, 2**20])
@pytest.mark.parametrize("noticed", [False, True])
def test_rows_are_the_same_however_their_bytes_come(piece: int, noticed: bool) -> None:
    between = NOTICE if noticed else b""
    rows = (TRICKY * 3)[:20]
    data = BEGUN + b"".join(between + message(b"d", row) for row in rows) + ENDED + ROLLED_BACK
    copy, ours, said = spoken(data, piece)
    with ours:
        found, count = b"", 0
        while (chunk := copy.chunk())[1]:
            found, count = found + chunk[0], count + chunk[1]
        assert (found, count, copy.end(), copy.over) == (b"".join(rows), len(rows), len(rows), True)
        assert said == [b"found d"] * (len(rows) if noticed else 0)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_no_byte_is_a_place_where_they_cannot_break(piece: int) -> None:
    rows = TRICKY[:4] * 5
    data = BEGUN + b"".join(message(b"d", row) for row in rows) + ENDED + ROLLED_BACK
    copy, ours, _ = spoken(data, piece)
    with ours:
        assert copy.chunk() == (b"".join(rows), len(rows))


def test_an_error_between_rows_is_told_after_them_and_a_lost_connection_too() -> None:
    broken = BEGUN + message(b"d", b"1\n") + message(b"E", b"SERROR\0C22012\0Mdivision by zero\0\0")
    for data, over in ((broken + b"Z\0\0\0\x05E" + ROLLED_BACK, True), (broken, False)):
        copy, ours, _ = spoken(data, 5)
        with ours:
            with pytest.raises(ServerError, match="division by zero"):
                copy.chunk()
                copy.end()
            assert copy.over is over


@pytest.fixture(params=["plain", "encrypted"])
def either(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, database: str
) -> Iterator[Source]:
    """A source that may read past libpq, and one that may not."""
    if request.param == "encrypted":
        monkeypatch.setattr(module, "_is_plain", lambda _: False)
    source = open_source(DatabaseSettings(name="x", url=postgres.url(database), engine="postgresql", pool_size=1))
    yield source
    source.close()


@pytest.mark.parametrize("length", [0, 0x0A6400 - 7, 17 * 2**20])
def test_rows_of_any_length_arrive_either_way(either: Source, length: int) -> None:
    found = read(either, "SELECT n, repeat('x', $1) FROM generate_series(1, 3) n", [length], accepts=BOTH)
    assert found.shape is Shape.ENCODED
    assert found.rows == [(n, "x" * length) for n in (1, 2, 3)]


def test_what_a_query_says_and_how_it_fails_is_told_either_way(
    either: Source, postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres.execute(
        "CREATE OR REPLACE FUNCTION talk(n int) RETURNS int LANGUAGE plpgsql STABLE AS "
        "$$ BEGIN RAISE NOTICE 'at %', n; RETURN 6 / (3 - n); END $$",
        database,
    )
    with caplog.at_level(logging.INFO):
        with pytest.raises(QueryFailed, match="division by zero"):
            read(either, "SELECT talk(n) FROM (SELECT generate_series(1, 4) AS n) q", accepts=BOTH)
        assert read(either, "SELECT talk(2)", accepts=BOTH).rows == [(6,)]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("jobber")]
    assert said == [f"database x: NOTICE: at {n}" for n in (1, 2, 3, 2)]


def test_a_statement_that_copy_refuses_is_read_either_way_on_the_same_connection(
    either: Source, caplog: pytest.LogCaptureFixture
) -> None:
    (before,), *_ = read(either, "SELECT pg_backend_pid()", accepts=BOTH).rows
    with caplog.at_level(logging.INFO):
        assert read(either, "SHOW TimeZone", accepts=BOTH).rows == [("UTC",)]
        assert read(either, "SHOW transaction_read_only", accepts=BOTH).rows == [("on",)]
    assert read(either, "SELECT pg_backend_pid()", accepts=BOTH).rows == [(before,)]
    assert not caplog.records


def test_a_statement_that_is_known_takes_one_round_trip(postgres: Postgres, database: str) -> None:
    with Proxy(postgres.port) as way:
        url = postgres.url(database).replace(f":{postgres.port}/", f":{way.port}/")
        source = open_source(DatabaseSettings(name="x", url=url, engine="postgresql", pool_size=1))
        read(source, "SELECT 1", accepts=BOTH)
        cases: list[tuple[str, list[Scalar], int]] = [
            ("SELECT $1::int", [1], TRIPS + 1),  # the first time a type is met, its name is asked for
            ("SELECT $1::int", [2], 1),
            ("SELECT $1::int + 1", [2], TRIPS),
            ("SELECT $1::int", [None], 1),
        ]
        for sql, args, trips in cases:
            before = way.round_trips
            read(source, sql, args, accepts=BOTH)
            assert way.round_trips - before <= trips
        source.close()


#: To begin, to prepare, to describe, and to copy with the end of the transaction.
TRIPS = 4


def test_a_known_statement_whose_columns_change_is_described_anew(
    either: Source, postgres: Postgres, database: str
) -> None:
    postgres.execute("DROP TABLE IF EXISTS moving; CREATE TABLE moving AS SELECT 1 AS n, 'x' AS t", database)
    sql = "SELECT * FROM moving WHERE n = $1"
    for change, arg, kinds, rows, name, scale in (
        ("SELECT", 1, [Kind.INTEGER, Kind.TEXT], [(1, "x")], "t", None),
        ("ALTER TABLE moving ALTER n TYPE numeric(9,2)", 1, [Kind.NUMERIC, Kind.TEXT], [("1.00", "x")], "t", 2),
        ("ALTER TABLE moving ALTER n TYPE numeric(9,3)", 1, [Kind.NUMERIC, Kind.TEXT], [("1.000", "x")], "t", 3),
        ("ALTER TABLE moving RENAME t TO u", 1, [Kind.NUMERIC, Kind.TEXT], [("1.000", "x")], "u", 3),
        ("ALTER TABLE moving ADD v bool", 1, [Kind.NUMERIC, Kind.TEXT, Kind.BOOLEAN], [("1.000", "x", None)], "u", 3),
        (
            "ALTER TABLE moving ALTER n TYPE text",
            "1.000",
            [Kind.TEXT, Kind.TEXT, Kind.BOOLEAN],
            [("1.000", "x", None)],
            "u",
            None,
        ),
    ):
        postgres.execute(change, database)
        for _ in range(2):
            found = read(either, sql, [arg], accepts=BOTH)
            assert (found.shape, found.kinds, found.rows) == (Shape.ENCODED, kinds, rows)
        assert found.names[1] == name
        assert found.columns[0].scale == scale
    postgres.execute("DROP TABLE moving", database)
    with pytest.raises(QueryFailed, match=r'"moving" does not exist \(line 1'):
        read(either, sql, ["1"], accepts=BOTH)


def test_a_known_statement_fails_like_others_and_leaves_its_connection_usable(either: Source) -> None:
    sql = "SELECT 1 / $1::int, pg_backend_pid()"
    (_, before), *_ = read(either, sql, [1], accepts=BOTH).rows
    with pytest.raises(QueryFailed, match="division by zero"):
        read(either, sql, [0], accepts=BOTH)
    with pytest.raises(QueryFailed, match="invalid input syntax"):
        read(either, sql, ["x"], accepts=BOTH)
    with pytest.raises(TimedOut):
        slow = "SELECT pg_sleep($1::float)::text, current_setting('transaction_read_only')"
        assert read(either, slow, [0], accepts=BOTH).rows == [("", "on")]
        assert read(either, slow, [0], accepts=BOTH).rows == [("", "on")]
        read(either, slow, [20], accepts=BOTH, timeout=0.1)
    assert read(either, sql, [1], accepts=BOTH).rows == [(1, before)]


def test_a_known_statement_is_read_on_a_fresh_connection_when_the_old_one_is_gone(
    either: Source, postgres: Postgres, database: str
) -> None:
    sql = "SELECT pg_backend_pid()"
    (pid,), *_ = read(either, sql, accepts=BOTH).rows
    assert read(either, sql, accepts=BOTH).rows == [(pid,)]
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)", database)
    assert read(either, sql, accepts=BOTH).rows != [(pid,)]


def test_a_known_statement_is_cancelled_like_others(either: Source) -> None:
    sql = "SELECT pg_sleep($1::float)"
    read(either, sql, [0], accepts=BOTH)
    token = Cancellation()
    timer = threading.Timer(0.2, token.pull, [Cancelled("enough")])
    timer.start()
    with pytest.raises(Cancelled, match="enough"):
        read(either, sql, [20], accepts=BOTH, cancellation=token)
    timer.join()
    assert read(either, sql, [0], accepts=BOTH).rows == [("",)]
