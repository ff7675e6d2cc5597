"""A PostgreSQL source that encrypts: libpq reads what it sends, never jobber past it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import Cancelled, QueryFailed
from jobber.sources import open_source
from jobber.sources.base import Shape, Source
from jobber.sources.postgresql.wire import CHUNK_BYTES, CopyOut
from tests.certificates import self_signed
from tests.servers import Postgres
from tests.sources.reading import BOTH, query, read

#: Rows of all lengths: in bytes like the end of a row, longer than a record of TLS (16 KB), and than a chunk.
LARGE = """
SELECT n, repeat(chr(97 + n % 26), n * 37 % 400) AS text, n % 7 = 0 AS flag, now() + n * interval '1 s' - now() AS span,
  CASE WHEN n % 10000 = 0 THEN repeat('x', 300000 + n) WHEN n % 11 = 0 THEN E'\\\\ \\t \\n d' END AS odd
FROM generate_series(1, 40000) n ORDER BY n
"""
#: Bytes of its rows, at least.
LARGE_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def encrypting() -> Iterator[Postgres]:
    """A PostgreSQL server that takes TLS, with a certificate of its own making."""
    server = Postgres("ssl=on")
    try:
        for name, content in zip(("server.crt", "server.key"), self_signed(), strict=True):
            file = server.folder / "data" / name
            file.write_bytes(content)
            file.chmod(0o600)
            shutil.chown(file, server.user or os.geteuid())
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def past_libpq(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked for past libpq, as it comes."""
    asked: list[str] = []
    start, send_ahead = CopyOut.start, CopyOut.send_ahead

    def noted_start(self: CopyOut, text: str, after: str) -> None:
        asked.append(text)
        start(self, text, after)

    def noted_ahead(self: CopyOut, before: str, statement: str, text: str, after: str) -> None:
        asked.append(text)
        send_ahead(self, before, statement, text, after)

    monkeypatch.setattr(CopyOut, "start", noted_start)
    monkeypatch.setattr(CopyOut, "send_ahead", noted_ahead)
    return asked


def opened(server: Postgres, mode: str) -> Source:
    url = f"{server.url('postgres')}?sslmode={mode}"
    return open_source(DatabaseSettings(name="x", url=url, engine="postgresql", pool_size=1))


def text_of(source: Source, sql: str) -> tuple[bytes, int, int]:
    """Return the COPY text of a result, its rows, and the number of chunks that it came in."""
    with source.read(query(source, sql), BOTH, timeout=0, cancellation=Cancellation()) as stream:
        assert stream.shape is Shape.ENCODED
        chunks = list(stream.chunks())
    return b"".join(chunk.data for chunk in chunks), sum(chunk.rows for chunk in chunks), len(chunks)


def test_a_large_result_is_the_same_over_tls_and_comes_through_libpq(
    encrypting: Postgres, past_libpq: list[str]
) -> None:
    plain, encrypted = opened(encrypting, "disable"), opened(encrypting, "require")
    uses = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert [read(source, uses).rows for source in (plain, encrypted)] == [[(False,)], [(True,)]]
    expected, rows, _ = text_of(plain, LARGE)
    assert rows == 40_000
    assert len(expected) > LARGE_BYTES
    assert len(past_libpq) == 1
    for _ in range(2):  # a statement that is known goes another way where it may
        found, rows, chunks = text_of(encrypted, LARGE)
        assert rows == 40_000
        assert found == expected
        assert chunks <= len(expected) // CHUNK_BYTES + 1
    assert len(past_libpq) == 1
    assert text_of(plain, LARGE)[0] == expected
    assert len(past_libpq) == 2
    plain.close()
    encrypted.close()


def test_an_encrypted_session_serves_on_after_failures_and_can_be_cancelled(
    encrypting: Postgres, past_libpq: list[str]
) -> None:
    source = opened(encrypting, "require")
    pid = "SELECT pg_backend_pid()"
    before = read(source, pid, accepts=BOTH).rows
    with pytest.raises(QueryFailed, match="division by zero"):
        read(source, "SELECT 1 / (5000 - n), repeat('x', 1000) FROM generate_series(1, 9000) n", accepts=BOTH)
    assert read(source, "SHOW TimeZone", accepts=BOTH).rows == [("UTC",)]  # which COPY does not take
    assert read(source, pid, accepts=BOTH).rows == before
    token = Cancellation()
    timer = threading.Timer(0.2, token.pull, [Cancelled("enough")])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled, match="enough"):
        read(source, "SELECT pg_sleep(30)", accepts=BOTH, cancellation=token)
    timer.join()
    assert time.monotonic() - began < 15
    assert read(source, "SELECT 1", accepts=BOTH).rows == [(1,)]
    assert not past_libpq
    source.close()
