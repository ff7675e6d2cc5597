"""ClickHouse's sessions: read-only, whole results, and a query that is gone whatever ended it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_driver import Client

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings, urls
from jobber.errors import Cancelled, QueryFailed, SourceUnavailable, TimedOut
from jobber.sources import open_source
from jobber.sources.base import Source
from jobber.sources.clickhouse.session import Session
from tests.certificates import self_signed
from tests.clickhouse_server import ClickHouse
from tests.servers import wait_until
from tests.sources.engines import ClickhouseEngine
from tests.sources.reading import DECODED, consume, parts_of, query, read

ENDLESS = "SELECT count() FROM system.numbers"


def opened(url: str, **options: object) -> Source:
    return open_source(DatabaseSettings(name="reports", url=url, engine="clickhouse", **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["default", "fixed", "reading"])
def user(request: pytest.FixtureRequest) -> str:
    """One who may do anything, one whose profile says readonly = 1, and one with 2."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def source(clickhouse: ClickHouse, user: str) -> Iterator[Source]:
    source = opened(clickhouse.url(user=user, password="" if user == "default" else "sesame"), pool_size=2)
    yield source
    source.close()


@pytest.fixture
def running(clickhouse: ClickHouse) -> Callable[[str], object]:
    return ClickhouseEngine(clickhouse, "default").running


def test_nobody_can_write(source: Source, clickhouse: ClickHouse) -> None:
    for sql in (
        "CREATE TABLE default.t (a Int8) ENGINE = Memory",
        "INSERT INTO system.one SELECT 1",
        "SET readonly = 0",
        "KILL QUERY WHERE 1 ASYNC",
    ):
        with pytest.raises(QueryFailed, match="returns no columns; a task must read"):
            read(source, sql)
    assert clickhouse.execute("EXISTS TABLE default.t") == [(0,)]


def test_the_server_itself_refuses_to_write(clickhouse: ClickHouse, user: str) -> None:
    options = {"user": user, "password": "" if user == "default" else "sesame"}
    session = Session(Client("127.0.0.1", clickhouse.port, **options), "reports", Client)
    for sql in ("CREATE TABLE default.t (a Int8) ENGINE = Memory", "SET readonly = 0"):
        with pytest.raises(QueryFailed, match="readonly"), session.guard(Cancellation()):
            session.rows(sql)
    session.end()


def test_a_cancel_and_a_time_limit_work_for_everybody(source: Source, running: Callable[[str], object]) -> None:
    cancellation = Cancellation()
    threading.Timer(0.2, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        consume(source, ENDLESS, DECODED, cancellation, label="cancelled")
    with pytest.raises(TimedOut, match=r"longer than its time limit \(0\.2 s\)"):
        consume(source, ENDLESS, DECODED, Cancellation(), 0.2, label="limited")
    assert time.monotonic() - began < 3
    wait_until(lambda: not running("cancelled") and not running("limited"), timeout=2)
    assert read(source, "SELECT 1").rows == [(1,)]


def test_where_the_protocols_cancel_is_not_heard_the_query_is_killed(
    clickhouse: ClickHouse, running: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clickhouse_driver.connection.Connection.send_cancel", lambda _: None)
    source = opened(clickhouse.url())
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        consume(source, ENDLESS, DECODED, cancellation, label="deaf")
    assert time.monotonic() - began < 2
    wait_until(lambda: not running("deaf"), timeout=2)
    with source.read(
        query(source, "SELECT number FROM system.numbers", label="left"),
        DECODED,
        timeout=0,
        cancellation=Cancellation(),
    ) as stream:
        next(parts_of(stream))
    wait_until(lambda: not running("left"), timeout=2)
    source.close()


def test_an_administrators_kill_is_no_timeout_and_not_retried(clickhouse: ClickHouse) -> None:
    source = opened(clickhouse.url())
    threading.Timer(0.3, clickhouse.execute, ["KILL QUERY WHERE query LIKE '/* killed%' ASYNC"]).start()
    with pytest.raises(QueryFailed, match="cancelled") as failed:
        consume(source, ENDLESS, DECODED, Cancellation(), timeout=30, label="killed")
    assert not failed.value.retryable
    source.close()


def test_a_profile_that_ends_results_early_fails_them_instead(clickhouse: ClickHouse) -> None:
    source = opened(clickhouse.url(user="partial", password="sesame"))
    with pytest.raises(QueryFailed, match=r"(?i)limit for result"):
        read(source, "SELECT number FROM numbers(100000)")
    source.close()


def test_a_setting_of_the_address_is_the_sessions(clickhouse: ClickHouse) -> None:
    url = urls.database(f"clickhouse://127.0.0.1:{clickhouse.port}/default?max_threads=3&read_timeout=5")
    source = opened(url.render_as_string(hide_password=False))
    assert read(source, "SELECT value FROM system.settings WHERE name = 'max_threads'").rows == [("3",)]
    source.close()


def test_a_wrong_password_is_told_without_it(clickhouse: ClickHouse) -> None:
    source = opened(clickhouse.url(user="fixed", password="open-barley"))
    with pytest.raises(SourceUnavailable, match=r"the database reports is not available: .*[pP]assword") as failed:
        read(source, "SELECT 1")
    assert "barley" not in failed.value.message
    source.close()


def test_a_server_that_dies_in_the_stream_and_comes_back() -> None:
    server = ClickHouse()
    try:
        server.start()
        source = opened(server.url())
        sql = "SELECT number FROM system.numbers"
        with source.read(query(source, sql), DECODED, timeout=0, cancellation=Cancellation()) as stream:
            parts = parts_of(stream)
            next(parts)
            server.stop(kill=True)
            with pytest.raises(SourceUnavailable) as failed:
                sum(parts)
            assert failed.value.retryable
        with pytest.raises(SourceUnavailable, match="refused"):
            read(source, "SELECT 1")
        server.start()
        assert read(source, "SELECT 1").rows == [(1,)]
        # An idle connection that the server closed meanwhile is replaced.
        server.stop(kill=True)
        server.start()
        assert read(source, "SELECT 1").rows == [(1,)]
        source.close()
    finally:
        server.remove()


def test_over_tls_the_certificate_is_checked_and_a_query_is_cancelled(tmp_path: Path) -> None:
    certificate = self_signed()
    (tmp_path / "ca.pem").write_bytes(certificate[0])
    server = ClickHouse(certificate)
    try:
        server.start()
        address = f"tcp://127.0.0.1:{server.tls_port}?username=default&secure=true"

        def over_tls(options: str) -> Source:
            return opened(urls.from_dsn("clickhouse", address + options).render_as_string(hide_password=False))

        with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            read(over_tls(""), "SELECT 1")
        unchecked = over_tls("&skip_verify=true")
        assert read(unchecked, "SELECT 1").rows == [(1,)]
        unchecked.close()
        source = over_tls(f"&ca_certs={tmp_path}/ca.pem")
        cancellation = Cancellation()
        threading.Timer(0.2, lambda: cancellation.pull(Cancelled("stop"))).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            consume(source, ENDLESS, DECODED, cancellation, label="over-tls")
        assert time.monotonic() - began < 2
        running = ClickhouseEngine(server, "default").running
        wait_until(lambda: not running("over-tls"), timeout=2)
        source.close()
    finally:
        server.remove()
