"""Whether a source answers, asked with a limit of one's own."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from jobber.config import DatabaseSettings
from jobber.errors import SourceUnavailable
from jobber.sources import open_source, ping


@pytest.mark.parametrize("engine", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_server_that_takes_connections_and_says_nothing_is_given_up_after_the_limit(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{engine}://someone:sesame@127.0.0.1:{silent.getsockname()[1]}/d"
        source = open_source(
            DatabaseSettings(name="main", url=url, engine=engine.partition("+")[0], connect_timeout=60)
        )
        began = time.monotonic()

        with pytest.raises(SourceUnavailable, match="main cannot be reached: no answer within"):
            ping(source, 0.3)

        assert time.monotonic() - began < 10
        source.close()


def test_a_file_that_is_there_answers_and_one_that_is_not_does_not(tmp_path: Path) -> None:
    source = open_source(DatabaseSettings(name="main", url=f"sqlite:///{tmp_path}/source.db", engine="sqlite"))
    with pytest.raises(SourceUnavailable):
        ping(source, 10)
    (tmp_path / "source.db").touch()

    ping(source, 10)
