"""How addresses and durations are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import make_url

from jobber.config import embedded, seconds
from tests.config.conftest import Loading

# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "database"),
    [
        ("postgres://u:p@h/d", "u", "p", "h", "d"),
        ("postgresql://u:p@ss@h:5/d", "u", "p@ss", "h", "d"),
        ("postgresql://u:p%40ss@h/d", "u", "p@ss", "h", "d"),
        ("postgresql://u:a/b?c#d:e@h/d?sslmode=disable", "u", "a/b?c#d:e", "h", "d"),
        ("postgresql://u:100%@h/d", "u", "100%", "h", "d"),
        ("postgresql://u@h/d?options=a@b", "u", None, "h", "d"),
        ("postgresql://u%40corp:p@[::1]:5432/d", "u@corp", "p", "::1", "d"),
        ("postgresql://h", None, None, "h", None),
        ("postgresql:///d?host=/var/run", None, None, None, "d"),
    ],
)
def test_urls_of_databases_are_understood_with_any_password(
    loading: Loading, url: str, user: str | None, password: str | None, host: str | None, database: str | None
) -> None:
    read = make_url(loading(f"[db.a]\nurl = '{url}'").databases["a"].url)
    assert read.drivername == "postgresql+psycopg"
    assert (read.username, read.password, read.host, read.database or None) == (user, password, host, database)


@pytest.mark.parametrize(
    ("dsn", "host", "query"),
    [
        ("host=h dbname=d", "h", {}),
        ("host=/var/run/postgresql dbname=d", None, {"host": "/var/run/postgresql"}),
        ("host=a,b port=1,2 dbname=d", None, {"host": "a,b", "port": "1,2"}),
        ("dbname=d application_name='a b'", None, {"application_name": "a b"}),
    ],
)
def test_key_value_dsns_are_understood(loading: Loading, dsn: str, host: str | None, query: dict[str, str]) -> None:
    read = make_url(loading(f'[db.a]\ntype = "postgres"\ndsn = "{dsn}"').databases["a"].url)
    assert (read.host, dict(read.query), read.database) == (host, query, "d")


@examples(deadline=None)  # other tests run beside these
@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: "%" not in text)
)
def test_any_password_without_percent_survives_unquoted(password: str) -> None:
    if not password.strip() or password[-1].isspace():
        return
    settings = embedded(Path("/tmp/x"), {"a": f"postgresql://u:{password}@h:1/d"})
    read = make_url(settings.databases["a"].url)
    if "=" not in password:  # "?x=" in a password looks like the options
        assert (read.password, read.host, read.port, read.database) == (password, "h", 1, "d")


@pytest.mark.parametrize(
    ("url", "password", "expected"),
    [
        ("amqp://u:p@h:5672/vhost", "", "amqp://u:p@h:5672/vhost"),
        ("pyamqp://u:p@h//", "", "amqp://u:p@h//"),
        ("AMQPS://u:p@ss/w#:?@h", "", "amqps://u:p%40ss%2Fw%23%3A%3F@h"),
        (
            "amqps://u@[::1]:5671/v?ssl_ca_certs=/ca.pem",
            "a@/#",
            "amqps://u:a%40%2F%23@[::1]:5671/v?ssl_ca_certs=/ca.pem",
        ),
        ("Redis://:p@ss@h:1/2", "", "redis://:p%40ss@h:1/2"),
    ],
)
def test_urls_of_brokers_are_understood_with_any_password(
    loading: Loading, url: str, password: str, expected: str
) -> None:
    text = "[db.a]\nurl = 'sqlite:////x'\n[job_queue.state]\nurl = 'mysql://h/s'\n"
    settings = loading(f"{text}[job_queue.broker]\nurl = '{url}'\npassword = '{password}'")
    assert settings.broker.url == expected
    assert settings.broker.rabbitmq is expected.startswith("amqp")
    assert settings.broker.networked


# -- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (5, 5), (2.5, 2.5), ("30", 30), ("30s", 30), ("5m", 300), ("24h", 86_400), ("7d", 604_800),
     ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), (" 5s ", 5), (100 * 366 * 86_400, 100 * 366 * 86_400)],
)  # fmt: skip
def test_durations_are_seconds(value: object, expected: float) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "s", "5 m", "5x", "-5s", "5s5", "1e3", "٥", -1, float("nan"), float("inf"), True, None, [], "9" * 30, 10**400,
     "36601d", "9" * 10_000],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        seconds(value)


@examples(deadline=None)  # other tests run beside these
@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m"]))
def test_units_agree_with_each_other(amount: int, unit: str) -> None:
    size = {"ms": 0.001, "s": 1, "m": 60}[unit]
    assert seconds(f"{amount}{unit}") == pytest.approx(amount * size)
