"""A source that says nothing any more, over connections that stand: every wait has an end, on every engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from jobber.cancellation import Cancellation
from jobber.config import DatabaseSettings
from jobber.errors import Cancelled, SourceUnavailable
from jobber.sources import open_source
from jobber.sources.base import Source
from jobber.sqltext import parse
from tests.blackhole import Proxy
from tests.servers import wait_until
from tests.sources.engines import ALL, Served
from tests.sources.reading import DECODED, consume, parts_of, query, read

#: Seconds within which a cancel is heard; and the limit of connecting here, which is also that of steps that take no
#: time. What is asked over a new connection after that has it once more.
HEARD_WITHIN, CONNECT = 2.0, 2
#: Seconds that a machine may be busy with something else.
SLACK = 8.0
#: Seconds that a busy machine may add.
LOAD = 0.5

pytestmark = pytest.mark.parametrize("engine", ALL, indirect=True)


@dataclass(frozen=True)
class Far:
    """A source behind a proxy, with one pooled connection that was used already."""

    source: Source
    way: Proxy


@pytest.fixture
def far(engine: Served) -> Iterator[Far]:
    port = engine.url().rpartition(":")[2].partition("/")[0]
    with Proxy(int(port)) as way:
        url = engine.url().replace(f":{port}/", f":{way.port}/")
        options = {"name": "far", "url": url, "engine": engine.name, "connect_timeout": CONNECT, **engine.options}
        source = open_source(DatabaseSettings(**options))
        assert read(source, "SELECT 1").rows == [(1,)]
        yield Far(source, way)
        way.forward()
        assert read(source, "SELECT 1").rows == [(1,)]
        source.close()


def test_a_cancel_is_heard_while_the_query_runs(engine: Served, far: Far) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    cancellation, began = Cancellation(), list[float]()

    def cut() -> None:
        wait_until(lambda: engine.running(marker))
        far.way.swallow()
        began.append(time.monotonic())
        cancellation.pull(Cancelled("somebody cancelled the job"))

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(Cancelled):
        consume(far.source, engine.sleeping, DECODED, cancellation, label=marker)
    assert time.monotonic() - began[0] < HEARD_WITHIN + LOAD
    thread.join()


def test_a_cancel_is_heard_while_a_query_begins(engine: Served, far: Far) -> None:
    far.way.swallow()
    cancellation = Cancellation()
    timer = threading.Timer(0.2, lambda: cancellation.pull(Cancelled("stop")))
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        consume(far.source, "SELECT 1", DECODED, cancellation)
    assert time.monotonic() - began < 0.2 + HEARD_WITHIN + LOAD
    timer.join()


def test_leaving_early_does_not_wait_for_it(engine: Served, far: Far) -> None:
    sql = engine.rows(10**11, f"n, {engine.text(1000)}")
    with far.source.read(query(far.source, sql), DECODED, timeout=0, cancellation=Cancellation()) as stream:
        next(parts_of(stream))
        far.way.swallow()
        began = time.monotonic()
    assert time.monotonic() - began < HEARD_WITHIN + SLACK


def test_what_takes_a_server_no_time_is_not_waited_for_for_ever(engine: Served, far: Far) -> None:
    far.way.swallow()
    began = time.monotonic()
    with pytest.raises(SourceUnavailable):
        if engine.options.get("server_side_cursors", True):
            read(far.source, "SELECT 1")
        else:  # a pooling proxy lets transactions wait for their turn
            far.source.describe(parse("SELECT 1", engine.name))
    assert time.monotonic() - began < 2 * CONNECT + SLACK
