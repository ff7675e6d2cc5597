"""Addresses of MySQL and MariaDB, as SQLAlchemy and as Go's driver write them."""

from __future__ import annotations

import ssl
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import make_url

from jobber.config.urls import database, from_dsn
from tests.config.conftest import Loading


def options(url: str) -> dict[str, Any]:
    """Return what PyMySQL is called with for a URL, by SQLAlchemy's dialect."""
    parsed = make_url(url)
    _, found = parsed.get_dialect()().create_connect_args(parsed)
    found.pop("client_flag", None)
    return dict(found)


def trusted(connection: pymysql.Connection[Any]) -> tuple[bool, bool, bool]:
    """Return whether a connection must be encrypted, of a certificate that is trusted, and of this host."""
    required = bool(connection.ssl) and bool(connection._ssl_required)  # type: ignore[attr-defined]
    context = getattr(connection, "ctx", None)
    if not connection.ssl or context is None:
        return False, False, False
    return required, context.verify_mode == ssl.CERT_REQUIRED, context.check_hostname


def opened(url: str) -> pymysql.Connection[Any]:
    """Return PyMySQL's connection for a URL, before it connects."""
    return pymysql.Connection(defer_connect=True, **options(url))


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_every_name_of_pymysql_is_understood(loading: Loading, scheme: str) -> None:
    read = loading(f"[db.a]\nurl = '{scheme}://u:p@ss/w#(:)@h:3307/d'").databases["a"]
    assert read.engine == "mysql"
    assert options(read.url) == {"user": "u", "password": "p@ss/w#(:)", "host": "h", "port": 3307, "database": "d"}


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("u:p@tcp(h:3307)/d", {"user": "u", "password": "p", "host": "h", "port": 3307, "database": "d"}),
        ("u:p@tcp(h)/d", {"user": "u", "password": "p", "host": "h", "database": "d"}),
        ("u@tcp(h)/d", {"user": "u", "host": "h", "database": "d"}),
        ("tcp(h)/d", {"host": "h", "database": "d"}),
        ("mysql://u:p@tcp(h:1)/d", {"user": "u", "password": "p", "host": "h", "port": 1, "database": "d"}),
        ("u:p@tcp([::1]:3307)/d", {"user": "u", "password": "p", "host": "::1", "port": 3307, "database": "d"}),
        ("u:p@tcp([fe80::1])/d", {"user": "u", "password": "p", "host": "fe80::1", "database": "d"}),
        ("u:p@tcp(fe80::1)/d", {"user": "u", "password": "p", "host": "fe80::1", "database": "d"}),
        ("u:p@unix(/run/my.sock)/d", {"user": "u", "password": "p", "unix_socket": "/run/my.sock", "database": "d"}),
        (
            "u:a@b:c/d#(e)?f=g%41@tcp(h)/d",
            {"user": "u", "password": "a@b:c/d#(e)?f=g%41", "host": "h", "database": "d"},
        ),
        ("u:p@tcp(h)/my%20db", {"user": "u", "password": "p", "host": "h", "database": "my db"}),
    ],
)
def test_dsns_of_gos_driver_are_understood_with_and_without_a_type(
    loading: Loading, dsn: str, expected: dict[str, Any]
) -> None:
    for kind in ("", "type = 'mysql'\n", "type = 'mariadb'\n"):
        read = loading(f"[db.a]\n{kind}dsn = '{dsn}'").databases["a"]
        assert (read.engine, options(read.url)) == ("mysql", expected)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("/d", {"host": "127.0.0.1"}),
        ("u@/d", {"user": "u", "host": "127.0.0.1"}),
        ("u@tcp/d", {"user": "u", "host": "127.0.0.1"}),
        ("u@unix/d", {"user": "u", "unix_socket": "/tmp/mysql.sock"}),
        ("mysql://u@h/d", {"user": "u", "host": "h"}),
    ],
)
def test_with_a_type_a_dsn_may_leave_out_all_but_the_database(
    loading: Loading, dsn: str, expected: dict[str, Any]
) -> None:
    read = loading(f"[db.a]\ntype = 'mysql'\ndsn = '{dsn}'").databases["a"]
    assert options(read.url) == expected | {"database": "d"}


@examples(deadline=None)  # other tests run beside these
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_password_survives_in_a_dsn_of_gos_driver(password: str) -> None:
    read = options(from_dsn("mysql", f"u:{password}@tcp(h:1)/d").render_as_string(hide_password=False))
    assert read == {"user": "u", "password": password, "host": "h", "port": 1, "database": "d"}


def test_parameters_of_gos_driver_are_translated_or_do_not_matter() -> None:
    dsn = (
        "u:p@tcp(h)/d?parseTime=true&loc=Asia%2FTokyo&multiStatements=true&interpolateParams=true&charset=utf8mb4,utf8"
        "&collation=utf8mb4_bin&timeout=1m30s&readTimeout=500ms&writeTimeout=0&maxAllowedPacket=0&allowNativePasswords=1"
        "&tls=preferred&checkConnLiveness=false&columnsWithAlias=true&clientFoundRows=true&rejectReadOnly=true"
    )
    read = options(from_dsn(None, dsn).render_as_string(hide_password=False))
    address = {"user": "u", "password": "p", "host": "h", "database": "d"}
    assert read == address | {"collation": "utf8mb4_bin", "connect_timeout": 90, "read_timeout": 1}


def test_a_collation_of_another_character_set_is_left_to_the_server() -> None:
    """The connection is in utf8mb4, where the server would refuse it."""
    assert "collation" not in database("mysql://h/d?charset=latin1&collation=latin1_swedish_ci").query


#: Encrypted for sure, of a certificate that is trusted, and of this host.
_UNSURE, _ENCRYPTED, _CERTIFIED, _IDENTIFIED = (
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (True, True, True),
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", _UNSURE),
        ("ssl_disabled=false", _UNSURE),
        ("ssl_disabled=true", _UNSURE),
        ("ssl_disabled=true&ssl_ca={ca}", _UNSURE),
        ("ssl_check_hostname=false", _ENCRYPTED),
        ("ssl_ca={ca}", _IDENTIFIED),
        ("ssl_ca={ca}&ssl_check_hostname=false", _CERTIFIED),
        ("ssl_ca={ca}&ssl_verify_identity=true", _IDENTIFIED),
        ("ssl_ca={ca}&ssl_verify_cert=true", _CERTIFIED),
        ("ssl_verify_cert=true", _CERTIFIED),
        ("ssl_verify_identity=true", _IDENTIFIED),
        ("ssl_verify_identity=false", _UNSURE),
        ("tls=true", _IDENTIFIED),
        ("tls=1", _IDENTIFIED),
        ("tls=skip-verify", _ENCRYPTED),
        ("tls=preferred", _UNSURE),
        ("tls=false", _UNSURE),
    ],
)
def test_what_is_said_of_tls_is_what_pymysql_does(said: str, expected: tuple[bool, bool, bool]) -> None:
    paths = ssl.get_default_verify_paths()
    said = said.format(ca=paths.cafile or f"{paths.capath}/ca-certificates.crt")
    url = from_dsn("mysql", f"u@tcp(h)/d?{said}") if said.startswith("tls") else database(f"mysql://u@h/d?{said}")
    connection = opened(str(url))
    assert trusted(connection) == expected
    assert bool(connection.ssl) is not ("disabled=true" in said or said == "tls=false")
