"""The pool of connections of a results server: who waits for one, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy.engine import make_url

from jobber.cancellation import Cancellation
from jobber.errors import Cancelled, ResultsUnavailable
from jobber.results.mysql import MysqlResults
from jobber.results.postgresql import PostgresResults
from tests.blackhole import Proxy
from tests.results.conftest import COLUMNS, ONE, MysqlLab, PostgresLab, read, target, write

Backend = PostgresResults | MysqlResults


@pytest.fixture(params=["pg", "my"])
def narrow(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend with one connection, for which nobody waits for long."""
    lab: PostgresLab | MysqlLab = request.getfixturevalue(request.param)
    kind = PostgresResults if isinstance(lab, PostgresLab) else MysqlResults
    backend = kind(replace(lab.settings, pool_size=1, connect_timeout=0.5))
    backend.prepare()
    yield backend
    backend.close()


def test_a_pool_that_is_used_up_says_so(narrow: Backend) -> None:
    with narrow.connections.connection(), pytest.raises(ResultsUnavailable, match="raise its pool_size"):
        narrow.expire()
    with narrow.connections.connection():
        narrow.ping()  # the server is well
    assert narrow.expire() == []


def test_an_attempt_waits_for_a_connection_until_somebody_cancels_it(narrow: Backend) -> None:
    token = Cancellation()
    with ThreadPoolExecutor(2) as pool:
        with narrow.connections.connection():
            waiting, cancelled = pool.submit(write, narrow, target(), ONE), pool.submit(begin, narrow, token)
            time.sleep(1)  # longer than others wait
            token.pull(Cancelled("no"))
            with pytest.raises(Cancelled):
                cancelled.result(2)
            assert not waiting.done()
        waiting.result(20)
    assert read(narrow) == ONE


@pytest.mark.parametrize("lab", ["pg", "my"])
def test_a_cancel_is_heard_though_the_server_takes_connections_and_says_nothing(
    request: pytest.FixtureRequest, lab: str
) -> None:
    settings = request.getfixturevalue(lab).settings
    with Proxy(make_url(settings.url).port or 0) as proxy:
        far = make_url(settings.url).set(port=proxy.port).render_as_string(hide_password=False)
        kind = PostgresResults if lab == "pg" else MysqlResults
        backend = kind(replace(settings, url=far, connect_timeout=20))
        backend.prepare()
        proxy.swallow()
        proxy.drop()
        token = Cancellation()
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(begin, backend, token)
            time.sleep(0.3)
            token.pull(Cancelled("no"))
            with pytest.raises(Cancelled):
                connecting.result(5)
        backend.close()


def begin(backend: Backend, token: Cancellation) -> None:
    with backend.begin(target("results_b", job_id="b"), COLUMNS, token):
        raise AssertionError("there was no connection")
