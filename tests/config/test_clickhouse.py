"""Addresses of ClickHouse, as Go's drivers and as URLs write them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from sqlalchemy import make_url

from jobber.config import DatabaseSettings
from jobber.config.clickhouse import driver_options
from jobber.config.urls import database, from_dsn
from jobber.errors import ConfigError
from jobber.sources import open_source
from tests.config.conftest import Loading


def options(dsn: str, kind: str | None = "clickhouse") -> dict[str, Any]:
    """Return what the driver is opened with, after the address was a text in the settings."""
    return driver_options(make_url(from_dsn(kind, dsn).render_as_string(hide_password=False)))


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        # https://github.com/ClickHouse/clickhouse-go, version 1, which dungbeetle is built with
        (
            "tcp://db1:9000?username=reader&password=p%40ss/w%3F&database=events",
            {"host": "db1", "port": 9000, "user": "reader", "password": "p@ss/w?", "database": "events"},
        ),
        ("tcp://db1:9000", {"user": "default", "password": "", "database": ""}),
        (
            "tcp://db1:9000?debug=true&read_timeout=10&write_timeout=20&no_delay=true&block_size=5&compress=1",
            {"settings": {}},
        ),
        ("tcp://db1:9000?username=&alt_hosts=db2:9001,db3", {"user": "default", "alt_hosts": "db2:9001,db3:9000"}),
        ("tcp://db1?secure=true", {"port": 9440, "secure": True, "verify": True}),
        ("tcp://db1:9000?secure=true&skip_verify=true", {"port": 9000, "secure": True, "verify": False}),
        ("tcp://db1:9000?secure=false", {"secure": False}),
        # version 2
        (
            "clickhouse://reader:p@ss@db1:9000,db2:9001/events?dial_timeout=200ms&max_threads=4&final=true",
            {
                "host": "db1",
                "password": "p@ss",
                "database": "events",
                "alt_hosts": "db2:9001",
                "settings": {"max_threads": "4", "final": "1"},
            },
        ),
        ("clickhouse://db1", {"host": "db1", "port": 9000}),
        ("native://[::1]:9000/a?alt_hosts=[::2]", {"host": "::1", "alt_hosts": "[::2]:9000"}),
        # jobber's own
        (
            "clickhouse+native://u@h/d?ca_certs=/ca.pem&secure=1",
            {"ca_certs": "/ca.pem", "secure": True, "settings": {}},
        ),
        ("clickhouse://u@h/d?use_numpy=true&readonly=0", {"settings": {}}),
    ],
)
def test_an_address_says_what_it_says_to_go(dsn: str, expected: dict[str, Any]) -> None:
    found = options(dsn)
    assert {key: found[key] for key in expected} == expected
    if dsn.startswith("clickhouse"):
        assert options(dsn, None) == found == driver_options(database(dsn))


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("http://h:8123/d", "speaks HTTP; jobber speaks ClickHouse's native protocol.*host:9000"),
        ("https://h:8443/d?secure=true", "speaks HTTP"),
        ("postgres://h/d", "is not a ClickHouse URL"),
        ("sesame", "is not a ClickHouse URL"),
        ("tcp://h:sesame", "host or port is wrong"),
        ("tcp://h:70000", "host or port is wrong"),
        ("tcp://[::1", "is not a ClickHouse URL"),
        ("tcp://h/a/b", "is not a ClickHouse URL"),
        ("tcp://h?secure=maybe", "secure must be true or false"),
        ("tcp://h?dial_timeout=soon", "dial_timeout must be seconds"),
        ("tcp://h?max_execution_time=-1", "max_execution_time must be"),
        ("tcp://h?Se-same=1", "an option whose name is none"),
    ],
)
def test_what_is_no_address_is_told_without_showing_it(dsn: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as failed:
        from_dsn("clickhouse", dsn)
    assert "sesame" not in str(failed.value).lower()


PEER = """
[db.events]
type = "clickhouse"
dsn = "tcp://h:9000?username=u&password=sesame&database=d&dial_timeout=3s&max_execution_time=90"
max_active = 7
"""


def test_a_section_of_dungbeetle_loads(loading: Loading) -> None:
    source = loading(PEER).databases["events"]
    assert (source.engine, source.pool_size, source.connect_timeout, source.timeout) == ("clickhouse", 7, 3.0, 90)
    assert make_url(source.url).password == "sesame"
    assert loading(PEER + "timeout = 5\npassword = 'other'").databases["events"].timeout == 5


def test_without_the_extra_each_section_that_needs_it_is_named(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as failed:
        loading(PEER + "[db.more]\nurl = 'clickhouse://h/d'")
    for section in ("db.events", "db.more"):
        assert f"{section}: is a ClickHouse database, which needs a driver" in failed.value.message
    assert 'pip install "jobber[clickhouse]"' in failed.value.message
    with pytest.raises(ConfigError, match=r"db\.x: is a ClickHouse.*jobber\[clickhouse\]"):
        open_source(DatabaseSettings(name="x", url="clickhouse://h/d", engine="clickhouse"))
    # What it could not be even then is said instead.
    with pytest.raises(ConfigError, match=r"results\.r\.url: clickhouse cannot hold results") as failed:
        loading("[db.a]\nurl = 'sqlite:////x.db'\n[results.r]\nurl = 'clickhouse://h/d'")
    assert "pip install" not in failed.value.message


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("[results.r]\ntype = 'clickhouse'\ndsn = 'tcp://h:9000'", r"results\.r\.\w+: clickhouse cannot hold results"),
        ("[job_queue.state]\nurl = 'clickhouse://h/d'", r"job_queue\.state\.url: clickhouse cannot keep the state"),
        ("[db.b]\ntype = 'mysql'\nurl = 'clickhouse://h/d'", r"db\.b\.type: says mysql, but url is of another kind"),
    ],
)
def test_it_is_a_source_and_nothing_else(loading: Loading, section: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loading(f"[db.a]\nurl = 'sqlite:////x.db'\n{section}")
