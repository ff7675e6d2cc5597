"""What ``ping`` promises on every engine: it tells whether a database answers, soon, and writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobber.errors import ResultsUnavailable
from jobber.results import open_results
from jobber.results.base import ResultsBackend
from tests.blackhole import Proxy
from tests.results.conftest import Lab, MysqlLab, PostgresLab, SqliteLab

SERVERS = pytest.mark.parametrize("lab", ["postgresql", "mysql"], indirect=True)


def test_a_database_that_answers_is_pinged_and_nothing_is_written_there(lab: Lab) -> None:
    lab.backend.ping()
    lab.backend.ping()
    if isinstance(lab, SqliteLab):
        assert not lab.folder.exists()
    else:
        with pytest.raises(Exception, match="jobber_ledger"):
            lab.ledger("SELECT * FROM jobber_ledger")


@pytest.fixture
def proxy(lab: PostgresLab | MysqlLab) -> Iterator[Proxy]:
    with Proxy(lab.server.port) as proxy:
        yield proxy


def through(lab: Lab, proxy: Proxy) -> ResultsBackend:
    url = make_url(lab.settings.url).set(port=proxy.port).render_as_string(hide_password=False)
    backend = open_results(replace(lab.settings, url=url, connect_timeout=1.0))
    lab.opened.append(backend)  # type: ignore[attr-defined]
    return backend


@SERVERS
def test_a_server_that_takes_connections_and_never_answers_is_unavailable_in_time(lab: Lab, proxy: Proxy) -> None:
    backend = through(lab, proxy)
    proxy.swallow()
    started = time.monotonic()
    with pytest.raises(ResultsUnavailable, match='"main" is not available'):
        backend.ping()
    assert time.monotonic() - started < 6
    proxy.drop()
    proxy.forward()
    backend.ping()


@SERVERS
def test_a_server_that_falls_silent_after_the_login_is_unavailable_in_time(
    lab: Lab, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind a proxy that lets everybody in does."""
    backend = through(lab, proxy)
    connections = backend.connections  # type: ignore[attr-defined]

    def then_silence(connect: Callable[[], object]) -> Callable[[], object]:
        def wrapped() -> object:
            connection = connect()
            proxy.swallow()
            return connection

        return wrapped

    name = "_open" if lab.backend.engine == "postgresql" else "another"
    monkeypatch.setattr(connections, name, then_silence(getattr(connections, name)))
    started = time.monotonic()
    with pytest.raises(ResultsUnavailable, match='"main" is not available'):
        backend.ping()
    assert time.monotonic() - started < 6


@SERVERS
def test_a_server_that_is_down_is_unavailable(lab: Lab, proxy: Proxy) -> None:
    backend = through(lab, proxy)
    proxy.refuse()
    with pytest.raises(ResultsUnavailable, match="Connection refused"):
        backend.ping()


def test_a_folder_can_be_used_if_it_or_one_above_it_is_there(tmp_path: Path, folder_lab: SqliteLab) -> None:
    deep = replace(folder_lab.settings, url=f"sqlite:///{tmp_path}/a/b/c")
    open_results(deep).ping()
    assert list(tmp_path.iterdir()) == []
    folder_lab.backend.prepare()
    folder_lab.backend.ping()


@pytest.mark.parametrize("made", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "dangling"])
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_what_is_no_folder_and_stands_in_its_place_is_unavailable(
    tmp_path: Path, folder_lab: SqliteLab, made: Callable[[Path], object], below: str
) -> None:
    made(tmp_path / "taken")
    backend = open_results(replace(folder_lab.settings, url=f"sqlite:///{tmp_path}/taken{below}"))
    with pytest.raises(ResultsUnavailable, match=r"\[results.main\]") as caught:
        backend.ping()
    assert str(tmp_path) not in caught.value.message
