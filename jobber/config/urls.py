"""Addresses of databases and brokers: every form that is accepted becomes one URL with its credentials quoted.

No message here repeats any part of what it was given: it may hold a password.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from jobber.config import clickhouse, mysql

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")
# A "?" in a password is told from the start of the options by what follows it.
_OPTIONS = re.compile(r"\?(?=[A-Za-z_][\w.-]*=)")

_POSTGRESQL_DRIVER = "postgresql+psycopg"
_EXAMPLE = "write it like postgresql://user:password@host:5432/database"

#: Values of ``type`` beside a ``dsn``.
MYSQL_TYPES = ("mysql", "mariadb")
POSTGRESQL_TYPES = ("postgres", "postgresql")
CLICKHOUSE_TYPES = ("clickhouse",)

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "amqp", "amqps", "filesystem")
#: Options of an ``amqps://`` URL: the names that ``rediss://`` has for them, too.
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


def database(text: str) -> URL:
    """Return the SQLAlchemy URL of a database; PostgreSQL gets the driver psycopg, MySQL and MariaDB get PyMySQL.

    ClickHouse's keeps no driver: what SQLAlchemy has for it is not used.

    A password may hold any character, ``@``, ``/`` and ``#`` too; only a ``%`` that two hex digits follow must be
    written ``%25``.

    Raises:
        ValueError: it is no URL, no driver of that name is installed, or the engine is not supported.
    """
    if text.strip().partition("://")[0].lower() in clickhouse.NAMES:
        return clickhouse.normal(quoted(text))
    try:
        url = make_url(quoted(text))
    except (ArgumentError, ValueError):
        raise ValueError(f"is not a database URL; {_EXAMPLE}") from None
    if url.port is not None and not 0 < url.port < 65_536:
        raise ValueError(f"is not a database URL: its port is out of range; {_EXAMPLE}")
    backend = url.get_backend_name()
    if backend in MYSQL_TYPES:
        return mysql.normal(url)
    if backend in {"postgres", "postgresql"}:
        if url.drivername not in {"postgres", "postgresql", _POSTGRESQL_DRIVER}:
            raise ValueError("names another PostgreSQL driver; jobber uses psycopg: write postgresql://")
        return url.set(drivername=_POSTGRESQL_DRIVER)
    try:
        url.get_dialect()
    except (NoSuchModuleError, ArgumentError):
        raise ValueError(
            "names a database that no installed SQLAlchemy dialect knows; check the part before :// "
            "or install the dialect's package"
        ) from None
    return url


def from_dsn(kind: str | None, dsn: str) -> URL:
    """Return the SQLAlchemy URL of a ``dsn``: a URL, libpq's ``host=… dbname=…``, or what drivers of Go's take.

    Parameters:
        kind: the ``type`` beside it, if there is one.
        dsn: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING,
            https://github.com/go-sql-driver/mysql#dsn-data-source-name or
            https://github.com/ClickHouse/clickhouse-go#dsn

    Raises:
        ValueError: as ``database``.
    """
    if kind in CLICKHOUSE_TYPES:
        return clickhouse.normal(quoted(dsn))
    if mysql.is_go(dsn):
        return mysql.from_go(dsn)
    if kind in MYSQL_TYPES and dsn.partition("://")[0] not in mysql.SCHEMES:
        return mysql.from_go(dsn)
    if _SCHEME.match(dsn):
        return database(dsn)
    try:
        options = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError:
        raise ValueError(
            "is neither a postgres:// URL nor of the form host=… port=… user=… dbname=…; "
            'of the form user:password@/database it needs type = "mysql" beside it'
        ) from None
    host, port = options.pop("host", ""), options.pop("port", "")
    # Several hosts, and folders of Unix sockets, only fit into the options of a URL.
    if not re.fullmatch(r"[^/,]*", host) or not re.fullmatch(r"[0-9]{0,5}", port):
        options |= {"host": host} | ({"port": port} if port else {})
        host = port = ""
    return URL.create(
        _POSTGRESQL_DRIVER,
        username=options.pop("user", None),
        password=options.pop("password", None),
        host=host or None,
        port=int(port) if port else None,
        database=options.pop("dbname", None),
        query=options,
    )


def broker(text: str) -> str:
    """Return the kombu URL of a broker.

    Raises:
        ValueError: it is no URL, or of a broker that is not supported, or has options that are not.
    """
    if not _SCHEME.match(text):
        raise ValueError("is not a broker URL; write it like redis://:password@host:6379/0")
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme == "pyamqp":  # Celery's name for it
        scheme = "amqp"
    if scheme not in BROKER_SCHEMES:
        raise ValueError(f"names a broker that is not supported; use one of {', '.join(BROKER_SCHEMES)}")
    if scheme == "filesystem" and rest:
        raise ValueError("must be just filesystem://; its files lie in app.data_dir")
    url = quoted(f"{scheme}://{rest}")
    if scheme in {"amqp", "amqps"}:
        _check_amqp(scheme, url)
    return url


def _check_amqp(scheme: str, url: str) -> None:
    """Raise ValueError if kombu could not take a RabbitMQ URL apart, or would stumble over its options."""
    try:
        parts = urlsplit(url)
        valid = parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("is not a broker URL; write it like amqp://user:password@host:5672/virtual_host")
    known = TLS_OPTIONS if scheme == "amqps" else ()
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"may have only these options: {', '.join(TLS_OPTIONS)}, and those with amqps:// only")
        if name == "ssl_cert_reqs" and value not in {"required", "none"}:
            raise ValueError("has the option ssl_cert_reqs with a value other than required and none")


def with_password(url: str, password: str) -> str:
    """Return a broker URL with another password."""
    scheme, _, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user = credentials.partition(":")[0] if at else ""
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"


def redis(addresses: list[str], password: str | None, number: int) -> str:
    """Return the URL of a Redis server given as the keys ``addresses``, ``password`` and ``db``.

    Raises:
        ValueError: there is not exactly one address (a cluster cannot be a broker), or it has no port.
    """
    if len(addresses) != 1:
        raise ValueError("must hold exactly one host:port; a Redis cluster cannot be the broker")
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5}", addresses[0]):
        raise ValueError("must be like localhost:6379")
    credentials = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{credentials}{addresses[0]}/{number}"


def quoted(text: str) -> str:
    """Return a URL whose user and password are percent-encoded, whether they were before or not."""
    scheme, found, rest = text.strip().partition("://")
    if not found or rest.startswith("/"):  # no authority, as in sqlite:///file
        return text.strip()
    options = _OPTIONS.search(rest)
    head, tail = (rest[: options.start()], rest[options.start() :]) if options else (rest, "")
    credentials, at, place = head.rpartition("@")
    if not at:
        return text.strip()
    user, colon, password = credentials.partition(":")
    return f"{scheme}://{_requote(user)}{colon}{_requote(password)}@{place}{tail}"


def _requote(text: str) -> str:
    return quote(unquote(text), safe="")
